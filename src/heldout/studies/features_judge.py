"""The claims of the features study judged, and the gates that they need."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from heldout.analyses.estimates import Column, Estimand
from heldout.errors import EvidenceError
from heldout.evidence import write_estimates
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
)
from heldout.studies.features_conditions import Condition
from heldout.studies.features_estimands import Measurements, change, gap, mean_of, on_first, per_row, r2, slope
from heldout.studies.features_estimates import estimates
from heldout.studies.features_measured import MAP, SITE

GATES = "gates.json"


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    measured = Measurements.read([condition_from(record) for record in s["conditions"]], ctx.inputs)
    gates = {gate.name: gate for gate in all_gates(measured)}
    write_estimates(ctx.out / ESTIMATES, estimates(measured))
    judged = judge(list(findings(measured, gates)), not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    record = [{"name": g.name, "passed": g.passed, "value": g.value} for g in gates.values()]
    (ctx.out / GATES).write_text(json.dumps(record))


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
    "F1-graded": lambda c: lambda view: mean_of(g(view) for g in _gaps(c, GRADED)),
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


def _times(factor: float, estimand: Estimand) -> Estimand:
    return lambda view: factor * estimand(view)


def _minus(estimand: Estimand, constant: float) -> Estimand:
    return lambda view: estimand(view) - constant


# -- gates --------------------------------------------------------------------------------------------------------


def all_gates(measured: Measurements) -> Iterator[Gate]:
    """For every condition whether each feature is computed, and equally well; and what prevalence is measured on."""
    for condition in measured.conditions.values():
        yield learnt_gate(measured, condition)
    rare = [name for name in PREVALENCES if name in measured.conditions]
    units = [measured.judging.scores.sums(_column(measured, name))[0] for name in rare]
    same = all(np.array_equal(u, units[0]) for u in units)
    yield Gate(
        SAME_ROWS,
        len(rare) == len(PREVALENCES) and same,
        f"{len(rare)} of {len(PREVALENCES)} prevalences, test rows equal: {'yes' if same else 'no'}",
    )


def learnt_gate(measured: Measurements, condition: Condition) -> Gate:
    """Every seed computes every feature above `LEAST`, and its features within `APART` of each other."""
    name = LEARNT.format(condition.name)
    if condition.task.outputs == "label":
        return Gate(name, False, "this network answers a label, not its features")
    features = [p.name for p in condition.task.planted()]
    rows = []
    for who in measured.judging.subjects(condition.name):
        view = measured.judging.point(who)
        right, loss = ({f: float(per_row(view, m, f)[0]) for f in features} for m in ("correct", "loss"))
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


def _column(measured: Measurements, condition: str) -> Column:
    seed = measured.judging.scores.seeds(condition)[0]
    return Column(condition, seed, "test", MAP.label, SITE, "n", None, None)
