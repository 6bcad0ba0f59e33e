"""Split conformal prediction: intervals that cover exchangeable new data at a stated rate, whatever the predictor.

    calibrated = calibrate(np.abs(y - predicted), level=0.9)             # on items that were not trained on
    low, high = calibrated.interval(predicted_new)
    coverage(np.abs(y_new - predicted_new), calibrated)

An interval is prediction plus and minus margin * scale, the margin being the k-th smallest of n calibration scores
|y - prediction| / scale with k = ceil((n + 1) * level). Where calibration and new items are exchangeable and scores are
not tied, it covers with probability k / (n + 1) *on average over calibration sets*, which lies in
[level, level + 1/(n + 1)]; over one calibration set, coverage of further items is Beta(k, n + 1 - k). Vovk, Gammerman and
Shafer (2005), Algorithmic Learning in a Random World; Lei et al. (2018), JASA 113, 1094.

Out of distribution nothing is promised: there the measured coverage is the finding. Nor is anything promised for an item,
or for a group of items unless it is calibrated by itself (`groups`), nor where the calibration items also chose a setting.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError
from heldout.statistics.intervals import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibrated:
    """Margins at `level`: one for all items under None, or one for each group; `n` counts the scores behind each.

    A margin is infinite where there are fewer scores than the level needs (9 for 0.9, 19 for 0.95).
    """

    level: float
    margins: Mapping[Hashable, float]
    n: Mapping[Hashable, int]

    def margin(self, items: int, groups: ArrayLike | None = None) -> Floats:
        """(N,) the margin of each item; infinite for a group that has not been calibrated, of which nothing is known."""
        if (groups is None) != (None in self.margins):
            raise StatisticsError(
                "margins were calibrated for all items together; leave `groups` out"
                if None in self.margins
                else "margins were calibrated by group; give the group of each item"
            )
        names = [None] * items if groups is None else _labels(groups, items)
        return np.array([self.margins.get(name, np.inf) for name in names], dtype=np.float64)

    def interval(self, predictions: ArrayLike, *, scale: ArrayLike = 1.0, groups: ArrayLike | None = None) -> Interval:
        """Two (N,) arrays, prediction minus and plus margin * scale, in the predictions' unit."""
        centre = np.asarray(predictions, dtype=np.float64)
        half = self.margin(len(centre), groups) * _scale(scale, len(centre))
        return Interval(centre - half, centre + half)


@dataclass(frozen=True)
class Coverage:
    """How the intervals of `n` items did: `covered` of them hold the truth.

    `width` is the mean width of the bounded intervals (NaN where there is none); `unbounded` intervals are infinite and
    cover whatever is true, so read the rate beside their number.
    """

    n: int
    covered: int
    width: float
    unbounded: int

    @property
    def rate(self) -> float:
        return self.covered / self.n


def conformal_rank(n: int, level: float) -> int:
    """k = ceil((n + 1) * level), computed on the decimal that `level` was written as: 10 * 0.9 is 9, never 10.

    1 to n + 1; n + 1 says that n scores are too few for this level.
    """
    if not 0 < level < 1:
        raise StatisticsError(f"the level of an interval lies strictly between 0 and 1; got {level}")
    exact = (n + 1) * Fraction(repr(float(level)))
    return -(-exact.numerator // exact.denominator)


def calibrate(
    errors: ArrayLike, *, level: float = 0.9, scale: ArrayLike = 1.0, groups: ArrayLike | None = None
) -> Calibrated:
    """Margins from the absolute errors (N,) on calibration items.

    - `scale`: positive, of each item or one for all: a predicted standard deviation gives intervals that follow it.
    - `groups`: (N,) labels; each group gets a margin of its own, which covers at the level within it.
    """
    scores = _errors(errors) / _scale(scale, len(np.atleast_1d(errors)))
    if not len(scores):
        raise StatisticsError("a conformal margin needs at least one calibration error; got none")
    if groups is None:
        return Calibrated(level, {None: _margin(scores, level)}, {None: len(scores)})
    names = _labels(groups, len(scores))
    members: dict[Hashable, list[float]] = {name: [] for name in names}
    for name, score in zip(names, scores.tolist(), strict=True):
        members[name].append(score)
    margins = {name: _margin(np.array(own), level) for name, own in members.items()}
    return Calibrated(level, margins, {name: len(own) for name, own in members.items()})


def coverage(
    errors: ArrayLike, calibrated: Calibrated, *, scale: ArrayLike = 1.0, groups: ArrayLike | None = None
) -> Coverage:
    """Coverage and mean width of the intervals of items with the absolute `errors` (N,), N >= 1."""
    found = _errors(errors)
    if not len(found):
        raise StatisticsError("coverage needs at least one item; got none")
    half = calibrated.margin(len(found), groups) * _scale(scale, len(found))
    bounded = np.isfinite(half)
    width = float(2 * half[bounded].mean()) if bounded.any() else float("nan")
    return Coverage(len(found), int((found <= half).sum()), width, int((~bounded).sum()))


def _margin(scores: Floats, level: float) -> float:
    rank = conformal_rank(len(scores), level)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else float("inf")


def _errors(errors: ArrayLike) -> Floats:
    found = np.asarray(errors, dtype=np.float64)
    if found.ndim != 1 or not np.all(found >= 0) or not np.isfinite(found).all():
        raise StatisticsError("errors must be a row of finite absolute values; some are negative, NaN or infinite")
    return found


def _scale(scale: ArrayLike, items: int) -> Floats:
    found = np.asarray(scale, dtype=np.float64)
    if found.shape not in {(), (items,)} or not (np.all(found > 0) and np.isfinite(found).all()):
        raise StatisticsError(
            f"scales of errors must be positive and finite, one or {items} of them; got shape {found.shape}"
        )
    return np.broadcast_to(found, (items,))


def _labels(groups: ArrayLike, items: int) -> list[Hashable]:
    labels: list[Hashable] = np.asarray(groups).tolist()
    if np.asarray(groups).shape != (items,):
        raise StatisticsError(f"groups must be a label for each of {items} items; got shape {np.asarray(groups).shape}")
    return labels
