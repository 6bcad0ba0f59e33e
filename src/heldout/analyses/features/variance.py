"""Variance explained: how much of a representation's variance one linear map from labels accounts for, held out.

The map x ~ m + W (f - f0) is fitted by least squares on a fit split V, m and f0 being V's means, and scored on T:

    R^2 = 1 - sum |x - m - W (f - f0)|^2 / sum |x - m|^2        (pooled: both sums over T's rows and units)

It is never clipped: without structure it is about 0 and may be below. The direction is from feature to representation, so
it says how *loud* a feature is, neither how readable (`decode`) nor how much the network uses it (`steering`). It changes
under rescalings that leave the network's function as it is (`invariance`) and with the label's base rate (`balance`).

For a binary label with P(f = 1) = p and class means D apart, R^2 = p (1 - p) |D|^2 / tr Sigma. V = T inflates it by about
(1 - R^2) q / (n - 1). n rows, D units, q columns of the design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments
from heldout.errors import ConfigError, StatisticsError

Floats = NDArray[np.float64]

RCOND = 1e-10  # of the columns' correlation matrix: directions below are taken for linear dependence
MAX_TOGETHER = 10  # labels whose 2^q subsets are worth listing


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Least squares from some columns of the design to activations: weights (k, D), and the means they are about."""

    columns: NDArray[np.intp]
    weights: Floats
    mean_b: Floats
    mean_x: Floats


def fit_map(fit: JointMoments, columns: NDArray[np.intp]) -> LinearMap:
    """The map of the columns given, fitted on `fit`; of linearly dependent columns the one of least norm."""
    if fit.n <= len(columns):
        raise StatisticsError(f"{len(columns)} label columns cannot be fitted to {fit.n} rows; use more rows")
    mean_b, mean_x = fit.mean()
    bb = fit.bb[np.ix_(columns, columns)]
    scale = np.sqrt(np.diagonal(bb))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(bb / np.outer(scale, scale), rcond=RCOND, hermitian=True)
    weights = (inverse @ (fit.bx[columns] / scale[:, None])) / scale[:, None]
    return LinearMap(columns, weights, mean_b[columns], mean_x)


@dataclass(frozen=True, eq=False)
class Explained:
    """Mean squares of T about V's mean, by unit: `total` (D,), and `error` (D,) what a map leaves of it."""

    total: Floats
    error: Floats
    n: int

    @property
    def pooled(self) -> float:
        """R^2 as above, at most 1."""
        return self.over(self.whole)

    @property
    def whole(self) -> float:
        """Total variance about V's mean."""
        total = float(self.total.sum())
        if total <= 0:
            raise StatisticsError("the activations do not vary: there is no variance to explain")
        return total

    def over(self, final_total: float) -> float:
        """Explained variance over another total, that of the end of training: one scale for all checkpoints."""
        return float(self.total.sum() - self.error.sum()) / final_total

    @property
    def by_unit(self) -> Floats:
        """(D,) R^2 of each unit; NaN for one that does not vary."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.total > 0, 1 - self.error / self.total, np.nan)


def explained(fitted: LinearMap, test: JointMoments) -> Explained:
    """What a map explains of the rows behind `test` (which may be weighted)."""
    bb, bx, total = about(fitted, test)
    w = fitted.weights
    error = total - 2 * (w * bx).sum(axis=0) + (w * (bb @ w)).sum(axis=0)
    return Explained(total, np.maximum(error, 0.0), test.n)


def about(fitted: LinearMap, test: JointMoments) -> tuple[Floats, Floats, Floats]:
    """Second moments of `test` about the *map's* means: design (k, k), cross (k, D), units (D,)."""
    mean_b, mean_x = test.mean()
    b, x = mean_b[fitted.columns] - fitted.mean_b, mean_x - fitted.mean_x
    bb = test.bb[np.ix_(fitted.columns, fitted.columns)] + np.outer(b, b)
    return bb, test.bx[fitted.columns] + np.outer(b, x), test.variances + x**2


class Part(NamedTuple):
    """`alone`: R^2 of the label by itself. `unique`: what R^2 of all labels loses without it. `shared`: alone - unique.

    Labels that are independent share nothing; `shared` is negative where others sharpen what one explains (suppression).
    """

    alone: float
    unique: float
    shared: float


def parts(fit: JointMoments, test: JointMoments, coding: Coding) -> dict[str, Part]:
    """label -> its parts of the pooled R^2, held out."""
    everything = _r2(fit, test, coding, coding.names)
    found = {}
    for name in coding.names:
        alone = _r2(fit, test, coding, [name])
        unique = everything - _r2(fit, test, coding, [other for other in coding.names if other != name])
        found[name] = Part(alone, unique, alone - unique)
    return found


