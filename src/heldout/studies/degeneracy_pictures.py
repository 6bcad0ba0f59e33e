"""Pictures in the degeneracy study: an MLP's features and edges in several bases (Bushnaq et al. 2024, *The Local
Interaction Basis*, do this for CIFAR-10).

Node layers are pixels, each hidden layer behind its ReLU, and logits. Bases and edges are found on ``train``, counts are
chosen on ``select``, and what was chosen is scored on ``id``, where nobody looked. Networks are measured in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.ablation import EdgeAblation, NodeAblation, curve
from heldout.analyses.degeneracy.edges import Edges, edge_matrix
from heldout.analyses.degeneracy.graph import mass_threshold
from heldout.evidence import Estimate
from heldout.networks.mlp import MLP
from heldout.runs import StepContext
from heldout.studies.degeneracy_kept import KINDS, Remembered, bases_of, counted
from heldout.studies.seeds import over
from heldout.studies.side_by_side import trained
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.pictures import CLASSES, PicturesSettings, pictures
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

MEASURED, CURVES = "measured.json", "curves.parquet"
NETWORK = "pictures"
HELD = 0.99  # of the summed strength of a section, that its largest edges hold
BATCH = 1024  # items at a time where networks are measured
Settings = Mapping[str, Any]


def splits_of(s: Settings) -> dict[str, Split]:
    """The splits of `heldout.tasks.pictures`, pictures as rows of pixels (B, D)."""
    found = pictures(PicturesSettings(s["source"], s["path"], s["select"], s["data_seed"]))
    return {name: flat(split) for name, split in found.items()}


def flat(split: Split) -> Split:
    items = split.items
    assert isinstance(items, Rectangular)
    rows = Rectangular(items.inputs.flatten(1), items.targets)
    return Split(split.name, split.role, rows, split.note, keys=split.keys, units=split.units)


def width_of(split: Split) -> int:
    """The number of pixels of a picture, all channels."""
    return int(split.items.take(np.arange(1)).inputs.shape[1])


def network_of(s: Settings, pixels: int) -> MLP:
    """Freshly initialised from the seed."""
    return initialised(lambda: MLP(shape_of(s, pixels)), s["seed"])


def shape_of(s: Settings, pixels: int) -> tuple[int, ...]:
    return (pixels, *s["hidden"], CLASSES)


def layers_of(hidden: Sequence[int]) -> tuple[str, ...]:
    """Sites of the node layers: pixels, hidden layers behind their ReLU, logits."""
    return (".:input", *(f"hidden.{i}" for i in range(len(hidden))), ".")


def train_pictures(ctx: StepContext) -> None:
    """One seed: an MLP with `hidden` ReLUs trained for `epochs`, Adam at a constant `learning_rate`, batches of `batch`.

    Reads the data's settings too: `source`, `path`, `select`, `data_seed` (see `PicturesSettings`).
    """
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    s = contexts[0].settings
    splits = splits_of(s)
    epoch = -(-len(splits["train"]) // s["batch"])
    settings = TrainSettings(
        steps=s["epochs"] * epoch,
        optimizer="adam",
        learning_rate=s["learning_rate"],
        schedule="constant",
        weight_decay=0.0,
        clip=None,
        evaluate_every=epoch,
    )
    for ctx, network, history in trained(
        contexts,
        lambda: MLP(shape_of(s, width_of(splits["train"]))),
        [shuffled(splits["train"], s["batch"], seed=ctx.settings["seed"]) for ctx in contexts],
        cross_entropy,
        settings=settings,
        evaluate=lambda n: {f"{name}/accuracy": value for name, value in accuracies(n, splits).items()},
    ):
        save_weights(network, ctx.out / "weights.safetensors", {"seed": ctx.settings["seed"]})
        history.frame().to_parquet(ctx.out / CURVES, index=False)


@torch.no_grad()
def accuracies(network: nn.Module, splits: Mapping[str, Split]) -> dict[str, float]:
    """Of each split, computed in the network's own precision."""
    like = next(network.parameters())
    found = {}
    for name, split in splits.items():
        right = 0
        for batch in split.batches(BATCH):
            assert batch.targets is not None
            right += int((network(batch.inputs.to(like)).argmax(-1).cpu() == batch.targets).sum())
        found[name] = right / len(split)
    return found


def measure_pictures(ctx: StepContext) -> None:
    """One seed: features and edges of the trained network in every basis; see `measured`.

    Reads the settings of `train_pictures`, and `tolerances` (accuracy that an ablation may cost on ``select``) and
    `derivatives` (training pictures on which derivatives are taken, 0 for all; covariances are of all).
    """
    s = ctx.settings
    splits = splits_of(s)
    network = network_of(s, width_of(splits["train"]))
    load_weights(network, ctx.inputs["weights"] / "weights.safetensors")
    found = measured(
        Sections(network, layers_of(s["hidden"]), device=ctx.device),
        splits,
        tolerances=s["tolerances"],
        derivatives=s["derivatives"],
        progress=ctx.progress,
    )
    (ctx.out / MEASURED).write_text(json.dumps(found))


