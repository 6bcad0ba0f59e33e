"""What needs no network: predictions from the training items near by, in the coordinates of the tokens.

    found = nearest_neighbours(coordinates, residuals, groups, queries)      # or kernel_regression
    predicted = formula_of_queries + found.predictions

N training items have `coordinates` (N, C), in units in which a step is equally long along each, and `residuals` (N,): what
a fitted formula leaves over, or targets whose mean is near 0, to which predictions fall back far from all training items.
`groups` (N,) are the clusters that are left out together while hyperparameters are chosen: each candidate predicts every
group from all the others, exactly, and the one with the least squared error over all items is taken (the first of equals).
Nothing of the M queries but their coordinates comes in. What `groups` say about how far the queries are from training
items decides what is chosen: items each their own group for queries in between them, whole clusters for queries beyond.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError, unknown

Floats = NDArray[np.float64]

KERNELS: dict[str, Callable[[Floats], Floats]] = {  # of distance over length; 1 at 0
    "exponential": lambda r: np.exp(-r),
    "matern": lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
    "gaussian": lambda r: np.exp(-(r**2) / 2),
}


@dataclass(frozen=True, eq=False)
class Baseline:
    """Predictions (M,) in the residuals' unit, and how they were come by.

    - `chosen`: hyperparameters by name; `at_edge`: those that are the least or largest of their grid, where a wider grid
      might have done better.
    - `score`: root mean square error of the groups left out in turn, at the chosen hyperparameters. It was minimised over
      the grid, so it flatters; the error on queries does not.
    - `deviation`: (M,) a standard deviation of each query's residual, measurement noise included; None where the method
      has none.
    """

    predictions: Floats
    chosen: Mapping[str, float | str]
    at_edge: tuple[str, ...]
    score: float
    deviation: Floats | None = None


def nearest_neighbours(
    coordinates: ArrayLike,
    residuals: ArrayLike,
    groups: ArrayLike,
    queries: ArrayLike,
    *,
    neighbours: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    powers: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
) -> Baseline:
    """The mean over the k nearest items by Euclidean distance, weighted by 1 / distance^power.

    All that are as far as the k-th count, so that the order of items does not matter; an item at distance 0 outweighs all
    others where the power is positive.
    """
    x, y, labels, new = _checked(coordinates, residuals, groups, queries)
    if not neighbours or min(neighbours) < 1 or not powers or min(powers) < 0:
        raise StatisticsError(f"neighbours must be at least 1 and powers at least 0, got {neighbours} and {powers}")
    within = np.where(labels[:, None] == labels, np.inf, _distances(x, x))
    most = int(np.isfinite(within).sum(1).min())
    grid: dict[str, Sequence[float | str]] = {"neighbours": [k for k in neighbours if k <= most], "power": list(powers)}
    if not grid["neighbours"]:
        raise StatisticsError(f"with one group left out {most} items remain, fewer than {min(neighbours)} neighbours")

    def left_out() -> Iterator[tuple[tuple[float | str, ...], Floats]]:
        for k in grid["neighbours"]:
            near = _nearest(within, int(k))
            for power in powers:
                yield (k, power), y - _weighted(within, near, y, power)

    chosen, at_edge, score = _choose(grid, left_out())
    apart = _distances(new, x)
    predictions = _weighted(apart, _nearest(apart, int(chosen["neighbours"])), y, float(chosen["power"]))
    return Baseline(predictions, chosen, at_edge, score)


def kernel_regression(
    coordinates: ArrayLike,
    residuals: ArrayLike,
    groups: ArrayLike,
    queries: ArrayLike,
    *,
    kernels: Sequence[str] = tuple(KERNELS),
    lengths: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0),
    noises: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
) -> Baseline:
    """Kernel ridge regression, which is the mean of a Gaussian process of prior mean 0 observed under noise.

    `kernels` are names in `KERNELS`, `lengths` in units of the coordinates, `noises` the variance of the noise over that
    of the process (the ridge). `deviation` is the process's, its variance being the one of the highest likelihood given
    the hyperparameters. Errors with a group left out come from one inverse for all groups: with P = (K + noise I)^-1 they
    are P_gg^-1 (P y)_g (Rasmussen and Williams 2006, section 5.4.2, for groups of one). O(N^3) for each point of the grid.
    """
    x, y, labels, new = _checked(coordinates, residuals, groups, queries)
    for name in kernels:
        if name not in KERNELS:
            raise StatisticsError(unknown("kernel", name, KERNELS))
    if not (kernels and lengths and noises) or min(lengths) <= 0 or min(noises) <= 0:
        raise StatisticsError(f"lengths and noises must be positive, got {lengths} and {noises}")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    grid: dict[str, Sequence[float | str]] = {"kernel": kernels, "length": lengths, "noise": noises}
    apart = _distances(x, x)

    def left_out() -> Iterator[tuple[tuple[float | str, ...], Floats]]:
        for kernel, length in itertools.product(kernels, lengths):
            gram = KERNELS[kernel](apart / length)
            for noise in noises:
                yield (kernel, length, noise), _errors_left_out(_inverse(gram, noise), y, members)

    chosen, at_edge, score = _choose(grid, left_out())
    shape, length, noise = KERNELS[str(chosen["kernel"])], float(chosen["length"]), float(chosen["noise"])
    inverse = _inverse(shape(apart / length), noise)
    across = shape(_distances(new, x) / length)  # (M, N)
    amplitude = float(y @ inverse @ y) / len(y)
    variance = amplitude * np.maximum(
        1 + noise - np.einsum("mi,ij,mj->m", across, inverse, across, optimize=True), noise
    )
    return Baseline(across @ (inverse @ y), chosen, at_edge, score, np.sqrt(variance))


def _choose(
    grid: Mapping[str, Sequence[float | str]], tried: Iterator[tuple[tuple[float | str, ...], Floats]]
) -> tuple[dict[str, float | str], tuple[str, ...], float]:
    """The point of the grid with the least mean squared error, its parameters at an edge, and the root of that error."""
    scored = [(float(np.mean(errors**2)), point) for point, errors in tried]
    score, point = min(scored, key=lambda one: one[0])
    chosen = dict(zip(grid, point, strict=True))
    ordered = {k: [v for v in values if not isinstance(v, str)] for k, values in grid.items()}
    at_edge = tuple(k for k, v in chosen.items() if len(ordered[k]) > 1 and v in {min(ordered[k]), max(ordered[k])})
    return chosen, at_edge, float(np.sqrt(score))


def _nearest(distances: Floats, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Query and item of each pair by `distances` (M, N) among a query's k nearest, those as far as the k-th included."""
    k = min(k, distances.shape[1])
    reach = np.partition(distances, k - 1, axis=1)[:, k - 1, None]
    query, item = np.nonzero(distances <= reach * (1 + 1e-12))
    return query, item


