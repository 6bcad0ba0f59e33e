"""A grid of estimates of different quantities: one cell each, coloured only where its interval excludes its null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, layout, set_dotted
from heldout.figures.style import DIVERGING, GRID, INK, MUTED, Json, plain, wrap

FULL = 5.0  # half-widths of its interval from the null at which a cell has the full colour
HEIGHT = 74  # pixels of a row


@dataclass(frozen=True)
class Square:
    """One cell of a grid: `value` with its interval and the `null` that it is set beside, a `verdict` where there is a
    claim, `reason` where there is no value, `about` (what it is of) for the hover text, `anchor` (``#...``) of where it is
    shown.

    `absent`: there is no such cell, for the `reason` given; else the value could not be estimated. `few`: too few units for
    its interval to be trusted.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null: float = math.nan
    about: str = ""
    verdict: str = ""
    reason: str = ""
    anchor: str = ""
    absent: bool = False
    few: bool = False

    @property
    def strength(self) -> float:
        """How many half-widths of its interval the value lies from its null, signed; 0 where the interval holds the null,
        has no width (seeds that all give one value of a coarse quantity show no spread, and prove none), rests on too few
        units, or is none."""
        away, half = self.value - self.null, (self.high - self.low) / 2
        if self.few or not math.isfinite(away) or not half > 0 or self.low <= self.null <= self.high:
            return 0.0
        return math.copysign(min(abs(away) / half, FULL), away)


def grid(
    squares: Mapping[tuple[str, str], Square],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    limits: str,
) -> Figure:
    """`squares` by (row, column), one for every combination. Colour says sign and strength, never a verdict."""
    at = [[squares[row, column] for column in columns] for row in rows]
    panel = Panel(
        title="",
        height=HEIGHT * len(rows),
        x_title="",
        x={"showgrid": False, "showline": False, "ticks": "", "side": "top", "range": [-0.5, len(columns) - 0.5]}
        | {"tickvals": list(range(len(columns)))},
        labels=tuple(rows),
    )
    plot = layout([panel], columns=1)
    for way, short, top in (("wide", False, 64), ("narrow", True, 150)):
        patch = plot["meta"][way]
        patch |= {"annotations": _notes(at, short=short), "margin.t": top, "height": patch["height"] + top - 8}
        # On a telephone the names of columns stand upright.
        patch["xaxis.ticktext"] = [wrap(c, 24, lines=1) if short else wrap(c, 14) for c in columns]
        patch["xaxis.tickangle"] = -90 if short else 0
    for key, value in plot["meta"]["wide"].items():
        set_dotted(plot, key, value)
    data: list[Json] = [
        {
            "type": "heatmap",
            "z": [[None if square.absent else square.strength for square in line] for line in at],
            "zmin": -FULL,
            "zmax": FULL,
            "colorscale": [list(stop) for stop in DIVERGING],
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hovertext": [[_hover(r, c, squares[r, c]) for c in columns] for r in rows],
            "hovertemplate": "%{hovertext}<extra></extra>",
            "customdata": [[square.anchor for square in line] for line in at],
        },
        {
            "type": "heatmap",
            "z": [[0 if square.absent else None for square in line] for line in at],
            "colorscale": [[0, GRID], [1, GRID]],
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hovertext": [[_hover(r, c, squares[r, c]) for c in columns] for r in rows],
            "hovertemplate": "%{hovertext}<extra></extra>",
            "hoverongaps": False,
        },
    ]
    data[0]["hoverongaps"] = False
    told = sum(1 for line in at for s in line if s.strength)
    missing = sum(1 for line in at for s in line if not s.absent and not math.isfinite(s.value))
    caption = sentences(
        [
            "Value, 95% interval and null of each cell; the quantities of different columns have different units.",
            "Coloured only where the interval excludes the null: orange above, blue below, fuller the more half-widths of "
            f"the interval lie between (from {FULL:g} on, full). {told} cells are.",
            "Grey cells make no sense; their reasons stand below and on hover.",
            f"{missing} cells could not be estimated." if missing else "",
            "A click on a cell leads to where it is shown.",
            limits,
        ]
    )
    return Figure(
        id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=_table(squares, rows, columns)
    )


def _notes(at: Sequence[Sequence[Square]], *, short: bool) -> list[Json]:
    """The text of each cell."""
    notes: list[Json] = []
    for y, line in enumerate(at):
        for x, square in enumerate(line):
            note: Json = {
                "x": x,
                "y": y,
                "xref": "x",
                "yref": "y",
                "showarrow": False,
                "text": _text(square, short=short),
            }
            dark = abs(square.strength) > FULL * 0.7
            colour = MUTED if square.absent else "#ffffff" if dark else INK
            notes.append(note | {"font": {"size": 9 if short else 11, "color": colour}})
    return notes


def _text(square: Square, *, short: bool) -> str:
    if square.absent:
        return "–"
    if not math.isfinite(square.value):
        return "?" if short else "not estimable"
    value = f"<b>{_number(square.value)}</b>"
    if short:
        return value
    lines = [value]
    if math.isfinite(square.low):
        lines.append(f"[{_number(square.low)}, {_number(square.high)}]")
    if math.isfinite(square.null):
        lines.append(f"null {_number(square.null)}")
    return "<br>".join([*lines, *([f"<i>{plain(square.verdict)}</i>"] if square.verdict else [])])


def _number(value: float) -> str:
    """Three significant figures, without an exponent where that is short."""
    if value == 0:
        return "0"
    shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    return "0.000" if shown == "-0.000" else shown


def _hover(row: str, column: str, square: Square) -> str:
    parts = [f"<b>{plain(row)}, {plain(column)}</b>"]
    if square.about:
        parts.append(wrap(square.about, 60, lines=8))
    if square.reason:
        parts.append(wrap(square.reason, 60, lines=6))
    if square.verdict:
        parts.append(plain(square.verdict))
    return "<br>".join(parts)


def _table(squares: Mapping[tuple[str, str], Square], rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    names = ("value", "low", "high", "null", "verdict", "reason")
    found = [
        {"network": row, "analysis": column} | {name: getattr(squares[row, column], name) for name in names}
        for row in rows
        for column in columns
    ]
    return pd.DataFrame(found)
