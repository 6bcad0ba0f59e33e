"""Rows of pictures: the file inside the figure is a real PNG with the very levels."""

from __future__ import annotations

import base64
import json
import struct
import zlib

import numpy as np
import pytest

from heldout.errors import EvidenceError
from heldout.figures.pictures import Row, pictures, png


def decoded(data: bytes) -> np.ndarray:
    """A PNG without filters, read by its chunks; every checksum is looked at."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    assert (depth, colour) == (8, 2)
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def test_a_png_holds_the_levels() -> None:
    levels = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decoded(png(levels)), levels)


def test_rows_stand_below_each_other_with_their_contents() -> None:
    rng = np.random.default_rng(1)
    rows = [Row(name, rng.integers(256, size=(3, 4, 4, 3), dtype=np.uint8), ["a", "b", "c"]) for name in ("one", "two")]
    figure = pictures(rows, id="pictures", title="Pictures", caption="Three of each.")
    json.dumps(figure.plot, allow_nan=False)
    for i, (row, trace) in enumerate(zip(rows, figure.plot["data"], strict=True)):
        head, _, body = trace["source"].partition(",")
        assert head == "data:image/png;base64"
        assert np.array_equal(decoded(base64.b64decode(body)), np.concatenate(list(row.levels), axis=1))
        # Three pictures of four pixels stand around 0, 1 and 2, each row around its own number.
        edges = trace["x0"] - trace["dx"] / 2, trace["x0"] + 11.5 * trace["dx"]
        assert edges == pytest.approx((-0.5, 2.5))
        assert trace["y0"] + 1.5 * trace["dy"] == pytest.approx(i)
    assert figure.plot["layout"]["yaxis"]["ticktext"] == ["one", "two"]
    assert figure.data.to_numpy().tolist()[3] == ["two", 1, "a"]


@pytest.mark.parametrize(
    "rows",
    [
        [Row("one", np.zeros((2, 4, 4, 3), np.uint8), ["a"])],
        [Row("one", np.zeros((1, 4, 4, 3), np.uint8), ["a"]), Row("two", np.zeros((1, 5, 5, 3), np.uint8), ["a"])],
        [],
    ],
)
def test_rows_that_do_not_fit_together_are_refused(rows: list[Row]) -> None:
    with pytest.raises(EvidenceError, match="rows of pictures must hold equally many of one size"):
        pictures(rows, id="pictures", title="Pictures", caption="")
