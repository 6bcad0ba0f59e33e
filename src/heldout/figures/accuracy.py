"""Is the simplification right where its network is right?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from heldout.figures.base import Figure, absent, counts, facets, intervals, numbers, select, sentences
from heldout.figures.panels import Panel, layout
from heldout.figures.rows import Series, backdrop, dodge, markers, row_height, span, value_axis
from heldout.figures.style import INK, Json, colour, symbol

NETWORK = "network"


def accuracy_figure(
    estimates: pd.DataFrame,
    *,
    id: str = "accuracy",  # noqa: A002 - the field of a figure that it becomes
    title: str = "Accuracy of the network and of its simplifications",
    unit: str = "units",
    by: Sequence[str] = ("network", "site"),
) -> Figure:
    """For each split, the accuracy of the network and of the network with each edit, with intervals.

    Reads quantities ``accuracy_network`` (once a panel and split, however many edits repeat it) and
    ``accuracy_proxy``, both shares of scored predictions in [0, 1].
    """
    proxy = select(estimates, "accuracy_proxy")
    network = select(estimates, "accuracy_network").drop_duplicates(["network", "split"]).assign(name=NETWORK)
    rows = pd.concat([network, proxy], ignore_index=True)
    splits, edits = list(rows["split"].unique()), list(proxy["name"].unique())
    series = [Series(NETWORK, INK, "star-diamond")]
    series += [Series(name, colour(i), symbol(i)) for i, name in enumerate(edits)]

    panels: list[Panel] = []
    data: list[Json] = []
    shapes: list[Json] = []
    shown: set[str] = set()  # in the legend: each series where it first occurs
    between = span([rows], columns=["value", "low", "high"])
    for here, (label, facet) in enumerate(facets(proxy, by)):
        # The network has no site: its accuracy stands in every panel that shows it edited.
        own = network[network["network"].isin(facet["network"].unique())]
        part = pd.concat([own, facet])
        panels.append(
            Panel(
                title=label,
                height=row_height(len(series), splits) * len(splits),
                x_title="accuracy",
                x=value_axis(between),
                labels=tuple(map(str, splits)),
            )
        )
        shapes += backdrop(here, len(splits))
        for place, one in enumerate(series):
            drawn = part[part["name"] == one.name]
            y = [splits.index(s) + dodge(place, len(series)) for s in drawn["split"]]
            data += markers(drawn, y, one, panel=here, legend=len(drawn) > 0 and one.name not in shown)
            shown |= {one.name} if len(drawn) else set()

    plot = layout(panels, columns=2, legend=[s.name for s in series])
    plot["shapes"] = shapes
    caption = sentences(
        [
            "Accuracy: share of scored predictions that equal the target, 0 to 1.",
            counts(rows, unit),
            intervals(rows),
            absent(rows),
            "Equal accuracy does not mean equal predictions: network and simplification may err on different items, "
            "and the axis need not begin at 0.",
        ]
    )
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=numbers(rows))
