from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.studies.features_conditions import (
    CONDITIONS,
    EASY,
    EXPERIMENTS,
    FULL,
    FULL_BATCH,
    HARD,
    HEADLINE,
    LAPTOP,
    Condition,
    Phase,
    experiments_of,
    find_condition,
    layers,
    pair,
)
from heldout.studies.features_training import (
    Seeds,
    kept_moments,
    log_spaced,
    moments,
    network_of,
    scheduled,
    train_condition,
    trained_network,
)
from heldout.tasks.base import Rectangular
from heldout.tasks.features import Features, FeaturesSettings
from heldout.training.seeds import initialised

TINY = FeaturesSettings(train=512, val=128, test=256)
QUICK = Condition(
    "quick",
    "a short run",
    TINY,
    hidden=(32, 16),
    optimizer="adam",
    learning_rate=1e-2,
    batch=64,
    phases=(Phase(60),),
    looks=4,
)


def test_every_experiment_is_a_set_of_known_conditions() -> None:
    assert list(EXPERIMENTS) == [*(f"E{i}" for i in range(1, 11)), "E13", "E14", "E15", "E17"]
    assert {name for names in EXPERIMENTS.values() for name in names} == set(CONDITIONS) == set(FULL)
    assert all(len(set(names)) == len(names) for names in EXPERIMENTS.values())
    assert len(LAPTOP) <= 30
    assert set(LAPTOP) <= set(FULL)
    # Each claim's comparison can be made on a laptop: what is compared, and what with.
    held = experiments_of(LAPTOP)
    for experiment in ("E1", "E3", "E4", "E6", "E8", "E9", "E13", "E14", "E15", "E17"):
        assert held[experiment][0] == EXPERIMENTS[experiment][0]
        assert len(held[experiment]) >= min(2, len(EXPERIMENTS[experiment]))
    assert experiments_of(["adam"]) == {}


def test_no_condition_stands_under_two_names() -> None:
    seen: dict[str, list[str]] = {}
    for condition in CONDITIONS.values():
        seen.setdefault(json.dumps(condition.record() | {"name": ""}, sort_keys=True), []).append(condition.name)
    assert [names for names in seen.values() if len(names) > 1] == []


def test_records_are_json_and_tell_conditions_apart() -> None:
    record = json.loads(json.dumps(HEADLINE.record()))
    assert record["learning_rate"] == 0.1
    assert record["task"]["features"] == ["bit", "parity:2"]
    assert "note" not in record
    assert find_condition("headline") is HEADLINE
    with pytest.raises(ConfigError, match="unknown condition 'headlien'; nearest: headline"):
        find_condition("headlien")


def test_the_headline_is_the_specified_one() -> None:
    assert (HEADLINE.optimizer, HEADLINE.learning_rate, HEADLINE.batch, HEADLINE.steps) == ("sgd", 0.1, 256, 5000)
    assert (HEADLINE.task.train, HEADLINE.task.val, HEADLINE.task.test, HEADLINE.task.bits) == (8192, 4096, 4096, 32)
    assert [p.bits for p in HEADLINE.task.planted()] == [(0,), (16, 17)]
    widths = [layer.linear.out_features for layer in network_of(HEADLINE).hidden]  # type: ignore[union-attr]
    assert widths == [256, 128, 64, 64]
    assert len(log_spaced(HEADLINE.steps, HEADLINE.looks)) == 50
    assert HEADLINE.trajectory


def test_depth_and_width_change_one_thing_each() -> None:
    assert layers(4) == HEADLINE.hidden
    assert [layers(d) for d in (1, 2, 3, 6)] == [(64,), (256, 64), (256, 128, 64), (256, 128, 64, 64, 64, 64)]
    assert layers(4, 0.5) == (128, 64, 32, 32)


