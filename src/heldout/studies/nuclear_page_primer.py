"""The section of the nuclear page on modular addition: which algorithms networks of one task use."""

from __future__ import annotations

import json

import pandas as pd

from heldout.analyses.geometry.algorithms import ENOUGH, LABELS
from heldout.figures import Figure, Matrix, forest, heatmap
from heldout.figures.page import Section, Table
from heldout.studies.features_shown import rounded, share
from heldout.studies.nuclear_primer import KNOWN, class_table, primer_networks, primer_theta
from heldout.studies.nuclear_shown import Shown

SHARES = {"share_both": "a pizza and a clock side by side", "share_mixed": "a circle between the two"}
POOLINGS = {"mean": "mean of two embeddings", "concat": "two embeddings side by side"}
KEYS = ["modulus", "pooling", "width", "weight_decay", "share"]


def primer(here: Shown) -> Section:
    p = here.config.primer
    text = [
        "Networks add two numbers modulo p. On a circle of embeddings there are two ways: a pizza averages both and "
        "reads the slice that the midpoint falls in, a clock multiplies. A network is named where it answers, and "
        f"still does with nothing but circles that are read in a known way; {ENOUGH:.0%} of the answers must be right.",
        f"The sweep was fixed in advance: moduli {listed(p.moduli)}, widths {listed(p.widths)}, weight decays "
        f"{listed(p.weight_decays)} and shares of the pairs {listed(p.shares)}, with every seed. None is left out, "
        "also those that answer nothing. Where embeddings are averaged clocks are impossible, so that the claim is "
        "about the others.",
    ]
    figures = [labels(here)]
    rows = here.rows(*SHARES)
    if len(rows):
        figures.append(shares(rows))
    else:
        text.append("No network of this run is named, so that there are no shares.")
    tables = (thetas(here), known(here), every_cell(here))
    return Section("primer", "Is one task learnt by one algorithm?", tuple(text), figures=tuple(figures), tables=tables)


def listed(values: tuple[float, ...] | tuple[int, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def labels(here: Shown) -> Figure:
    """How many networks bear each name, by the hyperparameters that tell most."""
    table = primer_networks(here.cells)
    table["cell"] = [f"width {w}, decay {d:g}" for w, d in zip(table["width"], table["weight_decay"], strict=True)]
    cells = list(dict.fromkeys(table.sort_values(["width", "weight_decay"])["cell"]))
    matrices = []
    for pooling, rows in table.groupby("pooling", sort=False):
        counts = pd.crosstab(rows["cell"], rows["label"]).reindex(index=cells, columns=LABELS, fill_value=0)
        total = counts.sum(axis=1).to_numpy()[:, None]
        matrices.append(Matrix(POOLINGS[str(pooling)], (counts / total).to_numpy(), total.repeat(len(LABELS), axis=1)))
    return heatmap(
        matrices,
        rows=cells,
        columns=LABELS,
        id="algorithms",
        title="Algorithms by width and weight decay",
        row_title="networks",
        column_title="algorithm",
        value_title="share of networks",
        limits="unclear: no named way carries the answers, most often because there are none. Moduli, shares of the "
        "pairs and seeds are taken together. Shares are of this sweep and not of networks in general.",
    )


def shares(rows: pd.DataFrame) -> Figure:
    return forest(
        rows.assign(where=[POOLINGS[n] for n in rows["network"]], what=[SHARES[q] for q in rows["quantity"]]),
        id="shares",
        title="Several algorithms in one network",
        label="where",
        group="what",
        x="share of named networks, mean over seeds",
        limits="Of networks that have a name. The share depends on the sweep.",
        unit="seeds",
        marks=(0.0, 1.0),
    )


def thetas(here: Shown) -> Table:
    return Table(
        title="The rarer of two algorithms, by seed",
        columns=("seed", "named networks", "share", "why there is none"),
        rows=[(t.seed, t.networks, share(t.value), t.reason) for t in primer_theta(here.cells)],
        caption="Two embeddings side by side. The least of two shares of named networks: with a loud circle that is a "
        "pizza, and with one that is a clock.",
    )


def known(here: Shown) -> Table:
    rows = []
    for modulus in here.config.primer.moduli:
        for name, found in json.loads((here.output(f"known-{modulus}") / KNOWN).read_text()).items():
            rows.append(
                (modulus, name, found["right"], found["label"], "yes" if found["label"] == found["right"] else "no")
            )
    return Table(
        title="Networks whose algorithm is known",
        columns=("modulus", "network", "what it is", "what it is called", "right"),
        rows=rows,
        caption="Networks in closed form, memorising and untrained ones, named by the same rule.",
        folded=True,
    )


def every_cell(here: Shown) -> Table:
    table = class_table(here.cells)
    columns = [*KEYS, "networks", "answer", "one_circle", *LABELS]
    rows = [
        tuple(POOLINGS.get(v, v) if isinstance(v, str) else rounded(v) if isinstance(v, float) else int(v) for v in row)
        for row in table[columns].itertuples(index=False, name=None)
    ]
    return Table(
        title="Every cell of the sweep",
        columns=(
            "modulus",
            "embeddings",
            "width",
            "weight decay",
            "share of the pairs",
            "networks",
            "answer",
            "one circle",
            *LABELS,
        ),
        rows=rows,
        caption=f"Numbers of networks. answer: at least {ENOUGH:.0%} of pairs that were not trained on, or of "
        "training pairs where all are trained on. one circle: it alone, in the first two components, answers.",
        folded=True,
    )