def measured(
    sections: Sections,
    splits: Mapping[str, Split],
    *,
    tolerances: Sequence[float],
    derivatives: int = 0,
    progress: Callable[[float, float, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """What JSON holds of one network: ``items`` and ``accuracy`` of each split, ``layers``, ``sections``, and of each basis

    - ``features``: layer -> how many there are;
    - ``kept``: layer -> tolerance -> the fewest features (see `counted`); ``edges``: section -> the same of edges;
    - ``strongest``: section -> edges that hold 99% of the summed strength;
    - ``curve``: layer -> number of features kept -> accuracy on ``id``.
    """
    fit, select, test = (splits[name] for name in ("train", "select", "id"))
    some = fit.subset(spread(derivatives, len(fit))) if derivatives else fit
    layers = named(len(sections.layers))
    names = [f"{a} to {b}" for a, b in pairwise(layers)]
    items = {name: len(split) for name, split in splits.items()}
    found: dict[str, Any] = {"items": items, "accuracy": accuracies(sections.network, splits)}
    found |= {"layers": layers, "sections": names}

    def fewest_of(ablation: Remembered) -> dict[str, Any]:
        return {f"{t:g}": counted(ablation, select, [test], tolerance=t, batch_size=BATCH) for t in tolerances}

    for number, kind in enumerate(KINDS):
        progress(number, len(KINDS), kind)
        bases = bases_of(kind, sections, fit, derivatives=some, batch_size=BATCH)
        edges = [edge_matrix(sections, bases, some, at, batch_size=BATCH) for at in range(len(sections))]
        sites = zip(layers[:-1], sections.layers, strict=False)
        nodes = {name: Remembered(NodeAblation(sections, bases, layer.site)) for name, layer in sites}
        found[kind] = {
            "features": {name: basis.features for name, basis in zip(layers, bases.bases, strict=True)},
            "kept": {name: fewest_of(ablation) for name, ablation in nodes.items()},
            "edges": {
                name: fewest_of(Remembered(EdgeAblation(sections, bases, e)))
                for name, e in zip(names, edges, strict=True)
            },
            "strongest": {name: strongest(e) for name, e in zip(names, edges, strict=True)},
            "curve": {name: accuracy_curve(ablation, test) for name, ablation in nodes.items()},
        }
    return found


def named(layers: int) -> list[str]:
    """What the node layers are called: pixels, hidden 1, ..., logits."""
    return ["pixels", *(f"hidden {i + 1}" for i in range(layers - 2)), "logits"]


def spread(wanted: int, items: int) -> np.ndarray:
    """(min(wanted, items),) item numbers, evenly over them all."""
    return np.linspace(0, items - 1, min(wanted, items)).astype(np.int64)


def strongest(edges: Edges, share: float = HELD) -> int:
    """The fewest edges of a section that hold `share` of its summed strength."""
    squares = edges.squares.numpy()
    return int((squares >= mass_threshold(squares, share)).sum())


def accuracy_curve(ablation: Remembered, split: Split) -> dict[str, float]:
    """Accuracy by the number of features kept, a few numbers an octave and all of them."""
    counts = half_octaves(ablation.total)
    return {str(n): p.accuracy for n, p in zip(counts, curve(ablation, split, counts, batch_size=BATCH), strict=True)}


def half_octaves(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... below `most`, and `most`."""
    steps = {size for k in range(most.bit_length()) for size in (2**k, 3 * 2**k // 2)}
    return [*sorted(size for size in steps if size < most), most]


# -- estimates --------------------------------------------------------------------------------------------------------


def pictures_estimates(folders: Iterable[Path]) -> Iterator[Estimate]:
    """Every quantity of the page, mean over seeds, from the outputs of `measure_pictures`; the network is ``pictures``.

    ``pictures:`` and then ``items`` and ``accuracy`` of a split; ``features``, and ``curve`` by features kept, of a layer;
    ``strongest`` of a section; and, with ``:`` and a tolerance behind, ``features_needed``, ``edges_needed``,
    ``features_cost`` and ``edges_cost`` (accuracy lost on id), and ``features_ratio`` and ``edges_ratio``: the log of what
    a basis (`edit`) needs over what the interaction basis does.
    """
    seeds = [json.loads((folder / MEASURED).read_text()) for folder in folders]
    first = seeds[0]
    for split, items in first["items"].items():
        yield Estimate("pictures:items", float(items), n=items, method="count", network=NETWORK, split=split)
        yield over("pictures:accuracy", [m["accuracy"][split] for m in seeds], network=NETWORK, split=split)
    for kind in KINDS:
        for site in first["layers"][:-1]:
            where = {"network": NETWORK, "site": site, "edit": kind}
            yield over("pictures:features", [m[kind]["features"][site] for m in seeds], **where)
            for count in first[kind]["curve"][site]:
                values = [m[kind]["curve"][site][count] for m in seeds]
                yield over("pictures:curve", values, split="id", parameter=float(count), **where)
            yield from _needed("features", "kept", kind, site, seeds)
        for section in first["sections"]:
            where = {"network": NETWORK, "site": section, "edit": kind}
            yield over("pictures:strongest", [m[kind]["strongest"][section] for m in seeds], **where)
            yield from _needed("edges", "edges", kind, section, seeds)


def _needed(what: str, entry: str, kind: str, site: str, seeds: Sequence[Mapping[str, Any]]) -> Iterator[Estimate]:
    """Counts of one layer or section at each tolerance, their cost on id, and their ratio to the interaction basis'."""
    where = {"network": NETWORK, "site": site, "edit": kind}
    for tolerance in seeds[0][kind][entry][site]:
        own = [m[kind][entry][site][tolerance] for m in seeds]
        base = [m["lib"][entry][site][tolerance] for m in seeds]
        yield over(f"pictures:{what}_needed:{tolerance}", [o["count"] for o in own], **where)
        cost = [m["accuracy"]["id"] - o["id"] for m, o in zip(seeds, own, strict=True)]
        yield over(f"pictures:{what}_cost:{tolerance}", cost, split="id", **where)
        if kind != "lib":
            ratios = [log_ratio(o["count"], b["count"]) for o, b in zip(own, base, strict=True)]
            yield over(f"pictures:{what}_ratio:{tolerance}", ratios, **where)


def log_ratio(count: int, base: int) -> float:
    """NaN where either is 0: then the network answers as well without any."""
    return math.log(count / base) if min(count, base) > 0 else math.nan
