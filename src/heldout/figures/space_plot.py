"""Labelled points in three components of a table, as a curve in space; never without the spectrum they are part of.

What stands in three dimensions can be turned in a browser, but needs WebGL. So the same points stand in two planes in a
figure of its own, with the spectrum: for print, and for browsers that draw nothing in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, axes, layout, set_dotted
from heldout.figures.style import GRID, INK, MUTED, PALETTE, SEQUENTIAL, Json, number, plain, wrap

SCENE = 440  # pixels, the height of the space
SPECTRUM = 10  # components in the spectrum
PLANES = ((0, 1), (1, 2))
JOINED, FITTED, LEVEL = "points in their order", "fitted curve", "95th percentile without any relation"
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """`share` (K,) of the variance in each component, largest first, and `level` (K,), what components of a table whose
    columns were shuffled reach."""

    share: Floats
    level: Floats


def space(
    places: Floats,
    names: Sequence[str],
    values: Sequence[float],
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    by: str,
    spectrum: Spectrum,
    limits: str,
    fitted: Floats | None = None,
    unit: str = "tokens",
) -> tuple[Figure, Figure]:
    """Points `places` (n, 3) with `names` (n,), joined in the order given and coloured by `values` (n,), which `by` names.

    `fitted` (n, 3) is a curve beside them. Two figures that belong together: `id` in space, and `id`-planes with components
    1 and 2, 2 and 3, and the `spectrum`. Raises `EvidenceError` for other shapes, or values that are not finite.
    """
    points = _checked(places, names, values, fitted, spectrum)
    first_three = spectrum.share[:3]
    held = f"The three components hold {float(np.sum(first_three)):.1%} of the variance, {_each(first_three)}; "
    shared = [
        f"Each point is one of n = {len(points):,} {unit}, coloured by {by}; the thin line joins them in their order"
        f"{', the thick one is the fitted curve' if fitted is not None else ''}.",
        f"{held}what stands in the others is not seen.",
        "No interval is drawn: these are points of one table. Signs of components are arbitrary.",
        limits,
    ]
    deep = layout([Panel("", SCENE, "")], columns=1)
    for part in (deep, deep["meta"]["wide"], deep["meta"]["narrow"]):
        for key in [key for key in part if key.startswith(("xaxis", "yaxis"))]:
            del part[key]
    for name, across, far in (("wide", 0.94, 1.0), ("narrow", 0.8, 1.8)):
        deep["meta"][name] |= _view(across, far)
    deep |= {"scene": _scene(), "coloraxis": _colours(values, by)}
    for key, value in deep["meta"]["wide"].items():
        set_dotted(deep, key, value)
    first = Figure(id, title, sentences(shared), {"data": _in_space(points, fitted), "layout": deep}, points)

    k = min(SPECTRUM, len(spectrum.share))
    square: Json = {"nticks": 5}
    components: Json = {"tickvals": [i + 1 for i in range(k)], "range": [0.4, k + 0.6], "showgrid": False}
    panels = [Panel("", 260, f"component {a + 1}", f"component {b + 1}", x=square, y=square) for a, b in PLANES]
    upright: Json = {"rangemode": "tozero", "nticks": 6}
    panels.append(Panel("", 260, "component", "share of the variance", x=components, y=upright))
    plot = layout(panels, columns=3, legend=[JOINED, *([FITTED] if fitted is not None else []), LEVEL])
    plot["coloraxis"] = {**_colours(values, by), "showscale": False}
    data = [trace for i, plane in enumerate(PLANES) for trace in _in_plane(points, fitted, i, plane)]
    caption = [
        f"The same n = {len(points):,} {unit} in planes, coloured by {by} from {min(values):g} (dark) to "
        f"{max(values):g} (bright), and the spectrum of their table.",
        f"The last panel has the first {k} of {len(spectrum.share)} components: bars are shares, the line the 95th "
        "percentile of tables whose columns were shuffled one by one.",
        *shared[1:-1],
    ]
    shares = {"component": [i + 1 for i in range(len(spectrum.share))], "share": spectrum.share, LEVEL: spectrum.level}
    flat: Json = {"data": data + _bars(spectrum, k), "layout": plot}
    second = Figure(f"{id}-planes", f"{title}: planes and spectrum", sentences(caption), flat, pd.DataFrame(shares))
    return first, second


def _checked(
    places: Floats, names: Sequence[str], values: Sequence[float], fitted: Floats | None, spectrum: Spectrum
) -> pd.DataFrame:
    at = np.asarray(places, dtype=np.float64)
    if at.ndim != 2 or at.shape[1] != 3 or not len(at) == len(names) == len(values):
        raise EvidenceError(
            f"points in space need places (n, 3) with a name and a value each; got {at.shape}, {len(names)} names and "
            f"{len(values)} values"
        )
    if fitted is not None and np.shape(fitted) != at.shape:
        raise EvidenceError(f"the fitted curve has shape {np.shape(fitted)}, its points {at.shape}")
    if len(spectrum.share) < 3 or np.shape(spectrum.share) != np.shape(spectrum.level):
        raise EvidenceError("a spectrum needs the share of three components or more, and a level for each")
    table = pd.DataFrame({"name": [str(v) for v in names], "value": np.asarray(values, dtype=np.float64)})
    for i in range(3):
        table[f"component {i + 1}"] = at[:, i]
        if fitted is not None:
            table[f"fitted {i + 1}"] = np.asarray(fitted)[:, i]
    if not np.isfinite(table.drop(columns="name").to_numpy(float)).all():
        raise EvidenceError("points in space must be finite")
    return table


def _view(across: float, far: float) -> Json:
    """The patch of a space as wide as `across`, seen from as `far`."""
    eye = {"x": 1.5 * far, "y": -1.5 * far, "z": 0.8 * far}
    return {"scene.domain.x": [0, across], "scene.camera.eye": eye, "margin.b": 8, "height": SCENE + 30}


def _scene() -> Json:
    """Axes in space: components 1 to 3, each in its own range."""
    axis: Json = {
        "backgroundcolor": "#ffffff",
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "showspikes": False,
        "nticks": 5,
    }
    axis |= {"tickfont": {"size": 11, "color": MUTED}}
    named = {
        f"{a}axis": axis | {"title": {"text": f"component {i + 1}", "font": {"size": 12}}} for i, a in enumerate("xyz")
    }
    camera: Json = {"center": {"x": 0, "y": 0, "z": -0.12}}
    return {"aspectmode": "cube", "camera": camera, "dragmode": "turntable"} | named


def _colours(values: Sequence[float], by: str) -> Json:
    """One scale for all panels; its bar stands beside the space."""
    bar: Json = {
        "thickness": 10,
        "len": 0.8,
        "x": 1,
        "xanchor": "right",
        "yanchor": "middle",
        "outlinewidth": 0,
        "nticks": 8,
    }
    bar |= {"title": {"text": wrap(by, 42, lines=1), "side": "right", "font": {"size": 13, "color": MUTED}}}
    return {"colorscale": SEQUENTIAL, "cmin": float(np.min(values)), "cmax": float(np.max(values)), "colorbar": bar}


def _column(points: pd.DataFrame, kind: str, i: int) -> list[float | None]:
    return [number(v) for v in points[f"{kind} {i + 1}"]]


def _in_space(points: pd.DataFrame, fitted: Floats | None) -> list[Json]:
    def at(kind: str) -> Json:
        return {axis: _column(points, kind, i) for i, axis in enumerate("xyz")}

    quiet: Json = {"type": "scatter3d", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    traces: list[Json] = [quiet | at("component") | {"line": {"color": "#b0b7be", "width": 2}}]
    if fitted is not None:
        traces.append(quiet | at("fitted") | {"line": {"color": PALETTE[1], "width": 5}})
    marker: Json = {"size": 4, "color": points["value"].tolist(), "coloraxis": "coloraxis"}
    hover: Json = {"text": [plain(n) for n in points["name"]], "hovertemplate": "%{text}<extra></extra>"}
    return [*traces, quiet | at("component") | {"mode": "markers", "marker": marker, "hoverinfo": "text"} | hover]


def _in_plane(points: pd.DataFrame, fitted: Floats | None, panel: int, plane: tuple[int, int]) -> list[Json]:
    x, y = axes(panel)

    def at(kind: str) -> Json:
        return {"x": _column(points, kind, plane[0]), "y": _column(points, kind, plane[1])}

    first = panel == 0
    common: Json = {"type": "scatter", "mode": "lines", "xaxis": x, "yaxis": y, "hoverinfo": "skip"}
    line = {"line": {"color": "#b0b7be", "width": 1}, "name": JOINED, "legendgroup": JOINED}
    traces: list[Json] = [common | at("component") | line | {"showlegend": first}]
    if fitted is not None:
        curve = {"line": {"color": PALETTE[1], "width": 2.2}, "name": FITTED, "legendgroup": FITTED}
        traces.append(common | at("fitted") | curve | {"showlegend": first})
    marker: Json = {"size": 5, "color": points["value"].tolist(), "coloraxis": "coloraxis"}
    hover: Json = {"text": [plain(n) for n in points["name"]], "hovertemplate": "%{text}<extra></extra>"}
    dots = {"mode": "markers", "marker": marker, "showlegend": False, "hoverinfo": "text"}
    return [*traces, common | at("component") | dots | hover]


def _bars(spectrum: Spectrum, k: int) -> list[Json]:
    x, y = axes(len(PLANES))
    at: Json = {"x": [i + 1 for i in range(k)], "xaxis": x, "yaxis": y}
    hover: Json = {"hovertemplate": "component %{x}: %{y:.4f}<extra></extra>"}
    bars = {
        "type": "bar",
        "y": [number(v) for v in spectrum.share[:k]],
        "showlegend": False,
        "marker": {"color": PALETTE[0]},
    }
    level: Json = {"type": "scatter", "mode": "lines+markers", "y": [number(v) for v in spectrum.level[:k]]}
    level |= {"name": LEVEL, "line": {"color": INK, "width": 1.4, "dash": "dot"}, "marker": {"size": 5, "color": INK}}
    return [at | bars | hover, at | level | hover]


def _each(share: Floats) -> str:
    *most, last = (f"{v:.1%}" for v in share)
    return f"{', '.join(most)} and {last}"
