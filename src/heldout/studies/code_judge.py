"""All seeds of the code study together: the table of estimates, and the claims judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from heldout.analyses.estimates import Estimand
from heldout.analyses.summary import summarise
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Finding
from heldout.studies.audited import Audited
from heldout.studies.code import (
    BEATS,
    DATA,
    FAMILIES,
    GENERAL,
    INDUCES,
    LEAST_INDUCTION,
    MARGIN_OVER_BIGRAM,
    MATCH,
    NETWORK,
    REACHED,
    RISES,
    THRESHOLD,
    WEIGHTS,
    claims,
)
from heldout.studies.code_audit import (
    BASELINES,
    HEADS,
    INDUCTION,
    RANDOM,
    SCORES,
    WARNINGS,
    grid,
    make_plan,
    sites,
    test_names,
)
from heldout.studies.code_estimates import CodeEvidence, minus, warnings
from heldout.studies.gates import kept_gate, rises_gate, short_families

START, LATER = ("offset", "1st of a word"), ("offset", "4th or later")
REPEATED, NEW = ("word", "inside a repeated word"), ("word", "inside a new word")


def judge_claims(ctx: StepContext) -> None:
    """Estimates of every quantity, verdicts, and the records that the page is made from."""
    s, seeds, corpus = ctx.settings, ctx.settings["seeds"], ctx.inputs["corpus"]
    audited = Audited.read(
        {(NETWORK, seed): ctx.inputs[f"audit-{seed}"] for seed in seeds},
        reference="id",
        more=[ctx.inputs[f"heads-{seed}"] / SCORES for seed in seeds],
    )
    rng = np.random.default_rng(0)
    estimates = summarise(
        audited.scores,
        plan=make_plan(s, corpus),
        chosen=audited.chosen,
        grid=lambda site: grid(s, site),
        sites={NETWORK: list(sites(s))},
        rng=rng,
    )
    heads = {seed: json.loads((ctx.inputs[f"heads-{seed}"] / HEADS).read_text()) for seed in seeds}
    bigram = json.loads((corpus / BASELINES).read_text())["id"]["bigram"]
    evidence = CodeEvidence(audited, s, test_names(corpus))
    estimates += evidence.kind_gaps(rng) + evidence.head_costs(rng)
    estimates += warnings([ctx.inputs[f"warn-{seed}"] / WARNINGS for seed in seeds])
    gates = {gate.name: gate for gate in (*network_gates(evidence, heads, bigram), *family_gates(evidence))}
    audited.write(ctx.out, estimates, findings(evidence, gates), not_judged=s["not_judged"])
    (ctx.out / HEADS).write_text(json.dumps({str(seed): record for seed, record in heads.items()}, sort_keys=True))


def findings(evidence: CodeEvidence, gates: Mapping[str, Gate]) -> list[Finding]:
    """The tests of each claim, with its gates."""
    by_id = {claim.id: claim for claim in claims()}
    tests, languages = evidence.tests, evidence.languages
    short = short_families(evidence.audited, evidence.site, FAMILIES)
    kept = [family for family in FAMILIES if family not in short]
    general = [t for t in tests if _generalises(evidence, t)]

    def found(id: str, parts: Mapping[str, Estimand], why_none: str) -> Finding:  # noqa: A002
        claim = by_id[id]
        if not parts:
            return Finding(claim, {}, tuple(gates[g] for g in claim.gates), reason=why_none)
        return evidence.audited.finding(claim, {name: (e, NETWORK) for name, e in parts.items()}, gates)

    def excess(id: str, families: Sequence[str], splits: Sequence[str]) -> Finding:  # noqa: A002
        parts = {NETWORK: evidence.excess(families, splits)} if splits else {}
        return found(id, parts, "there is no such split")

    def differs(id: str, families: Sequence[str], one: tuple[str, str], other: tuple[str, str]) -> Finding:  # noqa: A002
        a, b = (evidence.kind_excess(*kind, families, languages) for kind in (one, other))
        parts = {f"{one[1]} minus {other[1]}": minus(a, b), f"{other[1]} minus {one[1]}": minus(b, a)}
        return found(id, parts if languages else {}, "there is no new language")

    none_kept = f"no family keeps {THRESHOLD} of the predictions on id_select in every seed"
    below = {f"{f} on {t}": evidence.lead(f, t, 1.0) for f in kept for t in general}
    above = {f"{f} on {t}": evidence.lead(f, t, -1.0) for f in kept for t in tests}
    inside = evidence.categories.code(*REPEATED)
    induction, others = (evidence.lost("id", site, inside) for site in (INDUCTION, RANDOM))
    return [
        excess("G1", DATA, tests),
        excess("G1-svd", ("svd",), tests),
        excess("G2", WEIGHTS, tests),
        excess("G2-weights", ("weights",), tests),
        found("G3", below, none_kept if not kept else "no network generalises to any other split"),
        found("G4", above, none_kept if not kept else "there is no other split"),
        excess("G6", DATA, languages),
        excess("G6-svd", ("svd",), languages),
        differs("G7", DATA, START, LATER),
        differs("G7-svd", ("svd",), START, LATER),
        differs("G7-words", ("svd",), REPEATED, NEW),
        found("G8", {NETWORK: minus(induction, others)}, ""),
    ]


def _generalises(evidence: CodeEvidence, split: str) -> bool:
    seeds = evidence.audited.records
    return all(evidence.accuracy(who, split) >= evidence.accuracy(who, "id") - GENERAL for who in seeds)


def network_gates(evidence: CodeEvidence, heads: Mapping[int, Any], bigram: float) -> Iterable[Gate]:
    """Whether the networks are worth simplifying, and whether they do induction."""
    worst = max(evidence.accuracy(who, "id", "net_loss") for who in evidence.audited.records)
    text = f"largest loss on id {worst:.3f} nats, bigram table {bigram:.3f}; {MARGIN_OVER_BIGRAM} below it needed"
    yield Gate(BEATS, worst <= bigram - MARGIN_OVER_BIGRAM, text)
    best = {seed: max(h["induction"] for h in record["heads"]) for seed, record in heads.items()}
    low = min(best, key=lambda seed: best[seed])
    text = f"least induction score of a best head {best[low]:.3f} (seed {low}); {LEAST_INDUCTION} needed"
    yield Gate(INDUCES, best[low] >= LEAST_INDUCTION, text)


def family_gates(evidence: CodeEvidence) -> Iterable[Gate]:
    """Whether simplifications grow more faithful with size, are faithful in distribution, and have matching nulls."""
    audited, site = evidence.audited, evidence.site
    for families in (DATA, ("svd",), WEIGHTS, ("weights",)):
        named = " and ".join(families)
        if families != WEIGHTS:  # one-hot attention has no size
            yield rises_gate(RISES.format(named), audited, site, grid(evidence.s, site), families)
        yield kept_gate(REACHED.format(named), audited, site, families, split="train_sample", threshold=THRESHOLD)
        yield audited.null_gate(MATCH.format(named), families)
