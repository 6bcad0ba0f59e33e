"""How complex a feature is, computed from its truth table under uniform inputs (O'Donnell, Analysis of Boolean
Functions, 2014, for degree and sensitivity).

None of these numbers says how hard a feature is to *learn*: ``majority:5`` is separable by a plane and has degree 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from heldout.tasks.features.library import Feature

EXHAUSTIVE = 4  # inputs up to which every circuit is enumerated; of five there are 2^32 functions


@dataclass(frozen=True)
class Complexity:
    """Of one feature, under uniform inputs:

    - `fan_in`: inputs that it depends on.
    - `fourier_degree`: the largest number of inputs in one term of its multilinear polynomial (with several classes,
      over the indicators of the classes).
    - `average_sensitivity`: how many inputs, on average over rows, change its class when flipped; 0 to `fan_in`. The
      same as its total influence.
    - `circuit_depth`: least depth of a circuit of two-input gates, negations free. None where it is not known: several
      classes, or more than four inputs and no circuit of the least possible depth, log2 of `fan_in`, was found.
    - `rarest`: share of the rarest class among uniform rows, before any rebalancing.
    """

    fan_in: int
    fourier_degree: int
    average_sensitivity: float
    circuit_depth: int | None
    rarest: float


def complexity(feature: Feature) -> Complexity:
    """Every measure of one feature."""
    flips = sensitivities(feature.table)
    used = np.flatnonzero(flips)
    counts = np.bincount(feature.table, minlength=feature.classes)
    return Complexity(
        fan_in=len(used),
        fourier_degree=max(fourier_degree(feature.table == c) for c in range(feature.classes)),
        average_sensitivity=float(flips.sum()),
        circuit_depth=circuit_depth(_restricted(feature.table, used)) if feature.classes == 2 else None,
        rarest=float(counts.min() / len(feature.table)),
    )


def sensitivities(table: np.ndarray) -> np.ndarray:
    """(inputs,) float64, each input's influence: the share of rows whose class changes when it is flipped."""
    rows = np.arange(len(table))
    inputs = len(table).bit_length() - 1
    return np.array([np.mean(table != table[rows ^ (1 << j)]) for j in range(inputs)])


def fourier_coefficients(truth: np.ndarray) -> np.ndarray:
    """(2^inputs,) float64, the coefficient of each set of inputs in the polynomial of the +-1 function; their squares
    sum to one. A set is written as a pattern; the function is -1 where `truth`."""
    values = 1 - 2 * np.asarray(truth).astype(np.int64)
    n = len(values)
    half = 1
    while half < n:  # the fast Walsh-Hadamard transform, in whole numbers
        pairs = values.reshape(-1, 2, half)
        values = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).reshape(n)
        half *= 2
    return values / n


def fourier_degree(truth: np.ndarray) -> int:
    """The size of the largest set whose coefficient is not zero; 0 for a constant."""
    return max((int(s).bit_count() for s in np.flatnonzero(fourier_coefficients(truth))), default=0)


def circuit_depth(table: np.ndarray) -> int | None:
    """Least depth of a binary function that depends on every input; None where it is not known (see `Complexity`)."""
    inputs = len(table).bit_length() - 1
    if inputs <= 1:
        return 0
    if inputs <= EXHAUSTIVE:
        code = int(np.dot(table.astype(np.int64), 1 << np.arange(len(table), dtype=np.int64)))
        return int(_depths(inputs)[code])
    least = (inputs - 1).bit_length()  # a circuit of depth d reads at most 2^d inputs
    return least if _folds(table, least) else None


@lru_cache(maxsize=EXHAUSTIVE + 1)
def _depths(inputs: int) -> np.ndarray:
    """(2^2^inputs,) int64, the least depth of every function; a function is the number whose bits are its table."""
    rows = 1 << inputs
    ones = (1 << rows) - 1
    wires = [sum(1 << c for c in range(rows) if c >> j & 1) for j in range(inputs)]
    depths = np.full(1 << rows, -1, dtype=np.int64)
    depths[[0, ones, *wires, *(ones ^ w for w in wires)]] = 0
    depth = 0
    while (depths < 0).any():
        depth += 1
        known = np.flatnonzero(depths >= 0)
        if 2 * len(known) > len(depths):  # then `known` and `f ^ known` meet for every f: all are one gate away
            depths[depths < 0] = depth
            break
        reached = np.zeros(len(depths), dtype=bool)
        for one in known:  # with free negations, "and" and "exclusive or" are all gates there are
            for made in (known & one, known ^ one):
                reached[made] = reached[ones ^ made] = True
        depths[reached & (depths < 0)] = depth
    return depths


def _folds(table: np.ndarray, rounds: int) -> bool:
    """Whether joining pairs of wires by one gate each leaves a single wire after `rounds` rounds."""
    cube = table.reshape((2,) * (len(table).bit_length() - 1))
    for _ in range(rounds):
        waiting = cube.ndim  # the first axes; joined and passed wires go to the end
        while waiting:
            cases = next((c for j in range(1, waiting) if (c := _joined(cube, j)) is not None), None)
            cube = np.moveaxis(cube if cases is None else cases, 0, -1)
            waiting -= 1 if cases is None else 2
    return cube.ndim == 1


def _joined(cube: np.ndarray, j: int) -> np.ndarray | None:
    """`cube` with its axes 0 and `j` joined into one, axis 0; None where they matter through more than one bit."""
    cases = np.moveaxis(cube, j, 1).reshape(4, *(n for axis, n in enumerate(cube.shape) if axis not in (0, j)))
    other = next((case for case in cases if not np.array_equal(case, cases[0])), cases[0])
    if any(not np.array_equal(case, cases[0]) and not np.array_equal(case, other) for case in cases):
        return None
    return np.stack((cases[0], other))


def _restricted(table: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The table over the `used` inputs alone; the others, which do not matter, are 0."""
    small = np.arange(1 << len(used))
    rows = sum((((small >> new) & 1) << int(old) for new, old in enumerate(used)), np.zeros_like(small))
    return np.asarray(table[rows])
