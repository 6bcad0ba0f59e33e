"""How every figure looks: colours, symbols, and text that says what was written and fits where it stands."""

from __future__ import annotations

import math
import re
from html import escape
from typing import Any

# Okabe and Ito (2008), without the yellow that vanishes on white; told apart under every common colour blindness.
# Symbols and dashes vary with the colours, so that no figure depends on colour alone.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
INK, MUTED, GRID, ZERO = "#1f2328", "#59636e", "#e9ebee", "#8b949e"
SEQUENTIAL = "Cividis"
DIVERGING = ((0.0, "#0b5a8f"), (0.25, "#8dbbda"), (0.5, "#f7f7f7"), (0.75, "#eeb08a"), (1.0, "#b54a00"))
FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"

Json = dict[str, Any]


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def symbol(index: int) -> str:
    """Where colours begin again, symbols are one further on, so that no two of 49 series look alike."""
    return SYMBOLS[(index + index // len(PALETTE)) % len(SYMBOLS)]


def dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def faint(hexcolour: str, alpha: float) -> str:
    """`hexcolour` as rgba with opacity `alpha`, for bands."""
    r, g, b = (int(hexcolour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


def plain(text: object) -> str:
    """`text` for a place where the plotting library would read markup or a template: shown as it is written."""
    return escape(str(text), quote=False).replace("%{", "%\u2060{")  # a word joiner: seen by nobody but the parser


def wrap(text: object, width: int, lines: int = 3) -> str:
    """`text` on at most `lines` lines of `width` characters, escaped; what does not fit ends in an ellipsis.

    Names break after spaces, underscores, hyphens, slashes and commas, and inside a word only where nothing else helps.
    """
    out: list[str] = [""]
    for token in re.findall(r"[^\s_\-/,]*[\s_\-/,]*", str(text)):
        while len(out[-1]) + len(token.rstrip()) > width:
            if out[-1]:
                out.append("")
                continue
            out[-1], token = token[:width], token[width:]
            out.append("")
        out[-1] += token
    kept = [line.rstrip() for line in out if line.strip()]
    if len(kept) > lines:
        kept = [*kept[: lines - 1], kept[lines - 1][: width - 1] + "…"]
    return "<br>".join(plain(line) for line in kept)


def entry(text: object) -> str:
    """`text` as an entry of a legend: two lines at most, short enough for a telephone."""
    return wrap(text, 38, lines=2)


def number(value: float) -> float | None:
    """`value` for JSON: None where it is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def show(value: float) -> str:
    """`value` for hover text."""
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "none"
