"""Pictures of one textured, coloured shape each, from their parameters alone.

    levels = render(scenes, size=64, texture_scale=10 / 224)  # (B, 3, 64, 64) uint8

An edge covers a pixel by its signed distance, a texture by the share of `SAMPLES` x `SAMPLES` points that it draws. Where
the texture is open the background shows. All arithmetic is elementwise and of one order, so that a picture's bytes are a
function of its own parameters, whatever is rendered beside it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heldout.tasks.images.shapes import SHAPES, signed_distance
from heldout.tasks.images.textures import PATTERNS, TEXTURES

Floats = NDArray[np.float32]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "pink": (1, 0.4, 1),
    "cyan": (0, 1, 1),
    "purple": (0.3, 0, 0.5),
    "ocean": (0.1, 0.4, 0.5),
    "orange": (1, 0.6, 0),
    "white": (1, 1, 1),
}
BACKGROUND = 128  # of 255: grey
LEVELS = np.rint(255 * np.array(list(COLOURS.values()))).astype(np.float32)  # (colours, 3)
SAMPLES = 4  # points along a pixel at which a texture is looked at
CHUNK = 32  # pictures at a time, so that their arrays stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Scenes:
    """Parameters of N pictures, (N,) each: numbers of `SHAPES`, `TEXTURES` and `COLOURS`; `angle` and `texture_angle` in
    degrees, anticlockwise; `x` and `y`, the centre of the shape's box from the left and from below, and `box`, its side,
    in picture widths."""

    shape: NDArray[np.int64]
    texture: NDArray[np.int64]
    colour: NDArray[np.int64]
    angle: NDArray[np.float64]
    texture_angle: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    box: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.shape)

    def take(self, index: NDArray[np.int64]) -> Scenes:
        return Scenes(*(column[index] for column in self._columns()))

    def keys(self) -> NDArray[np.str_]:
        """(N,) one name for each set of parameters."""
        rows = zip(*(column.tolist() for column in self._columns()), strict=True)
        return np.array([hashlib.blake2b(repr(row).encode(), digest_size=12).hexdigest() for row in rows])

    def _columns(self) -> list[NDArray[Any]]:
        return [getattr(self, field.name) for field in fields(self)]


def render(scenes: Scenes, *, size: int, texture_scale: float) -> NDArray[np.uint8]:
    """(N, 3, size, size) levels from 0 to 255, the first row on top. `texture_scale`: a cell's side in picture widths."""
    levels = np.empty((len(scenes), 3, size, size), dtype=np.uint8)
    for shape in np.unique(scenes.shape):
        same = np.flatnonzero(scenes.shape == shape)
        for start in range(0, len(same), CHUNK):
            at = same[start : start + CHUNK]
            levels[at] = _painted(scenes.take(at), SHAPES[shape], size, texture_scale)
    return levels


def _painted(scenes: Scenes, shape: str, size: int, texture_scale: float) -> NDArray[np.uint8]:
    """Pictures of one shape."""
    ink = _coverage(scenes, shape, size)
    for texture in np.unique(scenes.texture):
        pattern = PATTERNS[TEXTURES[texture]]
        if pattern is None:
            continue
        same = np.flatnonzero(scenes.texture == texture)
        item, row, column = np.nonzero(ink[same])
        cos, sin = _turns(scenes.texture_angle[same])
        drawn = np.zeros(len(item), dtype=np.float32)
        for i in range(SAMPLES):
            for j in range(SAMPLES):
                # From the picture's centre, in cells.
                x = (column + np.float32((j + 0.5) / SAMPLES - size / 2)) * np.float32(1 / size / texture_scale)
                y = (np.float32(size / 2 - (i + 0.5) / SAMPLES) - row) * np.float32(1 / size / texture_scale)
                x, y = x.astype(np.float32), y.astype(np.float32)
                drawn += pattern(cos[item] * x + sin[item] * y, cos[item] * y - sin[item] * x)
        ink[same[item], row, column] *= drawn / np.float32(SAMPLES**2)
    colour = LEVELS[scenes.colour][:, :, None, None]
    over = ink[:, None]
    levels: NDArray[np.uint8] = np.rint(over * colour + (1 - over) * np.float32(BACKGROUND)).astype(np.uint8)
    return levels


def _coverage(scenes: Scenes, shape: str, size: int) -> Floats:
    """(B, size, size) how much of each pixel lies in the shape, 0 to 1: the distance of its centre to the outline, in
    pixels, at most half a pixel either way. Exact for an edge along the grid, and in sum for any straight edge."""
    cos, sin = _turns(scenes.angle)
    centre = (np.arange(size, dtype=np.float64) + 0.5) / size
    half = scenes.box / 2
    x = ((centre - scenes.x[:, None]) / half[:, None]).astype(np.float32)[:, None, :]
    y = ((1 - centre - scenes.y[:, None]) / half[:, None]).astype(np.float32)[:, :, None]
    c, s = cos[:, None, None], sin[:, None, None]
    pixels = (half * size).astype(np.float32)[:, None, None]
    distance = signed_distance(shape, c * x + s * y, c * y - s * x) * pixels
    return np.asarray(np.clip(np.float32(0.5) - distance, 0, 1))


def _turns(degrees: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Cosines and sines, one number at a time: a vectorised one may depend on its neighbours."""
    radians = [math.radians(d) for d in degrees.tolist()]
    return np.array([math.cos(r) for r in radians], np.float32), np.array([math.sin(r) for r in radians], np.float32)
