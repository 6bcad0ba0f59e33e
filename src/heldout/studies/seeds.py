"""Quantities of training seeds: a claim's value within each, and estimates over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from heldout.errors import StatisticsError
from heldout.evidence import Estimate
from heldout.statistics.rule import mean_test

OVER_SEEDS = "t over seeds"


def over(quantity: str, values: Sequence[float], **where: Any) -> Estimate:
    """The mean over seeds with its t interval, of quantities of networks: there is no sampling over test units in it."""
    if not np.isfinite(values).all():
        return Estimate(quantity, math.nan, seeds=len(values), reason="undefined in a seed", **where)
    if len(values) < 2:
        return Estimate(quantity, float(values[0]), n=1, method="one seed", **where)
    t = mean_test([float(v) for v in values], unit_variance=0.0, n_clusters=None, delta=0.0)
    return Estimate(quantity, t.value, t.low, t.high, OVER_SEEDS, n=len(values), seeds=len(values), **where)


class SeedTheta(NamedTuple):
    """A claim's theta within one seed, from `networks` of them; NaN where `reason` says why."""

    seed: int
    value: float
    networks: int
    reason: str = ""


def defined(thetas: Sequence[SeedTheta]) -> list[float]:
    """Values of seeds; a `StatisticsError` with the reasons where some have none."""
    if why := [f"seed {t.seed}: {t.reason}" for t in thetas if t.reason]:
        raise StatisticsError("; ".join(why))
    return [t.value for t in thetas]
