"""The cells of the matrix computed and joined, and those that are claims judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from heldout.errors import EvidenceError, ProxyError, StatisticsError
from heldout.evidence import Estimate, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.rule import MeanTest
from heldout.statistics.verdict import Finding, judge
from heldout.studies import matrix_claims
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.matrix_claims import CLAIMED, claim_of
from heldout.studies.matrix_evidence import Asked, Evidence, table
from heldout.studies.matrix_load import material
from heldout.studies.matrix_measure import MEASURES

CELLS = "cells.json"


def measure_cell(ctx: StepContext) -> None:
    """One analysis of one row's networks; what cannot be estimated leaves its reason."""
    s = ctx.settings
    here = material(s["row"], s["trained"], ctx.inputs, s["seeds"], ctx.device)
    try:
        found = MEASURES[s["column"]](here, Asked(s, ctx.out, ctx.progress))
    except (StatisticsError, EvidenceError, ProxyError) as error:
        found = Evidence(seeds=len(s["seeds"]), reason=str(error))
    found.write(ctx.out)


def find_claim(ctx: StepContext) -> None:
    """One claim of the row's own study, from that study's steps."""
    s = ctx.settings
    claimed = CLAIMED[s["row"], s["column"]]
    finding = getattr(matrix_claims, claimed.find)(claimed, ctx.inputs, s["seeds"], s)
    evidence_of(finding).write(ctx.out)


def evidence_of(finding: Finding) -> Evidence:
    """A finding as a cell: its test, or the part that decides a claim of several parts."""
    record = {
        "tests": {label: asdict(test) for label, test in finding.tests.items()},
        "gates": [vars(gate) for gate in finding.gates],
        "reason": finding.reason,
    }
    gates = table(
        "Gates",
        ("gate", "", "what was found"),
        [(g.name, "holds" if g.passed else "fails", g.value) for g in finding.gates],
        "Where a gate fails, the claim is not judged.",
    )
    if not finding.tests:
        return Evidence(tables=(gates,), finding=record, reason=finding.reason)
    (judgement,) = judge([finding])
    label = next((p.label for p in judgement.parts if (p.value, p.low) == (judgement.value, judgement.low)), "")
    test = finding.tests[label] if label else next(iter(finding.tests.values()))
    parts = table(
        "Parts",
        ("part", "value", "low", "high"),
        [(p.label, p.value, p.low, p.high) for p in judgement.parts],
        f"The claim is a{'n existence claim' if finding.claim.kind == 'existence' else ' conjunction'}: it is decided by "
        f"{label}, whose value the cell shows.",
    )
    return replace(Evidence.of(test, tables=(*[parts] * bool(label), gates)), finding=record)


def finding_of(row: str, column: str, evidence: Evidence) -> Finding:
    """The inverse of `evidence_of`."""
    claim, record = claim_of(CLAIMED[row, column]), evidence.finding
    assert record is not None
    tests = {
        label: MeanTest(**{**test, "theta_by_seed": tuple(test["theta_by_seed"])})
        for label, test in record["tests"].items()
    }
    return Finding(claim, tests, tuple(Gate(**gate) for gate in record["gates"]), record["reason"])


def judge_cells(ctx: StepContext) -> None:
    """All cells: one table of estimates, and the page's claims judged together."""
    s = ctx.settings
    found = {(row, column): Evidence.read(ctx.inputs[f"{row}-{column}"]) for row, column in s["cells"]}
    findings = [
        finding_of(*cell, found[cell])
        if cell in found
        else Finding(claim_of(claimed), {}, reason="its cell is not among the rows and columns asked for")
        for cell, claimed in CLAIMED.items()
    ]
    judged = judge(findings, not_judged_because=s["not_judged"])
    write_estimates(ctx.out / ESTIMATES, [estimate_of(*cell, evidence) for cell, evidence in found.items()])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    (ctx.out / CELLS).write_text(json.dumps([plain(*cell, evidence) for cell, evidence in found.items()]))


def estimate_of(row: str, column: str, e: Evidence) -> Estimate:
    where: dict[str, Any] = {"network": row, "reason": e.reason}
    return Estimate(column, e.value, e.low, e.high, e.method, e.null, n=e.n, seeds=e.seeds, **where)


def plain(row: str, column: str, evidence: Evidence) -> Mapping[str, Any]:
    return {"row": row, "column": column, **asdict(evidence)}
