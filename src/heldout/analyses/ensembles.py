"""Networks that differ in their seed as one predictor with an uncertainty, and how honest it is, split by split.

    members = {name: predictions of S networks, (S, N)}
    rows = uncertainty({name: Forecast.of(members[name], targets[name]) for name in members}, calibrate_on="select")

A deep ensemble takes the mean over seeds for its prediction and their spread for its uncertainty (Lakshminarayanan et
al. 2017, arXiv 1612.01474). The spread knows what seeds disagree on and nothing of what all of them get wrong, so it is
usually too small; `variance_factor` and conformal margins mend its size on held-out items *of one distribution*, and
whether they still hold elsewhere is what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError, unknown
from heldout.statistics.conformal import Coverage, calibrate, coverage

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predictions of S networks for the N items of one split, beside the truth; all in one unit.

    `members` (S, N), `targets` (N,), `noise` (N,) the variance of the targets' own measurement (0 where unknown),
    `groups` labels (N,) for margins of their own, or None.
    """

    members: Floats
    targets: Floats
    noise: Floats
    groups: NDArray[np.generic] | None = None

    @classmethod
    def of(
        cls, members: ArrayLike, targets: ArrayLike, *, uncertainty: ArrayLike = 0.0, groups: ArrayLike | None = None
    ) -> Forecast:
        """Checked and in float64; `uncertainty` is the standard deviation of each target's measurement, or of all.

        Raises `StatisticsError` for fewer than two networks, shapes that do not fit, or values that are not finite.
        """
        predicted, truth = np.asarray(members, dtype=np.float64), np.asarray(targets, dtype=np.float64)
        if predicted.ndim != 2 or len(predicted) < 2 or predicted.shape[1:] != truth.shape or not len(truth):
            raise StatisticsError(
                "an ensemble needs the predictions of at least 2 networks, (networks, items), and a target for each "
                f"item; got shapes {predicted.shape} and {truth.shape}"
            )
        deviation = np.asarray(uncertainty, dtype=np.float64)
        if deviation.shape not in {(), truth.shape}:
            raise StatisticsError(
                f"one uncertainty, or one for each of {len(truth)} items; got shape {deviation.shape}"
            )
        if not (np.isfinite(predicted).all() and np.isfinite(truth).all() and np.isfinite(deviation).all()):
            raise StatisticsError("predictions, targets and uncertainties must be finite")
        labels = None if groups is None else np.asarray(groups)
        if labels is not None and labels.shape != truth.shape:
            raise StatisticsError(f"groups must be a label for each of {len(truth)} items; got shape {labels.shape}")
        return cls(predicted, truth, np.broadcast_to(deviation, truth.shape) ** 2, labels)

    @property
    def mean(self) -> Floats:
        """(N,) the ensemble's prediction."""
        return np.asarray(self.members.mean(0))

    @property
    def variance(self) -> Floats:
        """(N,) the members' variance around their mean (1/S, a mixture's; a little small for few seeds) plus `noise`."""
        return np.asarray(self.members.var(0) + self.noise)

    @property
    def errors(self) -> Floats:
        """(N,) absolute errors of the ensemble's prediction."""
        return np.abs(self.targets - self.mean)

    @property
    def rms(self) -> float:
        """Root mean square error of the ensemble's prediction."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def rms_of_one(self) -> float:
        """The mean over networks of each one's root mean square error: what a single network is worth."""
        return float(np.sqrt(((self.members - self.targets) ** 2).mean(1)).mean())


def gaussian_nll(targets: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Floats:
    """(N,) negative log density of `targets` under normal distributions, in nats of the targets' unit; lower is better.

    A proper score: it is least in expectation for the true mean and variance. Differences between predictors of the same
    targets have a meaning, its zero has none. Raises `StatisticsError` where a variance is not positive.
    """
    y, m, v = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (targets, mean, variance)))
    if not np.all(v > 0):
        raise StatisticsError(f"a normal density needs positive variances; {int((~(v > 0)).sum())} are not")
    return np.asarray(0.5 * (np.log(2 * math.pi * v) + (y - m) ** 2 / v))