def _weighted(distances: Floats, near: tuple[NDArray[np.intp], NDArray[np.intp]], y: Floats, power: float) -> Floats:
    """(M,) means of `y` (N,) over the pairs in `near`, weighted by 1 / distance^power."""
    query, item = near
    weights = np.ones(len(query))
    if power > 0:
        away, least = distances[near], distances.min(1)[query]
        # Relative to the nearest, so that no power of a distance overflows; where that is 0, it alone counts.
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(least > 0, (least / away) ** power, away == 0)
    total, weight = (np.bincount(query, weights=w, minlength=len(distances)) for w in (weights * y[item], weights))
    return np.asarray(total / weight)


def _inverse(gram: Floats, noise: float) -> Floats:
    """(gram + noise I)^-1, symmetric, by Cholesky's factor."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, failed = dpotrf(gram + noise * np.eye(len(gram)), lower=1, overwrite_a=1)
    if failed:
        raise StatisticsError(f"a kernel matrix is singular under noise of {noise:g} of its variance; give more noise")
    lower, _ = dpotri(factor, lower=1, overwrite_c=1)
    return np.asarray(np.tril(lower) + np.tril(lower, -1).T)


def _errors_left_out(inverse: Floats, y: Floats, members: Sequence[NDArray[np.intp]]) -> Floats:
    """(N,) truth minus prediction for each group from all the others."""
    weights, errors = inverse @ y, np.empty(len(y))
    single = np.array([i[0] for i in members if len(i) == 1], dtype=np.intp)
    errors[single] = weights[single] / inverse[single, single]
    for i in members:
        if len(i) > 1:
            errors[i] = np.linalg.solve(inverse[np.ix_(i, i)], weights[i])
    return errors


def _distances(a: Floats, b: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b))


def _checked(
    coordinates: ArrayLike, residuals: ArrayLike, groups: ArrayLike, queries: ArrayLike
) -> tuple[Floats, Floats, NDArray[np.intp], Floats]:
    """Coordinates, residuals, group numbers from 0 and queries, of shapes that fit."""
    x, y, new = (np.asarray(v, dtype=np.float64) for v in (coordinates, residuals, queries))
    given: list[Hashable] = np.asarray(groups).tolist()
    if x.ndim != 2 or new.ndim != 2 or new.shape[1] != x.shape[1] or y.shape != x.shape[:1] or len(given) != len(x):
        raise StatisticsError(
            "a baseline needs coordinates (N, C), N residuals and groups, and queries (M, C); got shapes "
            f"{x.shape}, {y.shape}, {np.shape(groups)} and {new.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(new).all()):
        raise StatisticsError(
            "coordinates, residuals and queries must be finite; fit on items that have a target alone"
        )
    labels = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if len(y) < 2 or labels.max() == 0:
        raise StatisticsError("hyperparameters are chosen by leaving groups out: at least two groups are needed")
    return x, y, labels, new
