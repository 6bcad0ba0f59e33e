"""The parts of an audit's page on what is looked at closely: why agreement is lost, whether one can tell, and where.

What matters is shown; the rest is folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from heldout.figures import forest
from heldout.figures.base import edit_name
from heldout.figures.page import Section, Table

UNIT = "units"
TOP = 3  # readings that are shown unfolded: those that lose most beyond their null
ROWS = 5  # largest disagreements that are shown unfolded
DIVERGENCE = {
    "regression": "squared difference in units of the network's output scale",
    "embedding": "1 - cosine",
}
GAPS = {
    "gap": "as it is",
    "gap_reweighted": "at the reference's margins",
    "gap_oracle": "fitted on the split itself",
}

# Network, site, edit, and its size (None: none, or one of its own in each run).
Key = tuple[str, str, str, float | None]


def most_telling(estimates: pd.DataFrame) -> dict[Key, str]:
    """The readings that lose most beyond their null (agree least, where there is one test split): -> on which split.

    At most `TOP` of them, the first first.
    """
    rows = estimates[(estimates["quantity"] == "excess_gap") & estimates["value"].notna()]
    if rows.empty:
        rows = estimates[(estimates["quantity"] == "chosen_same") & estimates["value"].notna()]
        rows = rows.assign(value=-rows["value"])
    rows = rows.sort_values("value", ascending=False, kind="stable")
    found: dict[Key, str] = {}
    for row in rows.to_dict("records"):
        if len(found) < TOP:
            found.setdefault(_key(row), row["split"])
    return found


def _key(row: Mapping[Any, Any]) -> Key:
    size = row["parameter"]
    return row["network"], row["site"], row["edit"], None if pd.isna(size) else float(size)


def reasons(estimates: pd.DataFrame, reference: str, audits: Sequence[Mapping[str, Any]]) -> Section | None:
    """The gap again, reweighted to the reference's margins, and with the edit fitted on the split itself."""
    rows = estimates[estimates["quantity"].isin(GAPS) & estimates["value"].notna()].copy()
    if rows["quantity"].nunique() < 2:
        return None
    rows["how"] = rows["quantity"].map(GAPS)
    rows["label"] = [f"{r['split']}, {edit_name(r['edit'], r['parameter'])}" for r in rows.to_dict("records")]
    rows = rows.assign(oracle=False).sort_values(["network", "site", "split", "edit", "parameter"], kind="stable")
    figures = [
        forest(
            part,
            id=f"reasons-{i}",
            title=f"The gap by what could explain it: {site}" + (f" of {network}" if network != "network" else ""),
            label="label",
            group="how",
            x=f"same prediction on {reference} minus on the split",
            limits="None of them says which predictions are lost.",
            unit=UNIT,
        )
        for i, ((network, site), part) in enumerate(rows.groupby(["network", "site"], sort=False))
    ]
    unfitted = sorted({f"{split}: {why}" for a in audits for split, why in a["oracles_not_fitted"].items()})
    return Section(
        "reasons",
        "Smaller margins, the wrong subspace, or too few dimensions?",
        (
            f"At the reference's margins, predictions of the split count as if the network were as sure there as on "
            f"{reference}: a gap that closes is one of margins.",
            "Fitted on the split itself (an oracle: it has seen one half and is scored on the other), a gap that closes "
            "says that the dimensions were the wrong ones, a gap that stays says that they are too few.",
            *([f"No oracle could be fitted on {'; '.join(unfitted)}."] if unfitted else []),
        ),
        tuple(figures),
    )


