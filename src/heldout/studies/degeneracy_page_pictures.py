"""Section of the degeneracy page on pictures: the interaction basis of an MLP beside components and neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from heldout.figures import Figure, faithfulness_curves, forest
from heldout.figures.page import Section, Table
from heldout.studies.features_shown import interval, rounded, share

if TYPE_CHECKING:
    from heldout.studies.degeneracy_shown import Shown

BASES = {"lib": "interaction basis", "pca": "principal components", "neuron": "neurons"}
UNIT = "networks"


def pictures(here: Shown) -> Section:
    """Features and edges that keep the accuracy of an MLP on pictures. It belongs to no claim."""
    tolerances = known_tolerances(here.estimates["quantity"])
    text = (
        "The same question of an MLP that names what is in a picture. Layers are its pixels, each hidden layer behind the "
        "ReLU, and logits, which every basis leaves as they are. Bases and edges are found on train and counts are chosen "
        "on select. At the pixels a neuron is a pixel.",
        "This stands beside the claims; none of them reads it.",
    )
    return Section(
        "pictures",
        "And in a network that reads pictures?",
        text,
        figures=(curves(here), *(needed(here, tolerance) for tolerance in tolerances)),
        tables=(networks(here), ratios(here, tolerances), costs(here, tolerances), strongest(here)),
    )


def known_tolerances(quantities: pd.Series) -> list[str]:
    """Of the counts of edges, finest first."""
    found = {q.rpartition(":")[2] for q in quantities.unique() if q.startswith("pictures:edges_needed:")}
    return sorted(found, key=float)


def rows_of(here: Shown, *quantities: str) -> pd.DataFrame:
    """Estimates of some quantities, in their order, with the basis in words."""
    e = here.estimates[here.estimates["quantity"].isin(quantities)]
    return e.assign(basis=[BASES.get(edit, edit) for edit in e["edit"]])


def curves(here: Shown) -> Figure:
    rows = rows_of(here, "pictures:curve").assign(quantity="accuracy", split=lambda r: r["basis"])
    return faithfulness_curves(
        rows,
        quantity="accuracy",
        id="pictures-curve",
        title="Accuracy with some features of one layer",
        unit=UNIT,
        by=("site",),
        parameter="features kept",
    )


def needed(here: Shown, tolerance: str) -> Figure:
    return forest(
        rows_of(here, f"pictures:edges_needed:{tolerance}"),
        id=f"pictures-edges-{tolerance.replace('.', '-')}",
        title=f"Edges needed, accuracy within {tolerance}",
        label="site",
        group="basis",
        x=f"edges between features that keep accuracy within {tolerance}",
        limits="Chosen on select. One section is cut at a time, so that the rest may make up for it.",
        unit=UNIT,
    )


def networks(here: Shown) -> Table:
    items = rows_of(here, "pictures:items").set_index("split")["value"]
    rows = [
        (r["split"], f"{items[r['split']]:g}", *interval(r, share))
        for r in rows_of(here, "pictures:accuracy").to_dict("records")
    ]
    return Table(
        title="Accuracy of the networks on pictures",
        columns=("split", "pictures", "accuracy", "95% interval"),
        rows=rows,
        caption="train: what they learnt from; select: training pictures set aside, on which a count is chosen: one picture "
        "more or less is the finest change there is; id: held-out pictures.",
    )


def ratios(here: Shown, tolerances: list[str]) -> Table:
    """What other bases need over what the interaction basis needs, within a network."""
    rows = [
        (r["site"], what, r["basis"], tolerance, *interval(r))
        for what in ("edges", "features")
        for tolerance in tolerances
        for r in rows_of(here, f"pictures:{what}_ratio:{tolerance}").to_dict("records")
    ]
    return Table(
        title="Needed in other bases, over the interaction basis",
        columns=("where", "what", "basis", "tolerance", "log ratio", "95% interval"),
        rows=rows,
        caption="Natural logarithm of the count in this basis over that in the interaction basis, of one network each; "
        "above 0 the interaction basis needs fewer.",
    )


def costs(here: Shown, tolerances: list[str]) -> Table:
    """What was needed, and what the same parts cost where nobody looked."""
    rows = []
    for what in ("features", "edges"):
        for tolerance in tolerances:
            count, cost = (rows_of(here, f"pictures:{what}_{q}:{tolerance}") for q in ("needed", "cost"))
            for c, lost in zip(count.to_dict("records"), cost.to_dict("records"), strict=True):
                rows.append((c["site"], what, c["basis"], tolerance, *interval(c), *interval(lost)))
    return Table(
        title="Needed, and what it costs elsewhere",
        columns=("where", "what", "basis", "tolerance", "needed", "95% interval", "cost on id", "95% interval"),
        rows=rows,
        caption="Needed: on select. Cost: accuracy on id of the whole network minus that with only these parts; below 0 "
        "they do better.",
        folded=True,
    )


def strongest(here: Shown) -> Table:
    found = rows_of(here, "pictures:features", "pictures:strongest").to_dict("records")
    words = {"pictures:features": "features there are", "pictures:strongest": "edges with 99% of the strength"}
    return Table(
        title="What there is",
        columns=("where", "what", "basis", "mean", "95% interval"),
        rows=[(r["site"], words[r["quantity"]], r["basis"], *interval(r, rounded)) for r in found],
        caption="Features: directions that vary (components) and that move the next layer too (interaction basis). "
        "Strength: the mean square of gradient times activation, summed over the edges of a section.",
        folded=True,
    )
