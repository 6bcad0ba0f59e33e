"""Values over a plane, with named points in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import INK, MUTED, SEQUENTIAL, Json, number, plain, wrap

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plane:
    """`values` (Y, X) at `x` (X,) and `y` (Y,); `points` (n, 2) with `names` (n,) lie in it."""

    title: str
    x: Floats
    y: Floats
    values: Floats
    points: Floats
    names: Sequence[str]


def plane(
    planes: Sequence[Plane],
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    x: str,
    y: str,
    value: str,
    limits: str,
    named: int = 10,
    unit: str = "tokens",
) -> Figure:
    """`planes` side by side on one colour scale; `value` names the values with their unit, `x` and `y` the axes.

    Every `named`-th point is named in the picture, all of them when pointed at.
    """
    for p in planes:
        if p.values.shape != (len(p.y), len(p.x)) or p.points.shape != (len(p.names), 2):
            raise EvidenceError(
                f"plane {p.title!r}: values (Y, X) for y and x, and points (n, 2) with names are needed; got "
                f"{p.values.shape}, {len(p.y)}, {len(p.x)}, {p.points.shape} and {len(p.names)}"
            )
        if not (np.isfinite(p.values).all() and np.isfinite(p.points).all()):
            raise EvidenceError(f"plane {p.title!r}: values and points must be finite")
    if not planes:
        raise EvidenceError("there is no plane to draw")
    bare: Json = {"showgrid": False, "nticks": 6}
    panels = [Panel(p.title, 340, x, y, x=bare, y=bare) for p in planes]
    plot = layout(panels, columns=2, bar=True)
    every = np.concatenate([p.values.ravel() for p in planes])
    bar: Json = {
        "orientation": "h",
        "thickness": 10,
        "len": 1,
        "x": 0,
        "xanchor": "left",
        "outlinewidth": 0,
        "nticks": 6,
    }
    bar |= {"y": 0, "yref": "container", "yanchor": "bottom"}
    bar |= {"title": {"text": wrap(value, 42, lines=1), "side": "bottom", "font": {"size": 13, "color": MUTED}}}
    scale: Json = {"colorscale": SEQUENTIAL, "cmin": float(every.min()), "cmax": float(every.max()), "colorbar": bar}
    plot["coloraxis"] = scale
    data: list[Json] = []
    for i, p in enumerate(planes):
        xaxis, yaxis = axes(i)
        at: Json = {"xaxis": xaxis, "yaxis": yaxis}
        rows = [[number(float(f"{v:.5g}")) for v in row] for row in p.values]
        ground: Json = {"type": "heatmap", "x": [float(f"{v:.5g}") for v in p.x], "y": [float(f"{v:.5g}") for v in p.y]}
        ground |= {"z": rows, "coloraxis": "coloraxis", "hovertemplate": "%{x:.3g}, %{y:.3g}: %{z:.4g}<extra></extra>"}
        data.append(at | ground)
        dots: Json = {"type": "scatter", "mode": "lines+markers", "showlegend": False}
        dots["line"] = {"color": "rgba(255,255,255,.55)", "width": 1}
        dots["marker"] = {"size": 5, "color": "#ffffff", "line": {"color": INK, "width": 0.8}}
        dots |= {"hovertext": [plain(n) for n in p.names], "hovertemplate": "%{hovertext}<extra></extra>"}
        for patch in (plot["meta"]["wide"], plot["meta"]["narrow"]):
            patch["annotations"] = patch["annotations"] + _names(p, xaxis, yaxis, named)
        data.append(at | dots | {"x": [float(v) for v in p.points[:, 0]], "y": [float(v) for v in p.points[:, 1]]})
    plot["annotations"] = plot["meta"]["wide"]["annotations"]
    counts = dict.fromkeys(len(p.names) for p in planes)
    caption = sentences(
        [
            f"Colour: {value}. White: n = {' and '.join(map(str, counts))} {unit} where they are, joined in their "
            "order.",
            "No interval is drawn: these are answers of one network.",
            limits,
        ]
    )
    table = pd.concat([_long(p, x, y, value) for p in planes], ignore_index=True)
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=table)


def _names(p: Plane, xaxis: str, yaxis: str, every: int) -> list[Json]:
    """The name of every so many points, on a ground that it can be read on."""
    ground: Json = {"bgcolor": "rgba(255,255,255,.75)", "borderpad": 1, "font": {"size": 11, "color": INK}}
    ground |= {"xref": xaxis, "yref": yaxis, "showarrow": False, "yanchor": "bottom", "yshift": 5}
    return [
        ground | {"text": plain(name), "x": float(x), "y": float(y)}
        for i, (name, (x, y)) in enumerate(zip(p.names, p.points, strict=True))
        if i % every == 0
    ]


def _long(p: Plane, x: str, y: str, value: str) -> pd.DataFrame:
    """The points first, then the grid, a row each."""
    points = pd.DataFrame(
        {"panel": p.title, "point": list(p.names), x: p.points[:, 0], y: p.points[:, 1], value: np.nan}
    )
    across, up = np.meshgrid(p.x, p.y)
    grid = {"panel": p.title, "point": "", x: across.ravel(), y: up.ravel(), value: p.values.ravel()}
    return pd.concat([points, pd.DataFrame(grid)], ignore_index=True)
