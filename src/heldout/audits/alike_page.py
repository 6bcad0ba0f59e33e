"""The part of an audit's page on similarity: how alike networks are at each site, and whether that holds on every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from heldout.analyses.similarity.measures import MEASURES
from heldout.audits.alike import VALUE, P
from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table

FALL = f"{VALUE}_fall"
TEXT = (
    "Similarity of the activations of two networks on the same stimuli, one row for each independent unit of a split. "
    "The null pairs the stimuli of one network with the wrong ones of the other; its 95th percentile stands beside.",
    "Alike is not the same computation: what is loud in both decides the figure, and two networks that compute the "
    "same may be less alike than one of them is to a network that computes less. A fall says that they part on that split.",
)


def alike_sentences(estimates: pd.DataFrame, reference: str) -> tuple[str, ...]:
    """For the summary: for every two networks and site, the first measure on the reference and the largest fall from it."""
    rows = _of(estimates, VALUE)
    if rows.empty:
        return ()
    first = rows["measure"].iloc[0]
    falls = _of(estimates, FALL)
    found = []
    for r in rows[(rows["measure"] == first) & (rows["split"] == reference)].to_dict("records"):
        own = falls[(falls["network"] == r["network"]) & (falls["site"] == r["site"]) & (falls["measure"] == first)]
        said = f"{r['network']} at {r['site']}: {MEASURES[first].label} {r['value']:.3f} on {reference}"
        if len(own) and own["value"].notna().any():
            worst = own.loc[own["value"].idxmax()]
            said += f", {r['value'] - worst['value']:.3f} on {worst['split']}"
            verdict = (
                "less alike there"
                if worst["low"] > 0
                else "more alike there"
                if worst["high"] < 0
                else "no sure change"
            )
            said += f": {verdict} (fall {worst['value']:.3f}, interval {worst['low']:.3f} to {worst['high']:.3f})"
        found.append(f"{said}.")
    return tuple(found)


def alike_section(estimates: pd.DataFrame, cautions: Mapping[str, Sequence[str]]) -> Section | None:
    """One figure a measure, and a table of everything."""
    rows = _of(estimates, VALUE)
    if rows.empty:
        return None
    figures: list[Figure] = []
    for name, own in rows.groupby("measure", sort=False):
        label = MEASURES[str(name)].label
        beside = own.assign(value=own["null"], low=float("nan"), high=float("nan"), split=own["split"] + ": null")
        figures.append(
            forest(
                pd.concat([own, beside]),
                id=f"alike-{name}",
                title=f"How alike: {label}",
                label="what",
                group="split",
                x=label,
                limits="Measures have different scales. A high figure does not show that networks compute the same.",
                unit="stimuli",
            )
        )
    said = [f"{split}: {text}" for split, texts in cautions.items() for text in texts]
    return Section("alike", "Are the networks alike?", (*TEXT, *said), tuple(figures), (_table(estimates),))


def _table(estimates: pd.DataFrame) -> Table:
    p = {_key(r): r["value"] for r in _of(estimates, P).to_dict("records")}
    falls = {_key(r): r for r in _of(estimates, FALL).to_dict("records")}
    rows = []
    for r in _of(estimates, VALUE).to_dict("records"):
        fall = falls.get(_key(r))
        between = None if fall is None else f"{fall['value']:.4f} ({fall['low']:.4f} to {fall['high']:.4f})"
        numbers = (round(float(v), 4) for v in (r["value"], r["low"], r["high"], r["null"], p[_key(r)]))
        rows.append((r["network"], r["site"], MEASURES[r["measure"]].label, r["split"], *numbers, int(r["n"]), between))
    return Table(
        title="Every similarity",
        columns=("networks", "site", "measure", "split", "similarity", "low", "high", "null", "p", "stimuli", "fall"),
        rows=rows,
        caption="Low, high: 95% interval over stimuli (and training runs, where there are several). Null: 95th "
        "percentile, p one-sided, both with stimuli permuted. Fall: less than on the reference split, with its interval.",
        folded=True,
    )


def _key(row: Mapping[str, object]) -> tuple[object, ...]:
    return row["network"], row["site"], row["measure"], row["split"]


def _of(estimates: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The estimates of one kind, with their `measure`, and `what` is compared in words."""
    rows = estimates[estimates["quantity"].str.startswith(f"{kind}:")]
    measures = [quantity.partition(":")[2] for quantity in rows["quantity"]]
    what = [f"{r['network']}, {r['site']}" for r in rows.to_dict("records")]
    return rows.assign(measure=measures, what=what)
