"""Networks of the sequences study trained, and what their states hold of the feature answered at each place.

States are read at the encoder's mean over positions, and at each place of the decoder, where the labels before are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.strength import score
from heldout.analyses.tables import Folder
from heldout.evidence import Cell, Origin
from heldout.networks.encoder_decoder import EncoderDecoder
from heldout.runs import StepContext
from heldout.studies.sequences import ENCODER, FIRST, configuration_from
from heldout.tasks.base import Batch, Rectangular
from heldout.tasks.sequences import START, Sequences
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.settings import TrainSettings
from heldout.training.together import train_together

CURVES, DIFFERENCES = "curves.json", "differences.json"
ANSWERS = Origin("answers", site="output")
Settings = Mapping[str, Any]


def place(k: int) -> str:
    """What the feature answered at place `k`, from 0, is called."""
    return f"place {k + 1}"


def decoder_site(k: int) -> str:
    """The decoder's final state at place `k`, from 0."""
    return FIRST if k == 0 else f"decoder {place(k)}"


def map_at(site: str) -> Origin:
    return Origin("map", site=site, fit_split="val")


def task_of(s: Settings, order: int) -> Sequences:
    return Sequences(configuration_from(s["configuration"]).task(order, s["rows"]), seed=s["data_seed"])


def network_of(s: Settings, task: Sequences) -> EncoderDecoder:
    """A network of a configuration's shape, freshly initialised from PyTorch's generator."""
    one = configuration_from(s["configuration"])
    return EncoderDecoder(
        task.settings.vocabulary,
        2,
        given=START + 1,
        width=s["width"],
        layers=one.layers,
        heads=s["heads"],
        dropout=one.dropout,
        max_source=task.settings.length,
        max_target=len(task.names),
    )


