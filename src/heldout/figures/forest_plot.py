"""Labelled estimates with intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, absent, counts, intervals, numbers, sentences
from heldout.figures.panels import Panel, layout
from heldout.figures.rows import Series, backdrop, dodge, markers, row_height, span, value_axis
from heldout.figures.style import Json, colour, symbol


def forest(
    estimates: pd.DataFrame,
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    label: str,
    x: str,
    limits: str,
    group: str | None = None,
    unit: str = "units",
    marks: Sequence[float] = (0.0,),
) -> Figure:
    """One row for each value of the column `label`, one marker for each value of the column `group` within it.

    `x` is the axis title with its unit, `limits` the sentence on what the figure does not show, `marks` the values at
    which a vertical line stands (the first solid, further ones dotted); they are always in view.
    """
    for column in (label, *([group] if group else [])):
        if column not in estimates.columns:
            raise EvidenceError(f"estimates have no column {column!r} to draw a forest by")
    rows = estimates.reset_index(drop=True).assign(label=estimates[label].astype(str).to_numpy())
    rows["name"] = rows[group].astype(str) if group else "estimate"
    labels, names = list(rows["label"].unique()), list(rows["name"].unique())
    data: list[Json] = []
    for place, name in enumerate(names):
        drawn = rows[rows["name"] == name]
        y = [labels.index(v) + dodge(place, len(names)) for v in drawn["label"]]
        one = Series(name, colour(place), symbol(place))
        data += markers(drawn, y, one, panel=0, legend=len(names) > 1)
    between = span([rows], include=marks, columns=["value", "low", "high"])
    height = row_height(len(names), labels) * len(labels)
    panel = Panel(title="", height=height, x_title=x, x=value_axis(between), labels=tuple(labels))
    plot = layout([panel], columns=1, legend=names if len(names) > 1 else ())
    lines = [(value, "solid" if i == 0 else "dot") for i, value in enumerate(marks)]
    plot["shapes"] = backdrop(0, len(labels), marks=lines)
    caption = sentences([f"{x}.", counts(rows, unit), intervals(rows), absent(rows), limits])
    table = numbers(rows)
    extra = {c: rows[c] for c in dict.fromkeys((label, group)) if c and c not in table.columns}
    table = pd.concat([pd.DataFrame(extra), table], axis=1)
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=table)
