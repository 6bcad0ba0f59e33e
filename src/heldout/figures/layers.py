"""A layered graph: features in columns, a column a layer, edges as wide as they are strong, modules by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heldout.errors import EvidenceError
from heldout.figures.base import Figure, sentences
from heldout.figures.panels import Panel, layout
from heldout.figures.style import MUTED, ZERO, Json, colour, entry, faint, plain, show, symbol, wrap

WIDTHS = (0.6, 1.4, 2.4, 3.6, 5.0)  # pixels of an edge, by fifths of the largest weight
NAMED = 10  # modules in the legend, the largest; the others are told by their hover text
NEIGHBOURS = 3  # named in a feature's hover text, to either side


@dataclass(frozen=True, eq=False)
class Layer:
    """A column: its `name`, its `features` (d names) and `modules` (d,), the number of the module that each is in."""

    name: str
    features: Sequence[str]
    modules: NDArray[np.int64]


def module_graph(
    layers: Sequence[Layer],
    weights: Sequence[NDArray[np.float64]],
    *,
    id: str,  # noqa: A002 - the field of a figure that it becomes
    title: str,
    weight_title: str,
    limits: str,
    nodes_at_most: int = 30,
    edges_at_most: int = 600,
) -> Figure:
    """`layers` from left to right and `weights`, a matrix (d_l+1, d_l) a section: 0 where there is no edge.

    A layer shows its `nodes_at_most` features of greatest strength (summed weight), the whole its `edges_at_most`
    greatest edges between those; the caption says what is left out, as features without an edge are. Within a layer,
    features stand by module. `weight_title` names the weight with its unit; `limits` says what the figure does not
    show.
    """
    _check(layers, weights)
    table = _edges(layers, weights)
    if table.empty:
        raise EvidenceError("a graph without edges has nothing to draw")
    nodes = _nodes(layers, table, nodes_at_most)
    there = nodes.set_index(["layer", "feature"])["y"]
    shown = table[_among(table, "source", there) & _among(table, "target", there)]
    shown = shown.sort_values("weight", ascending=False, kind="stable").head(edges_at_most)

    modules = [m for m, n in nodes["module"].value_counts(sort=False).items() if n > 1]
    modules.sort(key=lambda m: (-int((nodes["module"] == m).sum()), m))
    place = {m: i for i, m in enumerate(modules)}
    data = [*_lines(shown, there, place), *_markers(layers, nodes, table, place)]
    legend = [t["name"] for t in data if t.get("showlegend")]

    ticks: Json = {"tickvals": list(range(len(layers))), "range": [-0.5, len(layers) - 0.5], "showgrid": False}
    bare: Json = {"showticklabels": False, "showgrid": False, "ticks": ""}
    height = int(min(720, max(260, 20 * nodes.groupby("layer").size().max())))
    plot = layout([Panel("", height, "layer", x=ticks | {"tickangle": 0}, y=bare)], columns=1, legend=legend)
    for patch, across in ((plot["meta"]["wide"], 100), (plot["meta"]["narrow"], 42)):
        patch["xaxis.ticktext"] = [wrap(layer.name, max(4, across // len(layers))) for layer in layers]
    plot["xaxis"]["ticktext"] = plot["meta"]["wide"]["xaxis.ticktext"]

    total, drawn = sum(len(layer.features) for layer in layers), len(nodes)
    idle = total - len({*zip(table["layer"], table["source"], strict=True)} | _targets(table))
    caption = sentences(
        [
            f"Shown are n = {drawn:,} of {total:,} features and {len(shown):,} of {len(table):,} edges.",
            f"Features without an edge are absent: {idle:,}." if idle else "",
            f"The strongest {nodes_at_most} features of a layer are shown." if total - idle > drawn else "",
            "The strongest edges between them are shown." if len(shown) < len(table) else "",
            f"Width of an edge: {weight_title}, at most {table['weight'].max():.3g}; edges between modules are grey.",
            "Colour and symbol: module. No interval is drawn: a partition has none.",
            limits,
        ]
    )
    return Figure(id=id, title=title, caption=caption, plot={"data": data, "layout": plot}, data=_named(layers, shown))


def _check(layers: Sequence[Layer], weights: Sequence[NDArray[np.float64]]) -> None:
    sizes = [len(layer.features) for layer in layers]
    if any(len(layer.modules) != size for layer, size in zip(layers, sizes, strict=True)):
        raise EvidenceError("each feature of a layer needs the number of its module")
    shapes = [np.shape(w) for w in weights]
    if len(layers) < 2 or shapes != list(zip(sizes[1:], sizes[:-1], strict=True)):
        raise EvidenceError(f"layers of {sizes} features need weights between neighbours, (d_l+1, d_l); got {shapes}")
    if not all(np.isfinite(w).all() and (np.asarray(w) >= 0).all() for w in weights):
        raise EvidenceError("weights of edges must be finite and not negative")


def _edges(layers: Sequence[Layer], weights: Sequence[NDArray[np.float64]]) -> pd.DataFrame:
    """One row an edge of positive weight: the layer that it leaves, its two features by number, their modules."""
    parts = []
    for number, w in enumerate(weights):
        target, source = np.nonzero(w)
        part = pd.DataFrame({"layer": number, "source": source, "target": target, "weight": w[target, source]})
        part["source_module"] = np.asarray(layers[number].modules)[source]
        part["target_module"] = np.asarray(layers[number + 1].modules)[target]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _nodes(layers: Sequence[Layer], table: pd.DataFrame, at_most: int) -> pd.DataFrame:
    """One row a feature shown: where it stands, its module and its strength."""
    rows = []
    for number, layer in enumerate(layers):
        strength = np.zeros(len(layer.features))
        out, into = table[table["layer"] == number], table[table["layer"] == number - 1]
        np.add.at(strength, out["source"].to_numpy(), out["weight"].to_numpy())
        np.add.at(strength, into["target"].to_numpy(), into["weight"].to_numpy())
        strongest = np.argsort(-strength, kind="stable")[:at_most]
        kept = sorted(strongest[strength[strongest] > 0], key=lambda f: (layer.modules[f], f))
        for i, f in enumerate(kept):
            rows.append((number, int(f), (len(kept) - 1) / 2 - i, int(layer.modules[f]), float(strength[f])))
    return pd.DataFrame(rows, columns=["layer", "feature", "y", "module", "strength"])


def _lines(shown: pd.DataFrame, there: pd.Series, place: dict[int, int]) -> list[Json]:
    """Edges, thin ones first: one trace a width and module, since a trace has one of each."""
    fifth = np.minimum(len(WIDTHS) - 1, (shown["weight"] / shown["weight"].max() * len(WIDTHS)).astype(int))
    inside = shown["source_module"].where(shown["source_module"] == shown["target_module"], -1)
    traces: list[Json] = []
    for (width, module), edges in shown.groupby([fifth.rename("width"), inside.rename("module")], sort=True):
        x: list[float | None] = []
        y: list[float | None] = []
        for layer, source, target in zip(edges["layer"], edges["source"], edges["target"], strict=True):
            x += [int(layer), int(layer) + 1, None]
            y += [float(there[layer, source]), float(there[layer + 1, target]), None]
        ink = faint(colour(place[module]), 0.55) if module in place else faint(ZERO, 0.3)
        trace: Json = {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip", "showlegend": False}
        traces.append(trace | {"line": {"width": WIDTHS[int(width)], "color": ink}})
    return traces


def _markers(layers: Sequence[Layer], nodes: pd.DataFrame, table: pd.DataFrame, place: dict[int, int]) -> list[Json]:
    """Features: one trace a module of two or more, then those that are alone in theirs."""
    traces: list[Json] = []
    groups = [(entry(f"module {m}"), i, nodes[nodes["module"] == m]) for m, i in place.items()]
    groups.append(("alone in its module", -1, nodes[~nodes["module"].isin(list(place))]))
    for name, i, rows in groups:
        if rows.empty:
            continue
        size = 6 + 8 * np.sqrt(rows["strength"] / nodes["strength"].max())
        marker: Json = {"size": [round(float(s), 2) for s in size], "opacity": 1}
        marker["line"] = {"width": 1, "color": "#ffffff"}
        marker |= {
            "color": MUTED if i < 0 else colour(i),
            "symbol": "circle" if i < 0 else symbol(i),
        }
        trace: Json = {"type": "scatter", "mode": "markers", "name": name, "showlegend": i < NAMED, "marker": marker}
        trace |= {"x": rows["layer"].tolist(), "y": rows["y"].tolist()}
        trace["hovertext"] = [
            _hover(layers, table, int(layer), int(f), int(m), s)
            for layer, f, m, s in zip(rows["layer"], rows["feature"], rows["module"], rows["strength"], strict=True)
        ]
        traces.append(trace | {"hovertemplate": "%{hovertext}<extra></extra>"})
    return traces


def _hover(layers: Sequence[Layer], table: pd.DataFrame, layer: int, feature: int, module: int, strength: float) -> str:
    """What a feature is, and its strongest edges to either side."""
    text = f"<b>{plain(layers[layer].features[feature])}</b><br>{plain(layers[layer].name)}, module {module}"
    text += f"<br>strength {show(strength)}"
    sides = (("from", layer - 1, "target", "source"), ("to", layer, "source", "target"))
    for word, section, own, other in sides:
        edges = table[(table["layer"] == section) & (table[own] == feature)]
        strongest = edges.sort_values("weight", ascending=False, kind="stable").head(NEIGHBOURS)
        there = layers[section if other == "source" else section + 1].features if len(edges) else ()
        names = [f"{plain(there[f])} {show(w)}" for f, w in zip(strongest[other], strongest["weight"], strict=True)]
        text += f"<br>{word} {len(edges)}: {', '.join(names)}" if names else ""
    return text


def _among(table: pd.DataFrame, end: str, there: pd.Series) -> NDArray[np.bool_]:
    """Which edges have their `end` among the features shown."""
    layer = table["layer"] + (1 if end == "target" else 0)
    found: NDArray[np.bool_] = pd.MultiIndex.from_arrays([layer, table[end]]).isin(there.index)
    return found


def _targets(table: pd.DataFrame) -> set[tuple[int, int]]:
    return {*zip(table["layer"] + 1, table["target"], strict=True)}


def _named(layers: Sequence[Layer], shown: pd.DataFrame) -> pd.DataFrame:
    """The edges drawn, by name."""
    out = pd.DataFrame({"from layer": [layers[i].name for i in shown["layer"]]})
    out["from"] = [layers[i].features[f] for i, f in zip(shown["layer"], shown["source"], strict=True)]
    out["to layer"] = [layers[i + 1].name for i in shown["layer"]]
    out["to"] = [layers[i + 1].features[f] for i, f in zip(shown["layer"], shown["target"], strict=True)]
    out["weight"] = shown["weight"].to_numpy()
    out["from module"], out["to module"] = shown["source_module"].to_numpy(), shown["target_module"].to_numpy()
    return out
