"""The table of estimates of the features study: every quantity of its page, mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from heldout.analyses.estimates import Estimand, Floats, View, describe
from heldout.analyses.features.dissociation import dissociation
from heldout.analyses.features.reliance import GRID
from heldout.evidence import Estimate, Origin
from heldout.statistics.rule import mean_test
from heldout.studies.features import HEADLINE
from heldout.studies.features_conditions import Condition
from heldout.studies.features_estimands import Measurements, change, gap, on_first, per_row, r2
from heldout.studies.features_measured import MAP, SITE, Value, relying
from heldout.studies.features_reading import OF_INPUTS

DRAWS = 400  # resamples behind an interval that is drawn and not judged
SAME_UPDATES = "depth-4"  # the headline's depth, with as many updates as the other depths have
OVER_SEEDS = "t over seeds, each on the same test rows"


def estimates(measured: Measurements) -> list[Estimate]:
    """Every quantity of the page, mean over seeds."""
    found: list[Estimate] = []
    for condition in measured.conditions.values():
        wanted = list(_of_rows(measured, condition))
        subjects = measured.judging.subjects(condition.name)
        found += describe(measured.judging.scores, subjects, wanted, rng=np.random.default_rng(0), draws=DRAWS)
        found += _of_networks(measured, condition.name)
        found += _dissociated(measured, condition)
    return found


def _of_rows(measured: Measurements, condition: Condition) -> Iterator[tuple[Estimand, dict[str, Any]]]:
    """What is a ratio of sums over test rows, with where it stands."""
    where: dict[str, Any] = {"network": condition.name, "split": "test", "site": SITE}
    features = [p.name for p in condition.task.planted()]
    for f in features:
        yield partial(r2, feature=f), where | {"quantity": f"variance_explained:{f}"}
        yield partial(_per_example, feature=f), where | {"quantity": f"variance_per_example:{f}"}
        if condition.task.outputs == "features":
            for metric, quantity in (("correct", "accuracy"), ("loss", "cross_entropy")):
                yield partial(per_row, metric=metric, feature=f), where | {"quantity": f"{quantity}:{f}"}
    if len(features) > 1:
        yield gap(condition), where | {"quantity": "gap"}
    baseline = measured.conditions.get(baseline_of(condition))
    if len(features) > 1 and baseline is not None:
        yield change(condition, baseline), where | {"quantity": "gap_narrowed", "reference": baseline.name}
    for rates in GRID:
        edit = relying(*rates)
        if _scored(measured, condition.name, edit):
            yield on_first(rates), where | {"quantity": "reliance", "edit": edit.name}
            yield partial(_agreed, edit=edit), where | {"quantity": "reliance_accuracy", "edit": edit.name}


def _per_example(view: View, feature: str) -> Floats:
    where: dict[str, Any] = {"split": "test", "edit": MAP.label, "site": SITE}
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(view.total(f"example:{feature}", **where) / view.total("moves", **where))


def _agreed(view: View, edit: Origin) -> Floats:
    """The classifier's accuracy on rows on which the features agree: its check."""
    where: dict[str, Any] = {"split": "test", "edit": edit.label, "site": SITE}
    return np.asarray(view.total("right", **where) / view.total("agreed", **where))


def _scored(measured: Measurements, condition: str, edit: Origin) -> bool:
    scores = measured.judging.scores
    return scores.has(condition, scores.seeds(condition)[0], "test", edit.label, SITE)


def baseline_of(condition: Condition) -> str:
    """The condition that differs from this one in the one thing that its experiment changes; empty where there is none."""
    name = condition.name
    for ending in ("-hard-first", "-easy-first"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    before, dropout, _ = name.partition("-dropout-")
    if dropout:
        return HEADLINE if before == "sgd" else before
    if name.startswith("rare-"):
        return "equal-xor" if name.startswith("rare-xor") else "equal"
    if name.startswith("depth-") and name != SAME_UPDATES:
        return SAME_UPDATES
    if name in (HEADLINE, "untrained", "equal", "equal-xor") or name.startswith("hermann2020"):
        return ""
    return HEADLINE


def _of_networks(measured: Measurements, condition: str) -> Iterator[Estimate]:
    """Values that are one a network: their mean over seeds."""
    by_seed = measured.values[condition]
    table: dict[tuple[str, float | None], list[Value]] = {}
    for value in (v for rows in by_seed.values() for v in rows):
        table.setdefault((value.quantity, value.parameter), []).append(value)
    for (quantity, parameter), rows in table.items():
        found = over_seeds(
            quantity, rows, len(by_seed), network=condition, split="test", site=SITE, parameter=parameter
        )
        if OF_INPUTS in quantity:  # one measurement: equal values of all seeds are no narrow interval
            found = replace(found, low=math.nan, high=math.nan, site="inputs", method="the same for every network")
        yield found


def over_seeds(quantity: str, rows: Sequence[Value], seeds: int, **where: Any) -> Estimate:
    """The mean of one value a network with its t interval over seeds; the reason where a seed has none."""
    known = [v.value for v in rows if v.value is not None]
    if len(known) < seeds:
        why = next((v.reason for v in rows if v.value is None), "it was not measured there")
        text = f"not estimable in {seeds - len(known)} of {seeds} seeds: {why}"
        return Estimate(quantity, math.nan, seeds=seeds, reason=text, **where)
    test = mean_test(known, unit_variance=0.0, n_clusters=None, delta=0.0)
    return Estimate(quantity, test.value, test.low, test.high, OVER_SEEDS, n=seeds, seeds=seeds, **where)


def _dissociated(measured: Measurements, condition: Condition) -> Iterator[Estimate]:
    """Rank by what a feature's removal costs less rank by variance explained, the mean over seeds, and its p-value."""
    names = [p.name for p in condition.task.planted()]
    if len(names) < 2 or condition.task.outputs == "label":
        return
    seeds = list(measured.values[condition.name])
    where: dict[str, Any] = {"network": condition.name, "split": "test", "site": SITE, "seeds": len(seeds)}
    costs = np.array([[measured.value(condition.name, s, f"cost:{f}") for f in names] for s in seeds])
    views = [measured.judging.point((condition.name, s)) for s in seeds]
    loud = np.array([[float(r2(view, f)[0]) for f in names] for view in views])
    if not (np.isfinite(costs).all() and np.isfinite(loud).all()):
        for name in names:
            why = "the cost of removing a feature, or its variance explained, is not estimable in some seed"
            yield Estimate(f"dissociation:{name}", math.nan, reason=why, **where)
        return
    found = dissociation(costs, loud, names)
    for name, index, p in zip(names, found.index.tolist(), found.p.tolist(), strict=True):
        yield Estimate(f"dissociation:{name}", index, method="mean difference of ranks over networks", **where)
        yield Estimate(f"dissociation_p:{name}", p, method="importance dealt out at random within networks", **where)
