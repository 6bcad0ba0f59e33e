"""Where the panels of a figure stand, on a wide page and on a telephone.

The layout that a figure carries is the wide one; ``layout["meta"]`` holds both as relayout patches, and the page applies
the one that fits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from heldout.figures.style import FONT, GRID, INK, MUTED, ZERO, Json, entry, wrap

NARROW_LABEL = 17  # characters of a row name on one line of a telephone


@dataclass(frozen=True)
class Panel:
    """One set of axes: its title, its height in pixels, and what its axes are called.

    `x` and `y` are plotly axis dictionaries for the rest. `labels` are row names for the y axis, top first. Titles and
    labels are plain text; they are escaped and wrapped to the width there is.
    """

    title: str
    height: int
    x_title: str
    y_title: str = ""
    x: Json = field(default_factory=dict)
    y: Json = field(default_factory=dict)
    labels: tuple[str, ...] = ()


def axes(index: int) -> tuple[str, str]:
    """The plotly names of a panel's axes, as a trace refers to them: ``x``, ``y``; ``x2``, ``y2`` ..."""
    suffix = "" if index == 0 else str(index + 1)
    return f"x{suffix}", f"y{suffix}"


def layout(panels: Sequence[Panel], *, columns: int, legend: Sequence[str] = (), bar: bool = False) -> Json:
    """The layout of a figure of small multiples, `columns` beside each other on a wide page, one on a telephone.

    `legend` are the entries that the legend will have: room is left for them below. `bar` leaves room for a colour bar.
    """
    wide = _place(panels, columns=columns, width=900, legend=legend, bar=bar)
    narrow = _place(panels, columns=1, width=350, legend=legend, bar=bar)
    base: Json = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": ZERO, "font": {"family": FONT, "size": 13, "color": INK}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ZERO, "activecolor": INK},
        "showlegend": bool(legend),
        "legend": {"orientation": "h", "x": 0, "xref": "container", "xanchor": "left", "y": 0, "yref": "container"}
        | {"yanchor": "bottom", "font": {"size": 13}, "itemsizing": "constant", "traceorder": "normal"},
        "margin": {"l": 12, "r": 14, "t": 8, "b": 40},
        "meta": {"wide": wide, "narrow": narrow},
    }
    for i, panel in enumerate(panels):
        x, y = (name[0] + "axis" + name[1:] for name in axes(i))
        common: Json = {"gridcolor": GRID, "zeroline": False, "linecolor": ZERO, "tickfont": {"size": 12, "color": INK}}
        common |= {"title": {"font": {"size": 13, "color": MUTED}}, "fixedrange": True}
        line = {"showline": True, "ticks": "outside", "ticklen": 4, "tickcolor": ZERO}
        base[x] = copy.deepcopy(common | line | {"anchor": axes(i)[1]} | panel.x)
        room: Json = {"title": common["title"] | {"standoff": 8}, "automargin": True}  # however wide tick labels are
        base[y] = copy.deepcopy(common | room | {"anchor": axes(i)[0], "showline": False} | panel.y)
        if panel.labels:
            n = len(panel.labels)
            off = {"ticks": "outside", "ticklen": 7, "tickcolor": "rgba(0,0,0,0)"}
            base[y] |= off | {"tickvals": list(range(n)), "range": [n - 0.5, -0.5], "showgrid": False}
    for key, value in wide.items():
        set_dotted(base, key, value)
    return base


def _place(panels: Sequence[Panel], *, columns: int, width: int, legend: Sequence[str], bar: bool) -> Json:
    """The relayout patch that stands `panels` in `columns` on a page about `width` pixels wide."""
    columns = max(1, min(columns, len(panels)))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    chars, across = (26, 100 // columns) if width > 600 else (NARROW_LABEL, 30 if any(p.labels for p in panels) else 42)
    below = 50 + 16 * max(wrap(p.x_title, across).count("<br>") for p in panels)
    top, between = 8, below + 18
    # Where the first row has no title, the button that saves the picture still needs a place.
    titles = [[wrap(p.title, across, lines=2) for p in row] for row in rows]
    titled = [
        14 + 16 * (1 + max(t.count("<br>") for t in row)) if any(row) else 22 * (i == 0) for i, row in enumerate(titles)
    ]
    heights = [max(p.height for p in row) for row in rows]
    plot = sum(heights) + sum(titled) + between * (len(rows) - 1)
    bottom = below + _legend_height(legend, width) + (70 if bar else 0)
    patch: Json = {"height": top + plot + bottom, "margin.t": top, "margin.b": bottom}
    gap = 0.07 if any(p.labels for p in panels) else 0.09
    notes: list[Json] = []
    reached = 0.0
    for r, row in enumerate(rows):
        reached += titled[r]
        upper, lower = 1 - reached / plot, 1 - (reached + heights[r]) / plot
        reached += heights[r] + between
        for c, panel in enumerate(row):
            i = r * columns + c
            span = (1 - gap * (columns - 1)) / columns
            x, y = (name[0] + "axis" + name[1:] for name in axes(i))
            left = c * (span + gap)
            patch[f"{x}.domain"] = [round(left, 5), round(left + span, 5)]
            patch[f"{y}.domain"] = [round(max(lower, 0.0), 5), round(upper, 5)]
            if panel.labels:
                same = c > 0 and panel.labels == row[0].labels
                patch[f"{y}.showticklabels"] = not same
                patch[f"{y}.ticktext"] = [wrap(label, chars) for label in panel.labels]
            patch[f"{x}.title.text"] = wrap(panel.x_title, across)
            patch[f"{y}.title.text"] = wrap(panel.y_title, heights[r] // 8, lines=2)
            notes.append(_title(titles[r][c], left, upper))
    patch["annotations"] = [note for note in notes if note["text"]]
    return patch


def _title(shown: str, x: float, y: float) -> Json:
    note: Json = {"text": f"<b>{shown}</b>" if shown else "", "x": x, "y": y, "xref": "paper", "yref": "paper"}
    return note | {"xanchor": "left", "yanchor": "bottom", "yshift": 5, "showarrow": False, "font": {"size": 13}}


def _legend_height(entries: Sequence[str], width: int) -> int:
    """Pixels that a horizontal legend needs: once it wraps, every entry takes the width of the longest.

    On a telephone plotly puts each entry on a line of its own.
    """
    if not entries:
        return 0
    longest = max(46 + 7 * min(len(name), 38) for name in entries)
    lines = max(entry(name).count("<br>") + 1 for name in entries)
    rows = math.ceil(len(entries) / max(1, width // longest)) if width > 600 else len(entries)
    return 24 + (4 + 16 * lines) * rows


def set_dotted(target: Json, dotted: str, value: Any) -> None:
    """Put `value` where the dotted key of a relayout patch points."""
    *path, last = dotted.split(".")
    for key in path:
        target = target.setdefault(key, {})
    target[last] = value
