"""Degeneracy counted in small networks: as training goes on (D1), and where it was planted (D4, D5).

D1 counts the free directions of an MLP on digits at its first and its last weights. D4 and D5 plant each kind into random
ReLU networks in general position: is it counted to the unit, and does it move interaction features, edges and components?
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.counts import CAUSES, degeneracy_counts
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.analyses.degeneracy.gates import gate_clusters
from heldout.analyses.degeneracy.planting import (
    Planted,
    mix_gates,
    plant_activations,
    plant_gates,
    plant_gradients,
)
from heldout.analyses.degeneracy.ranks import FreeDirections, free_directions
from heldout.errors import NetworkError
from heldout.networks.mlp import MLP, Hidden
from heldout.proxies.bases import Bases, local_bases, principal_bases
from heldout.runs import StepContext
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.tasks.digits import digits
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.seeds import generator, initialised
from heldout.training.settings import TrainSettings

FOUND = "found.json"
PLANTS = ("activations", "gradients", "gates")
WIDTHS, ITEMS = (6, 8, 3), 150  # of the networks in which degeneracy is planted, and the inputs they are counted on
TRIES = 200  # random networks looked at for one in general position
Settings = Mapping[str, Any]


# -- D1: the count over training ----------------------------------------------------------------------------------


def count_over_training(ctx: StepContext) -> None:
    """One seed: free directions of an MLP on digits before training, along the way, and after it."""
    s = ctx.settings
    split = digits()["train"]
    rows = split.items.take(np.arange(s["items"])).inputs.flatten(1)
    network = initialised(lambda: MLP((rows.shape[1], s["hidden"], 10)), s["seed"])
    moments = {0, *s["moments"], s["steps"]}
    counts: list[dict[str, Any]] = []

    def look(n: torch.nn.Module) -> None:
        counts.append(counted(free_directions(n, rows, relative=s["relative"][0]), s["relative"]))

    batches = shuffled(split, s["batch"], seed=s["seed"])
    look(network.eval())
    for done, moment in pairwise(sorted(moments)):
        ctx.progress(done, s["steps"], "digits")
        settings = TrainSettings(
            steps=moment - done,
            optimizer="sgd",
            learning_rate=s["learning_rate"],
            momentum=s["momentum"],
            weight_decay=s["weight_decay"],
            schedule="constant",
            clip=None,
            seed=s["seed"],
        )
        train(network, partial(later, batches, done), cross_entropy, settings=settings)
        look(network)
    for moment, row in zip(sorted(moments), counts, strict=True):
        row["step"] = moment
    (ctx.out / FOUND).write_text(json.dumps(counts))


def counted(found: FreeDirections, tolerances: list[float]) -> dict[str, Any]:
    """Free directions as a share of the parameters at each tolerance; at the first, their causes and the gauge apart."""
    ranks = found.hessian.ranks(tolerances)
    shares = {f"{tolerance:g}": 1 - ranks[tolerance] / found.parameters for tolerance in tolerances}
    counts = degeneracy_counts(found)
    causes = {cause: counts.total(cause) for cause in CAUSES}
    causes |= {"gauge": counts.gauge, "unexplained": counts.unexplained, "all": counts.null}
    return {"parameters": found.parameters, "n": found.n, "share": shares, "causes": causes}


def later(batches: Callable[[int], Batch], done: int, step: int) -> Batch:
    """The batch of a step that is counted from `done` on: momentum starts anew, the order goes on."""
    return batches(done + step)


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    assert batch.targets is not None
    return F.cross_entropy(outputs, batch.targets)


# -- D4, D5: planted ----------------------------------------------------------------------------------------------


def plant(ctx: StepContext) -> None:
    """One seed: each kind planted into a network in general position; counted, and its bases compared before and after."""
    seed = int(ctx.settings["seed"])
    inputs = torch.from_numpy(generator(seed, "data").normal(size=(ITEMS, WIDTHS[0])))
    network = in_general_position(inputs, seed)
    base = free_directions(network, inputs)
    found: dict[str, Any] = {"null": base.null}
    for number, kind in enumerate(PLANTS):
        ctx.progress(number, len(PLANTS), kind)
        planted = planted_in(network, inputs, kind, seed)
        after = free_directions(planted.network, inputs)
        # Planted gates change the function; what leaves it is to move along the freedom that they open.
        before = planted.network if kind == "gates" else network
        moved = (
            mix_gates(planted.network, inputs, layer=0, neurons=planted.neurons, seed=seed)
            if kind == "gates"
            else planted
        )
        found[kind] = {
            "expected": planted.null,
            "counted": after.null - base.null,
            "unexplained": after.unexplained,
            "change": moved.change,
            "interaction": shift(before, moved.network, inputs, "lib"),
            "components": shift(before, moved.network, inputs, "pca"),
        }
    (ctx.out / FOUND).write_text(json.dumps(found))


def planted_in(network: MLP, inputs: Tensor, kind: str, seed: int) -> Planted:
    neuron = seed % WIDTHS[1]
    if kind == "activations":
        return plant_activations(network, inputs, layer=0, neuron=neuron, seed=seed)
    if kind == "gradients":
        return plant_gradients(network, inputs, layer=0, neuron=neuron, seed=seed)
    return plant_gates(network, inputs, layer=0, neurons=(neuron, (neuron + 3) % WIDTHS[1]), seed=seed)


def in_general_position(inputs: Tensor, seed: int) -> MLP:
    """A random network whose free directions are its neurons' scales and no more."""
    for attempt in range(TRIES):
        network = initialised(lambda: MLP(WIDTHS), 1000 * seed + attempt).double()
        with torch.no_grad():
            before = linear_of(network)(inputs)
        alone = [c for c in gate_clusters(before) if len(c.neurons) == 1 and not c.always]
        if len(alone) == WIDTHS[1] and free_directions(network, inputs).null == WIDTHS[1]:
            return network
    raise NetworkError(
        f"none of {TRIES} random networks of widths {WIDTHS} is in general position on {len(inputs)} inputs"
    )


def linear_of(network: MLP) -> torch.nn.Linear:
    """The first hidden layer's linear map."""
    layer = network.hidden[0]
    assert isinstance(layer, Hidden)
    return layer.linear


def shift(one: MLP, other: MLP, inputs: Tensor, kind: str) -> float:
    """The largest change of features and edges between two networks, relative to the largest entry, up to signs; 1 where
    even their number changes."""
    changes = []
    first, second = features_and_edges(one, inputs, kind), features_and_edges(other, inputs, kind)
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return 1.0
        turned = b * (a * b).sum(0).sign() if a.shape[0] == len(inputs) else b
        changes.append(float((a - turned).abs().max() / a.abs().max()))
    return max(changes)


def features_and_edges(network: MLP, inputs: Tensor, kind: str) -> list[Tensor]:
    """Features of every layer on the inputs, and the edges between layers."""
    sections, split = Sections(network, [".:input", "hidden.0.act", "."]), Split("train", "fit", Rectangular(inputs))
    exact = Probes("exact")
    bases: Bases = local_bases(sections, split, probes=exact) if kind == "lib" else principal_bases(sections, split)
    with torch.no_grad():
        rows = [inputs, network.hidden[0](inputs), network(inputs)]
    features = [basis.encode(r) for basis, r in zip(bases.bases, rows, strict=True)]
    return [*features, *(edge_matrix(sections, bases, split, i, probes=exact).squares for i in range(len(sections)))]
