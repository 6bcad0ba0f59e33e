"""The headline: how much less a simplification agrees with its network where it was not looked at."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from heldout.figures.base import Figure, absent, counts, facets, intervals, numbers, select, sentences
from heldout.figures.panels import Panel, layout
from heldout.figures.rows import Series, backdrop, dodge, legend_only, markers, row_height, span, value_axis
from heldout.figures.style import MUTED, Json, colour, symbol

NULL = "the same for random perturbations that do equal damage"
LIMITS = (
    "The figure does not show why agreement is lost, nor how often the network itself is right; "
    "a gap no larger than its null says nothing about the simplification."
)


def gap_figure(
    estimates: pd.DataFrame,
    *,
    id: str = "gap",  # noqa: A002 - the field of a figure that it becomes
    title: str = "How much agreement is lost away from the reference",
    unit: str = "units",
    by: Sequence[str] = ("network", "site"),
) -> Figure:
    """For each split, the gap of each edit with its interval beside the gap of its matched-damage null.

    Reads quantity ``gap`` (same prediction on the reference minus on the split, in [-1, 1]; column ``null`` is the
    null's gap) and, where there is one, ``excess_gap`` (gap minus null's gap, paired), drawn in a second column.
    Small multiples by the columns `by`; `unit` names what was resampled. Every panel of a column has the same axis.
    """
    gap = select(estimates, "gap")
    kinds = {"gap": gap}
    if bool((estimates["quantity"] == "excess_gap").any()):
        kinds["excess_gap"] = select(estimates, "excess_gap")
    rows = pd.concat(kinds.values(), ignore_index=True)
    splits, edits = list(rows["split"].unique()), list(rows["name"].unique())
    series = [Series(name, colour(i), symbol(i)) for i, name in enumerate(edits)]
    reference = " / ".join(str(r) for r in gap["reference"].unique() if r) or "reference"
    titles = {"gap": f"same prediction on {reference} minus on the split", "excess_gap": "gap minus the null's gap"}
    ranges = {"gap": ["value", "low", "high", "null"], "excess_gap": ["value", "low", "high"]}

    panels: list[Panel] = []
    data: list[Json] = []
    shapes: list[Json] = []
    shown: set[str] = set()  # in the legend: each series where it first occurs
    for label, facet in facets(rows, by):
        for kind, whole in kinds.items():
            here = len(panels)
            head = {"gap": "gap", "excess_gap": "excess over null"}[kind] if len(kinds) > 1 else ""
            between = span([whole], include=[0.0], columns=ranges[kind])
            panels.append(
                Panel(
                    title=": ".join(t for t in (head, label) if t),
                    height=row_height(len(series), splits) * len(splits),
                    x_title=titles[kind],
                    x=value_axis(between),
                    labels=tuple(map(str, splits)),
                )
            )
            shapes += backdrop(here, len(splits), marks=[(0.0, "solid")])
            part = facet[facet["quantity"] == kind]
            for place, one in enumerate(series):
                drawn = part[part["name"] == one.name]
                y = [splits.index(s) + dodge(place, len(series)) for s in drawn["split"]]
                if kind == "gap":
                    null = Series(f"{one.name}: null", one.colour, one.symbol, hollow=True)
                    data += markers(drawn, y, null, panel=here, legend=False, value="null")
                data += markers(drawn, y, one, panel=here, legend=len(drawn) > 0 and one.name not in shown)
                shown |= {one.name} if len(drawn) else set()
    shared = Series("matched-damage null", MUTED, "circle", hollow=True)
    data.append(legend_only(shared))

    plot = layout(panels, columns=len(kinds), legend=[*edits, shared.name])
    plot["shapes"] = shapes
    caption = sentences(
        [
            "Filled: loss of agreement with the network's own predictions, as a share of predictions (0 = none lost, "
            f"to the right = agrees less). Hollow: {NULL}.",
            "Excess: their difference, the headline." if len(kinds) > 1 else "",
            counts(rows, unit),
            intervals(rows),
            absent(rows),
            LIMITS,
        ]
    )
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=numbers(rows))
