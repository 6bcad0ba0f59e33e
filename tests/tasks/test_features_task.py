from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Batch, Rectangular, check_disjoint
from heldout.tasks.features import PRESETS, Features, FeaturesSettings, Heads, hermann2020
from heldout.tasks.features.library import feature
from heldout.tasks.features.sampling import Planted, Sampler, independent, largest_correlation

SMALL = FeaturesSettings(train=1000, val=400, test=400)


def inputs(task: Features, split: str) -> torch.Tensor:
    items = task.splits[split].items
    assert isinstance(items, Rectangular)
    return items.inputs  # type: ignore[no-any-return]


def test_the_default_is_balanced_independent_and_without_repeats() -> None:
    task = Features(PRESETS["default"])
    assert {name: (s.role, len(s)) for name, s in task.splits.items()} == {
        "train": ("fit", 8192),
        "val": ("fit", 4096),
        "test": ("test", 4096),
    }
    check_disjoint(list(task.splits.values()))
    keys = [set(s.keys.tolist()) for s in task.splits.values() if s.keys is not None]
    units = [set(s.unit_ids().tolist()) for s in task.splits.values()]
    for sets in (keys, units):
        assert len(set.union(*sets)) == sum(map(len, sets))
    for name, values in task.values.items():
        rows = task.rows[name]
        assert values.mean(0).tolist() == [0.5, 0.5]
        assert abs(np.corrcoef(values.T)[0, 1]) < 4 / np.sqrt(len(values))
        assert np.array_equal(values, np.stack([rows[:, 0], rows[:, 16] ^ rows[:, 17]], 1))
        # Every bit is a fair coin, given the features or not.
        assert np.abs(rows.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(rows))
        batch = task.splits[name].items.take(np.arange(5))
        assert batch.targets is not None
        assert batch.targets.tolist() == values[:5].tolist()
        assert batch.strata["parity:2"].tolist() == values[:5, 1].tolist()
        assert batch.inputs.tolist() == rows[:5].tolist()


def test_data_are_a_function_of_the_seed_and_of_their_own_split() -> None:
    one, same, other = Features(SMALL, 3), Features(SMALL, 3), Features(SMALL, 4)
    more = Features(replace(SMALL, train=1001), 3)
    assert all(np.array_equal(one.rows[s], same.rows[s]) for s in one.rows)
    assert not np.array_equal(one.rows["train"], other.rows["train"])
    assert np.array_equal(one.rows["test"], more.rows["test"])


def test_signed_bits_are_the_same_rows() -> None:
    a, b = Features(SMALL), Features(replace(SMALL, coding="signed"))
    assert torch.equal(inputs(a, "val") * 2 - 1, inputs(b, "val"))


def test_rows_are_uniform_given_their_values() -> None:
    """Two features that share a bit: each pattern of the three bits is as frequent as any other with its values."""
    planted = (Planted("or", feature("or:2"), (0, 1)), Planted("xor", feature("parity:2"), (1, 2)))
    sampler = Sampler(planted, 4)
    draw = np.random.default_rng(0)
    values = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 6000, axis=0)
    rows = sampler.draw(values, draw)
    assert np.array_equal(np.stack([p.of(rows) for p in planted], 1), values)
    for cell in range(4):
        part = rows[6000 * cell : 6000 * (cell + 1)]
        _, counts = np.unique(part, axis=0, return_counts=True)
        assert len(counts) == 2 * [1, 1, 3, 3][cell]  # of 3 bits with those values, times the free fourth
        assert stats.chisquare(counts).pvalue > 1e-4


def test_rare_values_are_balanced_all_the_same() -> None:
    task = Features(replace(SMALL, features=("and:8", "mod_sum:3,5"), domains=(16, 16), train=999))
    train = task.values["train"]
    assert np.bincount(train[:, 0]).tolist() == [500, 499]
    assert np.bincount(train[:, 1]).tolist() == [333, 333, 333]
    rows = {(r["split"], r["feature"]): r for r in task.composition()}
    assert rows["train", "and:8"]["rarest"] == 1 / 256
    assert rows["train", "and:8"]["share"] == pytest.approx(499 / 999)
    assert task.heads.width == 1 + 3


def test_parts_are_named_after_their_feature() -> None:
    task = Features(SMALL)
    parts = task.parts("val")
    assert np.array_equal(parts["parity:2/x1"], task.rows["val"][:, 17])
    assert np.array_equal(parts["parity:2/or"] - parts["parity:2/and"], task.values["val"][:, 1])


@pytest.mark.parametrize("rarity", ["mask", "constant", "base_rate"])
def test_prevalence_touches_train_alone_and_in_its_own_way(rarity: Any) -> None:
    task = Features(replace(SMALL, features=("bit", "bit"), prevalence=(0.2, 1.0), rarity=rarity))
    assert task.names == ("bit@0", "bit@1")
    shares = {(r["split"], r["feature"]): (r["share"], r["labelled"]) for r in task.composition()}
    expected = {"mask": (0.5, 0.2), "constant": (0.1, 1.0), "base_rate": (0.1, 1.0)}[rarity]
    assert shares["train", "bit@0"] == pytest.approx(expected)
    assert shares["train", "bit@1"] == (0.5, 1.0)
    for split in ("val", "test"):
        assert shares[split, "bit@0"] == shares[split, "bit@1"] == (0.5, 1.0)


