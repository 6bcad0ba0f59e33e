"""Faithfulness against the size of a simplification."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import INTERVAL, Figure, absent, counts, facets, intervals, numbers, select, sentences
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.rows import span
from heldout.figures.style import MUTED, Json, colour, entry, faint, number, plain, show, symbol

# Axis titles, and what a curve of each quantity leaves out.
QUANTITIES = {
    "same_prediction": ("same prediction", "Agreement does not say whether either is right, or how close a miss was."),
    "kl": ("KL(network || proxy), nats", "A mean is moved by few items on which the proxy is confidently different."),
    "jsd": ("Jensen-Shannon divergence, bits", "A small divergence can still change the prediction."),
    "accuracy": ("accuracy", "Equal accuracy does not mean equal predictions."),
    "attention_jsd": ("attention divergence, bits", "Attention that differs need not change the output."),
}
NULL = "matched-damage null"


def faithfulness_curves(
    estimates: pd.DataFrame,
    *,
    quantity: str = "same_prediction",
    id: str = "faithfulness",  # noqa: A002 - the field of a figure that it becomes
    title: str = "Faithfulness against the size of the simplification",
    unit: str = "units",
    by: Sequence[str] = ("network", "site", "edit"),
    parameter: str = "rank or number of clusters",
) -> Figure:
    """`quantity` against the column ``parameter`` (log2 axis): one curve a split, bands its intervals.

    Small multiples by the columns `by`, all with the same y axis. Where the column ``null`` has values they are drawn
    as thin dotted lines without markers. A quantity not in `QUANTITIES` is drawn under its own name.
    """
    rows = select(estimates, quantity)
    rows = rows[rows["parameter"].notna()]
    if rows.empty:
        raise EvidenceError(f"quantity {quantity!r} has no estimate with a parameter; there is no curve to draw")
    y_title, limits = QUANTITIES.get(quantity, (quantity, "A curve does not show single items."))
    splits = list(rows["split"].unique())
    rows = rows.sort_values("parameter", kind="stable").reset_index(drop=True)
    has_null = bool(rows["null"].notna().any())
    y_range = span([rows], columns=["value", "low", "high", "null"])
    sizes = sorted(float(v) for v in rows["parameter"].unique())

    panels: list[Panel] = []
    data: list[Json] = []
    for here, (label, facet) in enumerate(facets(rows, by)):
        x_axis: Json = {"type": "log", "tickvals": sizes}
        x_axis |= {"ticktext": [f"{s:g}" for s in sizes], "showgrid": True}
        panels.append(Panel(label, 250, parameter, y_title, x=x_axis, y={"range": y_range, "nticks": 6}))
        for i, split in enumerate(splits):
            data += _curve(facet[facet["split"] == split], str(split), i, panel=here, legend=here == 0)
    entries = [str(s) for s in splits]
    if has_null:
        entries.append(NULL)
        line = {"color": MUTED, "width": 1.4, "dash": "dot"}
        data.append({"type": "scatter", "mode": "lines", "x": [None], "y": [None], "line": line, "name": NULL})
    plot = layout(panels, columns=2, legend=entries)
    caption = sentences(
        [
            f"{y_title[0].upper()}{y_title[1:]}, by {parameter} (logarithmic axis).",
            "Dotted: the same under the matched-damage null." if has_null else "",
            counts(rows, unit),
            intervals(rows),
            absent(rows),
            limits,
        ]
    )
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=numbers(rows))


def _curve(rows: pd.DataFrame, split: str, index: int, *, panel: int, legend: bool) -> list[Json]:
    """Band, null and line of one split in one panel."""
    if rows.empty:
        return []
    x_name, y_name = axes(panel)
    ink = colour(index)
    common: Json = {"type": "scatter", "xaxis": x_name, "yaxis": y_name, "legendgroup": plain(split)}
    quiet: Json = {"showlegend": False, "hoverinfo": "skip"}
    traces: list[Json] = []
    banded = rows[rows["low"].notna() & rows["high"].notna()]
    if len(banded):
        x = [float(v) for v in banded["parameter"]]
        outline = {"x": x + x[::-1], "y": [*map(float, banded["high"]), *map(float, banded["low"][::-1])]}
        fill = {"mode": "lines", "fill": "toself", "fillcolor": faint(ink, 0.15), "line": {"width": 0, "color": ink}}
        traces.append(common | quiet | outline | fill)
    x = [float(v) for v in rows["parameter"]]
    if rows["null"].notna().any():
        line = {"color": faint(ink, 0.75), "width": 1.3, "dash": "dot"}
        traces.append(common | quiet | {"mode": "lines", "x": x, "y": [number(v) for v in rows["null"]], "line": line})
    marker = {"symbol": symbol(index), "size": 8, "color": ink, "line": {"color": "#ffffff", "width": 1}}
    text = [
        f"<b>{plain(split)}</b><br>{r['parameter']:g}: {show(r['value'])}<br>{INTERVAL} {show(r['low'])} to "
        f"{show(r['high'])}<br>n = {int(r['n']):,}, {int(r['seeds'])} seeds"
        for r in rows.to_dict("records")
    ]
    traces.append(
        common
        | {"mode": "lines+markers", "x": x, "y": [number(v) for v in rows["value"]], "name": entry(split)}
        | {"line": {"color": ink, "width": 2}, "marker": marker, "connectgaps": False}
        | {"text": text, "hovertemplate": "%{text}<extra></extra>", "showlegend": legend}
    )
    return traces
