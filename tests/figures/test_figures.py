"""Every kind of figure: the numbers drawn are the numbers given, and the caption says how far they go."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import fake_evidence as fake
import numpy as np
import pandas as pd
import pytest

from heldout.errors import EvidenceError
from heldout.evidence import Estimate, estimates_frame
from heldout.figures import (
    Figure,
    Layer,
    Matrix,
    accuracy_figure,
    faithfulness_curves,
    forest,
    gap_figure,
    heatmap,
    module_graph,
    scatter_components,
    training_curves,
)

EVIDENCE = fake.estimates(networks=("transformer", "mlp"))


def a_heatmap(name: str = "net", labels: tuple[object, ...] = (1, 2, 3), **options: Any) -> Figure:
    first = np.arange(9.0).reshape(3, 3)
    first[2, 0] = np.nan
    matrices = [Matrix(name, first, np.full((3, 3), 7)), Matrix("proxy", first**2, np.full((3, 3), 9))]
    words = {
        "title": name,
        "row_title": name,
        "column_title": name,
        "value_title": name,
        "limits": "Limits.",
        "reason": name,
    }
    return heatmap(matrices, rows=labels, columns=labels, id="map", difference=True, **(words | options))


def a_graph(name: str = "feature", **options: Any) -> Figure:
    """Three layers of 3, 4 and 2 features, one of them without an edge, in two modules and one feature alone."""
    first = np.array([[2.0, 0.5, 0], [1.5, 0, 0], [0, 3.0, 0.25], [0, 0, 0]])
    weights = [first, np.array([[1.0, 2.5, 0, 0], [0, 0, 5.0, 0]])]
    modules = ((0, 1, 2), (0, 0, 1, 3), (0, 1))
    layers = [
        Layer(f"{name} {i}", [f"{name} {i}.{j}" for j in range(len(m))], np.array(m)) for i, m in enumerate(modules)
    ]
    return module_graph(layers, weights, id="g", title=name, weight_title=name, limits="Limits.", **options)


KINDS: dict[str, Callable[[str], Figure]] = {
    "gap": lambda s: gap_figure(renamed(s), title=s, unit=s or "units"),
    "faithfulness": lambda s: faithfulness_curves(renamed(s), title=s, parameter=s or "rank"),
    "accuracy": lambda s: accuracy_figure(renamed(s), title=s),
    "heatmap": lambda s: a_heatmap(s or "net", (s, 2, 3)),
    "training": lambda s: training_curves(
        fake.curves().replace({"split": {"train": s or "train"}}).assign(network=s), metric=s or "accuracy"
    ),
    "scatter": lambda s: scatter_components(
        fake.points(60).assign(type=s or "a"), id="s", title=s, x="PC1", y="PC2", by="type", limits="Limits."
    ),
    "scatter by number": lambda s: scatter_components(
        fake.points(60), id="s", title=s, x="PC1", y="PC2", by="depth", limits="Limits."
    ),
    "forest": lambda s: forest(
        renamed(s).query("quantity == 'gap'"),
        id="f",
        title=s,
        label="split",
        group="edit",
        x=s or "gap",
        limits="Limits.",
    ),
    "graph": lambda s: a_graph(s or "feature"),
}


def renamed(text: str) -> pd.DataFrame:
    """The evidence with `text` for every name, or as it is."""
    if not text:
        return EVIDENCE
    return fake.estimates(splits=(text, "b"), networks=(text, "c"), edits=(text, "d"), site=text)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from strings(v)


def shown(figure: Figure, mode: str, **fields: Any) -> list[float]:
    """The x values of all traces of one mode, None left out."""
    traces = [t for t in figure.plot["data"] if t["mode"] == mode and all(t.get(k) == v for k, v in fields.items())]
    return [v for t in traces for v in t["x"] if v is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_what_plotly_accepts_and_plain_json(kind: str) -> None:
    import plotly.graph_objects as go

    figure = KINDS[kind]("")
    go.Figure(figure.plot)
    json.dumps(figure.plot, allow_nan=False)
    assert len(figure.data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_speaks_of_n_and_of_the_interval(kind: str) -> None:
    caption = KINDS[kind]("").caption
    assert re.search(r"\bn = \d", caption)
    assert "interval" in caption
    assert caption[0].isupper()
    assert caption.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_evidence_gives_the_same_figure(kind: str) -> None:
    one, two = KINDS[kind](""), KINDS[kind]("")
    assert json.dumps(one.plot) == json.dumps(two.plot)
    pd.testing.assert_frame_equal(one.data, two.data)


@pytest.mark.parametrize("kind", KINDS)
def test_markup_and_templates_in_names_are_shown_and_not_obeyed(kind: str) -> None:
    figure = KINDS[kind](fake.HOSTILE)
    for text in strings(figure.plot):
        own = re.sub(r"</?b>|<br>|<extra></extra>|%\{(text|hovertext|[xy]:\.3g|marker\.color:\.3g)\}", "", text)
        assert "<" not in own
        assert "%{" not in own
    assert kind == "scatter by number" or any("&lt;script&gt;" in text for text in strings(figure.plot))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_panels_lie_within_the_plot_and_apart(kind: str, width: str) -> None:
    patch = KINDS[kind]("").plot["layout"]["meta"][width]
    names = sorted(
        k.removesuffix(".domain").replace("axis", "") for k in patch if k.endswith(".domain") and k[0] == "x"
    )
    boxes = [(patch[f"xaxis{n[1:]}.domain"], patch[f"yaxis{n[1:]}.domain"]) for n in names]
    for i, (x, y) in enumerate(boxes):
        assert 0 <= x[0] < x[1] <= 1
        assert 0 <= y[0] < y[1] <= 1
        for other_x, other_y in boxes[:i]:
            assert x[1] < other_x[0] or other_x[1] < x[0] or y[1] < other_y[0] or other_y[1] < y[0]
    if width == "narrow":
        assert all(x == [0, 1] for x, _ in boxes)


def test_the_gap_figure_draws_every_value_interval_and_null() -> None:
    figure = gap_figure(EVIDENCE)
    table = figure.data
    assert sorted(shown(figure, "lines")) == sorted([*table["low"], *table["high"]])
    assert sorted(shown(figure, "markers")) == sorted([*table["value"], *table["null"].dropna()])
    assert set(table["quantity"]) == {"gap", "excess_gap"}
    assert len(table) == 2 * 2 * 4 * 2  # quantities, networks, splits, edits


def test_each_value_stands_in_the_row_of_its_split() -> None:
    figure = gap_figure(fake.estimates())
    names = figure.plot["layout"]["yaxis"]["ticktext"]
    svd = next(t for t in figure.plot["data"] if t.get("name") == "svd 8" and t.get("xaxis") == "x")
    rows = [names[round(y)].replace("<br>", "") for y in svd["y"]]
    assert rows == list(fake.SPLITS)
    low, high = figure.plot["layout"]["yaxis"]["range"]
    assert low > high  # the first split on top


def test_a_gap_without_excess_has_one_column() -> None:
    figure = gap_figure(EVIDENCE[EVIDENCE["quantity"] != "excess_gap"])
    assert {t.get("xaxis") for t in figure.plot["data"]} == {"x", "x2", None}
    assert "Excess" not in figure.caption


def test_a_value_that_is_missing_is_absent_and_counted_and_its_reason_given() -> None:
    figure = gap_figure(fake.estimates(holes=3))
    assert "3 of 16 values could not be estimated" in figure.caption
    assert sum(figure.data["reason"] == "no scored position") == 3
    assert len(shown(figure, "markers")) == 13 + 8  # the values that are there, and the nulls
    assert "could not be estimated" not in gap_figure(fake.estimates()).caption


def test_a_value_without_an_interval_is_drawn_and_counted() -> None:
    one = Estimate("gap", 0.1, n=10, split="a", edit="svd", reference="id")
    two = replace(one, value=0.2, low=0.1, high=0.3, split="b")
    assert "1 values have none" in gap_figure(estimates_frame([one, two])).caption
    assert "No interval is shown" in gap_figure(estimates_frame([one])).caption


def test_single_seeds_are_left_out() -> None:
    one = Estimate("gap", 0.1, 0.0, 0.2, n=10, split="a", edit="svd")
    figure = gap_figure(estimates_frame([one, replace(one, value=0.7, seed=3)]))
    assert list(figure.data["value"]) == [0.1]
    with pytest.raises(EvidenceError, match="single seeds only"):
        gap_figure(estimates_frame([replace(one, seed=3)]))


def test_what_is_asked_for_and_not_there_is_named() -> None:
    with pytest.raises(EvidenceError, match="unknown quantity 'kl'"):
        faithfulness_curves(EVIDENCE, quantity="kl")
    with pytest.raises(EvidenceError, match=r"columns \['reason'\]"):
        gap_figure(EVIDENCE.drop(columns="reason"))
    with pytest.raises(EvidenceError, match="no column 'nothing'"):
        forest(EVIDENCE, id="f", title="", label="nothing", x="", limits="")
    with pytest.raises(EvidenceError, match="no estimate with a parameter"):
        faithfulness_curves(EVIDENCE.assign(parameter=math.nan))


def test_a_curve_is_in_order_of_its_parameter_with_its_band() -> None:
    shuffled = EVIDENCE.sample(frac=1, random_state=0)
    figure = faithfulness_curves(shuffled)
    curves = [t for t in figure.plot["data"] if t["mode"] == "lines+markers"]
    assert len(curves) == 2 * 2 * 4  # networks, edits, splits
    assert all(t["x"] == [1, 2, 4, 8, 16, 32, 64] for t in curves)
    assert sorted(v for t in curves for v in t["y"]) == sorted(figure.data["value"])
    bands = [t for t in figure.plot["data"] if t.get("fill") == "toself"]
    assert sorted(v for t in bands for v in t["y"]) == sorted([*figure.data["low"], *figure.data["high"]])
    assert figure.plot["layout"]["xaxis"]["type"] == "log"


def test_the_network_is_drawn_once_however_many_edits_repeat_it() -> None:
    own = EVIDENCE[EVIDENCE["quantity"] == "accuracy_network"]
    repeated = pd.concat([EVIDENCE.drop(own.index), own.assign(edit="svd"), own.assign(edit="kmeans")])
    for evidence in (EVIDENCE, repeated):
        figure = accuracy_figure(evidence)
        drawn = [v for t in figure.plot["data"] if t["mode"] == "markers" and t["name"] == "network" for v in t["x"]]
        assert sorted(drawn) == sorted(own["value"])


def test_training_means_are_over_all_seeds_or_not_drawn() -> None:
    curves = fake.curves(3)
    cut = curves[(curves["seed"] != 2) | (curves["step"] <= 2000)]
    figure = training_curves(cut, metric="accuracy")
    mean = next(t for t in figure.plot["data"] if t["line"]["width"] == 3 and t["name"] == "train")
    assert mean["x"] == list(range(0, 2001, 200))
    at_400 = curves.query("split == 'train' and step == 400")["value"]
    assert mean["y"][2] == pytest.approx(at_400.mean(), rel=1e-12)
    assert sum(t["line"]["width"] == 1 for t in figure.plot["data"]) == 6
    with pytest.raises(EvidenceError, match="126 second values"):
        training_curves(pd.concat([curves, curves]), metric="accuracy")
    with pytest.raises(EvidenceError, match="lack the columns"):
        training_curves(curves.drop(columns="n"), metric="accuracy")


def test_points_are_thinned_the_same_way_each_time_and_counted() -> None:
    points = fake.points(500)
    made = [
        scatter_components(points, id="s", title="", x="PC1", y="PC2", by="type", limits="", at_most=100) for _ in "ab"
    ]
    assert made[0].plot == made[1].plot
    assert len(made[0].data) == 100
    assert len(made[0].data.merge(points)) == 100
    assert "n = 500 points" in made[0].caption
    assert "100 of them are shown" in made[0].caption
    points.loc[3, "PC1"] = math.nan
    whole = scatter_components(points, id="s", title="", x="PC1", y="PC2", by="depth", limits="")
    assert "Absent, without finite coordinates: 1" in whole.caption
    assert whole.plot["data"][0]["marker"]["color"] == list(whole.data["depth"])


def test_matrices_share_a_scale_and_their_difference_is_symmetric() -> None:
    figure = a_heatmap()
    first, second, third = (np.array(t["z"], dtype=float) for t in figure.plot["data"])
    np.testing.assert_array_equal(third, second - first)
    assert np.isnan(first[2, 0])
    layout = figure.plot["layout"]
    assert (layout["coloraxis"]["cmin"], layout["coloraxis"]["cmax"]) == (0, 64)
    assert layout["coloraxis2"]["cmin"] == -56 == -layout["coloraxis2"]["cmax"]
    assert "n = 7 to 9" in figure.caption
    assert "2 of 18 cells are empty" in figure.caption
    assert len(figure.data) == 27
    with pytest.raises(EvidenceError, match=r"shape \(3, 3\)"):
        a_heatmap(labels=(1, 2))


@pytest.mark.parametrize(
    ("labels", "panels", "beside"),
    [
        (range(20), 3, 3),
        (("untrained", "easy only", "hard only", "both"), 3, 2),
        (("a", "b", "c", "d", "e"), 4, 2),  # the numbers written in the cells would touch
        (range(9), 4, 4),
        (tuple(f"a label of many words {i}" for i in range(4)), 2, 1),
    ],
)
def test_heatmaps_stand_beside_each_other_as_far_as_their_labels_and_numbers_have_room(
    labels: Sequence[object], panels: int, beside: int
) -> None:
    square = np.zeros((len(labels), len(labels)))
    words = {"row_title": "r", "column_title": "c", "value_title": "v", "limits": "Nothing."}
    drawn = [Matrix(str(i), square) for i in range(panels)]
    plot = heatmap(drawn, rows=labels, columns=labels, id="map", title="t", **words).plot["layout"]
    lefts = [plot["meta"]["wide"][f"xaxis{i + 1 if i else ''}.domain"][0] for i in range(panels)]
    assert len(set(lefts)) == beside
    named = [plot[f"yaxis{i + 1 if i else ''}"].get("showticklabels", True) for i in range(panels)]
    assert named == [left == 0 for left in lefts]
