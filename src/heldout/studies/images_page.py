"""The page of the images study: what was found in words, the networks, and what was compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from heldout.figures import Figure, training_curves
from heldout.figures.page import Page, Section, Table
from heldout.runs import Run
from heldout.studies.features_shown import interval, share
from heldout.studies.images import EASY, HARD, ImagesConfig, settings_from, train_name
from heldout.studies.images_estimates import GAP
from heldout.studies.images_page_loudness import along, beyond, pooling
from heldout.studies.images_pictures import samples
from heldout.studies.images_shown import BEYOND, Shown
from heldout.studies.images_train import HISTORY
from heldout.studies.simplify import lasting, run_warnings
from heldout.tasks.images import Images


def images_page(run: Run, config: ImagesConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    sections = (pooling(here), along(here), beyond(here), samples(config), _networks(here))
    return Page(
        title=title,
        question="Two networks name the shape and the colour of a picture equally well, and one has residual connections: "
        "which of the two features do they represent with more variance?",
        summary=tuple(_summary(here)),
        sections=sections,
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
        edited=False,
    )


def _summary(here: Shown) -> Iterator[str]:
    yield (
        "Exploratory: this study makes no claim and judges none. Its figures have intervals over training seeds; they hold "
        "for these pictures, networks and settings."
    )
    for name in here.networks:
        loud = here.at_reading("variance_explained", [name]).set_index("feature")
        gap = here.at_reading(GAP, [name]).iloc[0]
        if np.isfinite(gap["value"]):
            colour, shape = (100 * loud.loc[f, "value"] for f in (EASY, HARD))
            yield (
                f"{name}: where the readout reads, {EASY} explains {colour:.1f}% of the variance and {HARD} {shape:.1f}%; "
                f"the difference is {100 * gap['value']:.1f} points{_points(gap)}, above 0 in {_above(here, name)} seeds."
            )
    for name in here.differences():
        gap = here.at_reading(GAP, [name]).iloc[0]
        if np.isfinite(gap["value"]):
            yield f"{name}: {_turn(gap)} Positive in {_above(here, name)} seeds."
    passed = sum(g["passed"] for g in here.gates)
    yield (
        f"{passed} of {len(here.gates)} kinds of network pass the accuracy gate in every seed (each output above .95 on "
        "test, outputs within .01 of each other)."
    )
    yield (
        "A reader's account of arXiv 2405.05847 has a strong colour bias in a network without residual connections and a "
        "strong shape bias in one with them, at the spatial pooling; its networks, pictures and figures are not known here."
    )


def _points(row: pd.Series) -> str:
    return f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" if np.isfinite(row["low"]) else ""


def _turn(row: pd.Series) -> str:
    """What the connections do to the difference, as far as the interval says."""
    if not row["low"] * row["high"] > 0:
        return f"the difference moves by {100 * row['value']:.1f} points{_points(row)}, which may be none."
    kind = "larger" if row["value"] > 0 else "smaller"
    return f"without the connections the difference is {kind}: {100 * row['value']:.1f} points{_points(row)}."


def _above(here: Shown, network: str) -> str:
    """How many seeds have a gap above 0 where the readout reads."""
    gaps = here.gap_of_seeds(network)
    return f"{int((gaps > 0).sum())} of {len(gaps)}"


def _networks(here: Shown) -> Section:
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Networks that miss a gate are not dropped: they are shown and said to miss it.",
    )
    return Section(
        "networks",
        "The networks and what was compared",
        figures=(_training(here),),
        tables=(gates, _answers(here), _splits(here)),
    )


def _training(here: Shown) -> Figure:
    frames = []
    for name in here.networks:
        for seed in here.config.seed_list():
            frame = pd.read_parquet(here.run.output(train_name(name, seed)) / HISTORY)
            frames.append(frame[frame["metric"].str.startswith("accuracy:")].assign(network=name, seed=seed))
    curves = pd.concat(frames, ignore_index=True)
    curves["split"] = curves["metric"].str.partition(":")[2]
    curves["n"] = here.config.val
    return training_curves(curves, metric="accuracy on val", unit="pictures")


def _answers(here: Shown) -> Table:
    rows = []
    for split in ("val", "test", *BEYOND):
        right = here.rows("accuracy", here.networks, [""], split)
        loss = here.rows("cross_entropy", here.networks, [""], split).set_index(["network", "feature"])
        for r in right.to_dict("records"):
            nats = interval(loss.loc[(r["network"], r["feature"])])
            rows.append((split, r["network"], r["feature"], *interval(r, share), *nats))
    return Table(
        title="What the networks answer",
        columns=("split", "network", "output", "accuracy", "95% interval", "cross-entropy, nats", "95% interval"),
        rows=rows,
        caption="Means and t intervals over seeds.",
        folded=True,
    )


def _splits(here: Shown) -> Table:
    config = here.config
    task = Images(settings_from(config.task()), seed=config.first_seed)
    return Table(
        title="Splits",
        columns=("split", "role", "pictures", "what it is"),
        rows=[(s.name, s.role, len(s), s.note) for s in task.splits.values()],
        caption=f"{len(config.shapes)} shapes, {len(config.textures)} textures and {len(config.colours)} colours at "
        f"{config.size} x {config.size} pixels. Each seed draws pictures of its own.",
    )
