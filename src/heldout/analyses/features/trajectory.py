"""Trajectories: how loud a feature is at each checkpoint, all on one scale, and how much of that came after mastery.

Explained variance at every checkpoint is divided by the *final* total variance. Dividing by each checkpoint's own total asks
another question and can turn the story round: a share may fall while the variance behind it grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.variance import Explained
from heldout.errors import ConfigError
from heldout.evidence import Estimate

Floats = NDArray[np.float64]

MASTERY = 0.95


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One feature over `steps` (C,): `explained` over the final total, `share` over each checkpoint's own, `accuracy` (C,).

    `mastered`: the first step from which on accuracy stays at .95 or above; None where there is none.
    """

    name: str
    steps: NDArray[np.int64]
    explained: Floats
    share: Floats
    accuracy: Floats
    mastered: int | None

    def growth_after_mastery(self, **where: object) -> Estimate:
        """The last value of `explained` less that at mastery. A difference of one network: it has no interval."""
        quantity = f"growth_after_mastery:{self.name}"
        if self.mastered is None:
            why = f"accuracy does not stay at {MASTERY} (its last value is {self.accuracy[-1]:.3f}): not mastered"
            return Estimate(quantity, math.nan, reason=why, **where)  # type: ignore[arg-type]
        at = int(np.searchsorted(self.steps, self.mastered))
        return Estimate(quantity, float(self.explained[-1] - self.explained[at]), **where)  # type: ignore[arg-type]


def trajectory(name: str, steps: Sequence[int], explained: Sequence[Explained], accuracy: ArrayLike) -> Trajectory:
    """From what a label explains at each checkpoint (same rows throughout; the last is the end of training)."""
    at, right = np.asarray(steps, dtype=np.int64), np.asarray(accuracy, dtype=np.float64)
    if not len(at) == len(explained) == len(right) or not len(at) or (np.diff(at) <= 0).any():
        raise ConfigError(
            f"increasing steps with one figure and one accuracy each are needed; got {len(at)} steps, "
            f"{len(explained)} figures and {len(right)} accuracies"
        )
    final = explained[-1].whole
    below = np.flatnonzero(~(right >= MASTERY))
    first = int(below[-1]) + 1 if len(below) else 0
    return Trajectory(
        name=name,
        steps=at,
        explained=np.array([e.over(final) for e in explained]),
        share=np.array([e.pooled for e in explained]),
        accuracy=right,
        mastered=int(at[first]) if first < len(at) else None,
    )
