"""The page of the degeneracy study: free directions, and what the interaction basis makes of addition modulo p."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd

from heldout.figures import Figure, Layer, forest, module_graph, training_curves
from heldout.figures.page import Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import CLAIMS
from heldout.studies.degeneracy import RELATIVE
from heldout.studies.degeneracy_claims import PURE, TOLERANCE
from heldout.studies.degeneracy_counts import PLANTS
from heldout.studies.degeneracy_modular import ARRAYS, BASES, CURVES, MEASURED, SECTIONS, graph_of
from heldout.studies.degeneracy_page_coefficient import blocks, language, learning
from heldout.studies.degeneracy_page_pictures import pictures
from heldout.studies.degeneracy_settings import DegeneracyConfig
from heldout.studies.degeneracy_shown import NAMES, STREAMS, Shown
from heldout.studies.features_shown import interval, rounded, share
from heldout.studies.simplify import lasting, run_warnings


def degeneracy_page(run: Run, config: DegeneracyConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    return Page(
        title=title,
        question="How many parameters of a network do nothing, and is what is left simpler than it looks?",
        summary=tuple(summary(here)),
        identity=(),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((here.folder / CLAIMS).read_text())),
        sections=(
            *(edges(here), features(here), modules(here), pictures(here), counts(here), planted(here)),
            *(learning(here), blocks(here), language(here), setting(here)),
        ),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
        edited=False,
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences."""
    needed = here.rows("edges_needed").set_index(["site", "edit"])["value"]
    words = "; ".join(f"{s}: {rounded(needed[s, 'lib'])} against {rounded(needed[s, 'pca'])}" for s in SECTIONS)
    yield f"Edges that keep accuracy within {here.config.tolerance:g}, interaction basis against components: {words}."
    pure = here.rows("purity").set_index(["site", "edit"])["value"]
    words = "; ".join(f"{STREAMS[s]} {share(pure[s, 'lib'])} against {share(pure[s, 'pca'])}" for s in STREAMS)
    yield f"Share of a single frequency in the first {PURE} features: {words}."
    free = here.rows(f"free_share:{TOLERANCE}").sort_values("parameter")["value"].tolist()
    yield f"Of an MLP's parameters {100 * free[0]:.1f}% are free before training on digits, {100 * free[-1]:.1f}% after."
    both = here.rows("expected", "counted").groupby("quantity")["value"].sum()
    yield f"Planted free directions: {both['expected']:g} a network, {both['counted']:g} counted."


def edges(here: Shown) -> Section:
    figure = forest(
        here.rows("edges_needed"),
        id="edges",
        title="Edges needed",
        label="site",
        group="basis",
        x=f"edges between features that keep accuracy within {here.config.tolerance:g}",
        limits="Chosen on select. One section is cut at a time, so that the rest may make up for it.",
        unit="networks",
    )
    rows = [(r["site"], NAMES[r["edit"]], r["split"], *interval(r)) for r in here.rows("accuracy").to_dict("records")]
    table = Table(
        title="What the edges that were kept do elsewhere",
        columns=("section", "basis", "split", "accuracy", "95% interval"),
        rows=rows,
        caption="whole: every edge, on select. Edges were chosen on train and their number on select; id and corner "
        "are pairs that nobody looked at, corner those of which both operands are among the largest.",
    )
    text = (
        "A transformer of one layer adds two numbers modulo p. An edge is how much a feature moves one of the next "
        "layer: the mean square of gradient times activation. The largest edges are kept, features without an edge to "
        "one stand at their mean.",
    )
    return Section("edges", "How many interactions does it take?", text, figures=(figure,), tables=(table,))


def features(here: Shown) -> Section:
    figures = [
        forest(
            here.rows("purity"),
            id="purity",
            title="How much of a feature is one frequency",
            label="where",
            group="basis",
            x=f"largest share of a single frequency, mean over the first {PURE} features",
            limits="Over all pairs, trained on or not. A network may well use two in one feature.",
            unit="networks",
            marks=(0.0, 1.0),
        ),
        forest(
            here.rows("features_needed"),
            id="needed",
            title="Features needed",
            label="where",
            group="basis",
            x=f"features that keep accuracy within {here.config.tolerance:g}, one layer at a time",
            limits="Fewer features are not fewer interactions.",
            unit="networks",
        ),
    ]
    with np.load(here.run.output(f"degeneracy-modular-s{here.seed}") / ARRAYS) as arrays:
        rows = [
            (STREAMS[site], NAMES[kind], i + 1, *_top(own))
            for site in STREAMS
            for kind in BASES
            for i, own in enumerate(arrays[f"{kind} fourier {site}"][:PURE])
        ]
    table = Table(
        title=f"Frequencies of the first features, seed {here.seed}",
        columns=("stream", "basis", "feature", "frequency", "its share", "second", "its share"),
        rows=rows,
        caption="Shares of variance over all pairs. At the embedding, at the first operand's place.",
        folded=True,
    )
    return Section("features", "What are the features?", (), figures=tuple(figures), tables=(table,))


def _top(shares: np.ndarray) -> tuple[int, str, int, str]:
    first, second = np.argsort(-shares[1:], kind="stable")[:2] + 1
    return int(first), share(shares[first]), int(second), share(shares[second])


