"""A claim's estimate as a strip: interval, estimate, zero, and the smallest effect that counts."""

from __future__ import annotations

import math

from markupsafe import Markup

from heldout.report.text import estimate, interval

WIDTH, HEIGHT, MIDDLE, EDGE = 250, 50, 26, 12


def forest_strip(value: float, low: float, high: float, *, delta: float, both_sides: bool = False) -> Markup:
    """An inline SVG; empty where there is no estimate. Contains numbers only, never a user's text.

    The scale is the strip's own: it reaches from the least to the greatest of interval, zero and delta. An end of the
    interval that is infinite runs to the edge. `both_sides` marks -delta too (a claim of no effect).
    """
    if not math.isfinite(value):
        return Markup("")
    marks = [delta, -delta] if both_sides else [delta]
    finite = [v for v in (value, low, high, 0.0, *marks) if math.isfinite(v)]
    least, span = min(finite), (max(finite) - min(finite)) or 1.0

    def x(v: float) -> str:
        inside = EDGE + (v - least) / span * (WIDTH - 2 * EDGE) if math.isfinite(v) else (WIDTH if v > 0 else 0)
        return f"{inside:.1f}"

    label = f"estimate {estimate(value)}, interval {interval(low, high)}, zero, and delta at {estimate(delta)}"
    parts = [
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}">',
        f'<line class="base" x1="0" x2="{WIDTH}" y1="{MIDDLE}" y2="{MIDDLE}"/>',
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="12" y2="38"/><text x="{x(0)}" y="49">0</text>',
    ]
    for mark in marks:
        if mark:  # at zero the zero line says it
            sign = "\N{MINUS SIGN}" if mark < 0 else ""
            parts.append(f'<line class="delta" x1="{x(mark)}" x2="{x(mark)}" y1="12" y2="38"/>')
            parts.append(f'<text x="{x(mark)}" y="9">{sign}δ</text>')
    if not math.isnan(low) and not math.isnan(high):
        parts.append(f'<line class="interval" x1="{x(low)}" x2="{x(high)}" y1="{MIDDLE}" y2="{MIDDLE}"/>')
    parts.append(f'<circle class="estimate" cx="{x(value)}" cy="{MIDDLE}" r="5.5"/></svg>')
    return Markup("".join(parts))
