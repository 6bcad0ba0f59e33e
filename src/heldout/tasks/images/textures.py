"""The ten textures: patterns of a plane of unit cells, drawn (True) or left open.

Each is a function of a point's coordinates alone, in cells; every one can be told within one or two cells.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_GRAINS = 2  # grains of noise along a cell


def _within(x: Floats) -> Floats:
    """Where in its cell a coordinate is, 0 to below 1."""
    return x - np.floor(x)


def _stripes(u: Floats, v: Floats) -> Mask:
    return _within(u) < 0.5


def _grid(u: Floats, v: Floats) -> Mask:
    return (_within(u) < 0.3) | (_within(v) < 0.3)


def _hexgrid(u: Floats, v: Floats) -> Mask:
    """Walls of hexagons: points whose two nearest centres of a triangular lattice are almost equally far."""
    height = np.float32(np.sqrt(3))
    found = []
    for shift in (0.0, 0.5):  # the lattice is two rectangular ones, 1 x sqrt(3), one moved by half a cell
        x = u - np.floor(u + np.float32(0.5 - shift)) - np.float32(shift)
        w = v / height
        y = (w - np.floor(w + np.float32(0.5 - shift)) - np.float32(shift)) * height
        ax, ay = np.abs(x), np.abs(y)
        # Distance to the wall of the hexagon about this centre, in units of the lattice; it is negative in others' cells.
        found.append(np.float32(0.5) - np.maximum(ax, ax * np.float32(0.5) + ay * (height / 2)))
    return np.asarray(np.maximum(found[0], found[1]) < 0.13)


def _dots(u: Floats, v: Floats) -> Mask:
    a, b = _within(u) - np.float32(0.5), _within(v) - np.float32(0.5)
    return a * a + b * b < 0.28**2


def _noise(u: Floats, v: Floats) -> Mask:
    """Grains that are drawn or not by a hash of their place: the same plane of noise for everybody."""
    with np.errstate(over="ignore"):
        i, j = (np.floor(c * np.float32(_GRAINS)).astype(np.int64).astype(np.uint64) for c in (u, v))
        h = i * np.uint64(0x9E3779B97F4A7C15) + j * np.uint64(0xC2B2AE3D27D4EB4F)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64's finish
            h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((h >> np.uint64(40)) & np.uint64(1) == 1)


def _triangles(u: Floats, v: Floats) -> Mask:
    a, b = _within(u), _within(v)
    return np.asarray(np.abs(a - np.float32(0.5)) * 2 < np.float32(0.95) - b)


def _zigzags(u: Floats, v: Floats) -> Mask:
    return _within(v + np.abs(_within(u) - np.float32(0.5))) < 0.5


def _rain(u: Floats, v: Floats) -> Mask:
    """Short strokes, every other column of them half a cell lower."""
    column = np.floor(u * 2)
    half = np.float32(0.5) * (column - 2 * np.floor(column / 2))
    return (_within(u * 2) < 0.5) & (_within(v * np.float32(0.5) + half) < 0.6)


def _pluses(u: Floats, v: Floats) -> Mask:
    a, b = np.abs(_within(u) - np.float32(0.5)), np.abs(_within(v) - np.float32(0.5))
    return np.asarray((np.minimum(a, b) < 0.15) & (np.maximum(a, b) < 0.45))


PATTERNS: dict[str, Callable[[Floats, Floats], Mask] | None] = {
    "solid": None,
    "stripes": _stripes,
    "grid": _grid,
    "hexgrid": _hexgrid,
    "dots": _dots,
    "noise": _noise,
    "triangles": _triangles,
    "zigzags": _zigzags,
    "rain": _rain,
    "pluses": _pluses,
}
TEXTURES = tuple(PATTERNS)
