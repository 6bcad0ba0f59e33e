"""Intervals for ratios of sums over rows, or over clusters of rows that are alike.

A ratio r = sum a / sum w is linearised: cluster g contributes u_g = (a_g - r w_g) / sum w, and SE^2 = G / (G - 1) sum u_g^2
over G clusters, referred to Student's t with G - 1 degrees of freedom (Cochran 1977, section 6.3). Without groups each row
is its own cluster. It describes *this* network on other rows; for other training runs see `heldout.statistics.rule`, whose
unit variance is `se` squared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Estimate

Floats = NDArray[np.float64]


class Ratio(NamedTuple):
    """`value` with its interval; `n` independent units (clusters, or rows). Without a value, NaN and the `reason`."""

    value: float
    low: float
    high: float
    se: float
    n: int
    reason: str = ""

    def estimate(self, quantity: str, *, method: str = "", null: float = math.nan, **where: object) -> Estimate:
        """As evidence; `where` are other fields of `Estimate` (network, split, site, edit, parameter)."""
        return Estimate(
            quantity,
            self.value,
            self.low,
            self.high,
            method,
            null,
            self.n,
            reason=self.reason,
            **where,  # type: ignore[arg-type]
        )


def ratio_interval(
    numerator: ArrayLike, weight: ArrayLike, groups: ArrayLike | None = None, *, level: float = 0.95
) -> Ratio:
    """sum `numerator` / sum `weight`, both (n,), with its interval over `groups` (n,) of rows that are alike.

    Not estimable, with the reason, where the weights sum to 0; without an interval where there is a single unit.
    """
    from scipy.special import stdtrit

    a, w = np.asarray(numerator, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if a.ndim != 1 or a.shape != w.shape or not len(a):
        raise StatisticsError(f"a ratio needs two rows of one length, not empty; got shapes {a.shape} and {w.shape}")
    if not 0 < level < 1:
        raise StatisticsError(f"the level of an interval lies strictly between 0 and 1; got {level}")
    if groups is not None:
        codes = group_codes(groups, len(a))
        a, w = (np.bincount(codes, weights=v).astype(np.float64) for v in (a, w))
    n, total = len(a), float(w.sum())
    if total <= 0:
        return Ratio(math.nan, math.nan, math.nan, math.nan, n, "nothing to divide by: the denominator is 0")
    value = float(a.sum()) / total
    if n < 2:
        return Ratio(value, math.nan, math.nan, math.nan, n)
    residual = (a - value * w) / total
    se = math.sqrt(n / (n - 1) * float(residual @ residual))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * se
    return Ratio(value, value - half, value + half, se, n)


def group_codes(groups: ArrayLike, rows: int) -> NDArray[np.intp]:
    """(n,) the number of each row's group.

    Raises `ConfigError` for another length and `StatisticsError` for fewer than two groups or a group of one row: such a
    group cannot be told from a row, so the groups are not what they are taken for.
    """
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise ConfigError(f"groups have shape {labels.shape}; ({rows},) was expected, one a row")
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise StatisticsError(
            f"one group ({names[0].item()!r}) cannot be resampled; give two or more, or none to resample rows"
        )
    single = np.flatnonzero(sizes == 1)
    if len(single):
        raise StatisticsError(
            f"{len(single)} of {len(names)} groups have one row, the first is {names[single[0]].item()!r}; groups that are "
            "resampled need two rows or more: merge them, or give no groups to resample rows"
        )
    return codes
