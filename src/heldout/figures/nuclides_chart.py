"""The chart of nuclides: neutrons to the right, protons up, one square a nucleus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import DIVERGING, INK, MUTED, Json, number, wrap

SYMBOLS = (  # by number of protons, the neutron first
    "n H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og"
)
ELEMENTS = SYMBOLS.split()
MAGIC = (8, 20, 28, 50, 82, 126)
GROUND = "#dfe3e8"  # nuclei that are there without a value
BEYOND = 3  # how far the line of a magic number reaches past the nuclei that have it
CLIPPED = 0.98  # of the absolute values, the quantile at which colours end
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chart:
    """Nuclei `z`, `n` (K,) with `values` (K,), and others (`other_z`, `other_n`) drawn in grey."""

    title: str
    z: Ints
    n: Ints
    values: NDArray[np.float64]
    other_z: Ints
    other_n: Ints


def nuclide(z: int, n: int) -> str:
    """``Sn-132``; an element without a symbol by its number: ``119-300``."""
    return f"{ELEMENTS[z] if 0 <= z < len(ELEMENTS) else z}-{z + n}"


def nuclides(
    charts: Sequence[Chart],
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    value: str,
    unit: str,
    limits: str,
) -> Figure:
    """`charts` below each other on one diverging scale, symmetric about 0; `value` names what is shown, in `unit`.

    Colours end at the 98th percentile of absolute values; the numbers behind the figure do not.
    Raises `EvidenceError` for charts that are empty or whose shapes disagree.
    """
    for c in charts:
        if not len(c.z) == len(c.n) == len(c.values) or len(c.other_z) != len(c.other_n):
            raise EvidenceError(f"chart {c.title!r}: each nucleus needs z, n and a value")
        if not len(c.z) or not np.isfinite(c.values).all():
            raise EvidenceError(f"chart {c.title!r}: values must be there and finite")
    if not charts:
        raise EvidenceError("there is no chart to draw")
    every_z = np.concatenate([np.r_[c.z, c.other_z] for c in charts])
    every_n = np.concatenate([np.r_[c.n, c.other_n] for c in charts])
    sizes = np.abs(np.concatenate([c.values for c in charts]))
    most = float(np.quantile(sizes, CLIPPED)) or float(sizes.max()) or 1.0
    low_z, high_z, low_n, high_n = (int(v) for v in (every_z.min(), every_z.max(), every_n.min(), every_n.max()))
    panels = [
        Panel(
            c.title,
            380,
            "neutrons N",
            "protons Z",
            x={"range": [low_n - 2, high_n + 2], "showgrid": False, **_ticks(low_n, high_n)},
            y={"range": [low_z - 2, high_z + 2], "showgrid": False, **_ticks(low_z, high_z)},
        )
        for c in charts
    ]
    plot = layout(panels, columns=1, bar=True)
    bar: Json = {
        "orientation": "h",
        "thickness": 10,
        "len": 1,
        "x": 0,
        "xanchor": "left",
        "outlinewidth": 0,
        "nticks": 7,
    }
    bar |= {"y": 0, "yref": "container", "yanchor": "bottom"}
    named = {"text": wrap(f"{value}, {unit}", 42, lines=1), "side": "bottom", "font": {"size": 13, "color": MUTED}}
    bar["title"] = named
    scale = [list(stop) for stop in DIVERGING]
    plot["coloraxis"] = {"colorscale": scale, "cmin": -most, "cmax": most, "colorbar": bar}
    data, shapes = [], []
    for i, c in enumerate(charts):
        data += [*_squares(c, i, unit)]
        shapes += _magic(c, i)
    plot["shapes"] = shapes
    clipped = int((sizes > most).sum())
    caption = sentences(
        [
            f"{value}, {unit}, one square a nucleus: "
            + "; ".join(f"{c.title}, n = {len(c.z):,} with a value and {len(c.other_z):,} grey" for c in charts)
            + ".",
            f"Colours end at {most:.3g} {unit}, which {clipped:,} values exceed." if clipped else "",
            "Thin lines: magic numbers. No interval is drawn: these are single nuclei.",
            limits,
        ]
    )
    table = pd.concat([_long(c, value, unit) for c in charts], ignore_index=True)
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=table)


def _ticks(low: int, high: int) -> Json:
    """Magic numbers as ticks, where there are two or more."""
    inside = [m for m in MAGIC if low - 2 <= m <= high + 2]
    return {"tickvals": inside} if len(inside) > 1 else {"nticks": 6}


def _grid(z: Ints, n: Ints, cells: Sequence[object], empty: object) -> tuple[list[int], list[int], list[list[object]]]:
    """Cells by place on the smallest grid of whole numbers that holds them; a place has its last cell."""
    down, left = int(z.min()), int(n.min())
    rows: list[list[object]] = [[empty] * (int(n.max()) - left + 1) for _ in range(int(z.max()) - down + 1)]
    for a, b, cell in zip(z.tolist(), n.tolist(), cells, strict=True):
        rows[a - down][b - left] = cell
    return list(range(left, left + len(rows[0]))), list(range(down, down + len(rows))), rows


def _squares(c: Chart, panel: int, unit: str) -> list[Json]:
    xaxis, yaxis = axes(panel)
    common: Json = {"type": "heatmap", "xaxis": xaxis, "yaxis": yaxis, "xgap": 0.4, "ygap": 0.4}
    traces: list[Json] = []
    if len(c.other_z):
        x, y, ones = _grid(c.other_z, c.other_n, [1] * len(c.other_z), None)
        grey = {"colorscale": [[0, GROUND], [1, GROUND]], "showscale": False, "hoverinfo": "skip"}
        traces.append(common | {"x": x, "y": y, "z": ones} | grey)
    x, y, values = _grid(c.z, c.n, [number(float(f"{v:.4g}")) for v in c.values], None)
    words = [
        f"{nuclide(a, b)} (Z {a}, N {b}): {v:.3g} {unit}"
        for a, b, v in zip(c.z.tolist(), c.n.tolist(), c.values.tolist(), strict=True)
    ]
    hover: Json = {"hovertext": _grid(c.z, c.n, words, "")[2], "hovertemplate": "%{hovertext}<extra></extra>"}
    return [*traces, common | {"x": x, "y": y, "z": values, "coloraxis": "coloraxis", "hoverongaps": False} | hover]


def _magic(c: Chart, panel: int) -> list[Json]:
    """A thin line at each magic number, as long as the nuclei that have it reach."""
    xaxis, yaxis = axes(panel)
    z, n = np.r_[c.z, c.other_z], np.r_[c.n, c.other_n]
    shapes: list[Json] = []
    for number_ in MAGIC:
        for own, across, names in ((n == number_, z, "xy"), (z == number_, n, "yx")):
            if own.any():
                low, high = float(across[own].min()) - BEYOND, float(across[own].max()) + BEYOND
                ends = {f"{names[0]}0": number_, f"{names[0]}1": number_, f"{names[1]}0": low, f"{names[1]}1": high}
                line: Json = {"color": INK, "width": 0.7}
                shapes.append({"type": "line", "xref": xaxis, "yref": yaxis, "line": line, "opacity": 0.55} | ends)
    return shapes


def _long(c: Chart, value: str, unit: str) -> pd.DataFrame:
    names = [nuclide(a, b) for a, b in zip(c.z.tolist(), c.n.tolist(), strict=True)]
    return pd.DataFrame({"chart": c.title, "nuclide": names, "Z": c.z, "N": c.n, f"{value}, {unit}": c.values})
