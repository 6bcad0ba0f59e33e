"""Matrices side by side on one colour scale, and their difference on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences, span
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import DIVERGING, MUTED, SEQUENTIAL, Json, number, plain, show, wrap

PAGE = 760  # pixels for all panels where a page is narrowest and still wide
LETTER = 6.3  # pixels of a tick label's letter
WRITTEN = 64  # cells of a matrix up to which each has its value written in it


@dataclass(frozen=True, eq=False)
class Matrix:
    """A named matrix: `values` (R, C) with NaN where there is none, `counts` (R, C) the n behind each value."""

    title: str
    values: np.ndarray
    counts: np.ndarray | None = None


def heatmap(
    matrices: Sequence[Matrix],
    *,
    rows: Sequence[object],
    columns: Sequence[object],
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    row_title: str,
    column_title: str,
    value_title: str,
    limits: str,
    difference: bool = False,
    reason: str = "no data",
) -> Figure:
    """`matrices` (R, C each) as panels that share one sequential scale; rows run downwards.

    With `difference` (two matrices exactly) a third panel shows second minus first on a diverging scale, symmetric
    about zero. `value_title` names the value with its unit; `reason` says why NaN cells are empty.
    """
    shape = (len(rows), len(columns))
    for m in matrices:
        for what, given in (("values", m.values), ("counts", m.counts)):
            if given is not None and np.shape(given) != shape:
                raise EvidenceError(f"matrix {m.title!r}: {what} have shape {np.shape(given)}, labels ask for {shape}")
    if not matrices or (difference and len(matrices) != 2):
        raise EvidenceError(f"a heatmap needs one matrix or more, and two for a difference; got {len(matrices)}")
    drawn = list(matrices)
    if difference:
        drawn.append(Matrix(f"{matrices[1].title} minus {matrices[0].title}", matrices[1].values - matrices[0].values))

    height = int(min(420, max(180, 24 * shape[0])))
    axis: Json = {"showgrid": False, "showline": False, "ticks": ""}
    panels = [
        Panel(
            m.title,
            height,
            column_title,
            row_title,
            x=axis | _ticks(columns),
            y=axis | _ticks(rows) | {"range": [shape[0] - 0.5, -0.5]},
        )
        for m in drawn
    ]
    beside = _beside(len(drawn), rows, columns)
    plot = layout(panels, columns=beside, bar=True)
    for i in (i for i in range(len(drawn)) if i % beside):  # beside each other, rows are named once
        own = f"yaxis{i + 1}"
        plot["meta"]["wide"] |= {f"{own}.showticklabels": False, f"{own}.title.text": ""}
        plot["meta"]["narrow"] |= {f"{own}.showticklabels": True}
        plot[own] |= {"showticklabels": False}
        plot[own]["title"] |= {"text": ""}
    scale = _scale([m.values for m in matrices])
    plot["coloraxis"] = {"colorscale": SEQUENTIAL, "cmin": scale[0], "cmax": scale[1]}
    plot["coloraxis"] |= _bar(wrap(value_title, 20 if difference else 42, lines=1), 0.0, 0.48 if difference else 1.0)
    if difference:
        most = max(abs(v) for v in _scale([drawn[-1].values])) or 1.0
        plot["coloraxis2"] = {"colorscale": [list(stop) for stop in DIVERGING], "cmin": -most, "cmax": most}
        plot["coloraxis2"] |= _bar("difference", 0.52, 0.48)
    data = [_trace(m, rows, columns, i, second=difference and i == 2) for i, m in enumerate(drawn)]

    table = pd.concat([_long(m, rows, columns, row_title, column_title, reason) for m in drawn], ignore_index=True)
    counts = pd.Series([c for m in matrices if m.counts is not None for c in np.ravel(m.counts) if c > 0])
    empty = int(sum(np.isnan(m.values).sum() for m in matrices))
    caption = sentences(
        [
            f"{value_title}, by {row_title} (down) and {column_title} (across).",
            f"n = {span(counts)} in each cell." if len(counts) else "n of the cells is not recorded.",
            "No interval is drawn; cells with small n are uncertain.",
            f"{empty} of {len(matrices) * shape[0] * shape[1]} cells are empty: {reason}." if empty else "",
            limits,
        ]
    )
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=table)


def _trace(m: Matrix, rows: Sequence[object], columns: Sequence[object], panel: int, *, second: bool) -> Json:
    x, y = axes(panel)
    n = m.counts if m.counts is not None else np.full(m.values.shape, -1)
    hover = [
        [
            f"{plain(r)}, {plain(c)}: {show(m.values[i, j])}" + (f"<br>n = {int(n[i, j]):,}" if n[i, j] >= 0 else "")
            for j, c in enumerate(columns)
        ]
        for i, r in enumerate(rows)
    ]
    trace: Json = {"type": "heatmap", "xaxis": x, "yaxis": y, "z": [[number(v) for v in line] for line in m.values]}
    trace |= {"coloraxis": "coloraxis2" if second else "coloraxis", "hovertext": hover, "xgap": 1, "ygap": 1}
    if m.values.size <= WRITTEN:
        trace |= {"text": [[show(v) if number(v) is not None else "" for v in line] for line in m.values]}
        trace |= {"texttemplate": "%{text}", "textfont": {"size": 11}}
    return trace | {"hovertemplate": "%{hovertext}<extra></extra>", "hoverongaps": False}


def _ticks(labels: Sequence[object]) -> Json:
    """At most a dozen labels, evenly spaced."""
    step = max(1, -(-len(labels) // 12))
    places = list(range(0, len(labels), step))
    return {"tickvals": places, "ticktext": [plain(labels[i]) for i in places], "tickangle": 0}


def _beside(panels: int, rows: Sequence[object], columns: Sequence[object]) -> int:
    """How many panels stand beside each other, so that neither column labels nor written values touch."""
    width = PAGE - LETTER * max(len(plain(r)) for r in rows)
    labels = _ticks(columns)["ticktext"]
    needed = len(labels) * (LETTER * max(len(label) for label in labels) + 4)
    if len(rows) * len(columns) <= WRITTEN:
        needed = max(needed, len(columns) * (LETTER * 5 + 2))
    fits = max([n for n in range(1, panels + 1) if width * (1 - 0.09 * (n - 1)) / n >= needed], default=1)
    return -(-panels // -(-panels // fits))  # as even as the number of lines allows


def _scale(matrices: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([np.ravel(m) for m in matrices])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _bar(title: str, left: float, length: float) -> Json:
    bar: Json = {"orientation": "h", "thickness": 10, "len": length, "x": left, "xanchor": "left", "outlinewidth": 0}
    bar |= {
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "title": {"text": title, "side": "bottom", "font": {"size": 13, "color": MUTED}},
        "nticks": 5,
    }
    return {"colorbar": bar}


def _long(
    m: Matrix, rows: Sequence[object], columns: Sequence[object], row_title: str, column_title: str, reason: str
) -> pd.DataFrame:
    """One row a cell."""
    table = pd.DataFrame({"panel": m.title, row_title: [r for r in rows for _ in columns]})
    table[column_title] = [c for _ in rows for c in columns]
    table["value"] = m.values.ravel()
    if m.counts is not None:
        table["n"] = m.counts.ravel()
    table["reason"] = np.where(np.isnan(m.values.ravel()), reason, "")
    return table