@pytest.mark.parametrize("last", [1, 2, 7, 50, 51, 200, 5000])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 50])
def test_looks_are_spread_evenly_in_the_logarithm(last: int, n: int) -> None:
    found = log_spaced(last, n)
    assert len(found) == len(set(found)) == min(n, last)
    assert found == sorted(found)
    if n > 1:
        assert (found[0], found[-1]) == (1, last)
    steps = np.diff(np.log(found[-10:]))
    if last == 5000 and n == 50:
        assert steps.max() < 1.01 * steps.min()


def schedule(condition: Condition, steps: Sequence[int]) -> list[list[float]]:
    """The share of labels in play of each output, at each of `steps`."""
    task = Features(condition.task)
    batches = scheduled(condition, task, seed=0)
    shares = []
    for step in steps:
        scored = batches(step).scored
        assert scored is not None
        shares.append(scored.double().mean(0).tolist())
    return shares


def test_phases_withhold_the_labels_of_what_is_not_in_play() -> None:
    hard_first = replace(QUICK, phases=(Phase(3, (HARD,)), Phase(4)))
    assert hard_first.steps == 7
    assert schedule(hard_first, range(7)) == [[0, 1]] * 3 + [[1, 1]] * 4
    assert schedule(replace(QUICK, phases=(Phase(2, (EASY,)),)), range(2)) == [[1, 0]] * 2
    in_turns = replace(QUICK, phases=(Phase(4, interleaved=True), Phase(2)))
    assert schedule(in_turns, range(6)) == [[1, 0], [0, 1]] * 2 + [[1, 1]] * 2
    assert moments(replace(hard_first, looks=2)) == [0, 1, 3, 7]


def test_full_batches_and_flipped_bits() -> None:
    task = Features(TINY)
    items = task.splits["train"].items
    assert isinstance(items, Rectangular)
    whole = scheduled(replace(QUICK, batch=FULL_BATCH), task, seed=0)
    assert all(len(whole(step)) == 512 for step in range(3))
    plain = scheduled(QUICK, task, 0)
    for coding in ("01", "signed"):
        noisy = replace(QUICK, flip=0.2, task=replace(TINY, coding=coding))  # type: ignore[arg-type]
        source = scheduled(noisy, Features(noisy.task), 0)
        flipped = torch.cat([(source(s).inputs > 0) != (plain(s).inputs > 0) for s in range(8)])
        assert abs(float(flipped.double().mean()) - 0.2) < 4 * 0.4 / np.sqrt(flipped.numel())
        assert torch.equal(source(3).inputs, scheduled(noisy, Features(noisy.task), 0)(3).inputs)
        assert set(source(0).inputs.unique().tolist()) == ({0.0, 1.0} if coding == "01" else {-1.0, 1.0})


def test_a_condition_is_trained_saved_and_found_again(tmp_path: Path) -> None:
    condition = replace(QUICK, task=replace(TINY, features=("bit", "or:2")), trajectory=True)
    seeds = Seeds((100, 101, 102), data=100, order=100)
    curves = train_condition(condition, seeds, tmp_path)
    assert set(curves["step"]) == {0, *log_spaced(60, 4)}
    assert kept_moments(tmp_path) == sorted(set(curves["step"]))
    last = curves[(curves["step"] == 60) & (curves["split"] == "test")]
    accuracy = last[last["metric"] == "accuracy"].set_index(["seed", "feature"])["value"]
    entropy = last[last["metric"] == "cross_entropy"].set_index(["seed", "feature"])["value"]
    assert accuracy.min() > 0.9
    # What a saved network answers is what was written down; seeds differ, and so does the way there.
    task = Features(condition.task, seed=100)
    batch = task.splits["test"].items.take(np.arange(256))
    assert batch.targets is not None
    for seed in seeds.initialisation:
        network = trained_network(condition, tmp_path, seed)
        with torch.no_grad():
            outputs = network(batch.inputs)
        right = (task.heads.predictions(outputs) == batch.targets).double().mean(0).tolist()
        losses = task.heads.losses(outputs, batch.targets).double().mean(0).tolist()
        for f, name in enumerate(task.names):
            assert accuracy[seed, name] == right[f]
            assert entropy[seed, name] == pytest.approx(losses[f], rel=1e-5)
    begin = [trained_network(condition, tmp_path, s, 0).readout.weight for s in seeds.initialisation]
    assert not torch.equal(begin[0], begin[1])
    assert not torch.equal(begin[0], trained_network(condition, tmp_path, 100, 60).readout.weight)
    assert torch.equal(trained_network(condition, tmp_path, 101).readout.weight,
                       trained_network(condition, tmp_path, 101, 60).readout.weight)  # fmt: skip


