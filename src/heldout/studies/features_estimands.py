"""What the measuring steps of the features study left, and the quantities of its claims as functions of test rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.analyses.estimates import Estimand, Floats, Scores, View
from heldout.studies.features import sides
from heldout.studies.features_conditions import Condition
from heldout.studies.features_measured import MAP, RESAMPLED, SITE, VALUES, Value, relying
from heldout.studies.judging import Judging

ByNetwork = dict[str, dict[int, list[Value]]]  # condition -> seed -> values


@dataclass(frozen=True, eq=False)
class Measurements:
    """What the measuring steps left: scores, values of each network, and density resampled (S, F, R) with its rows."""

    judging: Judging
    conditions: Mapping[str, Condition]
    values: ByNetwork
    resampled: Mapping[str, tuple[Floats, int]]

    @staticmethod
    def read(conditions: Iterable[Condition], folders: Mapping[str, Path]) -> Measurements:
        values: ByNetwork = {}
        resampled = {}
        for name, folder in folders.items():
            record = json.loads((folder / VALUES).read_text())
            values[name] = {int(seed): [Value(*row) for row in rows] for seed, rows in record.items()}
            with np.load(folder / RESAMPLED) as arrays:
                resampled[name] = arrays["draws"], int(arrays["units"])
        judging = Judging(Scores.read(folders.values()))
        return Measurements(judging, {c.name: c for c in conditions}, values, resampled)

    def value(self, condition: str, seed: int, quantity: str) -> float:
        """One value of one network; NaN where it could not be had."""
        found = [v.value for v in self.values[condition][seed] if v.quantity == quantity]
        return math.nan if not found or found[0] is None else found[0]


def r2(view: View, feature: str) -> Floats:
    """Pooled, held-out variance explained of one feature in the view's condition."""
    where: dict[str, Any] = {"split": "test", "edit": MAP.label, "site": SITE}
    explained, total = view.total(f"explained:{feature}", **where), view.total("total", **where)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(explained / total)


def gap(condition: Condition) -> Estimand:
    """Variance explained, mean over the simpler features minus mean over the more complex ones, in one condition."""
    simple, complex_ = sides(condition.task)

    def of(view: View) -> Floats:
        here = view.of(condition.name)
        return mean_of(r2(here, f) for f in simple) - mean_of(r2(here, f) for f in complex_)

    return of


def change(condition: Condition, baseline: Condition) -> Estimand:
    """The gap of a baseline minus the gap of a condition with the same seed: above 0 where the condition narrows it."""
    before, after = gap(baseline), gap(condition)
    return lambda view: before(view) - after(view)


def slope(estimands: Sequence[Estimand], at: Sequence[float]) -> Estimand:
    """The least-squares slope of some quantities on the numbers that they were taken at."""
    x = np.asarray(at, dtype=np.float64) - np.mean(at)
    weights = x / (x @ x)
    return lambda view: np.asarray(sum(w * e(view) for w, e in zip(weights, estimands, strict=True)))


def on_first(rates: tuple[float, float]) -> Estimand:
    """Share of rows on which two features disagree that the classifier labels as the simpler one says."""
    return lambda view: view.ratio("on_first", split="test", edit=relying(*rates).label, site=SITE)


def per_row(view: View, metric: str, feature: str) -> Floats:
    return view.ratio(f"{metric}:{feature}", split="test", edit=MAP.label, site=SITE)


def mean_of(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))
