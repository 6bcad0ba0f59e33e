"""The rows of the matrix: which steps they take, what their splits are, and how several answers are scored as one."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heldout.errors import NetworkError
from heldout.networks.resnet import ResNet
from heldout.studies.base import SMOKE, find_study
from heldout.studies.matrix_joint import Joint, joint_logits, joint_targets
from heldout.studies.matrix_load import LOADERS
from heldout.studies.matrix_load_features import ONES, dense
from heldout.studies.matrix_load_pictures import Behind, Pictures
from heldout.studies.matrix_load_text import crossed
from heldout.studies.matrix_rows import ROWS, study_config, study_steps
from heldout.tasks.base import Batch, check_disjoint
from heldout.tasks.features import Features, FeaturesSettings, Heads
from heldout.tasks.images import Images, ImagesSettings
from heldout.tasks.sequences import START, Sequences
from heldout.tasks.sequences.settings import SequencesSettings

# -- steps -------------------------------------------------------------------------------------------------------------


def test_every_row_has_a_loader() -> None:
    assert set(LOADERS) == set(ROWS)
    for place in LOADERS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(f"heldout.studies.{module}"), name))


@pytest.mark.parametrize("preset", ["laptop", "paper"])
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"code"}))  # the steps of code look at a corpus
def test_every_preset_trains_every_row(name: str, preset: str) -> None:
    row = ROWS[name]
    steps = study_steps(row.study, study_config(row.study, preset, 2, 0))
    seeds = row.seeds(steps, [0, 1])
    assert len(seeds) == 2
    assert set(row.inputs(steps, seeds).values()) <= set(steps)


def test_a_step_that_trains_all_seeds_is_that_of_the_studys_own_run() -> None:
    for study in ("features", "similarity", "sequences"):
        own = find_study(study).configure("laptop")[0]
        assert study_config(study, "laptop", 2, 0) == own
        assert study_config(study, "laptop", own.seeds + 1, 0).seeds == own.seeds + 1
        assert study_config(study, SMOKE, 2, 100).first_seed == 100
    steps = study_steps("similarity", study_config("similarity", SMOKE, 2, 100))
    assert ROWS["similarity"].seeds(steps, [100, 101]) == [200, 201]  # its networks are pairs


# -- splits that a task does not have itself ---------------------------------------------------------------------------


def test_dense_rows_have_the_labels_of_the_same_features_and_are_in_no_other_split() -> None:
    task = Features(FeaturesSettings(train=300, val=200, test=400), seed=0)
    split = dense(task)
    batch = split.items.take(np.arange(len(split)))
    rows = batch.inputs.numpy().astype(np.uint8)
    assert batch.targets is not None
    assert abs(rows.mean() - ONES) < 0.01
    for f, planted in enumerate(task.planted):
        assert np.array_equal(planted.of(rows), batch.targets[:, f].numpy())
    bit, parity = (batch.targets[:, f].double().mean() for f in range(2))
    assert (float(bit), float(parity)) == pytest.approx((ONES, 2 * ONES * (1 - ONES)), abs=0.05)  # of 1 and 2 bits
    check_disjoint([*task.splits.values(), split])
    assert not np.isin(split.unit_ids(), np.concatenate([s.unit_ids() for s in task.splits.values()])).any()


def test_crossed_sequences_ask_the_same_and_are_given_the_labels_of_others() -> None:
    task = Sequences(SequencesSettings(train=50, val=50, test=200), seed=0)
    test = task.splits["test"]
    before, after = (s.items.take(np.arange(200)) for s in (test, crossed(test)))
    assert torch.equal(before.inputs[0], after.inputs[0])
    assert torch.equal(before.targets, after.targets)
    assert (after.inputs[1][:, 0] == START).all()
    assert 0.4 < (before.inputs[1][:, 1:] == after.inputs[1][:, 1:]).double().mean() < 0.6
    assert sorted(map(tuple, before.inputs[1].tolist())) == sorted(map(tuple, after.inputs[1].tolist()))


def test_a_network_behind_numbers_is_the_network_on_pictures() -> None:
    named = {"shapes": ("square", "star"), "textures": ("solid", "grid"), "colours": ("red", "blue")}
    settings = ImagesSettings(size=32, **named, train=8, val=12, test=9, held_out=2)
    task = Images(settings, seed=3, keep=True)
    network = ResNet((3, 32, 32), task.heads.width, residual=True, width=4, blocks=(1, 1)).eval()
    pictures = Pictures(task, ("val", "test"))
    behind = Behind(network, pictures, "cpu").eval()
    for name, split in zip(("val", "test"), pictures.numbered, strict=True):
        theirs = task.splits[name].items.take(np.arange(len(split)))
        for index in (np.array([5, 2, 2]), np.arange(len(split))[::-1].copy()):
            batch = split.items.take(index)
            with torch.no_grad():
                assert behind(batch.inputs).numpy() == pytest.approx(network(theirs.inputs[index]).numpy(), abs=1e-5)
            assert torch.equal(batch.targets, theirs.targets[index])
    assert behind.double()(torch.tensor([0])).dtype == torch.float64


# -- several answers as one prediction ---------------------------------------------------------------------------------

HEADS = Heads((2, 3, 2))


def test_the_likeliest_combination_is_each_answer_and_its_loss_is_the_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(200, HEADS.width, generator=generator, dtype=torch.float64)
    targets = torch.stack([torch.randint(c, (200,), generator=generator) for c in HEADS.classes], dim=1)
    logits, joint = joint_logits(HEADS, outputs), joint_targets(HEADS, targets)
    assert logits.shape == (200, 12)
    assert torch.equal(logits.argmax(1), joint_targets(HEADS, HEADS.predictions(outputs)))
    assert torch.allclose(logits.exp().sum(1), torch.ones(200, dtype=torch.float64))
    assert torch.allclose(F.cross_entropy(logits, joint, reduction="none"), HEADS.losses(outputs, targets).sum(1))
    assert joint.unique().tolist() == list(range(12))


def test_a_prediction_is_right_where_every_answer_is() -> None:
    outputs = torch.tensor([[2.0, 0.0, 3.0, 0.0, -1.0], [2.0, 0.0, 3.0, 0.0, 1.0]])
    batch = Batch(outputs, torch.arange(2), targets=torch.tensor([[1, 1, 0], [1, 1, 0]]))
    scoring = Joint(heads=HEADS)
    found = scoring.predictions(outputs, batch)
    assert found.correct.tolist() == [True, False]
    assert scoring.predictions(outputs, replace(batch, targets=None)).targets is None
    with pytest.raises(NetworkError):
        scoring.predictions(outputs[:1], batch)
