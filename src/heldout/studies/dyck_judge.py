"""All seeds of the dyck study together: the table of estimates, and the claims judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from heldout.analyses.attention import ATTENTION_JSD
from heldout.analyses.damage import NULL
from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.analyses.pairs import OTHER_SEED, WHOLE
from heldout.analyses.summary import CURVE_DRAWS, label, summarise
from heldout.evidence import Estimate
from heldout.runs import StepContext
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.verdict import Finding
from heldout.studies.audited import Audited
from heldout.studies.dyck import (
    ACCURATE,
    DATA,
    DEPTH,
    FAMILIES,
    LEAST_ERRORS,
    MATCH,
    NETWORK,
    OUT,
    REACHED,
    RISES,
    SEEN,
    STRUCTURES,
    THRESHOLD,
    WEIGHTS,
    claims,
)
from heldout.studies.dyck_audit import DEEP, grid, module, plan
from heldout.studies.dyck_components import ATTENTION_SPLITS, side_grid
from heldout.studies.gates import kept_gate, rises_gate, short_families

ACCURATE_AT, PART_AT = 0.99, 0.9  # network accuracy that the study needs, and that a part of G3 needs


def judge_claims(ctx: StepContext) -> None:
    s, seeds = ctx.settings, ctx.settings["seeds"]
    side = {seed: ctx.inputs[f"components-{seed}"] for seed in seeds}
    audited = Audited.read(
        {(NETWORK, seed): ctx.inputs[f"audit-{seed}"] for seed in seeds},
        reference="id",
        more=[side[seed] / "scores" for seed in seeds],
    )
    head, grids = module(s, -1), side_grid(s)
    grids[head] = grid(s)
    sites = [head, *(site for site in grids if site != head)]
    if len(seeds) > 1:
        grids[WHOLE] = {OTHER_SEED: (None,)}
        sites.append(WHOLE)
    rng = np.random.default_rng(0)
    estimates = summarise(
        audited.scores,
        plan=plan(s),
        chosen=audited.chosen,
        grid=lambda site: grids[site],
        sites={NETWORK: sites},
        rng=rng,
    )
    estimates += gaps_from_seen(audited, head, rng) + kappas(audited, head, rng)
    estimates += divergences(Scores.read([side[seed] / "attention" for seed in seeds]), head, s, rng)
    audited.write(ctx.out, estimates, findings(audited, s), not_judged=s["not_judged"])


def findings(audited: Audited, s: Mapping[str, Any]) -> list[Finding]:
    """The tests of each claim, with its gates."""
    chosen, head = audited.chosen, module(s, -1)
    gates = {gate.name: gate for gate in (*_gates(audited, s),)}
    by_id = {claim.id: claim for claim in claims()}

    short = short_families(audited, head, FAMILIES)
    reached = [family for family in FAMILIES if family not in short]

    def excess(*families: str) -> Tests:
        def of(view: View) -> Floats:
            return _mean(chosen.excess(view, head, family, split) for family in families for split in OUT)

        return {NETWORK: (of, NETWORK)}

    def lead(family: str, split: str, sign: float) -> Estimand:
        """Network accuracy minus proxy accuracy, times `sign`."""

        def of(view: View) -> Floats:
            network = chosen.ratio(view, head, family, split, "net_correct")
            return sign * (network - chosen.ratio(view, head, family, split, "proxy_correct"))

        return of

    general = [split for split in STRUCTURES if _least(audited, head, split) >= PART_AT]
    below = {f"{f} on {split}": (lead(f, split, 1.0), NETWORK) for f in reached for split in general}
    above = {f"{f} on {DEPTH}": (lead(f, DEPTH, -1.0), NETWORK) for f in reached}
    return [
        audited.finding(by_id["G1"], excess(*DATA), gates),
        audited.finding(by_id["G1-svd"], excess("svd"), gates),
        audited.finding(by_id["G2"], excess(*WEIGHTS), gates),
        _if_any(audited, by_id["G3"], below, gates),
        _if_any(audited, by_id["G4"], above, gates),
        _overlap(audited, by_id["G5"], head, gates),
    ]


Tests = Mapping[str, tuple[Estimand, str]]


def _if_any(audited: Audited, claim: Claim, tests: Tests, gates: Mapping[str, Gate]) -> Finding:
    """An existence claim, whose parts are those families that the rank rule found a size for."""
    if not tests:
        why = f"no family keeps {THRESHOLD} of the predictions on the select split in every seed"
        return Finding(claim, {}, tuple(gates[g] for g in claim.gates), reason=why)
    return audited.finding(claim, tests, gates)


def _overlap(audited: Audited, claim: Claim, head: str, gates: Mapping[str, Gate]) -> Finding:
    """G5, where every network errs often enough on both sides of the depth."""
    edit = {who: label("svd", audited.chosen.size(audited.point(who), head, "svd")) for who in audited.records}
    for who in audited.records:
        for deep, words in ((0, "up to"), (1, "beyond")):
            at: dict[str, Any] = {"split": DEPTH, "edit": edit[who], "site": head, "stratum": DEEP, "value": deep}
            view = audited.point(who)
            errors = float((view.total("n", **at) - view.total("net_correct", **at))[0])
            if errors < LEAST_ERRORS:
                why = f"the network of seed {who[1]} errs {errors:.0f} times {words} training depth; {LEAST_ERRORS} needed"
                return Finding(claim, {}, tuple(gates[g] for g in claim.gates), reason=why)

    def less(view: View) -> Floats:
        return _kappa(audited, view, head, "svd", 0) - _kappa(audited, view, head, "svd", 1)

    return audited.finding(claim, {NETWORK: (less, NETWORK)}, gates)


def _kappa(audited: Audited, view: View, head: str, family: str, deep: int) -> Floats:
    edit = label(family, audited.chosen.size(view, head, family))
    return view.kappa(split=DEPTH, edit=edit, site=head, stratum=DEEP, value=deep)


def _gates(audited: Audited, s: Mapping[str, Any]) -> Iterable[Gate]:
    head = module(s, -1)
    least = {split: _least(audited, head, split) for split in ("id", SEEN, *STRUCTURES)}
    worst = min(least, key=lambda split: least[split])
    text = f"least accuracy on id and the structure splits {least[worst]:.4f} ({worst}); {ACCURATE_AT} needed"
    yield Gate(ACCURATE, least[worst] >= ACCURATE_AT, text)
    for families in (("svd",), DATA, WEIGHTS):
        named = " and ".join(families)
        if families != WEIGHTS:
            yield rises_gate(RISES.format(named), audited, head, grid(s), families)
        yield kept_gate(REACHED.format(named), audited, head, families, split="train", threshold=THRESHOLD)
        yield audited.null_gate(MATCH.format(named), families)


def _least(audited: Audited, head: str, split: str) -> float:
    """The least accuracy of any network on a split."""
    return min(
        float(audited.point(who).ratio("net_correct", split=split, edit="mean", site=head)[0])
        for who in audited.records
    )


def gaps_from_seen(audited: Audited, head: str, rng: np.random.Generator) -> list[Estimate]:
    """Gap and excess from seen structures, the narrower reference, for every family and out-of-distribution split."""
    chosen = audited.chosen

    def gap(family: str, split: str, *, null: bool) -> Callable[[View], Floats]:
        def of(view: View) -> Floats:
            size = chosen.size(view, head, family)
            edit = label(f"{family}+{NULL}" if null else family, size)
            return view.gap(reference=SEEN, split=split, edit=edit, site=head)

        return of

    rows: list[tuple[Estimand, Mapping[str, Any]]] = []
    for family in FAMILIES:
        for split in OUT:
            where = {"network": NETWORK, "site": head, "edit": family, "split": split, "reference": SEEN}
            plain, null = gap(family, split, null=False), gap(family, split, null=True)
            rows.append((plain, where | {"quantity": "gap_from_seen"}))
            rows.append((_minus(plain, null), where | {"quantity": "excess_gap_from_seen"}))
    return describe(audited.scores, audited.subjects(NETWORK), rows, rng=rng)


def kappas(audited: Audited, head: str, rng: np.random.Generator) -> list[Estimate]:
    """Error consistency on unseen depth up to the training depth and beyond it, for every family."""

    def kappa(family: str, deep: int) -> Estimand:
        return lambda view: _kappa(audited, view, head, family, deep)

    names = {0: "kappa_shallow", 1: "kappa_deep"}
    rows = [
        (kappa(f, deep), {"network": NETWORK, "site": head, "edit": f, "split": DEPTH, "quantity": name})
        for f in FAMILIES
        for deep, name in names.items()
    ]
    return describe(audited.scores, audited.subjects(NETWORK), rows, rng=rng)


def divergences(scores: Scores, head: str, s: Mapping[str, Any], rng: np.random.Generator) -> list[Estimate]:
    """Divergence of the simplified attention at every size, split by split."""
    subjects = [(NETWORK, seed) for seed in scores.seeds(NETWORK)]
    rows: list[Estimate] = []
    for family, sizes in grid(s).items():
        for size in sizes:
            wanted: list[tuple[Estimand, Mapping[str, Any]]] = [
                (
                    _ratio(split, label(family, size), head),
                    {"network": NETWORK, "site": head, "edit": family, "parameter": size, "split": split}
                    | {"quantity": ATTENTION_JSD},
                )
                for split in ATTENTION_SPLITS
            ]
            rows += describe(scores, subjects, wanted, rng=rng, draws=CURVE_DRAWS)
    return rows


def _ratio(split: str, edit: str, site: str) -> Estimand:
    return lambda view: view.ratio(ATTENTION_JSD, split=split, edit=edit, site=site)


def _minus(a: Estimand, b: Estimand) -> Estimand:
    return lambda view: a(view) - b(view)


def _mean(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))
