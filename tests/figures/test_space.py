"""Points in space and in planes: each where it belongs, named, and never without the spectrum."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from heldout.errors import EvidenceError
from heldout.figures import Figure, Spectrum, space

N = 40
T = np.linspace(0, 1, N)
POINTS = np.column_stack([np.cos(9 * T), np.sin(9 * T), 3 * T])
NAMES = [f"N = {i}" for i in range(N)]
SHARES = Spectrum(np.array([0.5, 0.2, 0.1, 0.1, 0.1]), np.array([0.3, 0.25, 0.2, 0.15, 0.1]))


def drawn(**options: Any) -> tuple[Figure, Figure]:
    words: dict[str, Any] = {"id": "s", "title": "Space", "by": "neutrons", "spectrum": SHARES, "limits": "Limits."}
    return space(POINTS, NAMES, np.arange(N), **(words | options))


def test_every_point_stands_at_its_place_in_space_and_in_both_planes() -> None:
    deep, flat = drawn()
    (cloud,) = [t for t in deep.plot["data"] if t["mode"] == "markers"]
    assert np.array_equal(np.column_stack([cloud["x"], cloud["y"], cloud["z"]]), POINTS)
    assert cloud["text"] == NAMES
    assert cloud["marker"]["color"] == list(range(N))
    dots = [t for t in flat.plot["data"] if t.get("mode") == "markers"]
    assert [(t["xaxis"], t["yaxis"]) for t in dots] == [("x", "y"), ("x2", "y2")]
    for trace, (a, b) in zip(dots, ((0, 1), (1, 2)), strict=True):
        assert np.array_equal(np.column_stack([trace["x"], trace["y"]]), POINTS[:, [a, b]])
        assert trace["text"] == NAMES


def test_the_curve_is_drawn_where_there_is_one() -> None:
    without, _ = drawn()
    deep, flat = drawn(fitted=2 * POINTS)
    assert len(deep.plot["data"]) == len(without.plot["data"]) + 1
    curve = next(t for t in deep.plot["data"] if t["line"]["width"] == 5)
    assert np.array_equal(np.column_stack([curve["x"], curve["y"], curve["z"]]), 2 * POINTS)
    assert sum(t.get("name") == "fitted curve" for t in flat.plot["data"]) == 2
    assert "fitted 3" in deep.data.columns
    assert "fitted" in deep.caption
    assert "fitted" not in without.caption


def test_the_spectrum_comes_along_and_its_share_is_said() -> None:
    deep, flat = drawn()
    (bars,) = [t for t in flat.plot["data"] if t["type"] == "bar"]
    assert bars["y"] == SHARES.share.tolist()
    level = flat.plot["data"][-1]
    assert level["y"] == SHARES.level.tolist()
    for figure in (deep, flat):
        assert "hold 80.0% of the variance, 50.0%, 20.0% and 10.0%" in figure.caption
    assert flat.id == "s-planes"
    assert flat.data["share"].tolist() == SHARES.share.tolist()


def test_a_long_spectrum_is_cut_and_the_caption_says_so() -> None:
    many = Spectrum(np.full(48, 1 / 48), np.full(48, 0.03))
    _, flat = drawn(spectrum=many)
    assert "the first 10 of 48 components" in flat.caption
    assert len(flat.data) == 48


def test_both_figures_are_plain_json_with_room_of_their_own() -> None:
    deep, flat = drawn(fitted=POINTS)
    for figure in (deep, flat):
        json.dumps(figure.plot, allow_nan=False)
        assert figure.plot["layout"]["height"] == figure.plot["layout"]["meta"]["wide"]["height"]
    for part in (deep.plot["layout"], *deep.plot["layout"]["meta"].values()):
        assert not any(key.startswith(("xaxis", "yaxis")) for key in part)  # or empty axes would be drawn
    assert "scene" not in flat.plot["layout"]  # where there is no WebGL, the whole figure of a scene is lost
    assert deep.plot["layout"]["scene"]["domain"]["x"] == deep.plot["layout"]["meta"]["wide"]["scene.domain.x"]


def test_names_are_shown_as_they_are_written() -> None:
    deep, _ = drawn(by="<b>x</b>")
    cloud = deep.plot["data"][-1]
    assert cloud["text"][0] == "N = 0"
    hostile, _ = space(
        POINTS, ["<i>"] * N, np.arange(N), id="s", title="t", by="number", spectrum=SHARES, limits="Limits."
    )
    assert hostile.plot["data"][-1]["text"][0] == "&lt;i&gt;"
    assert "&lt;b&gt;" in deep.plot["layout"]["coloraxis"]["colorbar"]["title"]["text"]


@pytest.mark.parametrize(
    ("places", "options", "words"),
    [
        (POINTS[:, :2], {}, r"\(40, 2\)"),
        (POINTS[:-1], {}, "40 names"),
        (POINTS, {"fitted": POINTS[:5]}, r"shape \(5, 3\)"),
        (np.where(POINTS > 2.9, np.nan, POINTS), {}, "must be finite"),
        (POINTS, {"spectrum": Spectrum(np.array([0.6, 0.4]), np.array([0.1, 0.1]))}, "three components or more"),
        (POINTS, {"spectrum": Spectrum(SHARES.share, SHARES.level[:3])}, "a level for each"),
    ],
)
def test_what_does_not_fit_is_refused(places: np.ndarray, options: dict[str, Any], words: str) -> None:
    given = {"id": "s", "title": "t", "by": "number", "spectrum": SHARES, "limits": "Limits."}
    with pytest.raises(EvidenceError, match=words):
        space(places, NAMES, np.arange(N), **(given | options))
