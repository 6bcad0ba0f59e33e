"""The page of the features study: over which units and components features are spread."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from heldout.figures import Figure, Matrix, forest, heatmap, scatter_components
from heldout.figures.page import Section, Table
from heldout.studies.features import HEADLINE
from heldout.studies.features_conditions import EXPERIMENTS
from heldout.studies.features_shown import UNIT, Shown, curves, interval, section

BINS = np.linspace(0.0, 1.0, 11)  # of a unit's r^2


def units(here: Shown) -> Section:
    return section(
        "units",
        "Over how many units it is spread",
        (
            "Density is 1 where all live units carry a feature alike and 1/U where one of U does. An unrepresented feature "
            "scores about one third by chance: permuted labels and random directions stand beside.",
        ),
        {
            "r² of single units": lambda: _histogram(here),
            "density beside its nulls": lambda: _density(here),
        },
    )


def _histogram(here: Shown) -> Figure:
    name = here.ran([HEADLINE, *here.conditions])[0]
    names, r2 = here.features(name), here.pictures(name)["unit_r2"]
    edges = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(BINS)]
    counts = np.stack(
        [np.histogram(np.clip(r2[:, i][np.isfinite(r2[:, i])], 0, 1), BINS)[0] for i in range(len(names))]
    )
    total = counts.sum(axis=1, keepdims=True)
    matrix = Matrix("", np.where(total > 0, counts / np.maximum(total, 1), np.nan).T, np.repeat(total, 10, 1).T)
    return heatmap(
        [matrix],
        rows=edges,
        columns=names,
        id="unit-histogram",
        title=f"{name}: how much of a unit's variance a feature explains",
        row_title="r² of a unit",
        column_title="feature",
        value_title="share of units, all seeds",
        limits="n is units that vary, of all seeds; the others are left out.",
        reason="no unit varies",
    )


def _density(here: Shown) -> Figure:
    words = {
        "density": "network",
        "density_permuted": "permuted labels",
        "density_random_direction": "random directions",
    }
    return forest(
        here.together(words, here.compared()),
        id="density",
        title="Density of each feature",
        label="where",
        group="how",
        x="participation ratio of debiased r² over live units",
        limits="Absent where the pooled figure does not exceed its permutation null in some seed.",
        unit="networks",
    )


def components(here: Shown) -> Section:
    name = here.ran([HEADLINE, *here.conditions])[0]
    return section(
        "components",
        "Principal components",
        ("That a feature sits in small components does not show that it matters little.",),
        {
            "the two largest components": lambda: _scatter(here, name),
            "r² of components": lambda: _component_r2(here),
            "accuracy with the largest components alone (E15)": lambda: _survival(here),
        },
        (_ranks(here),),
    )


def _scatter(here: Shown, name: str) -> Figure:
    arrays = here.pictures(name)
    frame = pd.DataFrame(arrays["points"][:, :2], columns=["component 1", "component 2"])
    features = here.features(name)
    said = [", ".join(f"{f} = {v}" for f, v in zip(features, row, strict=True)) for row in arrays["values"]]
    return scatter_components(
        frame.assign(features=said).sort_values("features", kind="stable"),
        id="components",
        title=f"{name}, seed {here.config.first_seed}: the two largest components",
        x="component 1",
        y="component 2",
        by="features",
        limits="Components are fitted on val. Two of many: a feature that is not seen here may be in smaller ones.",
        unit=UNIT,
    )


def _component_r2(here: Shown) -> Figure:
    return curves(
        here.rows("component_r2", here.ran(EXPERIMENTS["E15"])),
        "r² of the component",
        key="component-r2",
        title="How much of each component's variance a feature explains",
        parameter="component",
    )


def _survival(here: Shown) -> Figure:
    return curves(
        here.rows("accuracy_of_top", here.ran(EXPERIMENTS["E15"])),
        "accuracy on test",
        key="survival",
        title="Accuracy from the top components alone",
        parameter="components kept",
    )


def _ranks(here: Shown) -> Table:
    kinds = ("largest_component", "k95", "effective_dimension")
    rows = [
        (r["network"], r["feature"] or "all", kind.replace("_", " "), *interval(r))
        for kind in kinds
        for r in here.rows(kind).to_dict("records")
    ]
    return Table(
        title="Where features sit among components",
        columns=("condition", "feature", "quantity", "mean over seeds", "95% interval"),
        rows=sorted(rows, key=lambda row: list(here.conditions).index(row[0])),
        caption="Largest component: the one whose variance the feature explains best. k95: components from which on "
        "accuracy stays at 95% of the network's; of a feature that the network does not compute it says nothing. t "
        "intervals over seeds.",
        folded=True,
    )
