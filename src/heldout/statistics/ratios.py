"""Quantities as functions of totals, over any leading axes, so that bootstrap draws pass through them unchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def ratio(numerator: ArrayLike, weight: ArrayLike) -> Floats:
    """Ratio of sums, broadcast; NaN where the weight is 0: accuracy, agreement, a mean loss."""
    num, den = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(weight, dtype=np.float64))
    out: Floats = np.full(num.shape, np.nan)
    np.divide(num, den, out=out, where=den != 0)
    return out


def error_consistency(
    n: ArrayLike, net_correct: ArrayLike, proxy_correct: ArrayLike, both_correct: ArrayLike
) -> Floats:
    """Cohen's kappa of being right or wrong: (observed - expected) / (1 - expected), at most 1, 0 for independence.

    All four are totals over the same items, broadcast. Observed is the share of items on which both are right or both
    wrong; expected is that share if errors were independent at the two accuracies. NaN where both are right on every
    item or both wrong on every item, or there is none (`why_undefined` says which). It does not show whether two wrong
    answers are the *same* answer, and its least value depends on the accuracies. Geirhos et al. (2020), NeurIPS.
    """
    n, a, b, both = (np.asarray(x, dtype=np.float64) for x in (n, net_correct, proxy_correct, both_correct))
    # (1 - observed) / (1 - expected), times n^2: in counts both are exact.
    return 1 - ratio(n * (a + b - 2 * both), a * (n - b) + b * (n - a))


def why_undefined(n: float, net_correct: float, proxy_correct: float) -> str:
    """Why `error_consistency` has no value for these totals; empty where it has one."""
    if n == 0:
        return "no items"
    if net_correct == proxy_correct == n:
        return f"network and proxy are right on all {n:g} items: no errors to compare"
    if net_correct == proxy_correct == 0:
        return f"network and proxy are wrong on all {n:g} items: agreement is certain"
    return ""
