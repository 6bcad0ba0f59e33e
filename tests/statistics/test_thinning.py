"""A draw by hash is the same in any order, and uniform."""

from __future__ import annotations

import numpy as np

from heldout.statistics.thinning import place_hash, smallest


def test_a_place_has_one_hash_whatever_comes_with_it() -> None:
    item, place = np.divmod(np.arange(1000), 7)
    whole, order = place_hash(item, place), np.random.default_rng(0).permutation(1000)
    assert np.array_equal(place_hash(item[order], place[order]), whole[order])
    assert len(np.unique(whole)) == 1000


def test_what_is_drawn_is_spread_over_items_and_places() -> None:
    item, place = np.divmod(np.arange(100_000), 100)
    drawn = smallest(place_hash(item, place), 10_000)
    assert len(drawn) == 10_000
    assert np.array_equal(drawn, np.sort(drawn))
    for values, cells in ((item, 10), (place, 10)):  # 1,000 expected in each tenth, with a deviation of about 29
        counts = np.bincount(values[drawn] * cells // (values.max() + 1), minlength=cells)
        assert np.abs(counts - 1000).max() < 150


def test_fewer_than_wanted_are_all_kept() -> None:
    assert smallest(np.array([3, 1, 2], dtype=np.uint64), 5).tolist() == [0, 1, 2]
    assert smallest(np.array([3, 1, 2], dtype=np.uint64), 2).tolist() == [1, 2]
