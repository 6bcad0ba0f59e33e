"""Intervals for proportions and for means of a few numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError


class Interval(NamedTuple):
    """The two ends of an interval: floats, or float64 arrays of one shape."""

    low: NDArray[np.float64] | float
    high: NDArray[np.float64] | float


def wilson(successes: ArrayLike, n: ArrayLike, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for proportions, in [0, 1]; arrays broadcast.

    Its low end is exactly 0 where nothing succeeded and its high end exactly 1 where everything did; where `n` is 0 it
    is [0, 1], all that is then known. It holds for independent trials of one network: it knows nothing of clusters of
    items, nor of what other training seeds would give. Wilson (1927), JASA 22, 209.
    """
    from scipy.special import ndtri

    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    _check_counts(k, n)
    z = ndtri(0.5 + _check_level(level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At the two ends centre and half-width are equal, up to rounding that would show as 1e-17 in a table.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    return Interval(_unwrap(low), _unwrap(high))


def rule_of_three(n: ArrayLike, *, level: float = 0.95) -> NDArray[np.float64] | float:
    """The largest rate that is compatible with no event in `n` trials, one-sided: 1 - (1 - level)^(1/n), about 3/n.

    For n events in n trials, one minus this is the smallest compatible rate. 1 where `n` is 0.
    Hanley and Lippman-Hand (1983), JAMA 249, 1743, in its exact form.
    """
    n = np.asarray(n, dtype=np.float64)
    _check_counts(np.zeros_like(n), n)
    with np.errstate(divide="ignore"):
        return _unwrap(-np.expm1(math.log(1 - _check_level(level)) / n))


def proportion_interval(successes: ArrayLike, n: ArrayLike, *, level: float = 0.95) -> Interval:
    """Wilson's interval, and the one-sided rule of three at 0 of n and n of n, where one end is known exactly."""
    low, high = wilson(successes, n, level=level)
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    bound = rule_of_three(n, level=level)
    return Interval(_unwrap(np.where(k == n, 1 - bound, low)), _unwrap(np.where(k == 0, bound, high)))


def t_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval for the mean of independent `values`, shape (S,), S >= 2.

    Over training seeds it leaves out that all were tested on the same items; `heldout.statistics.rule` does not.
    """
    from scipy.special import stdtrit

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise StatisticsError(f"a t interval needs a row of at least 2 finite values; got {x!r}")
    half = float(stdtrit(len(x) - 1, 0.5 + _check_level(level) / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


def _check_counts(k: NDArray[np.float64], n: NDArray[np.float64]) -> None:
    if not np.all((k >= 0) & (k <= n) & np.isfinite(n)):
        raise StatisticsError(f"counts must be finite with 0 <= successes <= n; got successes {k} of n {n}")


def _check_level(level: float) -> float:
    if not 0 < level < 1:
        raise StatisticsError(f"the level of an interval lies strictly between 0 and 1; got {level}")
    return level


def _unwrap(x: NDArray[np.float64]) -> NDArray[np.float64] | float:
    return float(x) if x.ndim == 0 else x
