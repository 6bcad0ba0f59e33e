"""The page of the images study: how loud colour and shape are, where the readout reads, along the way, and elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd

from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table
from heldout.studies.features_shown import interval, share
from heldout.studies.images import EASY, HARD
from heldout.studies.images_estimates import GAP, called, site
from heldout.studies.images_measure import ALL, INITIAL, MEAN, POSITIONS, TRAINED
from heldout.studies.images_shown import BEYOND, EXPLAINED, GAP_AXIS, OVER_SEEDS, UNIT, Shown
from heldout.tasks.images import FEATURES


def pooling(here: Shown) -> Section:
    """F11: where the readout reads, trained and untrained."""
    both = [called(n, when) for when in (TRAINED, INITIAL) for n in here.networks]
    loud = here.at_reading("variance_explained", both)
    loud = loud[loud["feature"].isin(FEATURES)]
    gaps = here.at_reading(GAP, [*both, *here.differences()])
    return Section(
        "pooling",
        "Behind the spatial pooling",
        (
            "The two kinds of network have the same parameters, and in a seed the same initial weights, pictures and order "
            "of batches; a residual one adds each block's input to its output. Variance explained asks how much of the "
            "pooled layer's variance a linear map from a feature's value accounts for: fitted on val, scored on test, "
            f"pooled over units. It says how loud a feature is, not how readable or how important.{_not_asked(here)}",
        ),
        figures=(
            forest(
                loud,
                id="pooling",
                title="Variance explained where the readout reads (F11)",
                label="network",
                group="feature",
                x=EXPLAINED,
                limits=f"{OVER_SEEDS} Rescalings of units that leave the network's function unchanged move it: see the "
                "bands.",
                unit=UNIT,
                marks=(0.0, 1.0),
            ),
            forest(
                gaps,
                id="gap",
                title="Colour minus shape, and what residual connections change of it",
                label="network",
                x=GAP_AXIS,
                limits=f"{OVER_SEEDS} Differences of plain and residual networks are paired by seed. To the right: "
                f"{EASY} is louder, or louder without the connections; to the left: {HARD}.",
                unit=UNIT,
            ),
        ),
        tables=(_bands(here), _layer(here), _by_seed(here)),
    )


def _not_asked(here: Shown) -> str:
    """Said of features that vary and are no output."""
    names = [f for f in FEATURES if f not in here.config.outputs]
    return f" No output asks for {' or '.join(names)}." if names else ""


def _bands(here: Shown) -> Table:
    kinds = ("variance_explained", "band_low", "band_high", "zscored", "whitened")
    found = {k: here.at_reading(k, here.networks).set_index(["network", "feature"])["value"] for k in kinds}
    keys = found["band_low"].index
    return Table(
        title="The same under changes that leave the network's function as it is",
        columns=("network", "feature", "as it is", "least", "greatest", "units z-scored", "whitened"),
        rows=[(*key, *(share(found[k].get(key, np.nan)) for k in kinds)) for key in keys],
        caption="Means over seeds. Least and greatest: over rescalings of units, z-scores and whitening; the next layer's "
        "weights can undo each. Whitened, features that can be decoded explain about the same.",
    )


def _layer(here: Shown) -> Table:
    together = here.at_reading("variance_explained", here.networks)
    together = together[together["feature"] == ALL].set_index("network")
    dimensions = here.at_reading("effective_dimension", here.networks).set_index("network")
    return Table(
        title="The layer as a whole",
        columns=("network", "explained by all features", "95% interval", "effective dimension", "95% interval"),
        rows=[(n, *interval(together.loc[n], share), *interval(dimensions.loc[n])) for n in dimensions.index],
        caption="Variance explained by shape, texture and colour together, without their interactions; the rest goes with "
        "those, with place and with turn. Effective dimension: (sum l)^2 / sum l^2 of the components' variances.",
    )


def _by_seed(here: Shown) -> Table:
    names = [*here.networks, *here.differences()]
    found = {name: here.gap_of_seeds(name) for name in names}
    return Table(
        title="The gap, seed by seed",
        columns=("seed", *names),
        rows=[(seed, *(share(found[n].get(seed, np.nan)) for n in names)) for seed in here.config.seed_list()],
        caption=f"{GAP_AXIS[:1].upper()}{GAP_AXIS[1:]}, where the readout reads.",
        folded=True,
    )


def along(here: Shown) -> Section:
    figures = []
    for key, view, words in (("along", MEAN, "mean over positions"), ("positions", POSITIONS, "each position a row")):
        sites = [site(i, view) for i in range(max(map(here.last, here.networks)) + 1)]
        rows = here.rows("variance_explained", here.networks, sites)
        rows = rows[rows["feature"].isin([EASY, HARD])]
        rows = rows.assign(
            where=[s.partition(",")[0] for s in rows["site"]],
            who=[f"{f}, {n}" for f, n in zip(rows["feature"], rows["network"], strict=True)],
        )
        order = rows["site"].map(sites.index)
        figures.append(_stages(rows.loc[order.sort_values(kind="stable").index], key, words))
    return Section(
        "along",
        "Along the network",
        (
            "Maps behind the stem and behind each stage, in two views. As the mean over positions, a picture is one row: "
            "what pooling there would give. With each position a row, before any pooling, most of the variance lies between "
            "positions of one picture, of which its label explains nothing: compare features there with each other, not "
            "with the other view.",
        ),
        figures=tuple(figures),
    )


def _stages(rows: pd.DataFrame, key: str, words: str) -> Figure:
    return forest(
        rows,
        id=key,
        title=f"Variance explained along the network: {words}",
        label="where",
        group="who",
        x=EXPLAINED,
        limits=f"{OVER_SEEDS} Stages differ in channels and in the size of their maps.",
        unit=UNIT,
    )


def beyond(here: Shown) -> Section:
    """Splits that the networks were not trained for: maps are carried over from val."""
    gaps = pd.concat([here.at_reading(GAP, here.networks, split).assign(where=split) for split in ("test", *BEYOND)])
    right = pd.concat(
        [here.rows("accuracy", here.networks, [""], split).assign(where=split) for split in ("test", *BEYOND)]
    )
    right["who"] = [f"{f}, {n}" for f, n in zip(right["feature"], right["network"], strict=True)]
    return Section(
        "beyond",
        "On pictures of another kind",
        (
            "The maps fitted on val are scored on pictures that the networks were not trained for: combinations of shape, "
            "texture and colour that were kept back, shapes turned further, shapes half as large. The gap is between what "
            "two maps still explain there: it moves with how well each carries over, too.",
        ),
        figures=(
            forest(
                gaps,
                id="beyond",
                title="Colour minus shape where the readout reads, by split",
                label="where",
                group="network",
                x=GAP_AXIS,
                limits=f"{OVER_SEEDS} Map and centring are val's.",
                unit=UNIT,
            ),
            forest(
                right,
                id="accuracy",
                title="Accuracy, by split",
                label="where",
                group="who",
                x="accuracy",
                limits=f"{OVER_SEEDS} Chance is one over the number of values.",
                unit=UNIT,
                marks=(1.0,),
            ),
        ),
    )
