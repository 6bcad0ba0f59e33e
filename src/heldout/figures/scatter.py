"""Points in a plane, coloured by what they are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, layout
from heldout.figures.style import MUTED, SEQUENTIAL, Json, colour, entry, symbol, wrap


def scatter_components(
    points: pd.DataFrame,
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    x: str,
    y: str,
    by: str,
    limits: str,
    unit: str = "points",
    at_most: int = 3000,
) -> Figure:
    """Columns `x` against `y`, coloured by the column `by`: a number (colour bar) or a category (legend).

    More than `at_most` points are thinned by one fixed random draw without replacement, the same for the same number
    of points; the caption says how many are shown. `limits` is the sentence on what the figure does not show.
    """
    if missing := {x, y, by} - set(points.columns):
        raise EvidenceError(f"points lack the columns {sorted(missing)}; given: {', '.join(map(str, points.columns))}")
    finite = points[np.isfinite(points[x].to_numpy(float)) & np.isfinite(points[y].to_numpy(float))]
    if finite.empty:
        raise EvidenceError(f"none of the {len(points)} points has finite {x} and {y}")
    shown = finite
    if len(finite) > at_most:
        kept = np.random.default_rng(0).choice(len(finite), size=at_most, replace=False)
        shown = finite.iloc[np.sort(kept)]
    numeric = pd.api.types.is_numeric_dtype(shown[by]) and not pd.api.types.is_bool_dtype(shown[by])
    data = [_coloured(shown, x, y, by)] if numeric else _categories(shown, x, y, by)
    legend = [] if numeric else [str(v) for v in shown[by].unique()]
    panel = Panel("", 420, x, y, x={"nticks": 6}, y={"nticks": 6})
    plot = layout([panel], columns=1, legend=legend, bar=numeric)
    dropped = len(points) - len(finite)
    caption = sentences(
        [
            f"Each point is one of n = {len(finite):,} {unit}, coloured by {by}.",
            f"{len(shown):,} of them are shown, drawn at random." if len(shown) < len(finite) else "",
            f"Absent, without finite coordinates: {dropped:,}." if dropped else "",
            "No interval is drawn: these are single points, not estimates.",
            limits,
        ]
    )
    return Figure(
        id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=shown.reset_index(drop=True)
    )


def _coloured(points: pd.DataFrame, x: str, y: str, by: str) -> Json:
    bar = {"orientation": "h", "thickness": 10, "len": 1, "x": 0.5, "y": 0, "yref": "container", "yanchor": "bottom"}
    bar |= {
        "title": {"text": wrap(by, 40, lines=1), "side": "bottom", "font": {"size": 13, "color": MUTED}},
        "outlinewidth": 0,
        "nticks": 6,
    }
    marker = {"size": 5, "opacity": 0.75, "colorscale": SEQUENTIAL, "colorbar": bar}
    marker |= {"color": [None if pd.isna(v) else float(v) for v in points[by]]}
    return _trace(points, x, y) | {
        "marker": marker,
        "hovertemplate": "%{x:.3g}, %{y:.3g}: %{marker.color:.3g}<extra></extra>",
    }


def _categories(points: pd.DataFrame, x: str, y: str, by: str) -> list[Json]:
    traces = []
    for i, (name, rows) in enumerate(points.groupby(by, sort=False, dropna=False)):
        marker = {"size": 6, "opacity": 0.75, "color": colour(i), "symbol": symbol(i)}
        traces.append(_trace(rows, x, y) | {"marker": marker, "name": entry(name), "showlegend": True})
        traces[-1] |= {"hovertemplate": "%{x:.3g}, %{y:.3g}<extra></extra>"}
    return traces


def _trace(points: pd.DataFrame, x: str, y: str) -> Json:
    return {"type": "scatter", "mode": "markers"} | {c: [float(v) for v in points[n]] for c, n in (("x", x), ("y", y))}
