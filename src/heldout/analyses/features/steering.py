"""Steering: how far must activations be pushed along a feature's direction before the network changes its decision?

The direction is the difference of class means on the fit split, D = mu_1 - mu_0; rows are pushed towards the class that they
are not decided to be, x + alpha D or x - alpha D. On target, the share of rows whose decision on the feature flips; off
target, on each other feature. alpha_50, the push that flips half, is given in units of D, as a length and in standard
deviations along D. Length follows variance almost by definition (R^2 is |D|^2 up to the base rate), so that a quiet
feature needs a *shorter* push; in units of D that is not so, and there the comparison is a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.features.decisions import Decide, as_labels, decided
from heldout.analyses.features.intervals import Ratio, ratio_interval
from heldout.analyses.features.moments import JointMoments
from heldout.analyses.features.variance import fit_map
from heldout.errors import ConfigError, StatisticsError, unknown

Floats = NDArray[np.float64]

ALPHAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0)


@dataclass(frozen=True, eq=False)
class Direction:
    """`difference` (D,) of class means; `length` |D|; `spread` the standard deviation of activations along it."""

    difference: Floats
    length: float
    spread: float


def class_difference(fit: JointMoments, column: int) -> Direction:
    """The direction of the 0/1 label in a column of the design: the slope of its own map, mu_1 - mu_0."""
    difference = fit_map(fit, np.array([column])).weights[0]
    length = float(np.linalg.norm(difference))
    if length == 0:
        raise StatisticsError("the class means coincide on the fit split: there is no direction to push along")
    along = difference / length
    return Direction(difference, length, math.sqrt(max(float(along @ fit.xx @ along), 0.0)))


def push(site: str | Site, direction: Direction, alpha: float) -> Edit:
    """x -> x + alpha D at a site, for all rows alike; negative alpha pushes to class 0."""
    step = torch.from_numpy(alpha * direction.difference)
    return Edit.function(site, lambda rows, mask: rows + step.to(rows), name="push", parameter=alpha)


@dataclass(frozen=True, eq=False)
class Steered:
    """`flips` (A, F): share of rows whose decision on each feature changed at `alphas` (A,); `on` the feature pushed along.

    `half`: alpha_50 in units of D, linear between grid points, NaN with its reason where half is not reached.
    """

    on: str
    names: tuple[str, ...]
    alphas: Floats
    flips: Floats
    intervals: tuple[Ratio, ...]
    half: Ratio
    direction: Direction

    @property
    def half_length(self) -> float:
        """alpha_50 as a Euclidean length."""
        return self.half.value * self.direction.length

    @property
    def half_deviations(self) -> float:
        """alpha_50 in standard deviations of the fit split along D."""
        return self.half_length / self.direction.spread if self.direction.spread else math.nan

    def off_target(self, alpha: float) -> dict[str, float]:
        """Other feature -> share flipped, at an alpha of the grid."""
        at = np.flatnonzero(self.alphas == alpha)
        if not len(at):
            raise ConfigError(
                f"alpha {alpha} is not on the grid; choose from {', '.join(f'{a:g}' for a in self.alphas)}"
            )
        return {name: float(self.flips[at[0], i]) for i, name in enumerate(self.names) if name != self.on}


def steer(
    decide: Decide,
    rows: Tensor,
    names: Sequence[str],
    on: str,
    direction: Direction,
    *,
    alphas: Sequence[float] = ALPHAS,
    groups: ArrayLike | None = None,
) -> Steered:
    """Push rows (n, D) along a direction of the feature `on`, whose decisions are 0 or 1, and count flips.

    The interval of alpha_50 is where the interval of the flip rate (over rows, or clusters) crosses one half.
    """
    if on not in names:
        raise ConfigError(unknown("feature", on, names))
    grid = np.asarray(alphas, dtype=np.float64)
    if len(grid) < 2 or (np.diff(grid) <= 0).any() or grid[0] < 0:
        raise ConfigError(f"alphas must be two or more, increasing and not negative; got {list(alphas)}")
    at = list(names).index(on)
    before = decided(decide, rows, names)
    now = as_labels(before[:, [at]], len(rows), [on], binary=True)
    step = torch.from_numpy((1.0 - 2.0 * now) * direction.difference).to(rows)
    flipped = [decided(decide, rows + alpha * step, names) != before for alpha in grid]
    flips = np.array([f.mean(axis=0) for f in flipped])
    rates = tuple(ratio_interval(f[:, at], np.ones(len(rows)), groups) for f in flipped)
    return Steered(on, tuple(names), grid, flips, rates, _half(grid, rates), direction)


def _half(grid: Floats, rates: Sequence[Ratio]) -> Ratio:
    value = _crossing(grid, [r.value for r in rates])
    if math.isnan(value):
        why = f"at most {max(r.value for r in rates):.0%} of rows flip up to alpha {grid[-1]:g}: half is not reached"
        return Ratio(math.nan, math.nan, math.nan, math.nan, rates[0].n, why)
    low, high = _crossing(grid, [r.high for r in rates]), _crossing(grid, [r.low for r in rates])
    return Ratio(value, low, high, math.nan, rates[0].n)


def _crossing(grid: Floats, rate: Sequence[float]) -> float:
    """The first alpha at which the rate reaches one half; NaN where it does not."""
    reached = np.flatnonzero(np.array(rate) >= 0.5)
    if not len(reached):
        return math.nan
    i = int(reached[0])
    if i == 0:
        return float(grid[0])
    below, above = rate[i - 1], rate[i]
    return float(grid[i - 1] + (grid[i] - grid[i - 1]) * (0.5 - below) / (above - below))
