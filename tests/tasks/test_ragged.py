from __future__ import annotations

import numpy as np
import pytest
import torch

from heldout.errors import SplitError
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.ragged import AtScored, Ragged, at_scored, everywhere, positions_of


def make() -> Ragged:
    flat = np.array([1, 2, 3, 4, 5, 6], dtype=np.uint8)
    scored = np.array([0, 1, 0, 0, 1, 1], dtype=bool)
    return Ragged(flat, flat + 10, offsets=np.array([0, 3, 4, 6]), pad=99, scored=scored, strata={"depth": flat % 3})


def test_items_are_padded_on_the_right_in_the_order_asked_for() -> None:
    batch = make().take(np.array([2, 0]))
    assert batch.inputs.tolist() == [[5, 6, 99], [1, 2, 3]]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[15, 16, 99], [11, 12, 13]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.scored is not None
    assert batch.scored.tolist() == [[True, True, False], [False, True, False]]
    assert batch.strata["depth"].tolist() == [[2, 0, -1], [1, 2, 0]]
    assert {t.dtype for t in (batch.inputs, batch.targets, batch.index)} == {torch.int64}
    assert make().lengths.tolist() == [3, 1, 2]


def test_a_split_of_them_gives_every_position_once_whatever_the_size() -> None:
    split = Split("train", "fit", make())
    for size in (1, 2, 3, 4, 6, 100):
        seen = [batch.inputs[batch.mask].tolist() for batch in split.batches(size)]
        assert sorted(x for xs in seen for x in xs) == [1, 2, 3, 4, 5, 6]


def test_sizes_that_disagree_are_named() -> None:
    flat = np.zeros(4, dtype=np.uint8)
    given = {"offsets": np.array([0, 2, 4]), "pad": 9}
    with pytest.raises(SplitError, match="scored has 3"):
        Ragged(flat, flat, scored=np.zeros(3, dtype=bool), **given)
    with pytest.raises(SplitError, match="item 1 is empty"):
        Ragged(flat, flat, offsets=np.array([0, 4, 4]), pad=9, scored=np.zeros(4, dtype=bool))


def test_positions_of_a_mask() -> None:
    scored = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    at, real = positions_of(scored)
    assert [row[keep].tolist() for row, keep in zip(at, real, strict=True)] == [[1, 3], [], [0, 1, 3]]
    assert at.shape == (3, 3)
    assert positions_of(scored[1:2])[0].shape == (1, 1)


def scored_split() -> Split:
    flat = np.arange(1, 10, dtype=np.uint8)
    scored = np.array([0, 1, 0, 0, 0, 1, 1, 0, 1], dtype=bool)
    items = Ragged(
        flat, flat + 10, offsets=np.array([0, 3, 5, 9]), pad=99, scored=scored, strata={"depth": flat % 3, "far": flat}
    )
    return Split("train", "fit", items, keys=np.array([7, 8, 9]), units=np.array([4, 5, 6]))


def test_scored_positions_alone_are_asked_for() -> None:
    split = at_scored(scored_split(), keep=("depth",), strata={"odd": lambda b: b.inputs % 2})
    assert len(split) == 2  # the item without a scored position is left out
    assert split.unit_ids().tolist() == [4, 6]
    assert split.items.lengths.tolist() == [3, 4]
    batch = split.items.take(np.array([1, 0]))
    assert batch.inputs["tokens"].tolist() == [[6, 7, 8, 9], [1, 2, 3, 99]]
    assert batch.inputs["at"].tolist() == [[0, 1, 3], [1, 0, 2]]  # filled up with other positions
    assert batch.scored is not None
    assert batch.scored.tolist() == [[True, True, True], [True, False, False]]
    assert batch.targets is not None
    assert batch.targets[batch.scored].tolist() == [16, 17, 19, 12]
    assert batch.mask is not None
    assert batch.mask.shape == (2, 4)
    assert {name: labels[batch.scored].tolist() for name, labels in batch.strata.items()} == {
        "depth": [0, 1, 0, 2],
        "odd": [0, 1, 1, 0],
    }


def test_everywhere_undoes_it_for_fitting() -> None:
    whole, part = everywhere(at_scored(scored_split()).subset(np.array([1]))), everywhere(scored_split())
    batch = whole.items.take(np.array([0]))
    assert batch.inputs.tolist() == [[6, 7, 8, 9]]
    assert (whole.role, batch.scored) == ("fit", None)
    assert part.items.take(np.array([0])).inputs.tolist() == [[1, 2, 3]]


def test_items_without_marks_cannot_be_asked_at_them() -> None:
    plain = Split("x", "test", Rectangular(torch.zeros(3, 4)))
    with pytest.raises(SplitError, match="scored"):
        AtScored(plain.items).take(np.array([0]))


def test_a_label_of_the_whole_item_stays_one_an_item() -> None:
    scored = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    tokens = torch.arange(6).reshape(2, 3)
    items = Rectangular(tokens, tokens + 10, scored=scored, strata={"length": torch.tensor([4, 3])})
    batch = AtScored(items).take(np.array([1, 0]))
    assert batch.strata["length"].tolist() == [3, 4]
    assert batch.targets is not None
    assert batch.targets[batch.scored].tolist() == [15, 11, 12]
