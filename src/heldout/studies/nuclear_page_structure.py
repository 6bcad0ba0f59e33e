"""Sections of the nuclear page on order, on how embeddings came to be, and on the plane of a token."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from heldout.figures import Figure, Plane, forest, lines, plane
from heldout.figures.page import Section, Table
from heldout.studies.features_shown import interval
from heldout.studies.nuclear import UNTRAINED
from heldout.studies.nuclear_shown import NUMBERS, Shown, spread
from heldout.studies.nuclear_structure import ARRAYS, SHOWN_COMPONENTS, TOPOGRAPHY

WHO = {"trained": "trained", UNTRAINED: "untrained"}
NULL, OBSERVED = "95th percentile of the null", "embeddings"
EVERY = 2  # points of a plane's grid, to either side, of which one is drawn


def structure(here: Shown) -> Section:
    text = (
        "Parity: how much farther numbers of different parity lie from each other than numbers of the same, 1 for not "
        "at all. Order: the share of numbers of one parity that follow their neighbour on the first component. "
        "The null of parity shuffles what departs from the local trend, so that smoothness does not count; that of "
        "order shuffles numbers freely, so that anything smooth exceeds it.",
    )
    figures = (
        against(here, "parity", "mean distance between parities over that within them"),
        against(here, "order", "share of neighbours in order on the first component"),
    )
    return Section("structure", "Are numbers in order, and do even and odd ones part?", text, figures, (spectra(here),))


def against(here: Shown, quantity: str, x: str) -> Figure:
    """A quantity of trained and untrained tables, beside its null."""
    rows = here.rows(quantity)
    rows = rows.assign(
        what=[f"{NUMBERS[s]}, {WHO[n]}" for s, n in zip(rows["site"], rows["network"], strict=True)], kind=OBSERVED
    )
    nulls = rows.assign(kind=NULL, value=rows["null"], low=np.nan, high=np.nan)
    return forest(
        pd.concat([rows, nulls]),
        id=quantity,
        title=quantity.capitalize(),
        label="what",
        group="kind",
        x=x,
        limits="Of nulls the mean over seeds is shown, which has no interval.",
        unit="networks",
        marks=(1.0,) if quantity == "parity" else (0.5, 1.0),
    )


def spectra(here: Shown) -> Table:
    rows = here.rows("participation", "above").to_dict("records")
    words = {"participation": "participation ratio", "above": "components above the level without any relation"}
    return Table(
        title="How many directions a table has",
        columns=("embeddings of", "", "mean", "95% interval"),
        rows=[(NUMBERS[r["site"]], words[r["quantity"]], *interval(r)) for r in rows],
        caption=f"{len(here.seeds)} networks on binding energies, {here.config.width} wide.",
    )


def evolution(here: Shown) -> Section:
    text = (
        "Embeddings as they were during training, compared with those at its end. Similarity is the cosine of the "
        "angular Procrustes distance, 1 for the same table up to a rotation.",
    )
    arrays = [dict(np.load(folder / ARRAYS)) for folder in here.each("structure")]
    figures = []
    for quantity, title, y in (
        ("similarity", "Similarity to the embeddings at the end", "similarity, 0 to 1"),
        ("share", "Variance in the leading components", "share of the variance"),
    ):
        frames = []
        for column, words in NUMBERS.items():
            for a in arrays:
                values = a[f"{column} evolution {quantity}"].reshape(len(a[f"{column} evolution steps"]), -1)
                for i, each in enumerate(values.T):
                    name = f"component {i + 1}" if quantity == "share" else "to the end"
                    steps = a[f"{column} evolution steps"]
                    frames.append(pd.DataFrame({"panel": words, "name": name, "x": steps, "y": each}))
        figures.append(
            lines(
                spread(pd.concat(frames), ("panel", "name", "x")),
                id=f"evolution-{quantity}",
                title=title,
                x="training step",
                y=y,
                caption=(
                    f"Means over n = {len(arrays)} networks; bands: the least and the greatest. "
                    f"{frames[0]['x'].nunique()} moments; what happened between them is not seen.",
                    "Components are those of each moment."
                    if quantity == "share"
                    else "How similar embeddings are says nothing of what is in them.",
                ),
            )
        )
    return Section("evolution", "How do embeddings come to be?", text, tuple(figures), (moved(here, arrays),))


def moved(here: Shown, arrays: list[dict[str, np.ndarray]]) -> Table:
    """How far tokens move from one moment to the next, as they are and beside rotations."""
    rows = []
    for column, words in NUMBERS.items():
        steps = arrays[0][f"{column} evolution steps"].astype(int).tolist()
        for i, (a, b) in enumerate(pairwise(steps)):
            each = [np.mean([one[f"{column} evolution {what}"][i] for one in arrays]) for what in ("moved", "reshaped")]
            angles = np.mean([one[f"{column} evolution patterns"][i + 1] for one in arrays], axis=0)
            rows.append(
                (
                    words,
                    f"{a:,} to {b:,}",
                    *(f"{v:.3f}" for v in each),
                    ", ".join(f"{d:.0f}°" for d in np.degrees(angles)),
                )
            )
    return Table(
        title="How far embeddings move",
        columns=("embeddings of", "steps", "moved", "reshaped", "angles to the end"),
        rows=rows,
        caption="Root mean square change of a token's place over the table's size at the end, as it is and with the "
        f"best rotation of the whole table taken out. Angles: between the scores on the first {SHOWN_COMPONENTS} "
        f"components and those at the end, at the later of the two steps. Means over {len(arrays)} networks.",
        folded=True,
    )


def topography(here: Shown) -> Section:
    arrays = here.structure
    planes = []
    for column, name in (("n", "N"), ("z", "Z")):
        chart = {part: arrays[f"{column} chart {part}"] for part in ("x", "y", "values", "tokens")}
        tokens = arrays[f"{column} tokens"]
        other = {"n": "Z", "z": "N"}[column]
        planes.append(
            Plane(
                f"{NUMBERS[column]}, {other} = {TOPOGRAPHY[column]}",
                chart["x"][::EVERY],
                chart["y"][::EVERY],
                chart["values"][::EVERY, ::EVERY] / 1e3,
                chart["tokens"],
                [f"{name} = {t}" for t in tokens],
            )
        )
    figure = plane(
        planes,
        id="topography",
        title=f"What the network answers over the plane of a token, seed {here.seed}",
        x="component 1",
        y="component 2",
        value="predicted binding energy per nucleon, MeV",
        named=20,
        limits="All other components of the embedding are at their mean, which is true of no token: what is predicted "
        "for a number may differ from the colour that it stands on. Between and beyond tokens the network "
        "extrapolates.",
    )
    text = (
        "An embedding is put in the place of one number, anywhere in the plane of the first two components, and the "
        "other number is held. The picture shows how the answer depends on the place.",
    )
    return Section("topography", "What lies between the tokens?", text, (figure,))
