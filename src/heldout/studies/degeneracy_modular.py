"""Modular addition in the degeneracy study: networks trained, and their features, edges and modules in several bases.

Node layers are the residual stream behind the embedding (all positions), behind attention and behind the feed-forward (the
last position, which alone is read), and the logits. Everything is found on ``train``, counts are chosen on ``select``, and
what was chosen is scored on ``id`` and ``corner``, where nobody looked.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.activations.sections import Sections
from heldout.activations.streams import residual_stream
from heldout.analyses.degeneracy.ablation import Ablation, EdgeAblation, NodeAblation
from heldout.analyses.degeneracy.edges import Edges, edge_matrix
from heldout.analyses.degeneracy.graph import LayeredGraph, log_graph, relative_threshold
from heldout.analyses.degeneracy.modules import find_layered_modules
from heldout.analyses.degeneracy.shuffles import shuffle_test
from heldout.errors import StatisticsError
from heldout.networks.transformer import Transformer
from heldout.proxies.bases import Bases
from heldout.runs import StepContext
from heldout.studies.degeneracy_kept import bases_of, counted
from heldout.studies.side_by_side import trained
from heldout.tasks.base import Batch, Rectangular
from heldout.tasks.modular import Modular, ModularSettings
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.settling import settled

LAYERS = ("embed", "last", "mlp", "readout")  # node layers: each is the output of this part of the chain
SECTIONS = ("attention", "feed-forward", "unembedding")
BASES = ("lib", "pca")
TESTED = ("id", "corner")
SETTLED = 0.999  # accuracy on pairs set aside from which a network has understood
MEASURED, ARRAYS, CURVES = "measured.json", "arrays.npz", "curves.parquet"
Settings = Mapping[str, Any]


class Last(nn.Module):
    """(B, T, D) -> (B, D): the last position."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


def task_of(s: Settings) -> Modular:
    return Modular(ModularSettings(modulus=s["modulus"], share=s["share"], corner=s["corner"]), seed=s["data_seed"])


def network_of(s: Settings) -> nn.Sequential:
    """A transformer of one layer without norms as a chain of its parts, freshly initialised from PyTorch's generator.

    Embeddings start with variance 1 / width: at PyTorch's own variance of 1 they are memorised and not understood.
    """
    transformer = Transformer(
        s["modulus"] + 1,
        width=s["width"],
        layers=1,
        heads=s["heads"],
        mlp_ratio=s["hidden"] / s["width"],
        norm="none",
        activation="relu",
        max_length=3,
    )
    with torch.no_grad():
        for embedding in (transformer.embed, transformer.positions):
            assert isinstance(embedding, nn.Embedding)
            embedding.weight.normal_(std=s["width"] ** -0.5)
    parts = dict(residual_stream(transformer).named_children())
    chain = OrderedDict(
        embed=parts["embed"], attention=parts["attn0"], last=Last(), mlp=parts["mlp0"], readout=parts["readout"]
    )
    return nn.Sequential(chain)


def train_network(ctx: StepContext) -> None:
    """One seed: full batches, AdamW with strong weight decay, until pairs set aside (``select``) are understood too and
    have been for `settled` updates, `steps` at most."""
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    s = contexts[0].settings
    task = task_of(s)
    items = task.splits["train"].items
    everything = items.take(np.arange(len(items)))
    settings = TrainSettings(
        steps=s["steps"],
        learning_rate=s["learning_rate"],
        schedule=s["schedule"],
        weight_decay=s["weight_decay"],
        betas=(0.9, 0.98),
        clip=None,
        evaluate_every=s["look_every"],
    )
    for ctx, network, history in trained(
        contexts,
        lambda: network_of(s),
        lambda step: everything,
        loss_of,
        settings=settings,
        evaluate=lambda n: accuracies(n, task),
        until=settled(s["settled"], "select/accuracy", least=SETTLED, right_at_end=True),
    ):
        save_weights(network, ctx.out / "weights.safetensors", {"seed": ctx.settings["seed"]})
        history.frame().to_parquet(ctx.out / CURVES, index=False)


def loss_of(outputs: Tensor, batch: Batch) -> Tensor:
    """In float64: memorised pairs have losses below float32's rounding, and a gradient of 0 would leave them memorised."""
    assert batch.targets is not None
    return F.cross_entropy(outputs.double(), batch.targets)


def accuracies(network: nn.Module, task: Modular) -> dict[str, float]:
    found, device = {}, next(network.parameters()).device
    for name, split in task.splits.items():
        items = split.items
        assert isinstance(items, Rectangular)
        assert items.targets is not None
        found[f"{name}/accuracy"] = float(
            (network(items.inputs.to(device)).argmax(-1).cpu() == items.targets).double().mean()
        )
    return found


