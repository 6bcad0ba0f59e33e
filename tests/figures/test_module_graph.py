"""The layered graph: every edge where it belongs, as wide as it is strong, and what is left out is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heldout.errors import EvidenceError
from heldout.figures import Figure, Layer, module_graph
from heldout.figures.layers import WIDTHS

FIRST = np.array([[2.0, 0.5, 0], [1.5, 0, 0], [0, 3.0, 0.25], [0, 0, 0]])
SECOND = np.array([[1.0, 2.5, 0, 0], [0, 0, 5.0, 0]])
MODULES = ((0, 1, 2), (0, 0, 1, 3), (0, 1))


def graph(**options: Any) -> Figure:
    layers = [Layer(f"layer {i}", [f"f{i}.{j}" for j in range(len(m))], np.array(m)) for i, m in enumerate(MODULES)]
    words = {"id": "g", "title": "Graph", "weight_title": "ln", "limits": "Limits."}
    return module_graph(layers, [FIRST, SECOND], **(words | options))


def lines(figure: Figure) -> set[tuple[float, float, float, float, float]]:
    """Every line drawn: from (x, y) to (x, y), and its width."""
    found = set()
    for trace in figure.plot["data"]:
        if trace["mode"] == "lines":
            x, y = trace["x"], trace["y"]
            found |= {(x[i], y[i], x[i + 1], y[i + 1], trace["line"]["width"]) for i in range(0, len(x), 3)}
    return found


def places(figure: Figure) -> dict[str, tuple[float, float]]:
    """The place of each feature, by its name."""
    return {
        text.split("</b>")[0].removeprefix("<b>"): (x, y)
        for trace in figure.plot["data"]
        if trace["mode"] == "markers"
        for x, y, text in zip(trace["x"], trace["y"], trace["hovertext"], strict=True)
    }


def test_each_edge_joins_its_features_and_is_as_wide_as_it_is_strong() -> None:
    figure = graph()
    at, drawn = places(figure), lines(figure)
    expected = set()
    for layer, w in enumerate((FIRST, SECOND)):
        for i, j in zip(*np.nonzero(w), strict=True):
            width = WIDTHS[min(4, int(w[i, j]))]  # the strongest weighs 5
            expected.add((*at[f"f{layer}.{j}"], *at[f"f{layer + 1}.{i}"], width))
    assert drawn == expected
    assert len(drawn) == 8
    assert {name[:2]: x for name, (x, _) in at.items()} == {"f0": 0, "f1": 1, "f2": 2}
    assert "f1.3" not in at
    assert "n = 8 of 9 features and 8 of 8 edges" in figure.caption
    assert "Features without an edge are absent: 1." in figure.caption


def test_features_stand_by_module_and_apart() -> None:
    at = places(graph())
    assert at["f1.0"][1] > at["f1.1"][1] > at["f1.2"][1]
    assert len(set(at.values())) == len(at)


def test_colours_are_modules_and_edges_between_modules_have_none() -> None:
    figure = graph()
    traces = {t["name"]: t for t in figure.plot["data"] if t["mode"] == "markers"}
    assert set(traces) == {"module 0", "module 1", "alone in its module"}
    colours = [t["marker"]["color"] for t in traces.values()]
    symbols = [traces[f"module {m}"]["marker"]["symbol"] for m in (0, 1)]
    assert len(set(colours)) == 3
    assert len(set(symbols)) == 2
    table = figure.data
    assert len(table) == 8
    crossing = table[table["from module"] != table["to module"]]
    assert set(zip(crossing["from"], crossing["to"], strict=True)) == {("f0.1", "f1.0"), ("f0.2", "f1.2")}


def test_hover_text_names_a_feature_and_its_strongest_neighbours() -> None:
    figure = graph()
    (text,) = [t for trace in figure.plot["data"] for t in trace.get("hovertext", []) if "f1.0<" in t]
    assert (
        text
        == "<b>f1.0</b><br>layer 1, module 0<br>strength 3.500<br>from 2: f0.0 2.000, f0.1 0.500<br>to 1: f2.0 1.000"
    )


def test_the_strongest_are_kept_and_the_rest_counted() -> None:
    figure = graph(nodes_at_most=2, edges_at_most=3)
    at = places(figure)
    assert set(at) == {"f0.0", "f0.1", "f1.1", "f1.2", "f2.0", "f2.1"}
    assert sorted(figure.data["weight"]) == [2.5, 3, 5]
    assert "n = 6 of 9 features and 3 of 8 edges" in figure.caption
    assert "strongest 2 features of a layer" in figure.caption
    assert "The strongest edges between them" in figure.caption


def test_many_modules_differ_in_colour_or_symbol() -> None:
    n = 30
    layers = [Layer(name, [f"{name}{i}" for i in range(n)], np.arange(n)) for name in "ab"]
    figure = module_graph(layers, [np.eye(n)], id="g", title="t", weight_title="w", limits="Limits.")
    looks = [(t["marker"]["color"], t["marker"]["symbol"]) for t in figure.plot["data"] if t["mode"] == "markers"]
    assert len(looks) == len(set(looks)) == n
    assert sum(t.get("showlegend", False) for t in figure.plot["data"]) == 10


def test_what_cannot_be_drawn() -> None:
    layers = [Layer("a", ["x"], np.array([0])), Layer("b", ["y", "z"], np.array([0, 1]))]
    words = {"id": "g", "title": "t", "weight_title": "w", "limits": "Limits."}
    with pytest.raises(EvidenceError, match="without edges"):
        module_graph(layers, [np.zeros((2, 1))], **words)
    with pytest.raises(EvidenceError, match="weights between neighbours"):
        module_graph(layers, [np.ones((1, 2))], **words)
    with pytest.raises(EvidenceError, match="finite and not negative"):
        module_graph(layers, [-np.ones((2, 1))], **words)
    with pytest.raises(EvidenceError, match="number of its module"):
        module_graph([layers[0], Layer("b", ["y", "z"], np.array([0]))], [np.ones((2, 1))], **words)
