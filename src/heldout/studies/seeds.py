"""Estimates over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

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
