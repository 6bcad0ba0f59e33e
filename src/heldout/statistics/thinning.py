"""A draw that depends on what is drawn from and not on the order or the batches in which it comes: by hash."""

from __future__ import annotations

import numpy as np


def place_hash(item: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(N,) uint64 of the whole numbers `item` (N,) and `place` (N,): the finaliser of SplitMix64, in which every bit of
    the result depends on every bit of what goes in. The entries with the smallest hashes are a random sample."""
    x = item.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + place.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: np.ndarray = x ^ (x >> np.uint64(31))
    return hashed


def smallest(hashes: np.ndarray, size: int) -> np.ndarray:
    """Where the `size` smallest hashes are, ascending; everywhere where there are no more than that."""
    if len(hashes) <= size:
        return np.arange(len(hashes))
    return np.sort(np.argpartition(hashes, size)[:size])
