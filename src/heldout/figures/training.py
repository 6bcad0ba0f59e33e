"""How a metric moved while the networks were trained."""

from __future__ import annotations

import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, facets, sentences, span
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import Json, colour, dash, entry, faint, number, plain, show

COLUMNS = ("network", "seed", "split", "step", "value", "n")


def training_curves(
    curves: pd.DataFrame,
    *,
    metric: str,
    id: str = "training",  # noqa: A002 - the field of a figure that it becomes
    title: str = "Training",
    unit: str = "items",
) -> Figure:
    """`metric` against training step: one thin line a seed, a thick line their mean, one colour a split.

    `curves` has the columns `COLUMNS` (``n`` is the number of `unit` behind a value); small multiples by network. The
    mean is drawn only at steps that every seed of a split has reached.
    """
    if missing := set(COLUMNS) - set(curves.columns):
        raise EvidenceError(f"training curves lack the columns {sorted(missing)}; needed: {', '.join(COLUMNS)}")
    if curves.empty:
        raise EvidenceError("there are no training curves to draw")
    if twice := int(curves.duplicated(["network", "seed", "split", "step"]).sum()):
        raise EvidenceError(f"training curves have {twice} second values for the same network, seed, split and step")
    splits = list(curves["split"].unique())
    panels: list[Panel] = []
    data: list[Json] = []
    for here, (label, facet) in enumerate(facets(curves, ["network"])):
        panels.append(
            Panel(label, 250, "training step", metric, x={"nticks": 6, "rangemode": "tozero"}, y={"nticks": 6})
        )
        for i, split in enumerate(splits):
            data += _lines(facet[facet["split"] == split], str(split), i, panel=here, legend=here == 0)
    seeds = int(curves["seed"].nunique())
    missing_values = int(curves["value"].isna().sum())
    caption = sentences(
        [
            f"{metric} by training step. Thin: single seeds ({seeds} training seeds). Thick: their mean.",
            f"n = {span(curves['n'])} {unit} behind each value.",
            "No interval is drawn: the spread of the thin lines is the spread over seeds.",
            f"{missing_values} of {len(curves)} values are not finite and are absent." if missing_values else "",
            "A curve does not show when single items are learned.",
        ]
    )
    plot = layout(panels, columns=2, legend=[str(s) for s in splits])
    table = curves[list(COLUMNS)].reset_index(drop=True)
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=table)


def _lines(rows: pd.DataFrame, split: str, index: int, *, panel: int, legend: bool) -> list[Json]:
    """The seeds and the mean of one split in one panel."""
    if rows.empty:
        return []
    x_name, y_name = axes(panel)
    common: Json = {"type": "scatter", "mode": "lines", "xaxis": x_name, "yaxis": y_name, "legendgroup": plain(split)}
    traces: list[Json] = []
    for seed, one in rows.groupby("seed", sort=True):
        one = one.sort_values("step")
        text = [
            f"{plain(split)}, seed {seed}<br>step {int(s):,}: {show(v)}"
            for s, v in zip(one.step, one.value, strict=True)
        ]
        line = {"color": faint(colour(index), 0.38), "width": 1}
        traces.append(common | {"x": [int(s) for s in one.step], "y": [number(v) for v in one.value], "line": line})
        traces[-1] |= {"text": text, "hovertemplate": "%{text}<extra></extra>", "showlegend": False}
    by_step = rows.groupby("step", sort=True)["value"]
    mean = by_step.mean()[by_step.count() == rows["seed"].nunique()]
    x: list[int | None] = [int(s) for s in mean.index]
    y: list[float | None] = [float(v) for v in mean]
    line = {"color": colour(index), "width": 3, "dash": dash(index)}
    traces.append(common | {"x": x or [None], "y": y or [None], "line": line})
    traces[-1] |= {"name": entry(split), "showlegend": legend, "hoverinfo": "skip"}
    return traces