def train_networks(ctx: StepContext) -> None:
    """Every seed of one order of one configuration: weights, and accuracies by place along the way."""
    s = ctx.settings
    task = task_of(s, s["order"])
    settings = TrainSettings(
        steps=s["updates"],
        learning_rate=s["learning_rate"],
        warmup=min(s["warmup"], s["updates"]),
        weight_decay=s["weight_decay"],
        evaluate_every=max(1, s["updates"] // s["looks"]),
    )
    made = train_together(
        lambda: network_of(s, task),
        s["seeds"],
        [shuffled(task.splits["train"], s["batch"], seed=seed) for seed in s["seeds"]],
        mean_loss,
        settings=settings,
        device=ctx.device,
        evaluate=lambda n: accuracies(n, task),
        progress=lambda done, total, loss: ctx.progress(done, total, f"loss {loss:.3f}"),
        how="stacked" if ctx.together else "one by one",
    )
    if made.how == "stacked":
        ctx.log({"trained together": s["seeds"]})
    for seed, network in zip(s["seeds"], made.networks, strict=True):
        save_weights(network, ctx.out / f"seed-{seed}.safetensors", {"seed": seed, "order": s["order"]})
    curves = {str(seed): history.rows for seed, history in zip(s["seeds"], made.histories, strict=True)}
    (ctx.out / CURVES).write_text(json.dumps(curves))


def mean_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy in nats, mean over items and places."""
    assert batch.targets is not None
    return F.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten())


def accuracies(network: torch.nn.Module, task: Sequences) -> dict[str, float]:
    """By place, of the answers that the network gives by itself on test."""
    assert isinstance(network, EncoderDecoder)
    items = _items(task, "test")
    assert items.targets is not None
    source = items.inputs[0].to(next(network.parameters()).device)
    right = answers(network, source, len(task.names)).cpu() == items.targets
    return {f"test/{place(k)}": float(v) for k, v in enumerate(right.double().mean(0))}


def answers(network: EncoderDecoder, source: Tensor, places: int, size: int = 1024) -> Tensor:
    return torch.cat([network.greedy(part, START, places) for part in torch.split(source, size)])


def measure_networks(ctx: StepContext) -> None:
    """Every network of one configuration: what it answers, and variance explained at every site."""
    s = ctx.settings
    one = configuration_from(s["configuration"])
    differences: dict[str, float] = {}
    with Folder(ctx.out) as sink:
        for order in range(len(one.orders)):
            task = task_of(s, order)
            for i, seed in enumerate(s["seeds"]):
                ctx.progress(order * len(s["seeds"]) + i, len(one.orders) * len(s["seeds"]), one.network(order))
                network = network_of(s, task)
                load_weights(network, ctx.inputs[str(order)] / f"seed-{seed}.safetensors")
                network.eval()

                def cell(edit: Origin, order: int = order, seed: int = seed) -> Cell:
                    return Cell("sequences", one.network(order), seed, "test", edit)

                states = {split: states_of(network, task, split) for split in ("val", "test")}
                differences[f"{one.network(order)}, seed {seed}"] = difference_of_passes(network, task, states["test"])
                sink.add(cell(ANSWERS), scored_answers(network, task))
                for site in states["test"]:
                    sink.add(cell(map_at(site)), explained_by_place(task, states["val"][site], states["test"][site]))
    (ctx.out / DIFFERENCES).write_text(json.dumps(differences))


@torch.no_grad()
def states_of(network: EncoderDecoder, task: Sequences, split: str, size: int = 1024) -> dict[str, Tensor]:
    """Site -> (N, D)."""
    items = _items(task, split)
    found: dict[str, list[Tensor]] = {}
    for source, given in zip(items.inputs[0].split(size), items.inputs[1].split(size), strict=True):
        memory = network.encode(source)
        found.setdefault(ENCODER, []).append(memory.mean(1))
        for k, state in enumerate(network.decode(memory, given).unbind(1)):
            found.setdefault(decoder_site(k), []).append(state)
    return {site: torch.cat(parts) for site, parts in found.items()}


def explained_by_place(task: Sequences, val: Tensor, test: Tensor) -> dict[str, np.ndarray]:
    """Squared norms by test sequence: whole, and what each place's feature explains of it."""
    tables = {split: by_place(task, split) for split in ("val", "test")}
    coding = Coding.fit(tables["val"])
    fit = moments_of(val, coding.encode(tables["val"]))
    errors = score(fit, test, coding.encode(tables["test"]), coding)
    columns = _units(task) | {"total": errors.total}
    return columns | {f"explained:{name}": errors.total - errors.error(name) for name in coding.names}


def by_place(task: Sequences, split: str) -> dict[str, np.ndarray]:
    """Place -> (N,) the label that is answered there."""
    targets = _items(task, split).targets
    assert targets is not None
    return {place(k): column.numpy() for k, column in enumerate(targets.unbind(1))}


@torch.no_grad()
def scored_answers(network: EncoderDecoder, task: Sequences) -> dict[str, np.ndarray]:
    """By place: whether the network's own answer is right, and its cross-entropy in nats where earlier labels are given."""
    items = _items(task, "test")
    assert items.targets is not None
    right = (answers(network, items.inputs[0], len(task.names)) == items.targets).double()
    losses = F.cross_entropy(network(*items.inputs).transpose(1, 2), items.targets, reduction="none").double()
    columns = _units(task)
    for k in range(len(task.names)):
        columns |= {f"correct:{place(k)}": right[:, k].numpy(), f"loss:{place(k)}": losses[:, k].numpy()}
    return columns


@torch.no_grad()
def difference_of_passes(network: EncoderDecoder, task: Sequences, states: Mapping[str, Tensor]) -> float:
    """Largest difference of any logit between one whole pass and the readout of the states that are measured."""
    logits = network(*_items(task, "test").inputs)
    held = torch.stack([network.readout(states[decoder_site(k)]) for k in range(len(task.names))], dim=1)
    return float((logits - held).abs().max())


def _units(task: Sequences) -> dict[str, np.ndarray]:
    unit = task.splits["test"].unit_ids()
    return {"unit": unit, "n": np.ones(len(unit))}


def _items(task: Sequences, split: str) -> Rectangular:
    items = task.splits[split].items
    assert isinstance(items, Rectangular)
    return items


def read_curves(folder: Path) -> dict[int, list[tuple[int, dict[str, float]]]]:
    """Seed -> (updates, values) along the way."""
    record = json.loads((folder / CURVES).read_text())
    return {int(seed): [(int(step), values) for step, values in rows] for seed, rows in record.items()}
