"""Density: over how many units is a feature spread, and how many units are selective for it?

With r_j^2 the share of unit j's variance that the feature explains (q columns, n rows), debiased as c_j = max(0, r_j^2 -
q / (n - 1)), density is the participation ratio (sum c)^2 / (U sum c^2) over U live units: 1 where all carry it alike, 1 / U
where one does. A feature that is not represented scores about one third, not zero, because chance correlations are
spread too: so density has a value only where the pooled figure exceeds its permutation null, and stands beside the same
ratio for permuted labels and for random directions of the activation space.

The variance-weighted mean of r_j^2 is the pooled R^2 of the same rows. Permuted labels are drawn from the moments: for a
permuted column the covariances with the units tend to a normal distribution with covariance Sigma / (n - 1) times the
column's variance (Hoeffding's combinatorial central limit theorem), so no second pass over rows is needed. Rows are taken
as independent; where they are clustered pass their number of clusters as `n`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments
from heldout.analyses.features.variance import explained, fit_map
from heldout.errors import StatisticsError
from heldout.statistics.permutation import null_p

Floats = NDArray[np.float64]

DEAD = 1e-6  # of the largest unit's variance: at or below it a unit is dead
THRESHOLDS = (0.05, 0.1, 0.25)
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Density:
    """`value` in (0, 1], NaN with the `reason` where the pooled figure does not exceed its null.

    `permuted`, `random_direction`: means of the same ratio. `pooled`: in-sample R^2, `null` the 95th percentile of its
    permutation null, `p` its p-value. `fraction`: threshold -> share of live units with r^2 above it that are also
    discoveries; `discoveries`: share of live units with a correlation at a false-discovery rate of 5% (F test,
    Benjamini and Hochberg 1995). `live` units of `units`. `r2` (D,), NaN for dead units.
    """

    value: float
    permuted: float
    random_direction: float
    pooled: float
    null: float
    p: float
    fraction: Mapping[float, float]
    discoveries: float
    live: int
    units: int
    n: int
    r2: Floats
    reason: str = ""


def live_units(moments: JointMoments) -> NDArray[np.bool_]:
    """(D,) units whose variance is above 10^-6 of the largest; raises `StatisticsError` where there is none."""
    variances = moments.variances
    if variances.max() <= 0:
        raise StatisticsError("the activations do not vary: all units are dead")
    live: NDArray[np.bool_] = variances > DEAD * variances.max()
    return live


def unit_r2(moments: JointMoments, columns: NDArray[np.intp]) -> Floats:
    """(D,) share of each unit's variance that the columns explain, in sample, 0 to 1; NaN for dead units."""
    return np.where(live_units(moments), explained(fit_map(moments, columns), moments).by_unit, np.nan)


def participation(r2: Floats, columns: int, n: int) -> Floats:
    """Debiased participation ratio over the last axis, (..., U) -> (...); NaN where nothing exceeds what chance gives."""
    c = np.maximum(r2 - columns / (n - 1), 0.0)
    squares = (c**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, c.sum(axis=-1) ** 2 / (c.shape[-1] * squares), np.nan)


def density(
    moments: JointMoments, coding: Coding, name: str, *, seed: int, draws: int = 999, n: int | None = None
) -> Density:
    """The density of one label over the units behind `moments` (without weights); `draws` of each null."""
    return densities(moments, coding, seed=seed, draws=draws, n=n, names=[name])[name]


def densities(
    moments: JointMoments,
    coding: Coding,
    *,
    seed: int,
    draws: int = 999,
    n: int | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Density]:
    """The density of each label (all of them where no `names` are given). Labels of as many columns share their null draws,
    and all share those of random directions, which know of no label."""
    n, live = n or moments.n, live_units(moments)
    sigma = moments.xx[np.ix_(live, live)]
    along = direction_r2(sigma, draws, np.random.default_rng([seed, 0]))
    nulls: dict[int, Floats] = {}
    found = {}
    for name in coding.names if names is None else names:
        q = len(coding.columns(name))
        if n <= q + 2:
            raise StatisticsError(f"density of {name!r} needs more than {q + 2} independent rows; got {n}")
        if q not in nulls:
            nulls[q] = permuted_r2(sigma, q, n, draws, np.random.default_rng([seed, q]))
        r2 = unit_r2(moments, coding.columns(name))
        found[name] = _density(r2, live, np.diagonal(sigma), q, n, nulls[q], _mean(participation(along, 1, n)))
    return found


def _density(
    r2: Floats, live: NDArray[np.bool_], spread: Floats, q: int, n: int, by_chance: Floats, along: float
) -> Density:
    from scipy.stats import beta, false_discovery_control

    alive, share = r2[live], spread / spread.sum()
    pooled, null = float(alive @ share), by_chance @ share
    threshold = float(np.quantile(null, 1 - LEVEL))
    # Without a correlation r^2 follows this beta distribution: the F test, finite where r^2 is 1.
    found = false_discovery_control(beta.sf(np.minimum(alive, 1.0), q / 2, (n - 1 - q) / 2)) <= LEVEL
    shown = pooled > threshold
    return Density(
        value=float(participation(alive, q, n)) if shown else math.nan,
        permuted=_mean(participation(by_chance, q, n)),
        random_direction=along,
        pooled=pooled,
        null=threshold,
        p=null_p(pooled, null),
        fraction={t: float((found & (alive > t)).mean()) for t in THRESHOLDS},
        discoveries=float(found.mean()),
        live=int(live.sum()),
        units=len(live),
        n=n,
        r2=r2,
        reason="" if shown else f"pooled R^2 {pooled:.2g} does not exceed its permutation null, {threshold:.2g}",
    )


def permuted_r2(sigma: Floats, columns: int, n: int, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, U) r^2 of each unit with `columns` permuted orthonormal label columns; `sigma` (U, U) of the units."""
    values, vectors = np.linalg.eigh(sigma)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    squares = np.zeros((draws, len(sigma)))
    for _ in range(columns):
        squares += (rng.normal(size=squares.shape) @ root) ** 2
    return np.minimum(squares / ((n - 1) * np.diagonal(sigma)), 1.0)


def direction_r2(sigma: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, U) r^2 of each unit with x . u, u drawn uniformly among directions: a feature that *is* represented, with no
    regard to units."""
    u = rng.normal(size=(draws, len(sigma)))
    along = u @ sigma
    r2: Floats = along**2 / np.outer((along * u).sum(axis=1), np.diagonal(sigma))
    return r2


def selectivity(first: Floats, second: Floats) -> Floats:
    """(D,) (r_a^2 - r_b^2) / (r_a^2 + r_b^2) of each unit, from two labels' `r2`: 1 where only the first is carried, -1 the
    second; NaN for dead units and those with neither."""
    total = first + second
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (first - second) / total, np.nan)


def _mean(values: Floats) -> float:
    """Over the draws in which something exceeded chance."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan
