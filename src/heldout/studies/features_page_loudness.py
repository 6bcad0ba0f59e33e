"""The page of the features study: how loud each feature is, how that grows, and how the variance is dealt out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from heldout.figures import Figure, forest, training_curves
from heldout.figures.page import Section, Table
from heldout.studies.features import sides
from heldout.studies.features_conditions import EXPERIMENTS
from heldout.studies.features_shares import TIMES, WITHIN
from heldout.studies.features_shown import EXPLAINED, UNIT, NotRunError, Shown, interval, section, share
from heldout.tasks.features.complexity import complexity

EFFECTS = ("simpler", "more complex", "interactions", WITHIN)
ALONG = {
    "explained_of_final": ("loudness-along", "explained variance / final total variance"),
    "explained_of_current": ("share-along", "explained variance / total variance at the time"),
    "accuracy_along": ("accuracy-along", "accuracy on test"),
}


def loudness(here: Shown) -> Section:
    return section(
        "loudness",
        "How loud each feature is",
        (
            "Each feature has an output of its own and the same weight in the loss. Variance explained asks how much of "
            "the penultimate layer's variance a linear map from the feature's value accounts for: fitted on val, scored on "
            "test, pooled over units. It says how loud a feature is, not how readable or how important.",
        ),
        {
            "variance explained by simpler and more complex features (E1 and E3)": lambda: _bars(here),
            "how it grows while training (E13)": lambda: _along(here, "explained_of_final"),
            "the same over each checkpoint's own variance (E13)": lambda: _along(here, "explained_of_current"),
            "accuracy along the way (E13)": lambda: _along(here, "accuracy_along"),
        },
        (_concept(here), _mastery(here)),
    )


def _bars(here: Shown) -> Figure:
    return forest(
        here.rows("variance_explained", here.compared()),
        id="loudness",
        title="Variance explained, by condition and feature",
        label="condition",
        group="feature",
        x=EXPLAINED,
        limits="Rescalings of units that leave the network's function unchanged move it: see the bands. Features need not "
        "sum to 1.",
        unit=UNIT,
        marks=(0.0, 1.0),
    )


def _along(here: Shown, kind: str) -> Figure:
    key, words = ALONG[kind]
    name = here.ran(EXPERIMENTS["E13"])[0]
    n = int(here.rows("variance_explained", [name])["n"].max())
    found = [
        {"network": name, "seed": seed, "split": v[0].partition(":")[2], "step": v[2], "value": v[1], "n": n}
        for seed, rows in here.values(name).items()
        for v in rows
        if v[0].startswith(f"{kind}:")
    ]
    curves = pd.DataFrame(found)
    curves["value"] = curves["value"].astype(float)
    return training_curves(curves, metric=words, id=key, title=f"{name}: {words}", unit=UNIT)


def _concept(here: Shown) -> Table:
    features = {p.feature.name: p.feature for c in here.conditions.values() for p in c.task.planted()}
    rows = []
    for written, f in features.items():
        c = complexity(f)
        depth = "unknown" if c.circuit_depth is None else c.circuit_depth
        rows.append((written, f.classes, c.fan_in, c.fourier_degree, round(c.average_sensitivity, 3), depth))
    return Table(
        title="The features, by complexity",
        columns=("feature", "classes", "inputs", "Fourier degree", "average sensitivity", "circuit depth"),
        rows=sorted(rows, key=lambda row: (row[2], row[3], row[4])),
        caption="Computed from truth tables under uniform inputs. None of these says how hard a feature is to learn.",
    )


def _mastery(here: Shown) -> Table:
    rows = []
    for kind in ("mastered", "growth_after_mastery"):
        for r in here.rows(kind).to_dict("records"):
            rows.append((r["network"], r["feature"], kind.replace("_", " "), *interval(r)))
    return Table(
        title="When features are mastered, and how much louder they get afterwards",
        columns=("condition", "feature", "quantity", "mean over seeds", "95% interval"),
        rows=rows,
        caption="Mastered: the number of updates from which on accuracy stays at .95. Growth: explained variance over the "
        "final total, at the end minus at mastery. t intervals over seeds.",
    )


def shares(here: Shown) -> Section:
    return section(
        "shares",
        "What the variance goes with",
        (
            "Cells are the combinations of the features' values, all weighing alike. The variance between their means falls "
            "into a main effect of each feature and interactions; what varies within a cell is no function of the features. "
            "Together they make 1.",
        ),
        {"main effects, interaction and the rest": lambda: _effects(here)},
        (_sums(here), _every_effect(here), _unique(here)),
    )


def _effects(here: Shown) -> Figure:
    """Of conditions with two features, where each kind of effect is a single one and so has an interval."""
    compared = dict.fromkeys(name for e in ("E1", "E2", "E3") for name in EXPERIMENTS[e])
    names = [n for n in here.ran(compared) if len(here.features(n)) == 2]
    rows = here.rows("effect", names)
    if rows.empty:
        raise NotRunError("a condition with two binary features")
    kinds = [_kind(here, r.network, r.feature) for r in rows.itertuples()]
    return forest(
        rows.assign(kind=kinds),
        id="effects",
        title="Main effects, interaction, and what varies within cells",
        label="condition",
        group="kind",
        x="share of variance on test, cells balanced",
        limits="The four shares of a condition sum to 1. They are not clipped: an effect that is not there is about 0 and "
        "may be below.",
        unit="networks",
        marks=(0.0, 1.0),
    )


def _kind(here: Shown, condition: str, effect: str) -> str:
    """Which of `EFFECTS` an effect is in the sides of its condition's gap."""
    simple, complex_ = sides(here.conditions[condition].task)
    side = {WITHIN: WITHIN} | dict.fromkeys(simple, "simpler") | dict.fromkeys(complex_, "more complex")
    return side.get(effect, "interactions")