def modules(here: Shown) -> Section:
    folder = here.run.output(f"degeneracy-modular-s{here.seed}")
    measured = json.loads((folder / MEASURED).read_text())
    figures: list[Figure] = []
    with np.load(folder / ARRAYS) as arrays:
        for kind in BASES:
            squares = [arrays[f"{kind} {section}"] for section in SECTIONS[:-1]]
            graph = graph_of(squares, here.config.relative)
            labels, starts = np.array(measured[kind]["labels"]), graph.starts
            layers = []
            for i, site in enumerate(STREAMS):
                fourier = arrays[f"{kind} fourier {site}"]
                named = [f"{j + 1}: frequency {_top(own)[0]} ({_top(own)[1]})" for j, own in enumerate(fourier)]
                layers.append(Layer(STREAMS[site], named, labels[starts[i] : starts[i + 1]].astype(np.int64)))
            figures.append(
                module_graph(
                    layers,
                    list(graph.weights),
                    id=f"graph-{kind}",
                    title=f"Features and edges, {NAMES[kind]}, seed {here.seed}",
                    weight_title="log of the edge over the threshold",
                    limits="One network of several; a module is where edges are dense and not a function.",
                )
            )
    rows = [
        (NAMES[r["edit"]], r["quantity"], *interval(r))
        for r in here.rows("modularity", "z", "z_layered", "modules").to_dict("records")
    ]
    table = Table(
        title="Modularity",
        columns=("basis", "quantity", "mean", "95% interval"),
        rows=rows,
        caption=f"z: Newman's modularity beside {here.config.shuffles} graphs in which every feature keeps its number "
        "of edges; z_layered: the same for a score that knows of layers. Below 0 the graph is less modular than those.",
    )
    return Section("modules", "Is the graph modular?", (), figures=tuple(figures), tables=(table,))


def counts(here: Shown) -> Section:
    rows = here.estimates[here.estimates["quantity"].str.startswith("free_share:")]
    rows = rows.assign(
        when=[f"after {int(p)} updates" for p in rows["parameter"]], cut=rows["quantity"].str.partition(":")[2]
    )
    figure = forest(
        rows,
        id="free",
        title="Free directions of an MLP on digits",
        label="when",
        group="cut",
        x="share of parameters that change nothing, by relative tolerance of the rank",
        limits="To second order, on these images. More images, or a finer cut, can only lower it.",
        unit="networks",
        marks=(0.0, 1.0),
    )
    text = (
        "Parameters that change no output on the images: P minus the rank of the Hessian of the behavioural loss, "
        "which is that of the tangent kernel. Pixels that are always dark make some free from the start.",
    )
    return Section("counts", "How many parameters do nothing?", text, figures=(figure,), tables=(causes(here),))


def causes(here: Shown) -> Table:
    """Where free directions come from, moment by moment."""
    e = here.estimates[here.estimates["quantity"].str.startswith("free:")]
    e = e.assign(cause=e["quantity"].str.partition(":")[2])
    values = e.set_index(["cause", "parameter"])["value"]
    moments = sorted(e["parameter"].unique())
    return Table(
        title="Where free directions come from",
        columns=("cause", *(f"after {int(m)} updates" for m in moments)),
        rows=[(CAUSE[c], *(f"{values[c, m]:.1f}" for m in moments)) for c in e["cause"].unique()],
        caption=f"Directions, means over {here.config.seeds} networks, at a relative tolerance of {RELATIVE[0]:g}. The "
        "gauge (a scale each live neuron may move from its inputs to its readout) is there in every network of "
        "this kind and says nothing about this one.",
    )


CAUSE = {
    "activations": "inputs of a layer that depend on each other",
    "gradients": "gradients that do",
    "both": "counted twice so far",
    "joint": "pairs of input and gradient that depend, though neither does alone",
    "gates": "neurons in step",
    "gauge": "gauge",
    "unexplained": "unexplained",
    "all": "all",
}


def planted(here: Shown) -> Section:
    rows = here.rows("expected", "counted", "interaction", "components").set_index(["edit", "quantity"])
    table = Table(
        title="Planted and found",
        columns=(
            "kind",
            "free directions planted",
            "counted",
            "interaction basis moved by",
            "principal components moved by",
        ),
        rows=[
            (kind, *(rounded(rows["value"][kind, q]) for q in ("expected", "counted", "interaction", "components")))
            for kind in PLANTS
        ],
        caption=f"Means over {here.config.seeds} random networks 6-8-3. Moved: largest relative change of features and "
        "edges, up to signs; 1 where their number changes. Planted gates change the function, so bases are compared "
        "along the freedom they open.",
    )
    return Section("planted", "Is what was planted found?", (), tables=(table,))


def setting(here: Shown) -> Section:
    frames = []
    for seed in here.config.seed_list():
        curve = pd.read_parquet(here.run.output(f"degeneracy-train-modular-s{seed}") / CURVES)
        frames.append(curve[curve["metric"] == "accuracy"].assign(network="modular", seed=seed, n=1))
    figure = training_curves(
        pd.concat(frames), metric="accuracy", id="curves", title="How addition is learnt", unit="network"
    )
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Networks that miss a gate are shown, and claims about them are not judged.",
    )
    return Section("setting", "The networks", (), figures=(figure,), tables=(gates,))