def subsets(fit: JointMoments, test: JointMoments, coding: Coding) -> dict[tuple[str, ...], float]:
    """Pooled R^2 of each of the 2^q sets of labels, the empty one (the map that says V's mean) first."""
    if len(coding.names) > MAX_TOGETHER:
        raise ConfigError(
            f"{len(coding.names)} labels have {2 ** len(coding.names)} subsets; choose at most {MAX_TOGETHER}"
        )
    names = [c for k in range(len(coding.names) + 1) for c in combinations(coding.names, k)]
    return {chosen: _r2(fit, test, coding, chosen) for chosen in names}


def commonality(r2: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """What each set of labels explains *in common and with no other*, from `subsets`; sums to R^2 of all labels.

    The parts of single labels are their unique parts, and R^2 of a label is the sum of all parts that it takes part in.
    Negative parts are suppression. Mood (1971), American Educational Research Journal 8, 191.
    """
    names = max(r2, key=len)
    gone = {chosen: r2[names] - r2[tuple(n for n in names if n not in chosen)] for chosen in r2}
    return {
        chosen: sum(
            (-1) ** (len(chosen) - k) * gone[inner] for k in range(len(chosen) + 1) for inner in combinations(chosen, k)
        )
        for chosen in r2
        if chosen
    }


class RowErrors:
    """Squared error and total of each row under some maps: what intervals, reweighting and R^2 per example need.

    `maps`: name -> map, all of one fit split. `update` takes rows of T as they come; then `total` (n,) and
    `error(name)` (n,) are float64, each summed over units.
    """

    def __init__(self, maps: Mapping[str, LinearMap]) -> None:
        if not maps:
            raise ConfigError("no maps were given to score rows with")
        self.maps = dict(maps)
        first = next(iter(self.maps.values()))
        if any(not np.array_equal(m.mean_x, first.mean_x) for m in self.maps.values()):
            raise ConfigError("the maps are about different means; rows are scored by maps of one fit split")
        self._mean = torch.from_numpy(first.mean_x)
        self._weights = torch.from_numpy(np.concatenate([m.weights for m in self.maps.values()])).T.contiguous()
        self._totals: list[Tensor] = []
        self._errors: list[Tensor] = []

    def update(self, rows: Tensor, design: Tensor) -> None:
        x = rows.detach().double().cpu() - self._mean
        total = x.square().sum(dim=1)
        if not bool(torch.isfinite(total).all()):
            raise StatisticsError("rows to be scored are NaN or infinite; finite activations are needed")
        along, errors, start = x @ self._weights, [], 0
        for m in self.maps.values():
            b = design[:, torch.from_numpy(m.columns)] - torch.from_numpy(m.mean_b)
            stop = start + b.shape[1]
            gram = torch.from_numpy(m.weights @ m.weights.T)
            errors.append(total - 2 * (b * along[:, start:stop]).sum(dim=1) + (b * (b @ gram)).sum(dim=1))
            start = stop
        self._totals.append(total)
        self._errors.append(torch.stack(errors, dim=1).clamp(min=0))

    @property
    def total(self) -> Floats:
        if not self._totals:
            raise StatisticsError("no rows were scored")
        return torch.cat(self._totals).numpy()

    def error(self, name: str) -> Floats:
        if name not in self.maps:
            raise ConfigError(f"no map {name!r} was scored; there are {', '.join(self.maps)}")
        at = list(self.maps).index(name)
        return torch.cat([e[:, at] for e in self._errors]).numpy()


ALL = "*"  # the map of all labels together, in `standard_maps`


def standard_maps(fit: JointMoments, coding: Coding) -> dict[str, LinearMap]:
    """Every map that `parts` needs: each label's own, ``*`` for all labels and ``-name`` for all but one."""
    maps = {name: fit_map(fit, coding.columns(name)) for name in coding.names}
    maps[ALL] = fit_map(fit, coding.columns(*coding.names))
    return maps | {f"-{name}": fit_map(fit, coding.columns(*_without(coding, name))) for name in coding.names}


def _without(coding: Coding, name: str) -> list[str]:
    return [other for other in coding.names if other != name]


def _r2(fit: JointMoments, test: JointMoments, coding: Coding, names: Sequence[str]) -> float:
    return explained(fit_map(fit, coding.columns(*names)), test).pooled