def test_the_set_up_of_2020() -> None:
    task = Features(hermann2020(easy=0.8), seed=5)
    assert {name: len(s) for name, s in task.splits.items()} == {
        "train": 256,
        "val": 2048,
        "test": 512,
        "only_bit": 512,
        "only_parity:2": 512,
    }
    assert (task.outputs, task.heads.width, task.settings.bits) == (("label",), 1, 32)
    for name in ("train", "val", "test"):
        label, values = task.labels[name], task.values[name]
        assert abs(label.mean() - 0.5) <= 0.5 / len(label)
        for f, p in enumerate((0.8, 0.9)):
            agrees = int((values[:, f] == label).sum())
            assert stats.binomtest(agrees, len(label), p).pvalue > 1e-4
    for f, name in enumerate(task.names):
        label, values = task.labels[f"only_{name}"], task.values[f"only_{name}"]
        for g, p in enumerate((0.8, 0.9)):
            assert stats.binomtest(int((values[:, g] == label).sum()), 512, p if f == g else 0.5).pvalue > 1e-4
    targets = task.splits["test"].items.take(np.arange(512)).targets
    assert targets is not None
    assert targets[:, 0].tolist() == task.labels["test"].tolist()
    # Perfect predictors equal the label; the multi-task variant answers both features.
    both = Features(hermann2020(1.0, 1.0, "features"))
    assert np.array_equal(both.values["train"][:, 0], both.values["train"][:, 1])
    assert both.heads.width == 2


def test_many_features_stay_independent() -> None:
    draw = np.random.default_rng(1)
    for _ in range(30):
        values = independent(400, [2] * 16, draw)
        worst = np.abs(np.corrcoef(values.T) - np.eye(16)).max()
        assert worst == pytest.approx(largest_correlation(values, [2] * 16), abs=1e-12)
        assert worst < 4 / 20
    assert largest_correlation(np.stack([values[:, 0], 1 - values[:, 0]], 1), [2, 2]) == pytest.approx(1)
    assert largest_correlation(values[:, :1], [2]) == 0


def test_heads_are_torchs_losses() -> None:
    heads = Heads([2, 3, 2], weights=[1.0, 2.0, 1.0])
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(20, 5, generator=draw, requires_grad=True)
    targets = torch.stack([torch.randint(k, (20,), generator=draw) for k in (2, 3, 2)], 1)
    parts = [
        F.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 0].float()),
        F.cross_entropy(outputs[:, 1:4], targets[:, 1]),
        F.binary_cross_entropy_with_logits(outputs[:, 4], targets[:, 2].float()),
    ]
    batch = Batch(outputs, torch.arange(20), targets, scored=torch.ones(20, 3, dtype=torch.bool))
    torch.testing.assert_close(heads.loss()(outputs, batch), (parts[0] + 2 * parts[1] + parts[2]) / 4)
    torch.testing.assert_close(heads.losses(outputs, targets).mean(0), torch.stack(parts))
    sure = torch.tensor([[9.0, 0, 0, 9, -9]])
    assert heads.predictions(sure).tolist() == [[1, 2, 0]]
    # Smoothing of two classes is torch's own of two logits.
    two = torch.stack((torch.zeros(20), outputs[:, 0]), 1)
    smooth = F.cross_entropy(two, targets[:, 0], reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(heads.losses(outputs, targets, 0.2)[:, 0], smooth)


def test_a_withheld_label_takes_its_gradient_with_it() -> None:
    """Labelled in a quarter of the items, a feature has a quarter of the loss; not at all, the others have it all."""
    heads = Heads([2, 2])
    outputs = torch.zeros(8, 2)
    targets = torch.ones(8, 2, dtype=torch.long)
    scored = torch.ones(8, 2, dtype=torch.bool)
    one = float(np.log(2))

    def loss() -> float:
        return float(heads.loss()(outputs, Batch(outputs, torch.arange(8), targets, scored=scored)))

    assert loss() == pytest.approx(one)
    scored[2:, 0] = False
    assert loss() == pytest.approx((one / 4 + one) / 2)
    scored[:, 0] = False
    assert loss() == pytest.approx(one)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"features": ()}, "at least one feature"),
        ({"features": ("bit", "parity:2"), "domains": (1, 1)}, "reads 2 bits and its domain has 1"),
        ({"domains": (32,)}, "domains must be 2 sizes"),
        ({"reads": ((0,), (1, 1))}, "reads 2 different bits"),
        ({"reads": ((0,), (1, 32))}, "there are bits 0 to 31"),
        ({"reads": ((0,), (1, 2)), "domains": (16, 16)}, "domains or reads, not both"),
        ({"features": ("bit", "bit"), "reads": ((0,), (0,))}, "no row has the values"),
        ({"bits": 64}, "bits must be from 1 to 63"),
        ({"train": 1}, "train must be at least 2"),
        ({"prevalence": (0.5,)}, "prevalence must be 2 numbers above 0"),
        ({"prevalence": (0.0, 1.0)}, "prevalence must be 2 numbers above 0"),
        ({"predictivity": (0.4, 1.0)}, "from .5 to 1"),
        ({"predictivity": (0.9, 0.9), "prevalence": (1.0, 1.0)}, "not both"),
        ({"outputs": "label"}, "needs a predictivity"),
        ({"weights": (1.0, 0.0)}, "weights must be 2 numbers positive"),
        ({"rarity": "maks"}, "unknown rarity 'maks'"),
        ({"features": ("word:2", "bit"), "predictivity": (0.9, 0.9)}, "need two classes; word:2 has more"),
        ({"features": ("parity:16", "majority:9"), "reads": (tuple(range(16)), tuple(range(15, 24)))}, "at most 20"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Features(FeaturesSettings(**{"train": 100, "val": 50, "test": 50, **given}))


def test_too_few_bits_for_so_many_rows() -> None:
    with pytest.raises(SplitError, match="'val' cannot be drawn without rows of an earlier split"):
        Features(FeaturesSettings(bits=6, train=2000, val=50, test=50))
