from __future__ import annotations

import numpy as np
import pytest
import torch

from heldout.errors import SplitError
from heldout.tasks.base import Split
from heldout.tasks.ragged import Ragged, at_scored, everywhere, positions_of


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
