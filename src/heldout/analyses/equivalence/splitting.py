"""Two halves of a table of pairs: one to choose a rule on, one to confirm it. (a, b) and (b, a) are one unit."""

from __future__ import annotations

import numpy as np

from heldout.analyses.equivalence.evaluation import Ints, Table
from heldout.analyses.equivalence.race import scrambled
from heldout.errors import ConfigError


def halves(table: Table, seed: int) -> tuple[Ints, int, np.ndarray]:
    """Rows in random order, the discovery half first; its size; and (N,) uint64 units: (a, b) and (b, a) are one.

    All pairs of a unit fall into one half, so the halves differ in size by less than the largest unit.
    """
    salt = scrambled(np.array([seed], dtype=np.uint64))
    unit = _hashed(table.a, salt) + _hashed(table.b, salt)
    order = np.argsort(scrambled(unit), kind="stable")
    half = max(len(order) // 2, 1)
    sorted_units = unit[order]
    while 0 < half < len(order) and sorted_units[half] == sorted_units[half - 1]:
        half += 1
    if half == len(order):
        raise ConfigError("discover_rule: all pairs are the same one (or its mirror image); it cannot be halved")
    return order, half, unit


def _hashed(digits: np.ndarray, salt: np.ndarray) -> np.ndarray:
    total = np.zeros(len(digits), dtype=np.uint64)
    weights = scrambled(np.arange(digits.shape[1], dtype=np.uint64) + salt)
    for i, weight in enumerate(weights):
        total += digits[:, i] * weight
    return scrambled(total)


def first_of_each(units: np.ndarray) -> Ints:
    """The first row of each unit; equal units follow each other."""
    return np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
