"""The claims of the sequences study judged, and every quantity of its page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.evidence import Estimate, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Finding, judge
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.judging import Judging
from heldout.studies.sequences import (
    APART,
    EASY,
    ENCODER,
    FIRST,
    HARD,
    HEADLINE,
    LEARNT,
    LEAST,
    MIXED,
    Configuration,
    claims,
    configuration_from,
)
from heldout.studies.sequences_measure import ANSWERS, decoder_site, map_at, place

GATES = "gates.json"
DRAWS = 400  # resamples behind an interval that is drawn and not judged


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    chosen = [configuration_from(record) for record in s["configurations"]]
    judging = Judging(Scores.read(ctx.inputs.values()))
    gates = {one.name: learnt_gate(judging, one) for one in chosen}
    write_estimates(ctx.out / ESTIMATES, [e for one in chosen for e in estimates(judging, one)])
    judged = judge(list(findings(judging, chosen, gates)), not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    record = [{"name": g.name, "passed": g.passed, "value": g.value} for g in gates.values()]
    (ctx.out / GATES).write_text(json.dumps(record))


def findings(judging: Judging, chosen: Iterable[Configuration], gates: dict[str, Gate]) -> Iterator[Finding]:
    headline = {one.name: one for one in chosen}.get(HEADLINE)
    for claim in claims():
        if headline is None:
            gate = Gate(LEARNT.format(HEADLINE), False, "not run")
            yield Finding(claim, {}, (gate,), f"this run does not train {HEADLINE}")
        else:
            estimand = earlier(headline, FIRST if claim.id == "F5-start" else ENCODER)
            own = {gate.name: gate for gate in gates.values()}
            yield judging.finding(claim, {"": (estimand, headline.network(0))}, own)


# -- estimands: each is a mean over the orders of one configuration, paired by seed --------------------------------


def explained(view: View, site: str, k: int) -> Floats:
    """Pooled, held-out variance explained at `site` by the feature answered at place `k`, from 0."""
    where: dict[str, Any] = {"split": "test", "edit": map_at(site).label, "site": site}
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(view.total(f"explained:{place(k)}", **where) / view.total("total", **where))


def at_place(one: Configuration, site: str, k: int) -> Estimand:
    """Variance explained by what is answered at place `k`, mean over orders."""
    return lambda view: _mean(explained(view.of(one.network(o)), site, k) for o in range(len(one.orders)))


def earlier(one: Configuration, site: str) -> Estimand:
    """Minus the least-squares slope of variance explained on the place, times (places - 1): the first minus the last."""
    places = len(one.features)
    x = np.arange(places) - (places - 1) / 2
    weights = -(places - 1) * x / (x @ x)
    return lambda view: np.asarray(sum(w * at_place(one, site, k)(view) for k, w in enumerate(weights)))


def by_feature(one: Configuration, site: str, features: Iterable[int], orders: Iterable[int]) -> Estimand:
    """Mean variance explained by some features, by number, in some orders."""
    pairs = [(o, one.orders[o].index(f)) for o in orders for f in features]
    return lambda view: _mean(explained(view.of(one.network(o)), site, k) for o, k in pairs)


def _difference(a: Estimand, b: Estimand) -> Estimand:
    return lambda view: a(view) - b(view)


def _mean(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))


def _answer(one: Configuration, metric: str, k: int) -> Estimand:
    where: dict[str, Any] = {"split": "test", "edit": ANSWERS.label, "site": ANSWERS.site}
    return lambda view: _mean(
        view.of(one.network(o)).ratio(f"{metric}:{place(k)}", **where) for o in range(len(one.orders))
    )


# -- estimates and gates ------------------------------------------------------------------------------------------


def estimates(judging: Judging, one: Configuration) -> list[Estimate]:
    """Every quantity of one configuration, mean over orders and seeds."""
    wanted = list(_wanted(one))
    return describe(judging.scores, judging.subjects(one.network(0)), wanted, rng=np.random.default_rng(0), draws=DRAWS)


def _wanted(one: Configuration) -> Iterator[tuple[Estimand, dict[str, Any]]]:
    here: dict[str, Any] = {"network": one.name, "split": "test"}
    places = range(len(one.features))
    for site in (ENCODER, *map(decoder_site, places)):
        for k in places:
            yield at_place(one, site, k), here | {"quantity": f"variance_explained:{place(k)}", "site": site}
    if one.equal:
        for site in (ENCODER, FIRST):
            yield earlier(one, site), here | {"quantity": "first_minus_last", "site": site}
    for k in places:
        for metric, quantity in (("correct", "accuracy"), ("loss", "cross_entropy")):
            yield _answer(one, metric, k), here | {"quantity": f"{quantity}:{place(k)}", "site": ANSWERS.site}
    if one.name == MIXED:
        every = range(len(one.orders))
        gaps = {"simpler answered first": (0,), "more complex answered first": (1,), "every order": every}
        for words, orders in gaps.items():
            gap = _difference(*(by_feature(one, ENCODER, side, orders) for side in (EASY, HARD)))
            yield gap, here | {"quantity": f"simpler_minus_complex:{words}", "site": ENCODER}


def learnt_gate(judging: Judging, one: Configuration) -> Gate:
    """Every network answers every feature above `LEAST` by itself, and its features within `APART` of each other."""
    rows = []
    for order in range(len(one.orders)):
        for who in judging.subjects(one.network(order)):
            view = judging.point(who)
            right = [
                float(view.ratio(f"correct:{place(k)}", split="test", edit=ANSWERS.label, site=ANSWERS.site)[0])
                for k in range(len(one.features))
            ]
            rows.append((f"{who[0]}, seed {who[1]}", right))
    worst, right = min(rows, key=lambda row: min(row[1]))
    apart = max(max(r) - min(r) for _, r in rows)
    failed = [who for who, r in rows if min(r) <= LEAST or max(r) - min(r) > APART]
    text = (
        f"{len(rows) - len(failed)} of {len(rows)} networks; least accuracy {min(right):.4f} ({worst}), above {LEAST} "
        f"needed; features at most {apart:.4f} apart, {APART} allowed"
    )
    return Gate(LEARNT.format(one.name), not failed, text)