def variance_factor(targets: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> float:
    """The factor on all variances that makes `gaussian_nll` least: the mean of (target - mean)^2 / variance.

    1 for variances of the right size; above 1 where they are too small. Squared errors of a few items far out can carry it.
    """
    y, m, v = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (targets, mean, variance)))
    if not (np.all(v > 0) and v.size):
        raise StatisticsError("a factor needs at least one item, each with a positive variance")
    return float(np.mean((y - m) ** 2 / v))


@dataclass(frozen=True)
class Uncertainty:
    """How honest an ensemble's uncertainty is on one split; errors and widths in the targets' unit.

    - `rms`, `rms_of_one`: of the ensemble's prediction, and the mean over its networks.
    - `spread`: root mean variance; `correlation`: Spearman's, of standard deviation and absolute error (NaN where one is
      constant): does it know *where* it errs, whatever the size?
    - `nll`, `nll_scaled`: mean `gaussian_nll` with the variance as it is, and times the factor of the calibration split.
    - `gaussian`, `gaussian_scaled`: coverage of normal intervals, likewise.
    - `constant`, `following`: coverage of conformal intervals of one margin for all items, and of a margin times the
      ensemble's standard deviation.
    - `grouped`: coverage of conformal intervals with one margin a group; None where there are no groups.
    """

    split: str
    calibrated_here: bool
    n: int
    rms: float
    rms_of_one: float
    spread: float
    correlation: float
    nll: float
    nll_scaled: float
    gaussian: Coverage
    gaussian_scaled: Coverage
    constant: Coverage
    following: Coverage
    grouped: Coverage | None

    def row(self) -> dict[str, float | str | bool]:
        """One flat row: each coverage becomes ``<name>_rate``, ``<name>_width`` and ``<name>_unbounded``."""
        out: dict[str, float | str | bool] = {}
        for name, value in vars(self).items():
            if isinstance(value, Coverage):
                out |= {f"{name}_rate": value.rate, f"{name}_width": value.width, f"{name}_unbounded": value.unbounded}
            elif value is not None:
                out[name] = value
        return out


def uncertainty(
    forecasts: Mapping[str, Forecast], *, calibrate_on: str = "select", level: float = 0.9
) -> list[Uncertainty]:
    """One row a split. Factor and margins come from split `calibrate_on` alone, whose own row (`calibrated_here`) is
    therefore no evidence; the others are, and are comparable as long as they have no item of it.

    Raises `StatisticsError` where the calibration split is not there, or an item's networks agree exactly and its target
    has no uncertainty (a variance of 0).
    """
    from scipy.special import ndtri

    if calibrate_on not in forecasts:
        raise StatisticsError(unknown("split to calibrate on", calibrate_on, forecasts))
    base = forecasts[calibrate_on]
    factor = variance_factor(base.targets, base.mean, base.variance)
    normal = float(ndtri(0.5 + level / 2))
    constant = calibrate(base.errors, level=level)
    following = calibrate(base.errors, level=level, scale=np.sqrt(base.variance))
    grouped = None if base.groups is None else calibrate(base.errors, level=level, groups=base.groups)
    rows = []
    for name, one in forecasts.items():
        deviation = np.sqrt(one.variance)
        rows.append(
            Uncertainty(
                split=name,
                calibrated_here=name == calibrate_on,
                n=len(one.targets),
                rms=one.rms,
                rms_of_one=one.rms_of_one,
                spread=float(np.sqrt(one.variance.mean())),
                correlation=_spearman(deviation, one.errors),
                nll=float(gaussian_nll(one.targets, one.mean, one.variance).mean()),
                nll_scaled=float(gaussian_nll(one.targets, one.mean, factor * one.variance).mean()),
                gaussian=_within(one.errors, normal * deviation),
                gaussian_scaled=_within(one.errors, normal * math.sqrt(factor) * deviation),
                constant=coverage(one.errors, constant),
                following=coverage(one.errors, following, scale=deviation),
                grouped=None
                if grouped is None or one.groups is None
                else coverage(one.errors, grouped, groups=one.groups),
            )
        )
    return rows


def _within(errors: Floats, half: Floats) -> Coverage:
    return Coverage(len(errors), int((errors <= half).sum()), float(2 * half.mean()), 0)


def _spearman(x: Floats, y: Floats) -> float:
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(x), rankdata(y)])
    return float(np.corrcoef(ranks)[0, 1]) if np.all(np.ptp(ranks, axis=1) > 0) else math.nan
