"""The chart of nuclides: one square a nucleus, in its place, named, on a scale that 0 is the middle of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from heldout.errors import EvidenceError
from heldout.figures import Chart, Figure, nuclides
from heldout.figures.nuclides_chart import ELEMENTS, nuclide

Z, N = np.array([50, 50, 51, 20]), np.array([82, 70, 82, 20])
VALUES = np.array([-0.31, 0.5, 2.0, -1.0])
OTHER_Z, OTHER_N = np.array([50, 28]), np.array([81, 30])


def chart(**changed: Any) -> Chart:
    fields = {"title": "one", "z": Z, "n": N, "values": VALUES, "other_z": OTHER_Z, "other_n": OTHER_N}
    return Chart(**(fields | changed))


def drawn(*charts: Chart) -> Figure:
    return nuclides(charts, id="c", title="Chart", value="error", unit="MeV", limits="Limits.")


def cells(trace: dict[str, Any], what: str) -> dict[tuple[int, int], Any]:
    """(z, n) -> what stands there."""
    return {
        (z, n): cell
        for z, row in zip(trace["y"], trace[what], strict=True)
        for n, cell in zip(trace["x"], row, strict=True)
        if cell not in (None, "")
    }


def test_elements_are_known_by_number() -> None:
    assert len(ELEMENTS) == 119
    symbols = {1: "H", 6: "C", 26: "Fe", 50: "Sn", 79: "Au", 82: "Pb", 92: "U", 103: "Lr", 118: "Og"}
    assert {z: ELEMENTS[z] for z in symbols} == symbols
    assert nuclide(50, 82) == "Sn-132"
    assert nuclide(119, 180) == "119-299"


def test_each_nucleus_has_one_square_with_its_value_and_name() -> None:
    grey, squares = drawn(chart()).plot["data"]
    assert cells(squares, "z") == dict(zip(zip(Z.tolist(), N.tolist(), strict=True), VALUES, strict=True))
    assert cells(squares, "hovertext")[50, 82] == "Sn-132 (Z 50, N 82): -0.31 MeV"
    assert set(cells(squares, "hovertext")) == set(cells(squares, "z"))
    assert set(cells(grey, "z")) == {(50, 81), (28, 30)}
    assert np.diff(squares["x"]).tolist() == [1] * (len(squares["x"]) - 1)  # no square is wider than another


def test_the_scale_is_symmetric_and_shared_and_says_what_it_cuts() -> None:
    rng = np.random.default_rng(0)
    z, n = np.repeat(np.arange(30, 40), 20), np.tile(np.arange(40, 60), 10)
    values = rng.uniform(-1, 1, 200)
    values[7] = 60.0
    figure = drawn(chart(z=z, n=n, values=values), chart(title="two", z=z, n=n, values=-values / 2))
    axis = figure.plot["layout"]["coloraxis"]
    assert axis["cmin"] == -axis["cmax"]
    assert 0.9 < axis["cmax"] <= 1.0 + 1e-9
    beyond = int((np.abs(np.r_[values, values / 2]) > axis["cmax"]).sum())
    assert f"which {beyond} values exceed" in figure.caption
    assert figure.data["error, MeV"].max() == 60.0  # behind the figure nothing is cut
    assert [t["coloraxis"] for t in figure.plot["data"] if "coloraxis" in t] == ["coloraxis"] * 2


def test_magic_numbers_have_lines_as_long_as_their_nuclei_reach() -> None:
    shapes = drawn(chart()).plot["layout"]["shapes"]
    n82 = next(s for s in shapes if s["x0"] == s["x1"] == 82)
    assert (n82["y0"], n82["y1"]) == (50 - 3, 51 + 3)
    z50 = next(s for s in shapes if s["y0"] == s["y1"] == 50)
    assert (z50["x0"], z50["x1"]) == (70 - 3, 82 + 3)
    assert not any(s["x0"] == s["x1"] == 126 for s in shapes)  # no nucleus has it


def test_a_chart_is_plain_json_and_lists_every_nucleus() -> None:
    figure = drawn(chart())
    json.dumps(figure.plot, allow_nan=False)
    assert figure.data["nuclide"].tolist() == ["Sn-132", "Sn-120", "Sb-133", "Ca-40"]
    assert "n = 4 with a value and 2 grey" in figure.caption


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"values": VALUES[:2]}, "needs z, n and a value"),
        ({"other_z": OTHER_Z[:1]}, "needs z, n and a value"),
        ({"values": np.array([1.0, np.nan, 1.0, 1.0])}, "finite"),
        ({"z": Z[:0], "n": N[:0], "values": VALUES[:0]}, "there and finite"),
    ],
)
def test_charts_that_do_not_fit_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        drawn(chart(**changed))


def test_no_chart_is_refused() -> None:
    with pytest.raises(EvidenceError, match="no chart"):
        drawn()