def measure_network(ctx: StepContext) -> None:
    """Features, edges and modules of one trained network in every basis."""
    s = ctx.settings
    task = task_of(s)
    network = initialised(lambda: network_of(s), s["seed"])
    load_weights(network, ctx.inputs["weights"] / "weights.safetensors")
    network.eval()
    with torch.no_grad():
        found: dict[str, Any] = {"accuracy": accuracies(network, task)}
    sections = Sections(network, LAYERS, device=ctx.device)
    arrays: dict[str, Any] = {}
    fit, select, tests = task.splits["train"], task.splits["select"], [task.splits[name] for name in tested(task)]

    def fewest_of(ablation: Ablation) -> dict[str, Any]:
        return counted(ablation, select, tests, tolerance=s["tolerance"])

    for i, kind in enumerate(BASES):
        ctx.progress(i, len(BASES), kind)
        bases = bases_of(kind, sections, fit, batch_size=len(fit))  # the logits stay as they are
        edges = [edge_matrix(sections, bases, fit, number) for number in range(len(sections))]
        spectra = {site: fourier_shares(sections, bases, site, task) for site in LAYERS[:-1]}
        found[kind] = {
            "features": {site: bases[site].features for site in LAYERS},
            "kept": {site: fewest_of(NodeAblation(sections, bases, site)) for site in LAYERS[:-1]},
            "edges": {
                name: fewest_of(EdgeAblation(sections, bases, e)) for name, e in zip(SECTIONS, edges, strict=True)
            },
            **modules_of(edges, s),
        }
        for name, e in zip(SECTIONS, edges, strict=True):
            arrays[f"{kind} {name}"] = e.squares.numpy()
        for site, shares in spectra.items():
            arrays[f"{kind} fourier {site}"] = shares
    (ctx.out / MEASURED).write_text(json.dumps(found))
    np.savez_compressed(ctx.out / ARRAYS, **arrays)


def tested(task: Modular) -> list[str]:
    return [name for name in TESTED if name in task.splits]


def fourier_shares(sections: Sections, bases: Bases, site: str, task: Modular) -> np.ndarray:
    """(K, 1 + p // 2): the share of each feature's variance over all p^2 pairs at each frequency; rows add up to 1.

    A term cos(k a), cos(k b) or cos(k (a +- b)), in any phase, has frequency k; terms that mix two frequencies have none
    and count in the first column, 0. At the embedding, features are read at the first operand's place.
    """
    p = task.settings.modulus
    a, b = (x.reshape(-1) for x in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    tokens = torch.from_numpy(np.stack([a, b, np.full(len(a), p)], axis=1).astype(np.int64))
    batch = Batch(tokens, torch.arange(len(a)))
    layer = sections.number(site)
    rows = sections.cross(sections.prepared(batch), layer, layer + 1, graph=False).rows[0]  # (p^2, T, D)
    features = bases[site].encode(rows[:, 0]).reshape(p, p, -1).cpu().numpy()
    return frequency_shares(features)


def frequency_shares(features: np.ndarray) -> np.ndarray:
    """(K, 1 + p // 2) of features (p, p, K); see `fourier_shares`. A constant feature has share 1 at no frequency."""
    p = len(features)
    power = np.abs(np.fft.fft2(features - features.mean(axis=(0, 1)), axes=(0, 1))) ** 2  # (p, p, K)
    folded = np.minimum(np.arange(p), p - np.arange(p))  # |k|
    x, y = np.meshgrid(folded, folded, indexing="ij")
    one = (x == y) | (x == 0) | (y == 0)
    frequency = np.where(one, np.maximum(x, y), 0)
    shares = np.stack([power[frequency == k].sum(axis=0) for k in range(p // 2 + 1)], axis=1)
    total = shares.sum(axis=1, keepdims=True)
    constant = total[:, 0] <= 1e-20 * max(float(total.max()), 1e-300)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=~constant[:, None])
    shares[constant, 0] = 1.0
    return np.asarray(shares)


def purity(shares: np.ndarray, count: int) -> float:
    """Mean over the first `count` features of the largest share of a single frequency above 0."""
    if len(shares) < count:
        raise StatisticsError(f"{len(shares)} features where the first {count} are asked for")
    return float(shares[:count, 1:].max(axis=1).mean())


def modules_of(edges: list[Edges], s: Settings) -> dict[str, Any]:
    """Modularity of the graph of features up to the last stream, beside shuffled graphs."""
    graph = graph_of([e.squares.numpy() for e in edges[:-1]], s["relative"])
    # A sparse graph without structure is modular too: features keep their numbers of edges.
    test = shuffle_test(graph, draws=s["shuffles"], seed=s["seed"], null="degrees")
    layered = find_layered_modules(graph)
    return {
        "modularity": test.found.newman,
        "z": test.z,
        "z_layered": test.z_layered,
        "modules": layered.count,
        "labels": layered.labels.tolist(),
        "resolution": layered.resolution,
        "graph_edges": list(graph.counts),
    }


def graph_of(squares: list[np.ndarray], relative: float) -> LayeredGraph:
    """Edges above `relative` times the largest of their section, weighted by their logarithm."""
    return log_graph(squares, [relative_threshold(e, relative) for e in squares])
