"""The page of an audit: identity first, gaps beside their nulls, curves, accuracy, the largest disagreements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from heldout.audits.steps import SUMMARY
from heldout.audits.summary import AUDITS, ESTIMATES, WORST
from heldout.evidence import read_estimates
from heldout.figures import accuracy_figure, faithfulness_curves, gap_figure
from heldout.figures.page import IdentityCheck, Page, Section, Table

if TYPE_CHECKING:
    from heldout.figures.base import Figure
    from heldout.runs import Run

UNIT = "units"
CURVES = {  # quantity -> title; drawn where the scoring has it
    "same_prediction": "Agreement against size",
    "kl": "Divergence against size",
    "r_squared": "R² against size",
    "neighbour_agreement": "Neighbour agreement against size",
    "cosine": "Cosine against size",
}
DIVERGENCE = {
    "regression": "squared difference in units of the network's output scale",
    "embedding": "1 - cosine",
}
SAME = {
    "regression": "Two predictions are the same where they differ by at most {tolerance:g} of the network's output scale "
    "(its standard deviation on {reference}).",
    "embedding": "Two embeddings are the same where their nearest item of a fixed reference set (from {reference}) is.",
}


def audit_page(run: Run) -> Page:
    """The page of a finished audit."""
    folder, config = run.output(SUMMARY), run.manifest["config"]
    estimates = read_estimates(folder / ESTIMATES)
    audits, worst, splits = (json.loads((folder / name).read_text()) for name in (AUDITS, WORST, "splits.json"))
    reference = run.manifest["reference"]
    sections = [_gaps(estimates, config, reference), _curves(estimates), _accuracy(estimates)]
    sections += [_worst(worst, config), _setting(splits, audits, config)]
    return Page(
        title=config["name"],
        question="Does what was read off this network still hold where it was not made?",
        summary=_summary(estimates),
        identity=tuple(_identity(a) for a in audits),
        sections=tuple(s for s in sections if s is not None),
        manifest=run.manifest,
        warnings=_warnings(run, audits),
    )


def _warnings(run: Run, audits: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = []
    if run.stale:
        found.append(
            f"The source has changed since {len(run.stale)} of {len(run.steps())} steps were computed: what this page shows "
            "may not be what the code now computes. Audit again with --fresh '*' to be sure."
        )
    unmatched = sorted({c["label"] for a in audits for c in a["chosen"] if c["reason"]})
    if unmatched:
        found.append(
            f"No noise agrees with the network as often as {', '.join(unmatched)}: the null beside is the nearest there is, "
            "and the difference from it says little."
        )
    runs = len({a["seed"] for a in audits})
    if runs == 1:
        found.append("One training run: intervals describe this network on other items, not other training runs.")
    return tuple(found)


def _identity(audit: Mapping[str, Any]) -> IdentityCheck:
    check = audit["identity"]
    return IdentityCheck(
        label=f"{audit['network']}, run {audit['seed']}",
        site=", ".join(check["sites"]),
        max_abs_difference=check["difference"],
        tolerance=check["tolerance"],
        passed=check["difference"] <= check["tolerance"],
        replay=check["replay"],
    )


def _summary(estimates: pd.DataFrame) -> tuple[str, ...]:
    """For each reading: where it loses most beyond its null, or that it does not."""
    excess = estimates[(estimates["quantity"] == "excess_gap") & estimates["value"].notna()]
    sentences = []
    for (network, site, edit, size), rows in excess.groupby(
        ["network", "site", "edit", "parameter"], sort=False, dropna=False
    ):
        shown = f"{edit}{'' if pd.isna(size) else f' {size:g}'}"
        top = rows.sort_values("value", ascending=False, kind="stable").iloc[0]
        beyond = list(rows[rows["low"] > 0]["split"])
        said = (
            f"loses most on {top['split']}, {100 * top['value']:.1f} points of agreement more than equally damaging noise "
            f"(interval {100 * top['low']:.1f} to {100 * top['high']:.1f})"
            if beyond
            else f"loses no more than equally damaging noise on {', '.join(rows['split'])}"
        )
        who = f"{network}: " if estimates["network"].nunique() > 1 else ""
        sentences.append(f"{who}{shown} at {site} {said}.")
    return tuple(sentences)


def _gaps(estimates: pd.DataFrame, config: Mapping[str, Any], reference: str) -> Section | None:
    kind = config["scoring"]["kind"]
    meaning = SAME.get(kind, "").format(tolerance=config["scoring"]["tolerance"], reference=reference)
    text = (
        f"A gap is how much less often the edited network gives the network's own prediction than on {reference}. Agreement "
        "with any disturbed network falls where the network is less sure, so each gap stands beside that of random noise "
        f"at the same place that agrees as often on {reference}.",
        *([meaning] if meaning else []),
    )
    if not (estimates["quantity"] == "gap").any():
        rows = estimates[estimates["quantity"] == "chosen_same"]
        table = _values(
            rows, "Agreement", "There is one test split, and so no gap: add a split on which nothing was looked at."
        )
        return Section("gaps", "Does it hold?", (), (), (table,))
    gap = gap_figure(estimates, unit=UNIT)
    return Section("gaps", "Where the reading stops holding", text, (gap,))


def _curves(estimates: pd.DataFrame) -> Section | None:
    figures: list[Figure] = []
    for quantity, title in CURVES.items():
        rows = estimates[(estimates["quantity"] == quantity) & estimates["parameter"].notna()]
        if len(rows):
            drawn = estimates[estimates["quantity"].ne(quantity) | estimates["parameter"].gt(0)]
            if (drawn["quantity"] == quantity).any():
                figures.append(
                    faithfulness_curves(drawn, quantity=quantity, id=quantity, title=title, unit=UNIT, parameter="size")
                )
    if not figures:
        return None
    text = ("haar: a random subspace of the same rank, the floor that any choice of directions has to beat.",)
    return Section("curves", "Against size", text, tuple(figures))


def _accuracy(estimates: pd.DataFrame) -> Section | None:
    rows = estimates[estimates["quantity"].isin(["accuracy_network", "accuracy_proxy"])]
    if rows.empty:
        return None
    return Section("accuracy", "Is it right where the network is right?", (), (accuracy_figure(rows, unit=UNIT),))


def _worst(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Section | None:
    if not rows:
        return None
    divergence = DIVERGENCE.get(config["scoring"]["kind"], "KL(network || edited), nats")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["seed"], row["site"], row["edit"], row["split"]), []).append(row)
    several = len({key[:2] for key in groups}) > 1
    columns = ("item", "position", "context", "answer", "edited", "target", "divergence")
    tables = []
    for (network, run, site, edit, split), own in groups.items():
        kept = [c for c in columns if c not in ("context", "target") or any(r[c] for r in own)]
        kept = [c for c in kept if c != "position" or any(r[c] for r in own)]
        other = sum(not r["same"] for r in own)
        tables.append(
            Table(
                title=f"{edit} at {site} on {split}" + (f" ({network}, run {run})" if several else ""),
                columns=["network" if c == "answer" else c for c in kept],
                rows=[[_shown(r[c]) for c in kept] for r in own],
                caption=f"The {len(own)} largest disagreements, {other} of them other predictions; by {divergence}. "
                "Item: its number in the split, from 0.",
            )
        )
    return Section("worst", "The largest disagreements", (), (), tuple(tables))


def _shown(value: Any) -> Any:
    """Text with its blanks visible."""
    return value.replace("\n", "⏎").replace("\t", "⇥") if isinstance(value, str) else value


def _setting(
    splits: Sequence[Mapping[str, Any]], audits: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> Section:
    sizes = Table(
        title="Splits",
        columns=("split", "role", "items", "what it is"),
        rows=[(s["name"], s["role"], s["items"], s["note"]) for s in splits],
        caption="Items: number of items.",
    )
    chosen = [(a, c) for a in audits for c in a["chosen"]]
    ruled = [(a, c) for a, c in chosen if c["ruled"]]
    tables = [sizes]
    if ruled:
        tables.append(
            Table(
                title="What the rank rule chose",
                columns=("network", "run", "site", "family", "size", "agreement on select", "reached"),
                rows=[
                    (
                        a["network"],
                        a["seed"],
                        c["site"],
                        c["name"],
                        c["parameter"],
                        round(c["agreement"], 4),
                        c["reached"],
                    )
                    for a, c in ruled
                ],
                caption=f"The smallest size whose agreement with the network on the select split reaches "
                f"{config['threshold']:g}; where none does, the largest tried.",
            )
        )
    tables.append(
        Table(
            title="How well each null matches",
            columns=("network", "run", "site", "reading", "scale", "its agreement", "the null's", "match"),
            rows=[
                (
                    *(a["network"], a["seed"], c["site"], c["label"], round(c["scale"], 3)),
                    *(round(c["target"], 4), round(c["null_agreement"], 4), c["reason"] or "yes"),
                )
                for a, c in chosen
            ],
            caption="Agreement on the reference split. Scale: length of the noise over that of the edit's own change.",
        )
    )
    return Section(id="setting", title="What was compared", tables=tuple(tables))


def _values(rows: pd.DataFrame, title: str, caption: str) -> Table:
    return Table(
        title=title,
        columns=("network", "site", "reading", "size", "split", "same prediction", "low", "high", "units"),
        rows=[
            (r["network"], r["site"], r["edit"], r["parameter"], r["split"], r["value"], r["low"], r["high"], r["n"])
            for r in rows.to_dict("records")
        ],
        caption=caption,
    )
