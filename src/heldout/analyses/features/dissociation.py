"""Dissociation: features that matter more than they are loud, and the other way round.

The index of a feature is its rank by importance (an ablation's cost in accuracy, 1 / alpha_50, a readout's weight) less its
rank by variance explained, rank 1 the least. Above 0 it is *computed but quiet*. Ranks compare features of one network and
nothing else; with few features they are coarse, and p says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.intervals import group_codes
from heldout.errors import ConfigError, StatisticsError
from heldout.statistics.bootstrap import bootstrap_totals

Floats = NDArray[np.float64]

DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Dissociation:
    """`index` (F,), -(F - 1) to F - 1, the mean over networks. `p` (F,): of an index as high if importance were dealt out
    among the features at random, independently in each network; exact, at least F^-S for S networks.

    `low`, `high` (F,): percentile interval over test units, NaN where no units were resampled.
    """

    names: tuple[str, ...]
    index: Floats
    p: Floats
    low: Floats
    high: Floats

    def quiet(self) -> list[str]:
        """Features whose index stays above 0 when units are resampled: more important than loud in these networks."""
        return [name for name, low in zip(self.names, self.low, strict=True) if low > 0]


def dissociation(importance: ArrayLike, variance: ArrayLike, names: Sequence[str]) -> Dissociation:
    """From importance and variance explained, (F,) of one network or (S, F) of several."""
    ours, theirs = _table(importance, names), _table(variance, names)
    if ours.shape != theirs.shape:
        raise ConfigError(f"importance {ours.shape} and variance {theirs.shape} must be of the same networks")
    by_importance, by_variance = _ranks(ours), _ranks(theirs)
    index = (by_importance - by_variance).mean(axis=0)
    blank = np.full(len(names), np.nan)
    # The rank dealt to a feature is uniform over its network's ranks, so the sum over networks has an exact distribution.
    # Ties share half ranks: twice a rank is a whole number.
    chance = np.ones(1)
    for row in 2 * by_importance:
        chance = np.convolve(chance, np.bincount(row.astype(np.intp)) / len(names))
    at = (2 * by_importance).sum(axis=0).astype(np.intp)
    p = np.minimum(np.array([chance[k:].sum() for k in at]), 1.0)
    return Dissociation(tuple(names), index, p, blank, blank)


def dissociation_over_units(
    lost: ArrayLike,
    explained: ArrayLike,
    total: ArrayLike,
    names: Sequence[str],
    *,
    seed: int,
    groups: ArrayLike | None = None,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Dissociation:
    """The index of one network with its interval over rows, or over `groups` (n,) of them.

    - `lost` (n, F): what the removal of each feature costs in each row (right before less right after).
    - `explained` (n, F), `total` (n,): squared norm that each feature's map explains of each row, and all of it
      (`RowErrors`).
    """
    cost, gain, whole = (np.asarray(a, dtype=np.float64) for a in (lost, explained, total))
    n, f = whole.shape[0], len(names)
    if cost.shape != (n, f) or gain.shape != (n, f) or whole.ndim != 1:
        raise ConfigError(f"({n}, {f}) losses and gains were expected; got {cost.shape} and {gain.shape}")
    sums = np.column_stack([cost, gain, np.ones(n), whole])
    if groups is not None:
        codes = group_codes(groups, n)
        sums = np.stack([np.bincount(codes, weights=c) for c in sums.T], axis=1)
    observed = dissociation(*_rates(sums.sum(axis=0)[None], f), names)
    totals = bootstrap_totals(sums, draws=draws, rng=np.random.default_rng(seed))
    importance, variance = _rates(totals, f)
    drawn = _ranks(importance) - _ranks(variance)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Dissociation(observed.names, observed.index, observed.p, low, high)


def _rates(totals: Floats, f: int) -> tuple[Floats, Floats]:
    return totals[:, :f] / totals[:, [2 * f]], totals[:, f : 2 * f] / totals[:, [2 * f + 1]]


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values, axis=1)
    return ranks


def _table(values: ArrayLike, names: Sequence[str]) -> Floats:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.shape[1] != len(names) or len(names) < 2:
        raise ConfigError(f"a value for each of two features or more is needed; got {table.shape} for {list(names)}")
    if not np.isfinite(table).all():
        raise StatisticsError(
            "ranks need finite values; leave out features whose importance or variance is not estimable"
        )
    return table
