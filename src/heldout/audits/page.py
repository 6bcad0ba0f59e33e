"""The page of an audit: identity first, gaps beside their nulls, curves, accuracy, the largest disagreements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from heldout.audits.alike_page import alike_section, alike_sentences
from heldout.audits.features_page import feature_sentences, features_section
from heldout.audits.rule_page import rule_section, rule_sentences
from heldout.audits.sections import UNIT, disagreements, early_warning, most_telling, reasons
from heldout.audits.steps import SUMMARY
from heldout.audits.summary import ALIKE, ALIKE_CAUTIONS, AUDITS, ESTIMATES, FEATURES, LABELLED, RULES, WORST
from heldout.evidence import read_estimates
from heldout.figures import accuracy_figure, faithfulness_curves, gap_figure
from heldout.figures.base import edit_name
from heldout.figures.page import IdentityCheck, Page, Section, Table

if TYPE_CHECKING:
    from heldout.figures.base import Figure
    from heldout.runs import Run

READ = "Does what was read off this network still hold where it was not made?"
ANSWERED = "Which rule do the answers of this network follow?"
CARRIED = "Which labels do activations carry loudly, which quietly, and which matter?"
ALIKE_IN = "Are these networks alike, and do they stay so where they were not compared?"
SUMMED = 6  # readings that the summary names
CURVES = {  # quantity -> title; drawn where the scoring has it
    "same_prediction": "Agreement against size",
    "kl": "Divergence against size",
    "r_squared": "R² against size",
    "neighbour_agreement": "Neighbour agreement against size",
    "cosine": "Cosine against size",
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
    names = (AUDITS, WORST, RULES, LABELLED, "splits.json")
    audits, worst, rules, labelled, splits = (json.loads((folder / name).read_text()) for name in names)
    figures, alike = (read_estimates(folder / name) for name in (FEATURES, ALIKE))
    cautions = json.loads((folder / ALIKE_CAUTIONS).read_text())
    reference = run.manifest["reference"]
    sections: list[Section | None] = []
    if audits:
        top = most_telling(estimates)
        sections += [_gaps(estimates, config, reference), reasons(estimates, reference, audits), _curves(estimates)]
        sections += [
            _accuracy(estimates),
            early_warning(estimates, top),
            disagreements(worst, config["scoring"]["kind"], top),
        ]
    training_runs = {row["seed"] for row in [*audits, *rules, *labelled]}
    if len(alike) and not training_runs:
        training_runs = set(range(int(alike["seeds"].max())))
    sections += [rule_section(rules), features_section(figures, labelled), alike_section(alike, cautions)]
    sections += [_setting(splits, audits, config)]
    return Page(
        title=config["name"],
        question=READ if audits else ANSWERED if rules else CARRIED if labelled else ALIKE_IN,
        summary=(
            *(_summary(estimates) if audits else ()),
            *rule_sentences(rules),
            *feature_sentences(figures, reference),
            *alike_sentences(alike, reference),
        ),
        identity=tuple(_identity(a) for a in audits),
        sections=tuple(s for s in sections if s is not None),
        manifest=run.manifest,
        warnings=_warnings(run, audits, training_runs),
        edited=bool(audits),
    )


def _warnings(run: Run, audits: Sequence[Mapping[str, Any]], training_runs: set[int]) -> tuple[str, ...]:
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
    if len(training_runs) == 1:
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
    """Where each reading loses most beyond its null, the worst first; and how many are not shown to."""
    excess = estimates[(estimates["quantity"] == "excess_gap") & estimates["value"].notna()]
    found, others = [], []
    for (network, site, edit, size), rows in excess.groupby(
        ["network", "site", "edit", "parameter"], sort=False, dropna=False
    ):
        who = f"{network}: " if estimates["network"].nunique() > 1 else ""
        shown = f"{who}{edit_name(edit, size)} at {site}"
        beyond = rows[rows["low"] > 0].sort_values("value", ascending=False, kind="stable")
        if beyond.empty:
            others.append(shown)
            continue
        top = beyond.iloc[0]
        said = (
            f"{shown} loses most on {top['split']}, {100 * top['value']:.1f} points of agreement more than equally damaging "
            f"noise (interval {100 * top['low']:.1f} to {100 * top['high']:.1f})."
        )
        found.append((float(top["value"]), said))
    found.sort(key=lambda f: -f[0])
    sentences = [said for _, said in found[:SUMMED]]
    if len(found) > SUMMED:
        sentences.append(f"{len(found) - SUMMED} more lose more than equally damaging noise, by less than these.")
    if others:
        who = ", ".join(others) if len(others) <= SUMMED else f"{len(others)} of {len(found) + len(others)} readings"
        sentences.append(f"Not shown to lose more than equally damaging noise on any split: {who}.")
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
    haar = "haar: a random subspace of the same rank, the floor that any choice of directions has to beat."
    return Section("curves", "Against size", (haar,) if (estimates["edit"] == "haar").any() else (), tuple(figures))


def _accuracy(estimates: pd.DataFrame) -> Section | None:
    rows = estimates[estimates["quantity"].isin(["accuracy_network", "accuracy_proxy"])]
    if rows.empty:
        return None
    return Section("accuracy", "Is it right where the network is right?", (), (accuracy_figure(rows, unit=UNIT),))


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
    if not chosen:
        return Section(id="setting", title="What was compared", tables=tuple(tables))
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
