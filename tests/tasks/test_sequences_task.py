"""The sequences task: features against their definitions on every stretch, splits, orders, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Rectangular, check_disjoint
from heldout.tasks.sequences import START, Sequences, SequencesSettings, latin_square, sequence_feature
from heldout.tasks.sequences.library import NEVER

SMALL = SequencesSettings(features=("contains", "phrase", "ends", "parity"), train=600, val=200, test=200)


def items(task: Sequences, split: str) -> Rectangular:
    found = task.splits[split].items
    assert isinstance(found, Rectangular)
    return found


def stretch_of(tokens: list[int], feature: int, alphabet: int) -> list[int]:
    return [t - feature * alphabet for t in tokens if t // alphabet == feature]


BY_HAND: dict[str, Any] = {
    "contains": lambda s: 0 in s,
    "phrase": lambda s: any(s[i : i + 2] == [0, 1] for i in range(len(s))),
    "ends": lambda s: s[0] == s[-1],
    "count:2": lambda s: s.count(0) >= 2,
    "count:3": lambda s: s.count(0) >= 3,
    "parity": lambda s: s.count(0) % 2 == 1,
    "before": lambda s: s.index(0) < s.index(1) if 0 in s and 1 in s else NEVER,
}


@pytest.mark.parametrize("written", BY_HAND)
def test_features_have_their_value_on_every_stretch(written: str) -> None:
    feature = sequence_feature(written, 4, 3)
    stretches = list(product(range(3), repeat=4))
    values = feature.of(np.array(stretches))
    assert values.tolist() == [int(BY_HAND[written](list(s))) for s in stretches]


def test_stretches_are_drawn_uniformly_among_those_with_the_wanted_value() -> None:
    feature = sequence_feature("before", 3, 3)
    wanted = np.repeat([0, 1], 8000)
    drawn = feature.draw(wanted, np.random.default_rng(0))
    assert np.array_equal(feature.of(drawn), wanted)
    for value in (0, 1):
        counts = np.bincount(feature.codes(drawn[wanted == value]), minlength=27)
        possible = feature.values == value
        assert not counts[~possible].any()
        assert stats.chisquare(counts[possible]).pvalue > 1e-4


@pytest.mark.parametrize("arrangement", ["moved", "fixed"])
def test_sequences_hold_each_feature_in_a_stretch_of_its_own(arrangement: Any) -> None:
    task = Sequences(replace(SMALL, arrangement=arrangement), seed=1)
    for split in ("train", "val", "test"):
        values = task.values[split]
        assert values.mean(0).tolist() == [0.5] * 4
        assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 4 / np.sqrt(len(values))
        for tokens, row in zip(items(task, split).inputs[0].tolist(), values.tolist(), strict=True):
            assert len(tokens) == 16
            for i, name in enumerate(task.names):
                own = stretch_of(tokens, i, 8)
                assert len(own) == 4
                assert BY_HAND[name](own) == row[i]
    first = items(task, "train").inputs[0][:, 0] // 8
    share = torch.bincount(first, minlength=4) / len(first)
    assert share.tolist() == [1, 0, 0, 0] if arrangement == "fixed" else (share - 0.25).abs().max() < 0.1


def test_no_sequence_is_in_two_splits_and_units_are_sequences() -> None:
    task = Sequences(replace(SMALL, stretch=2, alphabet=3, features=("contains", "contains"), train=20, val=8, test=8))
    check_disjoint(list(task.splits.values()))
    keys = {name: split.keys for name, split in task.splits.items()}
    for name, split in task.splits.items():
        own = keys[name]
        assert own is not None
        assert len(np.unique(split.unit_ids())) == len(np.unique(own))  # repeats within a split are one unit
    # The key is what stands in the stretches, wherever they stand.
    tokens = items(task, "train").inputs[0].tolist()
    told = [tuple(tuple(stretch_of(row, f, 3)) for f in (0, 1)) for row in tokens]
    assert len(set(told)) == len(np.unique(keys["train"]))


def test_orders_permute_answers_and_nothing_else() -> None:
    plain, turned = Sequences(SMALL, seed=2), Sequences(replace(SMALL, order=(2, 0, 3, 1)), seed=2)
    a, b = items(plain, "test"), items(turned, "test")
    assert a.targets is not None
    assert b.targets is not None
    assert torch.equal(a.inputs[0], b.inputs[0])
    assert torch.equal(a.targets[:, [2, 0, 3, 1]], b.targets)
    assert torch.equal(b.inputs[1][:, 1:], b.targets[:, :-1])  # the decoder is given what stands before, and no more
    assert b.inputs[1][:, 0].unique().tolist() == [START]
    assert b.strata["phrase"].tolist() == turned.values["test"][:, 1].tolist()


def test_the_data_of_a_split_depend_on_the_seed_alone() -> None:
    one, same, other = Sequences(SMALL, 3), Sequences(SMALL, 3), Sequences(SMALL, 4)
    assert torch.equal(items(one, "test").inputs[0], items(same, "test").inputs[0])
    assert not torch.equal(items(one, "test").inputs[0], items(other, "test").inputs[0])


def test_a_latin_square_has_every_feature_once_at_every_place() -> None:
    square = np.array(latin_square(5))
    for line in (*square, *square.T):
        assert sorted(line) == list(range(5))


def test_features_written_alike_are_told_apart() -> None:
    assert SequencesSettings().names == ("phrase@0", "phrase@1", "phrase@2", "phrase@3")
    assert SMALL.names == ("contains", "phrase", "ends", "parity")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"features": ()}, "at least one feature"),
        ({"features": ("phrasse",)}, "phrase"),
        ({"features": ("phrase:2",)}, "takes no number"),
        ({"features": ("count:9",)}, "1 to the stretch's 4"),
        ({"features": ("count 2",)}, "kind:number"),
        ({"order": (0, 0, 1, 2)}, "each of the 4 features once"),
        ({"alphabet": 1}, "alphabet too"),
        ({"stretch": 8, "alphabet": 16}, "at most 1048576"),
        ({"features": ("phrase",) * 6}, "62 bits"),
        ({"stretch": 2, "features": ("count:2", "before"), "alphabet": 2, "test": 1}, "at least 2 rows"),
        ({"arrangement": "move"}, "moved"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SequencesSettings(**given)


def test_a_space_that_is_too_small_is_refused() -> None:
    tiny = SequencesSettings(features=("contains",), stretch=2, alphabet=2, train=200, val=10, test=10)
    with pytest.raises(SplitError, match="no free place"):
        Sequences(tiny)
