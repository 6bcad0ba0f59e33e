"""A split in one line."""

from __future__ import annotations

import numpy as np
import pytest

import heldout
from heldout.errors import SplitError
from heldout.tasks.base import check_disjoint


def test_arrays_tuples_and_mappings():
    x = np.arange(12.0).reshape(4, 3)
    for inputs in (x, (x, x + 1), {"a": x, "b": x + 1}):
        split = heldout.split("s", "test", inputs, [0, 1, 0, 1])
        batch = next(split.batches(2))
        args, kwargs = batch.arguments()
        first = next(iter([*args, *kwargs.values()]))
        assert first.shape == (2, 3)
        assert batch.targets is not None
        assert batch.targets.tolist() == [0, 1]


def test_units_of_two_splits_are_apart_unless_given():
    x = np.arange(6.0).reshape(6, 1)
    a, b = (heldout.split(name, "test", x) for name in "ab")
    assert not set(a.unit_ids()) & set(b.unit_ids())
    again = heldout.split("a", "test", x)
    assert (a.unit_ids() == again.unit_ids()).all()
    same = heldout.split("b", "test", x, units=a.unit_ids())
    assert (same.unit_ids() == a.unit_ids()).all()


def test_equal_items_are_found_whatever_the_split_is_called():
    x = np.arange(6.0).reshape(6, 1)
    with pytest.raises(SplitError, match="share 2"):
        check_disjoint([heldout.split("a", "fit", x[:4]), heldout.split("b", "test", x[2:])])
    check_disjoint([heldout.split("a", "fit", x[:3]), heldout.split("b", "test", x[3:])])


def test_sizes_must_agree():
    with pytest.raises(SplitError, match="targets has 2"):
        heldout.split("a", "fit", np.zeros((3, 1)), [0, 1])
    with pytest.raises(SplitError, match="units has 2"):
        heldout.split("a", "fit", np.zeros((3, 1)), units=[0, 1])
    with pytest.raises(SplitError, match="empty"):
        heldout.split("a", "fit", np.zeros((0, 1)))
