"""Permutation and sign-flip tests, exact where all arrangements can be listed, and Holm's correction.

An exact p-value is the share of all arrangements, the observed one among them, that are at least as extreme. A sampled
one is (1 + number at least as extreme) / (1 + number drawn), which is never 0 and keeps its level
(Phipson and Smyth 2010). Arrangements that tie with the observed one up to rounding count as extreme.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError

Floats = NDArray[np.float64]
Alternative = Literal["greater", "less", "two-sided"]

MAX_EXACT = 2**18
TIE = 1e-12  # relative to the largest statistic


def null_p(observed: float, null: ArrayLike, *, alternative: Alternative = "greater") -> float:
    """p-value of `observed` against draws of its null, shape (R,), with the +1 correction; at least 1 / (1 + R)."""
    draws = _finite(null, "null draws", at_least=1)
    if not math.isfinite(observed):
        raise StatisticsError(f"the observed statistic must be finite; got {observed}")
    return _p(observed, draws, alternative, extra=1)


def sign_flip_test(
    values: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    draws: int = 9999,
    rng: np.random.Generator | None = None,
) -> float:
    """p-value of the mean of `values`, shape (S,), when each sign is as likely as the other under the null.

    Exact for S <= 18, where `rng` is not needed. The smallest possible two-sided p-value is 2^(1-S): with fewer than
    six values nothing can be significant at .05.
    """
    x = _finite(values, "values", at_least=1)
    if 2 ** len(x) <= MAX_EXACT:
        sums = np.zeros(1)
        for v in x:
            sums = np.concatenate([sums - v, sums + v])
        return _p(float(x.sum()), sums, alternative, extra=0)
    flips = _need(rng, f"{len(x)} values").integers(0, 2, size=(draws, len(x)))
    return _p(float(x.sum()), (1 - 2 * flips) @ x, alternative, extra=1)


def two_sample_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    draws: int = 9999,
    rng: np.random.Generator | None = None,
) -> float:
    """p-value of mean(x) - mean(y) when all values, shapes (n,) and (m,), are exchangeable under the null.

    Exact where there are at most 2^18 ways to choose n of n + m. Exchangeability is more than equal means: unequal
    spreads in samples of unequal size break it.
    """
    a, b = _finite(x, "values", at_least=1), _finite(y, "values", at_least=1)
    pooled, n = np.concatenate([a, b]), len(a)
    if math.comb(len(pooled), n) <= MAX_EXACT:
        chosen, extra = np.array(list(combinations(range(len(pooled)), n))), 0
    else:
        chosen, extra = _need(rng, f"{n} and {len(b)} values").random((draws, len(pooled))).argsort(axis=1)[:, :n], 1
    first = pooled[chosen].sum(axis=1)
    rest = pooled.sum() - first
    return _p(float(a.mean() - b.mean()), first / n - rest / len(b), alternative, extra=extra)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values, in the order given, to be compared with the family's level.

    Holm (1979), Scandinavian Journal of Statistics 6, 65.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise StatisticsError(f"Holm's correction needs a row of p-values in [0, 1]; got {p}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _p(observed: float, null: Floats, alternative: Alternative, *, extra: int) -> float:
    """`extra` is 1 where `null` was sampled, and so need not hold the observed arrangement."""
    tie = TIE * max(abs(observed), float(np.abs(null).max()))
    greater = (extra + int((null >= observed - tie).sum())) / (extra + len(null))
    less = (extra + int((null <= observed + tie).sum())) / (extra + len(null))
    if alternative == "greater":
        return greater
    if alternative == "less":
        return less
    if alternative == "two-sided":
        return min(1.0, 2 * min(greater, less))
    raise StatisticsError(f"alternative is 'greater', 'less' or 'two-sided'; got {alternative!r}")


def _finite(values: ArrayLike, what: str, *, at_least: int) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < at_least or not np.isfinite(x).all():
        raise StatisticsError(f"the test needs a row of at least {at_least} finite {what}; got {x!r}")
    return x


def _need(rng: np.random.Generator | None, what: str) -> np.random.Generator:
    if rng is None:
        raise StatisticsError(f"{what} have too many arrangements to list; pass rng=")
    return rng
