"""A relation in words, to be read in a terminal."""

from __future__ import annotations

from heldout.analyses.equivalence.found import SHOWN, Candidate, Relation, interval

EXAMPLES = 6


def summary(r: Relation) -> str:
    """What was found, what else it could be, where it holds, and what the answers are made of."""
    sign = {"add": "a + b", "subtract": "a - b", "multiply": "a × b"}[r.operation]
    asked = sign if r.modulus is None else f"({sign}) mod {r.modulus}"
    unread = f", {r.unparsable} of them without a readable answer" if r.unparsable else ""
    lines = [
        f"{r.pairs} pairs, asked for {asked} in base {r.base}{unread}; {r.tried} hypotheses",
        f"truth           {r.truth:.3f} of held-out answers",
        f"shuffled        {r.null:.3f} is what the best of the grammar reaches (95th percentile)",
    ]
    if r.found:
        lines += ["rule            " + r.best.names[0], "                " + _support(r.best, r.threshold)]
        lines += _others(r)
    else:
        lines += ["no relation     " + r.reason, "                best: " + r.best.names[0]]
    lines += ["", *_strata(r), "", *_mixture(r)]
    return "\n".join(lines)


def examples(r: Relation, n: int = EXAMPLES) -> str:
    """What the model answers, what the rule predicts, and where they differ: some pairs of either kind."""
    frame = r.answers()
    rows = [frame[frame["follows_rule"]].head(n), frame[~frame["follows_rule"]].head(n)] if r.found else [frame.head(n)]
    columns = ["a", "b", "answer", *(["rule"] if r.found else []), "truth", "component"]
    parts = []
    for title, part in zip(("follows the rule", "differs from it") if r.found else ("some pairs",), rows, strict=True):
        text = part[columns].fillna("-").to_string(index=False) if len(part) else "(none)"
        parts.append(f"{title}\n" + "\n".join("  " + line for line in text.splitlines()))
    return "\n\n".join(parts)


def probes(r: Relation, n: int) -> str:
    """The pairs that would separate what is left, and the rules that none would."""
    found = r.probes(n)
    names = list(found.agreement.index)
    if len(names) < 2:
        return "nothing to separate: one rule is left"
    lines = [f"({i + 1}) {name}" for i, name in enumerate(names)]
    for group in found.together:
        lines.append("never told apart: " + ", ".join(f"({names.index(name) + 1})" for name in group))
    if len(found.pairs) and found.least_disagreement == found.least_disagreement:
        lines.append(f"probes on which they disagree (each two of them on at least {found.least_disagreement:.0%})")
        table = found.pairs.rename(columns={name: f"({i + 1})" for i, name in enumerate(names)})
        lines += ["  " + line for line in table.to_string(index=False).splitlines()]
    return "\n".join(lines)


def _support(c: Candidate, threshold: float) -> str:
    return f"{interval(*c.heldout)} of {c.heldout[1]} held-out answers; lower bound {c.low:.3f} > {threshold:.3f}"


def _others(r: Relation) -> list[str]:
    same = r.best.names[1:]
    lines = [f"alike on every pair given ({len(same)})" for _ in same[:1]]
    lines += [f"                {name}" for name in same[:SHOWN]]
    rest = [c for i, c in enumerate(r.candidates) if c.in_set and i != r.winner]
    lines += [f"not separable from it ({len(rest)})" for _ in rest[:1]]
    lines += [f"                {c.names[0]}: {interval(*c.heldout)}, p = {c.separation:.2g}" for c in rest[:SHOWN]]
    return lines


def _strata(r: Relation) -> list[str]:
    lines = ["held-out exact match by digits of a + digits of b", f"  {'digits':<8} {'n':>7} {'truth':>7}  rule"]
    for s in sorted(r.strata, key=lambda s: -s.n)[: 2 * SHOWN]:
        rule = "-" if s.rule is None else f"{s.rule / s.n:.3f} [{s.low:.3f}, {s.high:.3f}]"
        lines.append(f"  {s.lengths[0]:>2}+{s.lengths[1]:<5} {s.n:>7} {s.truth / s.n:>7.3f}  {rule}")
    if len(r.strata) > 2 * SHOWN:
        lines.append(f"  ... {len(r.strata) - 2 * SHOWN} more")
    return lines


def _mixture(r: Relation) -> list[str]:
    lines = ["what the answers are made of (weights fitted to all pairs)"]
    return lines + [
        f"  {weight:6.3f}  {name}" for name, weight in zip(r.mixture.components, r.mixture.weights, strict=True)
    ]
