"""All conditions of the features study together: the table of estimates, and the claims judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heldout.analyses.estimates import Column, Estimand, Floats, Scores, View, describe
from heldout.analyses.features.dissociation import dissociation
from heldout.analyses.features.reliance import GRID
from heldout.errors import EvidenceError
from heldout.evidence import Estimate, Origin, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.rule import MeanTest, mean_test
from heldout.statistics.verdict import Finding, judge
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features import (
    ADAM,
    APART,
    DEPTHS,
    DROPPED,
    GRADED,
    HARD_FIRST,
    HEADLINE,
    LEARNT,
    LEAST,
    PREVALENCES,
    SAME_ROWS,
    WIDTHS,
    claims,
    condition_from,
    sides,
)
from heldout.studies.features_conditions import Condition
from heldout.studies.features_measure import MAP, RESAMPLED, SITE, VALUES, Value, relying
from heldout.studies.judging import Judging

DRAWS = 400  # resamples behind an interval that is drawn and not judged
OVER_SEEDS = "t over seeds, each on the same test rows"
GATES = "gates.json"

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


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    measured = Measurements.read([condition_from(record) for record in s["conditions"]], ctx.inputs)
    gates = {gate.name: gate for gate in all_gates(measured)}
    write_estimates(ctx.out / ESTIMATES, estimates(measured))
    judged = judge(list(findings(measured, gates)), not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    record = [{"name": g.name, "passed": g.passed, "value": g.value} for g in gates.values()]
    (ctx.out / GATES).write_text(json.dumps(record))


# -- estimands ----------------------------------------------------------------------------------------------------


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
        return _mean(r2(here, f) for f in simple) - _mean(r2(here, f) for f in complex_)

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


def _times(factor: float, estimand: Estimand) -> Estimand:
    return lambda view: factor * estimand(view)


def _minus(estimand: Estimand, constant: float) -> Estimand:
    return lambda view: estimand(view) - constant


def _mean(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))


# -- claims -------------------------------------------------------------------------------------------------------


def findings(measured: Measurements, gates: Mapping[str, Gate]) -> Iterator[Finding]:
    """Every claim with its test, or with why there is none."""
    conditions, judging = measured.conditions, measured.judging
    for claim in claims():
        needed = NEEDED[claim.id]
        missing = [name for name in needed if name not in conditions]
        if missing:
            named = tuple(gates[g] for g in claim.gates if g in gates)
            why = f"this run does not train {', '.join(missing)}"
            yield Finding(
                claim, {}, named + tuple(Gate(g, False, "not run") for g in claim.gates if g not in gates), why
            )
        elif claim.id == "F2":
            yield _density_finding(claim, measured, gates)
        else:
            yield judging.finding(claim, {"": (TESTS[claim.id](conditions), needed[0])}, gates)


NEEDED: dict[str, tuple[str, ...]] = {
    "F1": (HEADLINE,),
    "F1-graded": GRADED,
    "F2": (HEADLINE,),
    "F3": (HEADLINE, HARD_FIRST),
    "F4": tuple(PREVALENCES),
    "F6": (ADAM, DROPPED),
    "F7": tuple(DEPTHS),
    "F8": tuple(WIDTHS),
    "F10": (HEADLINE,),
}


def _rarest(condition: Condition) -> Estimand:
    """Variance explained of the first of two equal features: the one that is made rare."""
    first = condition.task.planted()[0].name
    return lambda view: r2(view.of(condition.name), first)


def _gaps(c: Mapping[str, Condition], names: Iterable[str]) -> list[Estimand]:
    return [gap(c[name]) for name in names]


TESTS: dict[str, Callable[[Mapping[str, Condition]], Estimand]] = {
    "F1": lambda c: gap(c[HEADLINE]),
    "F1-graded": lambda c: lambda view: _mean(g(view) for g in _gaps(c, GRADED)),
    "F3": lambda c: change(c[HARD_FIRST], c[HEADLINE]),
    "F4": lambda c: slope([_rarest(c[name]) for name in PREVALENCES], list(PREVALENCES.values())),
    "F6": lambda c: change(c[DROPPED], c[ADAM]),
    "F7": lambda c: _times(4, slope(_gaps(c, DEPTHS), list(DEPTHS.values()))),
    "F8": lambda c: _times(2, slope(_gaps(c, WIDTHS), list(WIDTHS.values()))),
    "F10": lambda c: _minus(on_first((1.0, 1.0)), 0.5),
}


def _density_finding(claim: Claim, measured: Measurements, gates: Mapping[str, Gate]) -> Finding:
    named = tuple(gates[g] for g in claim.gates)
    try:
        return Finding(claim, {"": density_test(measured, HEADLINE, claim.delta)}, named)
    except EvidenceError as error:
        return Finding(claim, {}, named, reason=str(error))


def density_test(measured: Measurements, condition: str, delta: float) -> MeanTest:
    """Density of the first feature minus that of the second. Its variance over test rows is that of the mean over seeds in
    resamples that all seeds share."""
    names = [p.name for p in measured.conditions[condition].task.planted()][:2]
    theta = []
    for seed in measured.values[condition]:
        first, second = (measured.value(condition, seed, f"density:{name}") for name in names)
        if math.isnan(first - second):
            raise EvidenceError(
                f"density is not estimable for {condition}, seed {seed}: a feature does not exceed its null"
            )
        theta.append(first - second)
    draws, units = measured.resampled[condition]
    mean = (draws[:, 0] - draws[:, 1]).mean(axis=0)
    mean = mean[np.isfinite(mean)]
    if len(mean) < 0.99 * draws.shape[2]:
        raise EvidenceError(f"density is undefined in {draws.shape[2] - len(mean)} of {draws.shape[2]} resamples")
    variance = float(mean.var(ddof=1)) if np.ptp(mean) > 0 else 0.0
    return mean_test(theta, unit_variance=variance, n_clusters=units, delta=delta)


# -- gates --------------------------------------------------------------------------------------------------------


def all_gates(measured: Measurements) -> Iterator[Gate]:
    """For every condition whether each feature is computed, and equally well; and what prevalence is measured on."""
    for condition in measured.conditions.values():
        yield learnt_gate(measured, condition)
    rare = [name for name in PREVALENCES if name in measured.conditions]
    units = [measured.judging.scores.sums(_column(measured, name))[0] for name in rare]
    same = all(np.array_equal(u, units[0]) for u in units)
    yield Gate(SAME_ROWS, len(rare) == len(PREVALENCES) and same, f"{len(rare)} prevalences, test rows equal: {same}")


def learnt_gate(measured: Measurements, condition: Condition) -> Gate:
    """Every seed computes every feature above `LEAST`, and its features within `APART` of each other."""
    name = LEARNT.format(condition.name)
    if condition.task.outputs == "label":
        return Gate(name, False, "this network answers a label, not its features")
    features = [p.name for p in condition.task.planted()]
    rows = []
    for who in measured.judging.subjects(condition.name):
        view = measured.judging.point(who)
        right, loss = ({f: float(_mapped(view, m, f)[0]) for f in features} for m in ("correct", "loss"))
        rows.append((who[1], right, loss))
    seed, right, _ = min(rows, key=lambda row: min(row[1].values()))
    worst = min(right, key=lambda f: right[f])
    apart = max(max(r.values()) - min(r.values()) for _, r, _ in rows)
    failed = [s for s, r, _ in rows if min(r.values()) <= LEAST or max(r.values()) - min(r.values()) > APART]
    losses = ", ".join(f"{f} {np.mean([loss[f] for _, _, loss in rows]):.2g}" for f in features)
    text = (
        f"{len(rows) - len(failed)} of {len(rows)} seeds; least accuracy {right[worst]:.4f} ({worst}, seed {seed}), above "
        f"{LEAST} needed; features at most {apart:.4f} apart, {APART} allowed; mean cross-entropies {losses} nats"
    )
    return Gate(name, not failed, text)


def _mapped(view: View, metric: str, feature: str) -> Floats:
    return view.ratio(f"{metric}:{feature}", split="test", edit=MAP.label, site=SITE)


def _column(measured: Measurements, condition: str) -> Column:
    seed = measured.judging.scores.seeds(condition)[0]
    return Column(condition, seed, "test", MAP.label, SITE, "n", None, None)


# -- estimates ----------------------------------------------------------------------------------------------------


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
                yield partial(_mapped, metric=metric, feature=f), where | {"quantity": f"{quantity}:{f}"}
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
        yield over_seeds(quantity, rows, len(by_seed), network=condition, split="test", site=SITE, parameter=parameter)


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