def early_warning(estimates: pd.DataFrame, top: Mapping[Key, str]) -> Section | None:
    """How well each score tells, within a split, where an edit disagrees with its network."""
    rows = estimates[estimates["quantity"].str.startswith("auroc: ")].copy()
    if rows.empty:
        return None
    rows["score"] = rows["quantity"].str.removeprefix("auroc: ")
    constant = rows["low"].eq(rows["high"]) & rows["value"].eq(0.5)
    rows = rows[~rows["score"].isin(set(rows["score"]) - set(rows["score"][~constant & rows["value"].notna()]))]
    rows["who"] = [_key(r) for r in rows.to_dict("records")]
    figures = [
        forest(
            part,
            id=f"warning-{i}",
            title=f"Can one tell where {edit_name(*who[2:])} at {who[1]} will disagree?",
            label="split",
            group="score",
            x="area under the ROC curve, within the split",
            limits="0.5 is chance. It does not say how many warnings would be right, nor how splits compare.",
            unit=UNIT,
            marks=(0.5,),
        )
        for i, who in enumerate(top)
        if len(part := rows[rows["who"].map(who.__eq__) & rows["value"].notna()])
    ]
    table = Table(
        title=f"Every area under the curve ({len(rows)} values)",
        columns=("network", "site", "reading", "split", "score", "AUROC", "low", "high", "units", "why there is none"),
        rows=[
            (
                *r["who"][:2],
                edit_name(*r["who"][2:]),
                r["split"],
                r["score"],
                r["value"],
                r["low"],
                r["high"],
                r["n"],
                r["reason"],
            )
            for r in rows.to_dict("records")
        ],
        caption="Low, high: 95% interval over units (and training runs, where there are several).",
        folded=True,
    )
    text = (
        "Scores of single predictions that need neither labels nor the network's own answers: how much of the replaced rows "
        "the reading loses (reconstruction error), how far they lie from those of the fit split (distance), how sure the "
        "edited network is (small margin). Length, position and its entropy are what they must beat. Scores that do not "
        "vary are left out.",
    )
    return Section("warning", "Can one tell where it will fail?", text, tuple(figures), (table,))


def disagreements(rows: Sequence[Mapping[str, Any]], kind: str, top: Mapping[Key, str]) -> Section | None:
    """The largest disagreements: of the readings that lose most a few, all others folded."""
    if not rows:
        return None
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["seed"], row["site"], row["edit"], row["split"]), []).append(row)
    several = len({key[:2] for key in groups}) > 1
    shown, folded = [], []
    for (network, run, site, edit, split), own in groups.items():
        title = f"{edit} at {site} on {split}" + (f" ({network}, run {run})" if several else "")
        size = own[0]["parameter"]
        for place, ((*who, parameter), on) in enumerate(top.items()):
            if run == 0 and on == split and who == [network, site, own[0]["name"]] and parameter in (None, size):
                shown.append((place, _table(title, own[:ROWS], kind, total=len(own))))
        folded.append(_table(title, own, kind, folded=True))
    tables = [table for _, table in sorted(shown, key=lambda s: s[0])]
    text = (
        "Of the readings that lose most, on the split where they do; all others, and longer lists, are folded below.",
    )
    return Section("worst", "The largest disagreements", text if tables else (), (), (*tables, *folded))


def _table(
    title: str, rows: Sequence[Mapping[str, Any]], kind: str, *, folded: bool = False, total: int | None = None
) -> Table:
    columns = ("item", "position", "context", "answer", "edited", "target", "divergence")
    kept = [c for c in columns if c not in ("context", "target", "position") or any(r[c] for r in rows)]
    other = sum(not r["same"] for r in rows)
    more = f" (of {total})" if total is not None and total > len(rows) else ""
    return Table(
        title=title,
        columns=["network" if c == "answer" else c for c in kept],
        rows=[[_shown(r[c]) for c in kept] for r in rows],
        caption=f"The {len(rows)} largest disagreements{more}, {other} of them other predictions; by "
        f"{DIVERGENCE.get(kind, 'KL(network || edited), nats')}. Item: its number in the split, from 0.",
        folded=folded,
    )


def _shown(value: Any) -> Any:
    """Text with its blanks visible."""
    return value.replace("\n", "⏎").replace("\t", "⇥") if isinstance(value, str) else value
