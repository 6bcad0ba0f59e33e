"""Lines in small multiples: values against a number, with bands where there are intervals and thin lines to read them by."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import Json, colour, dash, entry, faint, number, plain, symbol

COLUMNS = ("panel", "name", "x", "y")
THIN = ("dot", "dash", "dashdot", "longdash")  # of lines to read others by
MARKED = 30  # points of a line up to which each is marked


def lines(
    frame: pd.DataFrame,
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    x: str,
    y: str,
    caption: Sequence[str],
    thin: Collection[str] = (),
    points: Collection[str] = (),
    log_x: bool = False,
    log_y: bool = False,
    height: int = 250,
    columns: int = 2,
) -> Figure:
    """One panel for each value of the column ``panel``, one line for each ``name`` in it, through ``x`` and ``y``.

    Where `frame` has ``low`` and ``high``, they are drawn as a band. Lines named in `thin` are thin and broken, those in
    `points` are drawn as points alone. `x` and `y` are axis titles with their units; `caption` are sentences on n, on
    what bands are, and on what the figure does not show. On a logarithmic axis a band that reaches 0 ends at the least
    value drawn, and values that are not positive are absent.
    """
    if missing := set(COLUMNS) - set(frame.columns):
        raise EvidenceError(f"lines lack the columns {sorted(missing)}; needed: {', '.join(COLUMNS)}")
    rows = frame[np.isfinite(frame["x"].to_numpy(float)) & np.isfinite(frame["y"].to_numpy(float))]
    for column, logarithmic in (("x", log_x), ("y", log_y)):
        rows = rows[rows[column] > 0] if logarithmic else rows
    if rows.empty:
        raise EvidenceError(f"none of {len(frame)} points of the lines {title!r} can be drawn")
    absent = len(frame) - len(rows)
    names = list(dict.fromkeys(map(str, rows["name"])))
    series = [[name for name in names if (name in thin) is light] for light in (False, True)]  # colours of their own
    floor = float(rows["y"].min()) if log_y else None
    ticks: Json = {"type": "log", "dtick": 1} if log_x and np.ptp(np.log10(rows["x"])) > 3 else {}
    if log_x and not ticks:
        sizes = sorted(set(rows["x"].astype(float)))
        shown = sizes[:: -(-len(sizes) // 12)]
        ticks = {"type": "log", "tickvals": shown, "ticktext": [f"{s:g}" for s in shown]}
    panels: list[Panel] = []
    data: list[Json] = []
    shown_names: set[str] = set()
    for here, (label, part) in enumerate(rows.groupby("panel", sort=False)):
        panels.append(
            Panel(str(label), height, x, y, x={"nticks": 7} | ticks, y=_upright(part) if log_y else {"nticks": 6})
        )
        for name in names:
            own = part[part["name"] == name].sort_values("x", kind="stable")
            if own.empty:
                continue
            first = name not in shown_names
            shown_names.add(name)
            place = series[name in thin].index(name)
            data += _line(
                own, name, place, panel=here, legend=first, thin=name in thin, bare=name in points, floor=floor
            )
    plot = layout(panels, columns=columns, legend=names if len(names) > 1 else ())
    lost = f"{absent} of {len(frame)} points are absent: not finite or, on a logarithmic axis, not positive."
    text = sentences([f"{y}, by {x}.", *caption, lost if absent else ""])
    return Figure(
        id=id, title=title, caption=text, plot={"data": data, "layout": plot}, data=rows.reset_index(drop=True)
    )


def _upright(rows: pd.DataFrame) -> Json:
    """A logarithmic axis, with ticks at 1, 2 and 5 where it is long enough for them."""
    low, high = float(rows["y"].min()), float(rows["y"].max())
    if high < 5 * low:
        return {"type": "log", "nticks": 6}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    at = [m * 10.0**k for k in powers for m in (1, 2, 5)] if high < 1e4 * low else [10.0**k for k in powers]
    return {"type": "log", "tickvals": at, "ticktext": [f"{v:,g}" for v in at]}


def _line(
    rows: pd.DataFrame, name: str, place: int, *, panel: int, legend: bool, thin: bool, bare: bool, floor: float | None
) -> list[Json]:
    """Band and line of one name in one panel."""
    x_name, y_name = axes(panel)
    ink = colour(-1 - place) if thin else colour(place)
    common: Json = {"type": "scatter", "xaxis": x_name, "yaxis": y_name, "legendgroup": plain(name)}
    traces: list[Json] = []
    x = [float(v) for v in rows["x"]]
    if {"low", "high"} <= set(rows.columns):
        band = rows[rows["low"].notna() & rows["high"].notna()]
        low = band["low"] if floor is None else band["low"].clip(lower=floor)
        across = [float(v) for v in band["x"]]
        outline = {"x": across + across[::-1], "y": [*map(float, band["high"]), *map(float, low[::-1])]}
        fill = {"mode": "lines", "fill": "toself", "fillcolor": faint(ink, 0.15), "line": {"width": 0, "color": ink}}
        quiet: Json = {"showlegend": False, "hoverinfo": "skip"}
        traces += [common | quiet | outline | fill] if len(band) > 1 else []
    line: Json = {"color": ink, "width": 1.3 if thin else 2}
    line["dash"] = THIN[place % len(THIN)] if thin else dash(place)
    marked = not thin and (bare or len(rows) <= MARKED)
    mode = "markers" if bare else "lines+markers" if marked else "lines"
    trace = common | {"mode": mode, "x": x, "y": [number(v) for v in rows["y"]], "name": entry(name), "line": line}
    if marked:
        size, edge = (6, 0.5) if bare else (7, 1)
        trace["marker"] = {
            "symbol": symbol(place),
            "size": size,
            "color": ink,
            "line": {"color": "#ffffff", "width": edge},
        }
    trace |= {"hovertemplate": f"<b>{plain(name)}</b><br>%{{x:.4g}}: %{{y:.4g}}<extra></extra>", "showlegend": legend}
    return [*traces, trace]
