"""The page of the features study: whether loudness matters for what networks and new readouts decide."""

from __future__ import annotations

import numpy as np

from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table
from heldout.studies.features_conditions import EXPERIMENTS
from heldout.studies.features_shown import UNIT, NotRunError, Shown, curves, interval, rounded, section

PUSHES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)  # drawn, of those measured: as many as an axis has room for


def importance(here: Shown) -> Section:
    return section(
        "importance",
        "Does loudness matter?",
        (
            "Steering pushes activations along the difference of a feature's class means until the network changes its "
            "decision. Removal takes away the directions that the feature's map uses. Reliance asks which feature a new "
            "linear classifier uses where either would do.",
        ),
        {
            "steering (E14)": lambda: _steering(here),
            "reliance of a linear classifier (E17)": lambda: _reliance(here),
            "what removal costs": lambda: _costs(here),
        },
        (_pushes(here), _dissociation(here)),
    )


def _steering(here: Shown) -> Figure:
    rows = here.rows("flips", here.ran(EXPERIMENTS["E14"]))
    rows = rows[rows["parameter"].isin(PUSHES)]
    if rows.empty:
        raise NotRunError("a network whose class means differ")
    return curves(
        rows,
        "share of decisions flipped",
        key="steering",
        title="Decisions that flip",
        parameter="push, in differences of class means",
    )


def _reliance(here: Shown) -> Figure:
    rows = here.rows("reliance", here.ran(EXPERIMENTS["E17"]))
    if rows.empty:
        raise NotRunError("headline")
    rates = rows["edit"].str.removeprefix("classifier ").str.split(" ")
    rows = rows.assign(rates=[f"simpler {a}, more complex {b}" for a, b in rates])
    return forest(
        rows,
        id="reliance",
        title="What a linear classifier relies on where the features disagree",
        label="condition",
        group="rates",
        x="share labelled as the simpler feature says (chance .5)",
        limits="Groups: how often the training label agrees with the simpler and with the more complex feature. It says "
        "what a new readout would lean on, not what the network's own does.",
        unit=UNIT,
        marks=(0.5,),
    )


def _costs(here: Shown) -> Figure:
    names = here.ran(dict.fromkeys([*EXPERIMENTS["E14"], *here.conditions]))
    return forest(
        here.together({"cost": "its own directions", "random_cost": "as many random directions"}, names),
        id="removal",
        title="Accuracy on a feature that the removal of its directions costs",
        label="where",
        group="how",
        x="accuracy lost",
        limits="No cost does not show that a feature is unused: it may be read from elsewhere too.",
        unit="networks",
    )


def _pushes(here: Shown) -> Table:
    kinds = {
        "half_push": "in differences of class means",
        "half_length": "as a length",
        "half_deviations": "in standard deviations along it",
        "off_target": "largest share of another feature's decisions that flip at a push of 1",
    }
    names = [n for n in EXPERIMENTS["E14"] if n in here.conditions]
    rows = [
        (r["network"], r["feature"], words, *interval(r))
        for kind, words in kinds.items()
        for r in here.rows(kind, names).to_dict("records")
    ]
    return Table(
        title="The push that flips half of the decisions",
        columns=("condition", "feature", "size", "mean over seeds", "95% interval"),
        rows=rows,
        caption="A quiet feature needs a shorter push almost by definition; in differences of class means it need not. t "
        "intervals over seeds.",
    )


def _dissociation(here: Shown) -> Table:
    p = {(r["network"], r["feature"]): r["value"] for r in here.rows("dissociation_p").to_dict("records")}
    rows = [
        (r["network"], r["feature"], rounded(r["value"]), rounded(p.get((r["network"], r["feature"]), np.nan)))
        for r in here.rows("dissociation").to_dict("records")
    ]
    return Table(
        title="More important than loud",
        columns=("condition", "feature", "index", "p"),
        rows=rows,
        caption="Index: rank by what a feature's removal costs less rank by variance explained, mean over networks; above 0 "
        "a feature is computed but quiet. p: of an index as high if importance were dealt out at random.",
        folded=True,
    )
