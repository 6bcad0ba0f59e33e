"""Pictures as they enter a network, in rows."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, axes, layout
from heldout.figures.style import Json

WIDE, NARROW = 88, 27  # pixels of a row on a page and on a telephone, where ten pictures are about as wide each
SHARE = 0.92  # of a row that its pictures fill


@dataclass(frozen=True, eq=False)
class Row:
    """Some pictures side by side: `levels` (N, H, W, 3) uint8, and what is in each, for the table behind the figure."""

    label: str
    levels: NDArray[np.uint8]
    contents: Sequence[str]


def pictures(rows: Sequence[Row], *, id: str, title: str, caption: str) -> Figure:  # noqa: A002 - a field of the figure
    """`rows` below each other, all with equally many pictures of one size."""
    shapes = {row.levels.shape for row in rows}
    if len(shapes) != 1 or any(len(row.contents) != len(row.levels) for row in rows):
        raise EvidenceError(
            f"rows of pictures must hold equally many of one size, each with its contents; got shapes {sorted(shapes)}"
        )
    ((n, height, width, _),) = shapes
    data: list[Json] = []
    x, y = axes(0)
    for i, row in enumerate(rows):
        strip = np.concatenate(list(row.levels), axis=1)
        trace: Json = {"type": "image", "source": _data_uri(strip), "xaxis": x, "yaxis": y, "hoverinfo": "skip"}
        trace |= {"x0": -0.5 + 0.5 / width, "dx": 1 / width}
        trace |= {"y0": i - SHARE / 2 + SHARE / 2 / height, "dy": SHARE / height}
        data.append(trace)
    hidden: Json = {
        "range": [-0.5, n - 0.5],
        "showticklabels": False,
        "showgrid": False,
        "showline": False,
        "ticks": "",
    }
    labels = tuple(row.label for row in rows)
    wide, narrow = (
        layout([Panel("", pixels * len(rows), "", x=hidden, y={"scaleanchor": False}, labels=labels)], columns=1)
        for pixels in (WIDE, NARROW)
    )
    wide["meta"]["narrow"] = narrow["meta"]["narrow"]
    table = pd.DataFrame(
        [(row.label, j + 1, text) for row in rows for j, text in enumerate(row.contents)],
        columns=["row", "place", "contents"],
    )
    plot = {"data": data, "layout": wide}
    return Figure(id=id, title=title, caption=sentences([caption]), plot=plot, data=table)


def _data_uri(levels: NDArray[np.uint8]) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(levels)).decode()}"


def png(levels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) levels as a PNG file, 8 bits a channel (ISO/IEC 15948)."""
    height, width, _ = levels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(levels))  # each without a filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
