"""Representational dissimilarity matrices (RDMs): the distances between the activations of all pairs of stimuli.

    distances = rdm(x)  # (N(N-1)/2,), pairs (0,1), (0,2), ..., (N-2,N-1), as scipy's `pdist` orders them

Blocks of rows are multiplied with all that follow them, so memory beside the result stays small and no pair is computed
twice. Distances from products lose digits where two stimuli are much closer to each other than to the centre; those
pairs are computed again from their differences.

An RDM knows neither the units nor a rotation of them. The correlation distance also ignores each stimulus's mean and
spread over units, and for that very reason *does* change when a constant is added to one unit or one unit is scaled.
Distances are biased upwards by noise (`crossnobis` is not), and loud features dominate all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.checks import FLAT, Floats, table
from heldout.errors import ConfigError, StatisticsError, unknown

Distance = Literal["correlation", "euclidean", "squared_euclidean"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)

BLOCK = 256  # rows of a block: its product with all rows after it is held
NEAR = 1e-4  # squared distance, as a share of the squared norms, below which it is computed from differences


def rdm(x: ArrayLike | Tensor, distance: Distance = "correlation") -> Floats:
    """Condensed RDM (N(N-1)/2,) float64 of activations `x` (N, D), in the order of `scipy.spatial.distance.pdist`.

    - ``correlation``: 1 minus the Pearson correlation of two stimuli over units, 0 to 2; needs D >= 2.
    - ``euclidean``: the Euclidean distance; ``squared_euclidean``: its square. Neither is divided by D.

    Raises `StatisticsError` where a stimulus has the same value in every unit and the correlation distance is asked for:
    it has no correlation with anything.
    """
    if distance not in DISTANCES:
        raise ConfigError(unknown("distance", distance, DISTANCES))
    rows = table(x)
    if distance == "correlation":
        unlike: Floats = np.clip(1 - _products(_standardised(rows)), 0, 2)
        return unlike
    squared = squared_distances(rows)
    if distance == "euclidean":
        np.sqrt(squared, out=squared)
    return squared


def crossnobis(repeats: ArrayLike, precision: ArrayLike | None = None) -> Floats:
    """Cross-validated squared Mahalanobis distances (N(N-1)/2,) from `repeats` (R, N, D), R >= 2 independent measurements.

    The mean over ordered pairs of different repeats a, b of (x_i^a - x_j^a)^T P (x_i^b - x_j^b) / D, with P = `precision`
    (D, D) of the noise, the identity by default (Walther et al. 2016, NeuroImage 137). Noise that is independent between
    repeats adds nothing on average, so a true distance of 0 is estimated as 0 on average and estimates may be negative.
    """
    cube = np.asarray(repeats, dtype=np.float64)
    if cube.ndim != 3 or len(cube) < 2:
        raise StatisticsError(f"crossnobis needs repeats (R, N, D) with R of 2 or more; got shape {cube.shape}")
    r, _, d = cube.shape
    if precision is not None:
        p = np.asarray(precision, dtype=np.float64)
        if p.shape != (d, d) or not np.allclose(p, p.T):
            raise StatisticsError(f"the precision must be symmetric, ({d}, {d}); got shape {p.shape}")
        try:
            cube = cube @ np.linalg.cholesky(p)
        except np.linalg.LinAlgError:
            raise StatisticsError(
                "the precision must be positive definite; shrink the covariance it was made from"
            ) from None
    # The sum over a != b is the whole square minus its diagonal.
    whole = squared_distances(table(cube.sum(axis=0), "the sum of repeats"))
    for a, one in enumerate(cube):
        whole -= squared_distances(table(one, f"repeat {a}"))
    whole /= r * (r - 1) * d
    return whole


def stimuli_of(condensed: Floats) -> int:
    """N, from the length N(N-1)/2 of a condensed RDM; `StatisticsError` where no N has that length."""
    n = int((1 + np.sqrt(1 + 8 * len(condensed))) / 2 + 0.5)
    if condensed.ndim != 1 or n * (n - 1) // 2 != len(condensed) or n < 2:
        raise StatisticsError(f"an RDM of N stimuli holds N(N-1)/2 distances; got shape {condensed.shape}")
    return n


def squared_distances(rows: Floats) -> Floats:
    """Condensed squared Euclidean distances of `rows` (N, D)."""
    z = rows - rows.mean(axis=0)
    norms = (z * z).sum(axis=1)
    out = _pairs(z, lambda products, i: norms[i] + norms[i + 1 :] - 2 * products)
    i, j = _close(out, norms)
    for s in range(0, len(i), BLOCK * BLOCK):
        a, b = i[s : s + BLOCK * BLOCK], j[s : s + BLOCK * BLOCK]
        difference = rows[a] - rows[b]
        out[offsets(len(rows))[a] + b - a - 1] = (difference * difference).sum(axis=1)
    return out


def offsets(n: int) -> np.ndarray:
    """(n,) where the pairs (i, i+1), (i, i+2), ... of each stimulus i begin in a condensed RDM."""
    i = np.arange(n)
    return i * n - i * (i + 1) // 2


def _pairs(z: Floats, distance: Callable[[Floats, int], Floats]) -> Floats:
    """Condensed: `distance` of the inner products of row i with the rows after it, and i; products block by block."""
    n = len(z)
    out = np.empty(n * (n - 1) // 2)
    filled = 0
    for start in range(0, n - 1, BLOCK):
        products = z[start : start + BLOCK] @ z[start:].T
        for i, row in enumerate(products[: n - 1 - start]):
            out[filled : filled + n - 1 - start - i] = distance(row[i + 1 :], start + i)
            filled += n - 1 - start - i
    return out


def _products(z: Floats) -> Floats:
    return _pairs(z, lambda products, _: products)


def _close(squared: Floats, norms: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) whose squared distance is too small a difference of products to be trusted."""
    n, found = len(norms), []
    limit = NEAR * norms
    start = offsets(n)
    for i in range(n - 1):
        near = np.flatnonzero(squared[start[i] : start[i] + n - 1 - i] < limit[i] + limit[i + 1 :])
        if len(near):
            found.append((np.full(len(near), i), near + i + 1))
    if not found:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _standardised(rows: Floats) -> Floats:
    """Each stimulus over units: mean 0, length 1."""
    mean = rows.mean(axis=1, keepdims=True)
    z = rows - mean
    flat = np.flatnonzero(np.abs(z).max(axis=1) <= FLAT * np.abs(mean[:, 0]))
    if len(flat):
        raise StatisticsError(
            f"the correlation distance is undefined for stimuli that have the same value in every unit: {len(flat)} of "
            f"{len(rows)}, the first is row {flat[0]}; use a Euclidean distance or leave them out"
        )
    out: Floats = z / np.sqrt((z * z).sum(axis=1, keepdims=True))
    return out
