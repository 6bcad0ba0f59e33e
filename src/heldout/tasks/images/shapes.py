"""The ten shapes: outlines in a box from -1 to 1, and how far points are from them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Contour = tuple[tuple[float, float], ...]  # corners (x, y), y upwards


def _ring(n: int, *radii: float) -> Contour:
    """n corners about the centre, the first one on top, their radii in turns."""
    at = [(radii[i % len(radii)], 2 * math.pi * i / n) for i in range(n)]
    return tuple((-r * math.sin(a), r * math.cos(a)) for r, a in at)


def _rectangle(left: float, right: float, low: float, high: float) -> Contour:
    return ((left, low), (right, low), (right, high), (left, high))


_T = 1 / 3
_POINTED = (3 - math.sqrt(5)) / 2  # the star whose sides are straight lines through two others of its points
_DICE = 0.7, 0.3  # how far the outer squares' centres are from the middle, and half their side

# Contours of one shape neither touch nor contain each other. None stands for the unit circle.
OUTLINES: dict[str, tuple[Contour, ...] | None] = {
    "triangle": (((-1, -1), (1, -1), (0, 1)),),
    "square": (_rectangle(-1, 1, -1, 1),),
    "plus": (
        (
            *((-_T, -1), (_T, -1), (_T, -_T), (1, -_T), (1, _T), (_T, _T)),
            *((_T, 1), (-_T, 1), (-_T, _T), (-1, _T), (-1, -_T), (-_T, -_T)),
        ),
    ),
    "circle": None,
    "tee": (((-_T, -1), (_T, -1), (_T, _T), (1, _T), (1, 1), (-1, 1), (-1, _T), (-_T, _T)),),
    "rhombus": (((-0.6, 0), (0, -1), (0.6, 0), (0, 1)),),
    "pentagon": (_ring(5, 1.0),),
    "star": (_ring(10, 1.0, _POINTED),),
    "fivesquare": tuple(
        _rectangle(x - _DICE[1], x + _DICE[1], y - _DICE[1], y + _DICE[1])
        for x, y in ((0.0, 0.0), *((sx * _DICE[0], sy * _DICE[0]) for sx in (-1, 1) for sy in (-1, 1)))
    ),
    "trapezoid": (((-1, -0.6), (1, -0.6), (0.5, 0.6), (-0.5, 0.6)),),
}
SHAPES = tuple(OUTLINES)


def area(shape: str) -> float:
    """In units of the box's half side squared: the box has 4."""
    contours = OUTLINES[shape]
    if contours is None:
        return math.pi
    return sum(
        abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(c, c[1:] + c[:1], strict=True))) / 2 for c in contours
    )


def extent(shape: str, cos: float, sin: float) -> tuple[float, float, float, float]:
    """Least and greatest x, least and greatest y of the shape turned about its box's centre, anticlockwise."""
    contours = OUTLINES[shape]
    if contours is None:
        return -1.0, 1.0, -1.0, 1.0
    corners = [corner for contour in contours for corner in contour]
    x, y = [cos * a - sin * b for a, b in corners], [sin * a + cos * b for a, b in corners]
    return min(x), max(x), min(y), max(y)


def signed_distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Distance of points to the outline, negative inside; elementwise, so a point's is its own whatever stands beside.

    Inside by the even-odd rule: each edge that a ray to the right crosses turns the sign.
    """
    contours = OUTLINES[shape]
    if contours is None:
        return np.sqrt(x * x + y * y) - np.float32(1)
    nearest = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=bool)
    for contour in contours:
        for (ax, ay), (bx, by) in zip(contour, contour[1:] + contour[:1], strict=True):
            ex, ey = np.float32(bx - ax), np.float32(by - ay)
            px, py = x - np.float32(ax), y - np.float32(ay)
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            dx, dy = px - ex * along, py - ey * along
            np.minimum(nearest, dx * dx + dy * dy, out=nearest)
            if ay != by:
                upwards = by > ay
                between = (y >= np.float32(min(ay, by))) & (y < np.float32(max(ay, by)))
                inside ^= between & ((ex * py > ey * px) == upwards)
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)