def _sums(here: Shown) -> Table:
    """Every condition: effects summed by kind, means over seeds."""
    found = here.rows("effect")
    rows: list[tuple[str, ...]] = []
    for name, own in found.groupby("network", sort=False):
        kinds = [_kind(here, str(name), effect) for effect in own["feature"]]
        sums = [float(own["value"][[k == kind for k in kinds]].sum(skipna=False)) for kind in EFFECTS]
        rows.append((str(name), *map(share, (*sums, sum(sums)))))
    return Table(
        title="The decomposition of the variance, every condition",
        columns=("condition", *EFFECTS, "sum"),
        rows=rows,
        caption="Shares of variance on test, cells balanced, means over seeds; where a side has several features, the sum "
        "of theirs. Conditions with two to four binary features.",
    )


def _every_effect(here: Shown) -> Table:
    rows = [
        (r["network"], r["feature"].replace(TIMES, " × "), *interval(r, share))
        for r in here.rows("effect").to_dict("records")
    ]
    return Table(
        title="Every effect",
        columns=("condition", "effect", "share, mean over seeds", "95% interval"),
        rows=rows,
        caption="Fitted on val, scored on test, cells balanced. t intervals over seeds.",
        folded=True,
    )


def _unique(here: Shown) -> Table:
    loud = here.rows("variance_explained").set_index(["network", "feature"])["value"]
    shared = {(r["network"], r["feature"]): r for r in here.rows("shared").to_dict("records")}
    rows = []
    for r in here.rows("unique").to_dict("records"):
        key = (r["network"], r["feature"])
        cells = [
            interval(row, share) for row in (r, shared.get(key, r))
        ]  # where one has no value, neither has the other
        rows.append((*key, share(loud.get(key, np.nan)), *(f"{value} ({reach})" for value, reach in cells)))
    return Table(
        title="What each feature explains alone, and what in common with others",
        columns=("condition", "feature", "variance explained", "unique", "shared"),
        rows=rows,
        caption="Unique: what all labels together explain less what they do without this one. Shared: variance explained "
        "less unique; about 0 where features are drawn independently of each other, and below 0 where others sharpen what "
        "one explains. Means over seeds, t intervals over seeds in brackets.",
        folded=True,
    )
