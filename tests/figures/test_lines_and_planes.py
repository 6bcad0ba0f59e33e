"""Lines with bands, and values over a plane: what is drawn is what was given, and what is not is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.errors import EvidenceError
from heldout.figures import Figure, Matrix, Plane, heatmap, lines, plane

FRAME = pd.DataFrame(
    {
        "panel": ["a"] * 6 + ["b"] * 3,
        "name": ["one"] * 3 + ["level"] * 3 + ["one"] * 3,
        "x": [1.0, 2, 4, 1, 2, 4, 4, 1, 2],
        "y": [10.0, 5, 1, 2, 2, 2, 30, 20, 0],
        "low": [-3.0, 2, 0.5] + [np.nan] * 6,
        "high": [12.0, 6, 2] + [np.nan] * 6,
    }
)


def drawn(frame: pd.DataFrame = FRAME, **options: Any) -> Figure:
    words: dict[str, Any] = {"id": "l", "title": "Lines", "x": "size", "y": "error, keV", "caption": ["n = 3."]}
    return lines(frame, **(words | {"thin": ("level",)} | options))


def line(figure: Figure, panel: str, name: str) -> dict[str, Any]:
    found = [t for t in figure.plot["data"] if t["xaxis"] == panel and t.get("name") == name]
    assert len(found) == 1
    return dict(found[0])


def test_each_line_stands_in_its_panel_in_order() -> None:
    figure = drawn()
    json.dumps(figure.plot, allow_nan=False)
    assert (line(figure, "x", "one")["x"], line(figure, "x", "one")["y"]) == ([1, 2, 4], [10, 5, 1])
    assert (line(figure, "x2", "one")["x"], line(figure, "x2", "one")["y"]) == ([1, 2, 4], [20, 0, 30])
    level = line(figure, "x", "level")
    assert level["line"]["width"] < line(figure, "x", "one")["line"]["width"]
    assert level["line"]["color"] != line(figure, "x", "one")["line"]["color"]
    assert [t["name"] for t in figure.plot["data"] if t["showlegend"]] == ["one", "level"]  # each once


def test_a_band_has_both_ends_and_goes_round_them() -> None:
    (band,) = [t for t in drawn().plot["data"] if t.get("fill") == "toself"]
    assert band["x"] == [1, 2, 4, 4, 2, 1]
    assert band["y"] == [12, 6, 2, 0.5, 2, -3]


def test_on_a_logarithmic_axis_bands_end_and_zeros_are_absent() -> None:
    figure = drawn(log_y=True)
    (band,) = [t for t in figure.plot["data"] if t.get("fill") == "toself"]
    assert min(band["y"]) == 1  # the least value drawn
    assert line(figure, "x2", "one")["y"] == [20, 30]
    assert "1 of 9 points are absent" in figure.caption
    assert "absent" not in drawn().caption


def test_points_are_not_joined() -> None:
    assert line(drawn(points=("one",)), "x", "one")["mode"] == "markers"


def test_a_long_logarithmic_axis_has_ticks_that_can_be_read() -> None:
    frame = pd.DataFrame({"panel": "a", "name": "one", "x": [1.0, 2], "y": [0.03, 2000]})
    axis = drawn(frame, thin=(), log_y=True).plot["layout"]["yaxis"]
    assert {"0.1", "1", "10", "1,000"} <= set(axis["ticktext"])
    assert all(
        float(t.replace(",", "")) == pytest.approx(v) for t, v in zip(axis["ticktext"], axis["tickvals"], strict=True)
    )


def test_lines_without_a_column_or_a_point_are_refused() -> None:
    with pytest.raises(EvidenceError, match=r"lack the columns \['y'\]"):
        drawn(FRAME.drop(columns="y"))
    with pytest.raises(EvidenceError, match="none of 9 points"):
        drawn(FRAME.assign(y=np.nan))


X, Y = np.linspace(-1, 1, 5), np.linspace(0, 2, 4)
CHART = Plane("plane", X, Y, np.add.outer(Y, X), np.array([[0.0, 1.0], [0.5, 0.5]]), ["N = 1", "<N = 2>"])


def over(*planes: Plane, **options: Any) -> Figure:
    return plane(
        planes, id="p", title="Plane", x="component 1", y="component 2", value="energy, MeV", limits="No.", **options
    )


def test_values_and_points_stand_where_they_are() -> None:
    figure = over(CHART, named=1)
    json.dumps(figure.plot, allow_nan=False)
    ground, dots = figure.plot["data"]
    assert np.allclose(ground["z"], CHART.values, rtol=1e-4, atol=1e-9)
    assert (dots["x"], dots["y"]) == ([0.0, 0.5], [1.0, 0.5])
    for patch in ("wide", "narrow"):
        names = [a for a in figure.plot["layout"]["meta"][patch]["annotations"] if a.get("xref") == "x"]
        assert [(a["text"], a["x"], a["y"]) for a in names] == [("N = 1", 0, 1), ("&lt;N = 2&gt;", 0.5, 0.5)]
    assert figure.data["point"].tolist()[:2] == ["N = 1", "<N = 2>"]
    assert len(figure.data) == 2 + CHART.values.size


def test_planes_share_a_scale() -> None:
    second = Plane("other", X, Y, 10 + CHART.values, CHART.points, CHART.names)
    axis = over(CHART, second).plot["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (-1.0, 13.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Plane("p", Y, X, CHART.values, CHART.points, CHART.names), r"values \(Y, X\)"),
        (Plane("p", X, Y, CHART.values, CHART.points, ["one"]), "with names"),
        (Plane("p", X, Y, CHART.values * np.nan, CHART.points, CHART.names), "finite"),
    ],
)
def test_planes_that_do_not_fit_are_refused(wrong: Plane, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        over(wrong)
    with pytest.raises(EvidenceError, match="no plane"):
        over()


def test_matrices_beside_each_other_name_their_rows_once() -> None:
    squares = [Matrix(name, np.eye(2)) for name in ("a", "b")]
    words = {"row_title": "row", "column_title": "column", "value_title": "value", "limits": "Limits."}
    patches = heatmap(squares, rows="pq", columns="rs", id="m", title="M", **words).plot["layout"]["meta"]
    assert patches["wide"]["yaxis2.showticklabels"] is False
    assert patches["narrow"]["yaxis2.showticklabels"] is True
    assert patches["narrow"]["yaxis2.title.text"] == "row"
    assert "yaxis.showticklabels" not in patches["wide"]


def test_lines_to_read_others_by_have_colours_of_their_own_wherever_they_come() -> None:
    names = ("first", "reference", "second", "level")
    frame = pd.DataFrame([{"panel": "a", "name": n, "x": x, "y": i + x} for i, n in enumerate(names) for x in (1, 2)])
    figure = lines(frame, id="l", title="t", x="x", y="y", caption=("n = 2.",), thin=("reference", "level"))
    colours = {t["name"]: t["line"]["color"] for t in figure.plot["data"] if t.get("name")}
    assert len(set(colours.values())) == len(names)
    swapped = lines(
        frame.iloc[[2, 3, 6, 7, 0, 1, 4, 5]], id="l", title="t", x="x", y="y", caption=(), thin=("reference", "level")
    )
    assert {t["name"]: t["line"]["color"] for t in swapped.plot["data"] if t.get("name")} == colours
