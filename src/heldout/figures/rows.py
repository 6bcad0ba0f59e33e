"""Estimates as rows of markers with intervals: the drawing that the gap, accuracy and forest figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from heldout.figures.base import INTERVAL
from heldout.figures.panels import NARROW_LABEL, axes
from heldout.figures.style import INK, Json, entry, number, plain, show, wrap

ROW_BAND = "#f6f8fa"


@dataclass(frozen=True)
class Series:
    """What is drawn alike: one entry of the legend, one place within each row."""

    name: str
    colour: str
    symbol: str
    hollow: bool = False


def row_height(series: int, labels: Sequence[object] = ()) -> int:
    """Pixels of a row that holds `series` markers one below the other, and any of `labels` on a telephone."""
    lines = max((wrap(label, NARROW_LABEL).count("<br>") + 1 for label in labels), default=1)
    return max(34, 15 * series + 16, 15 * lines + 10)


def dodge(place: int, series: int) -> float:
    """Where in a row (of height 1, centred on 0) the marker number `place` of `series` stands."""
    return round((place - (series - 1) / 2) * 0.72 / max(series, 1), 5)


def markers(
    rows: pd.DataFrame, y: Sequence[float], series: Series, *, panel: int, legend: bool, value: str = "value"
) -> list[Json]:
    """The traces of one series in one panel: its intervals (where `value` is the estimate) and its markers on top.

    `rows` has the columns of the estimates table; `y` one position a row. Rows without a value are left out.
    """
    x, yaxis = axes(panel)
    there = [i for i, v in enumerate(rows[value]) if number(v) is not None]
    rows, y = rows.iloc[there], [y[i] for i in there]
    common: Json = {
        "type": "scatter",
        "xaxis": x,
        "yaxis": yaxis,
        "legendgroup": plain(series.name),
        "cliponaxis": False,
    }
    traces: list[Json] = []
    if value == "value":
        ends: list[float | None] = []
        at: list[float | None] = []
        for low, high, here in zip(rows["low"], rows["high"], y, strict=True):
            if number(low) is not None and number(high) is not None:
                ends += [number(low), number(high), None]
                at += [here, here, None]
        line = {"color": series.colour, "width": 2.2}
        traces.append(common | {"mode": "lines", "x": ends, "y": at, "line": line, "hoverinfo": "skip"})
        traces[-1] |= {"showlegend": False}
    inside = "#ffffff" if series.hollow else series.colour
    outline = {"color": series.colour if series.hollow else "#ffffff", "width": 1.6 if series.hollow else 1}
    marker = {"color": inside, "symbol": series.symbol, "size": 8.5, "line": outline}
    points = common | {"mode": "markers", "x": [number(v) for v in rows[value]], "y": y, "marker": marker}
    points |= {"name": entry(series.name), "showlegend": legend, "hovertemplate": "%{text}<extra></extra>"}
    points["text"] = [hover(row, value, series.name) for row in rows.to_dict("records")]
    return [*traces, points]


def legend_only(series: Series) -> Json:
    """A legend entry for a kind of marker that several series share."""
    marker = {"color": "#ffffff", "symbol": series.symbol, "size": 8.5, "line": {"color": series.colour, "width": 1.6}}
    return {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "marker": marker} | {
        "name": entry(series.name),
        "showlegend": True,
        "hoverinfo": "skip",
    }


def hover(row: Json, value: str, name: str) -> str:
    """What a marker says when pointed at."""
    lines = [f"<b>{plain(row.get('split') or row.get('label') or '')}</b>", f"{plain(name)}: {show(row[value])}"]
    if value == "value" and number(row["low"]) is not None:
        lines.append(f"{INTERVAL} {show(row['low'])} to {show(row['high'])}")
    lines.append(f"n = {int(row['n']):,}, {int(row['seeds'])} seeds")
    return "<br>".join(lines)


def backdrop(panel: int, rows: int, marks: Sequence[tuple[float, str]] = ()) -> list[Json]:
    """The shapes behind a panel: every other row shaded, and a vertical line at each of `marks` (value, dash)."""
    x, y = axes(panel)
    below: Json = {"layer": "below", "xref": f"{x} domain", "yref": y, "x0": 0, "x1": 1}
    shapes = [
        below | {"type": "rect", "y0": i - 0.5, "y1": i + 0.5, "fillcolor": ROW_BAND, "line": {"width": 0}}
        for i in range(0, rows, 2)
    ]
    for value, style in marks:
        line = {"color": INK, "width": 1.2, "dash": style}
        shapes.append(
            {"type": "line", "layer": "below", "xref": x, "yref": f"{y} domain", "x0": value, "x1": value}
            | {"y0": 0, "y1": 1, "line": line}
        )
    return shapes


def span(frames: Sequence[pd.DataFrame], *, include: Sequence[float] = (), columns: Sequence[str]) -> list[float]:
    """The common range of an axis over `columns` of `frames` and the values in `include`, with a margin of 5%."""
    values = [float(v) for frame in frames for c in columns for v in frame[c] if number(v) is not None]
    values += [float(v) for v in include]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    digits = 3 - math.floor(math.log10(room))
    return [round(low - room, digits), round(high + room, digits)]


def value_axis(between: list[float]) -> Json:
    """An x axis of values."""
    return {"range": between, "nticks": 6}