def test_seeds_of_weights_data_and_order_are_apart(tmp_path: Path) -> None:
    short = replace(QUICK, phases=(Phase(5),), looks=0)

    def final(name: str, seeds: Seeds) -> torch.Tensor:
        train_condition(short, seeds, tmp_path / name)
        return trained_network(short, tmp_path / name, 7).readout.weight

    base = final("base", Seeds((7, 8)))
    assert torch.allclose(base, final("again", Seeds((8, 7))), atol=1e-6)  # whoever else is in the stack
    for name, seeds in {
        "data": Seeds((7, 8), data=1),
        "order": Seeds((7, 8), order=1),
        "own": Seeds((7, 8), order=None),
    }.items():
        assert not torch.allclose(base, final(name, seeds), atol=1e-4)
    own = final("own-again", Seeds((7,), order=None))
    assert torch.allclose(own, trained_network(short, tmp_path / "own", 7).readout.weight, atol=1e-6)
    with pytest.raises(ConfigError, match="one or more different seeds"):
        Seeds((1, 1))


def test_an_untrained_condition_is_its_initial_weights(tmp_path: Path) -> None:
    condition = replace(CONDITIONS["untrained"], task=TINY, hidden=(8,))
    curves = train_condition(condition, Seeds((3,)), tmp_path)
    assert set(curves["step"]) == {0}
    fresh: MLP = initialised(lambda: network_of(condition), 3)
    assert torch.equal(fresh.readout.weight, trained_network(condition, tmp_path, 3).readout.weight)


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_every_condition_takes_a_step(name: str, tmp_path: Path) -> None:
    rows: dict[str, Any] = {"train": 512, "val": 64, "test": 64}
    condition = CONDITIONS[name].shortened(1e-9, **rows)
    condition = replace(
        condition, batch=min(condition.batch, 64), looks=0, hidden=tuple(min(w, 16) for w in condition.hidden)
    )
    curves = train_condition(condition, Seeds((0, 1)), tmp_path)
    assert np.isfinite(curves["value"]).all()
    assert set(curves["seed"]) == {0, 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"activation": "rellu"}, "unknown activation 'rellu'"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'"),
        ({"init": "xavier"}, "unknown init 'xavier'"),
        ({"norm": "group"}, "unknown norm 'group'"),
        ({"hidden": ()}, "hidden must be one positive width"),
        ({"batch": 10_000}, "batch must be from 1 to the rows of train"),
        ({"phases": (Phase(0),)}, "phases of 1 or more steps"),
        ({"phases": (Phase(5, (2,)),)}, "that train outputs 0 to 1"),
        ({"flip": 0.5}, "flip must be from 0 to below .5"),
        ({"smoothing": 1.0}, "smoothing must be"),
    ],
)
def test_conditions_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(HEADLINE, **given)


@pytest.mark.slow
def test_the_headline_passes_its_gate(tmp_path: Path) -> None:
    condition = replace(HEADLINE, trajectory=False, looks=0)
    curves = train_condition(condition, Seeds((100, 101), data=100, order=100), tmp_path)
    last = curves[(curves["step"] == 5000) & (curves["split"] == "test") & (curves["metric"] == "accuracy")]
    assert last["value"].min() > 0.95
    assert pair("parity:2") == HEADLINE.task
