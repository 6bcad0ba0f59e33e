"""The part of an audit's page on the rule behind a network's answers: found or not, how sure, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from heldout.evidence import Estimate, estimates_frame
from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table
from heldout.statistics.intervals import proportion_interval

# One record of each network, run and split, as `heldout.audits.summary` keeps them.
Rules = Sequence[Mapping[str, Any]]

ASKED = {"add": "a + b", "subtract": "a - b", "multiply": "a × b"}
OPEN = 4  # networks, runs and splits whose tables are not folded
DRAWN = 16  # operand lengths in a figure: those of most pairs
TEXT = (
    "A rule is chosen on one half of the pairs and confirmed on the other: its lower 95% bound must exceed what the best "
    "of all hypotheses reaches on shuffled answers by more than 0.1. Each network and split is judged on its own.",
    "A rule says what the answers are equal to on pairs like these, neither how the network computes them nor what it "
    "answers elsewhere. No relation means none of those searched: a rule outside the grammar is not found.",
)


def rule_sentences(rules: Rules) -> tuple[str, ...]:
    """For the summary: one sentence for each network, run and split."""
    found = []
    for r in rules:
        if r["found"]:
            k, n = _matches(r)
            low, high = proportion_interval(k, n)
            said = (
                f"the answers follow {r['rule']}: {100 * k / n:.1f}% of {n:,} held-out answers ({100 * float(low):.1f} to "
                f"{100 * float(high):.1f}); {100 * r['truth']:.1f}% are right."
            )
        else:
            said = f"no relation between operands and answers: {r['reason']}."
        found.append(f"{_who(r, rules)}: {said}")
    return tuple(found)


def rule_section(rules: Rules) -> Section | None:
    """What was found; then for each network, run and split the rest of the evidence."""
    if not rules:
        return None
    tables = [_overview(rules)]
    for i, r in enumerate(rules):
        who = _who(r, rules)
        own = [_mixture(r, who), *(_answers(r, who, kind) for kind in ("differ", "follow") if r[kind])]
        tables += [replace(t, folded=t.folded or i >= OPEN) for t in own]
        tables += [*([_set(r, who)] if r["found"] else []), _lengths(r, who)]
    figures = [_figure(r, _who(r, rules), i) for i, r in enumerate(rules)]
    return Section("rule", "Which rule do its answers follow?", TEXT, tuple(figures), tuple(tables))


def _who(r: Mapping[str, Any], rules: Rules) -> str:
    """The split, with the network and run where there are several."""
    networks, runs = ({x[field] for x in rules} for field in ("network", "seed"))
    network = f" of {r['network']}" if len(networks) > 1 else ""
    return f"{r['split']}{network}" + (f", run {r['seed']}" if len(runs) > 1 else "")


def _matches(r: Mapping[str, Any]) -> tuple[int, int]:
    """Held-out matches of the rule, or of the best hypothesis; and of how many."""
    best = r["best"]
    return round(best["heldout"] * best["n"]), best["n"]


def _overview(rules: Rules) -> Table:
    rows = []
    for r in rules:
        k, n = _matches(r)
        asked = ASKED[r["operation"]] if r["modulus"] is None else f"({ASKED[r['operation']]}) mod {r['modulus']}"
        rows.append(
            (
                *(r["network"], r["seed"], r["split"], asked, r["pairs"], r["unparsable"]),
                *(r["rule"] if r["found"] else "no relation", f"{k:,} of {n:,}", r["best"]["low"], r["threshold"]),
                *((len(r["not_separable"]), r["differing"]) if r["found"] else (None, None)),
                *(r["truth"], r["reason"]),
            )
        )
    return Table(
        title="What was found",
        columns=(
            *("network", "run", "split", "asked", "pairs", "unreadable", "rule", "held-out matches", "lower bound"),
            *("to exceed", "rules left", "break it", "right", "why there is none"),
        ),
        rows=rows,
        caption="Held-out matches: unordered pairs of the half that no rule was chosen on; where there is no relation, "
        "those of the best hypothesis. Lower bound: one-sided, 95%, over the shortlist. Rules left: those that the answers "
        "do not tell apart. Break it: of all answers. Right: exact matches with the true result, held-out half.",
    )


def _set(r: Mapping[str, Any], who: str) -> Table:
    alike = r["best"]["class"]
    return Table(
        title=f"Rules that the answers on {who} do not tell apart ({len(r['set'])})",
        columns=("rule", "held-out match", "p against the first"),
        rows=[
            (c["rule"], c["heldout"], "answers alike" if c["class"] == alike else c["p_separation"]) for c in r["set"]
        ],
        caption="The first is the shortest to describe. p: McNemar's test, two-sided; answers alike: on every pair given.",
        folded=True,
    )


def _lengths(r: Mapping[str, Any], who: str) -> Table:
    return Table(
        title=f"Held-out matches on {who} by length of the operands",
        columns=("digits of a", "digits of b", "pairs", "right", "follow the rule", "low", "high"),
        rows=[
            (
                *(*s["lengths"], s["n"], s["truth"] / s["n"]),
                *((None,) * 3 if s["rule"] is None else (s["rule"] / s["n"], s["low"], s["high"])),
            )
            for s in r["strata"]
        ],
        caption="Shares of the held-out pairs; low, high: 95% interval of the share that follows the rule.",
        folded=True,
    )


def _mixture(r: Mapping[str, Any], who: str) -> Table:
    columns = list(r["mixture"][0])
    return Table(
        title=f"What the answers on {who} are made of",
        columns=columns,
        rows=[[row["component"], *(round(row[c], 4) for c in columns[1:])] for row in r["mixture"]],
        caption="Weights by length of a + length of b, fitted to all pairs with the answers in view: they describe, and "
        "test nothing. Unexplained: no rule and no slip of it gives the answer more often than chance.",
    )


def _answers(r: Mapping[str, Any], who: str, kind: str) -> Table:
    """Some answers that follow the rule, or differ from it (some of all where there is none)."""
    rows, found = r[kind], r["found"]
    columns = ("a", "b", "answer", *(("rule",) if found else ()), "truth", *(("component",) if found else ()))
    title = (
        {"differ": "Answers that break the rule", "follow": "Answers that follow it"}[kind] if found else "Some answers"
    )
    total = r["differing"] if kind == "differ" else r["pairs"] - r["differing"]
    return Table(
        title=f"{title} on {who}",
        columns=[{"answer": "network", "component": "most likely"}.get(c, c) for c in columns],
        rows=[[row[c] for c in columns] for row in rows],
        caption=f"The first {len(rows)} of {total:,}, in the split's order; numbers in base {r['base']}."
        + (" Most likely: the part of the mixture." if found else ""),
        folded=kind == "follow",
    )


def _figure(r: Mapping[str, Any], who: str, number: int) -> Figure:
    """Exact match with the truth and with the rule, by length of the operands."""
    rows = []
    for s in sorted(r["strata"], key=lambda s: -s["n"])[:DRAWN]:
        kept = {"truth": s["truth"], **({} if s["rule"] is None else {"rule": s["rule"]})}
        for quantity, k in kept.items():
            low, high = proportion_interval(k, s["n"])
            split = "{} + {} digits".format(*s["lengths"])
            rows.append(Estimate(quantity, k / s["n"], float(low), float(high), n=s["n"], split=split))
    frame = estimates_frame(rows)
    left = max(0, len(r["strata"]) - DRAWN)
    return forest(
        frame.assign(against=frame["quantity"].map({"truth": "the truth", "rule": "the rule"})),
        id=f"rule-{number}",
        title=f"Held-out answers on {who}: right, or right by the rule?",
        label="split",
        group="against",
        x="share of held-out answers",
        limits="A match does not say how the answer was computed."
        + (f" {left} lengths with fewer pairs are in the table only." if left else ""),
        unit="pairs",
        marks=(0.0, 1.0),
    )
