"""The part of an audit's page on labels: which are loud, which quiet, which matter, and on which split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table

UNIT = "rows or clusters"
LOUD, NULL = "variance_explained", "permutation null"
TEXT = (
    "Variance explained is what a label's own linear map, fitted on the fit split, explains of the activations of a test "
    "split: how loud it is there. It says nothing of what the network does with it. How much a label matters is how many "
    "answers change when the directions of its map are removed; random directions stand beside, and hold less variance.",
    "A quiet label that matters is computed but quiet: its rank by answers changed is above its rank by variance.",
    "The band of a figure is where it moves when units are rescaled in ways that a network can undo, z-scored or whitened: "
    "variance is a matter of scale.",
)
RATES = {
    "variance_explained": "as it is",
    "variance_balanced": "levels made equally frequent",
    "variance_refitted": "and the map refitted on half of this split",
}


def feature_sentences(figures: pd.DataFrame, reference: str) -> tuple[str, ...]:
    """For the summary: at each site the loudest label on the reference, and those that are computed but quiet."""
    found = []
    rows = _of(figures, LOUD)
    for (network, site), own in rows[rows["split"] == reference].groupby(["network", "site"], sort=False):
        known = own[own["value"].notna()].sort_values("value", ascending=False)
        if known.empty:
            continue
        who = f"{site} of {network}" if rows["network"].nunique() > 1 else str(site)
        heard = known[~(known["value"] <= known["null"])]  # without a null, a label may be there
        if heard.empty:
            found.append(f"{who}: no label exceeds what its permutations explain on {reference}.")
            continue
        top = heard.iloc[0]
        said = (
            f"{who}: {top['label']} is the loudest label on {reference} ({_percent(top['value'])} of the variance, interval "
            f"{_percent(top['low'])} to {_percent(top['high'])})"
        )
        index = _of(figures, "dissociation")
        index = index[(index["network"] == network) & (index["site"] == site) & (index["split"] == reference)]
        quiet = index[(index["low"] > 0) & index["label"].isin(heard["label"])]["label"]
        found.append(said + (f"; computed but quiet: {', '.join(quiet)}." if len(quiet) else "."))
    return tuple(found)


def features_section(figures: pd.DataFrame, labelled: Sequence[Mapping[str, Any]]) -> Section | None:
    """One figure a site for loudness and one for what matters; tables of everything; warnings."""
    if not labelled:
        return None
    drawn: list[Figure] = []
    tables: list[Table] = []
    for i, ((network, site), own) in enumerate(figures.groupby(["network", "site"], sort=False)):
        who = str(site) + (f" of {network}" if figures["network"].nunique() > 1 else "")
        drawn += _figures(own, who, i)
        tables.append(_table(own, who))
        tables += _rates(own, who)
    text = [*TEXT, *_warnings(labelled)]
    return Section("features", "Loud, quiet, and what matters", tuple(text), tuple(drawn), tuple(tables))


def _figures(own: pd.DataFrame, who: str, number: int) -> list[Figure]:
    loud = _of(own, LOUD)
    beside = loud.assign(value=loud["null"], low=float("nan"), high=float("nan"), split=loud["split"] + f": {NULL}")
    found = [
        forest(
            pd.concat([loud, beside[beside["value"].notna()]]),
            id=f"loud-{number}",
            title=f"How loud each label is at {who}",
            label="label",
            group="split",
            x="share of variance explained, held out",
            limits="The permutation null is its 95th percentile, within strata of the other labels. Loud is not important.",
            unit=UNIT,
        )
    ]
    matters = _of(own, "changed")
    if matters["value"].notna().any():
        beside = matters.assign(
            value=matters["null"], low=float("nan"), high=float("nan"), split=matters["split"] + ": random directions"
        )
        found.append(
            forest(
                pd.concat([matters, beside[beside["value"].notna()]]),
                id=f"matters-{number}",
                title=f"How much each label matters at {who}",
                label="label",
                group="split",
                x="share of answers that change when its directions are removed",
                limits="Random directions are as many and hold less variance. What changes nothing may be read elsewhere.",
                unit="units",
            )
        )
    return found


def _table(own: pd.DataFrame, who: str) -> Table:
    """A row a label and split: all that is known of it."""
    cells = {(r["split"], r["label"], r["measure"]): r for r in _named(own).to_dict("records")}
    pairs = list(dict.fromkeys((split, label) for split, label, measure in cells if measure == LOUD))

    def value(split: str, label: str, measure: str, field: str = "value") -> float | None:
        row = cells.get((split, label, measure))
        return None if row is None or row[field] != row[field] else round(float(row[field]), 4)

    rows = []
    for split, label in pairs:
        of = partial(value, split, label)
        reasons = [r["reason"] for (s, name, _), r in cells.items() if (s, name) == (split, label) and r["reason"]]
        band = (of("variance_band", "low"), of("variance_band", "high"))
        rows.append(
            (
                *(split, label, of(LOUD), of(LOUD, "low"), of(LOUD, "high"), of(LOUD, "null"), of("permutation_p")),
                *(of("variance_unique"), "" if None in band else f"{band[0]:.3f} to {band[1]:.3f}"),
                *(of("density"), of("discoveries"), of("decoded"), of("decoded", "null")),
                *(of("changed"), of("changed", "null"), of("dissociation"), of("dissociation_p")),
                "; ".join(dict.fromkeys(reasons)),
            )
        )
    return Table(
        title=f"Every label at {who}",
        columns=(
            *("split", "label", "variance explained", "low", "high", "null", "p", "unique", "band", "density"),
            *("units with it", "decoded", "largest class", "answers changed", "random", "rank difference", "p of it"),
            "what could not be estimated",
        ),
        rows=rows,
        caption="Low, high: 95% interval over rows, or clusters of rows. Null: 95th percentile over permuted labels. "
        "Unique: what no other label explains. Units with it: share of live units correlated with it at a false-discovery "
        "rate of 5%. Decoded: accuracy of a linear probe within the split, nested cross-validation. Rank difference: by "
        "answers changed less by variance, above 0 computed but quiet. Over training runs: means, the largest p, the widest "
        "band.",
    )


def _rates(own: pd.DataFrame, who: str) -> list[Table]:
    """The same at equal frequency of levels: what base rates alone would change."""
    rows = _named(own)
    rows = rows[rows["measure"].isin(RATES)]
    table = rows.pivot_table("value", ["label", "split"], "measure", sort=False, dropna=False)
    if "variance_balanced" not in table.columns:
        return []
    kept = table.dropna(subset=["variance_balanced"])
    if kept.empty:
        return []
    columns = [c for c in RATES if c in kept.columns]
    return [
        Table(
            title=f"At equal frequency of levels, {who}",
            columns=("label", "split", *(RATES[c] for c in columns)),
            rows=[
                (*key, *(None if v != v else round(float(v), 4) for v in row))
                for key, row in zip(kept.index, kept[columns].to_numpy(), strict=True)
            ],
            caption="Variance explained depends on how frequent levels are. Compare splits in the second column (does what "
            "was found on the fit split hold here?) or in the third (how loud is it here?), never across.",
            folded=True,
        )
    ]


def _warnings(labelled: Sequence[Mapping[str, Any]]) -> list[str]:
    said: dict[str, list[str]] = {}
    for record in labelled:
        for warning in record["warnings"]:
            said.setdefault(warning, []).append(record["split"])
    return [f"{', '.join(dict.fromkeys(splits))}: {warning}." for warning, splits in said.items()]


def _of(figures: pd.DataFrame, measure: str) -> pd.DataFrame:
    rows = _named(figures)
    return rows[rows["measure"] == measure]


def _named(figures: pd.DataFrame) -> pd.DataFrame:
    """With `measure` and `label` from the quantity."""
    parts = figures["quantity"].str.partition(":")
    return figures.assign(measure=parts[0], label=parts[2]) if len(figures) else figures.assign(measure="", label="")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
