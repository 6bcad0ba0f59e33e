"""The networks of a row of the matrix, trained and untrained, with its splits and one stimulus a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from heldout.activations.tap import Tap
from heldout.analyses.scoring import Scoring
from heldout.tasks.base import Split
from heldout.training.checkpoints import load_weights

WEIGHTS = "weights.safetensors"
Settings = Mapping[str, Any]
Folders = Mapping[str, Path]


@dataclass(frozen=True, eq=False)
class Stimuli:
    """N items of a split to read a network on: `place` (N,) is the position that is read, None where items have
    one row; `labels` name -> (N,), and `kinds` of those that are not to be inferred (see `features.labels`)."""

    split: Split
    place: np.ndarray | None
    labels: Mapping[str, np.ndarray]
    kinds: Mapping[str, Any]

    def first(self, items: int) -> Stimuli:
        """The first item of each unit, at most `items`, in the split's order."""
        _, at = np.unique(self.split.unit_ids(), return_index=True)
        return self.take(np.sort(at)[:items])

    def evenly(self, items: int) -> Stimuli:
        """At most `items`, evenly over the split."""
        return self.take(np.linspace(0, len(self.split) - 1, min(items, len(self.split))).astype(np.int64))

    def take(self, chosen: np.ndarray) -> Stimuli:
        place = None if self.place is None else self.place[chosen]
        labels = {name: values[chosen] for name, values in self.labels.items()}
        return replace(self, split=self.split.subset(chosen), place=place, labels=labels)


@dataclass(frozen=True, eq=False)
class Material:
    """What cells of one row read: a network a seed (`trained`, and the same before training), where (`site`) and how its
    predictions are scored; `splits` by name, of which `fit`, `select` and `shifted` name three (the reference is ``id``);
    `stimuli` of ``fit`` and ``id``."""

    row: str
    seeds: Sequence[int]
    trained: Sequence[nn.Module]
    untrained: Sequence[nn.Module]
    site: str
    splits: Mapping[str, Split]
    fit: str
    select: str
    shifted: str
    stimuli: Mapping[str, Stimuli]
    scoring: Scoring = field(default_factory=Scoring)
    batch_size: int = 1024
    device: str = "cpu"

    def read(self, network: nn.Module, stimuli: Stimuli) -> np.ndarray:
        """(N, D) float64, the rows at the site."""
        found = []
        with Tap(network, read=[self.site]) as tap:
            for start in range(0, len(stimuli.split), self.batch_size):
                index = np.arange(start, min(start + self.batch_size, len(stimuli.split)))
                batch = stimuli.split.items.take(index).to(self.device)
                rows = tap(batch)[self.site]
                if stimuli.place is not None:
                    at = torch.as_tensor(stimuli.place[index], device=rows.device)
                    rows = rows[torch.arange(len(index), device=rows.device), at]
                found.append(rows.double().cpu().numpy())
        return np.concatenate(found)


Load = Callable[[Settings, Folders, Sequence[int], str], Material]


def material(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    """`s`: settings of the step that trained the row's first network; `folders`: ``weights-<seed>``, and what else the row's
    loader reads."""
    return LOADERS[row](s, folders, seeds, device)


class Networks(NamedTuple):
    """One a seed."""

    trained: list[nn.Module]
    untrained: list[nn.Module]


def _networks(build: Callable[[int], nn.Module], folders: Folders, seeds: Sequence[int], device: str) -> Networks:
    """Of every seed the network that `build` makes, with the weights of its step and as it is initialised."""
    trained, untrained = [], []
    for seed in seeds:
        network = build(seed)
        load_weights(network, folders[f"weights-{seed}"] / WEIGHTS)
        trained.append(network.to(device).eval())
        untrained.append(build(seed).to(device).eval())
    return Networks(trained, untrained)


def _plain(split: Split, labels: Mapping[str, np.ndarray], **kinds: str) -> Stimuli:
    """Items with one row each."""
    return Stimuli(split, None, labels, kinds)


def _targets(split: Split) -> np.ndarray:
    targets = split.items.take(np.arange(len(split))).targets
    assert targets is not None
    return targets.numpy()


def _digits(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import digits

    splits = digits._splits(s["task"])
    networks = _networks(lambda seed: digits._network(s["network"], seed), folders, seeds, device)
    return Material(
        row="digits",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site="hidden.1",
        splits=splits,
        fit="fit",
        select="id_select",
        shifted="rotated",
        stimuli={
            name: _plain(splits[of], {"digit": _targets(splits[of])}, digit="categorical")
            for name, of in (("fit", "fit"), ("id", "id"))
        },
        device=device,
    )


def _dyck(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import dyck_audit as dyck
    from heldout.studies.dyck import DEPTH
    from heldout.tasks.ragged import everywhere

    task, splits = dyck.dyck(s["task"]), dyck.splits(s["task"])
    k = s["task"]["brackets"]

    def stimuli(split: Split) -> Stimuli:
        return _scored(
            split, lambda target, strata: {"type": target - k, "depth": strata["query_depth"]}, depth="continuous"
        )

    networks = _networks(lambda seed: dyck.build_network(s, seed), folders, seeds, device)
    return Material(
        row="dyck",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site=f"blocks.{s['network']['layers'] - 1}",
        splits=splits | {"fit": everywhere(splits["fit"])},
        fit="fit",
        select="id_select",
        shifted=DEPTH,
        stimuli={"fit": stimuli(splits["fit"]), "id": stimuli(task.splits["id"])},
        scoring=Scoring(candidates=dyck.candidates(task)),
        batch_size=dyck.BATCH,
        device=device,
    )


def _scored(split: Split, labels: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]], **kinds: str) -> Stimuli:
    """The first scored position of each item that has one; `labels` of its target and strata, (N,) each."""
    from heldout.tasks.ragged import at_scored, everywhere

    asked = at_scored(split)
    batch = asked.items.take(np.arange(len(asked)))
    assert batch.targets is not None
    at = batch.inputs["at"][:, 0].numpy()
    found = labels(
        batch.targets[:, 0].numpy(), {n: (v if v.ndim == 1 else v[:, 0]).numpy() for n, v in batch.strata.items()}
    )
    return Stimuli(everywhere(asked), at, found, kinds)


def _code(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import code_audit as code
    from heldout.tasks.code.breakdown import classes
    from heldout.tasks.code.vocabulary import CHARACTERS

    corpus = folders["corpus"]
    shifted = code.test_names(corpus)[-1]
    splits = {name: code.load_split(corpus, name) for name in ("fit", "id_select", "id", shifted)}

    def stimuli(name: str) -> Stimuli:
        """The middle of each window, labelled with the kind of character that comes next."""
        split = splits[name]
        batch = split.items.take(np.arange(len(split)))
        lengths = np.full(len(split), s["shape"]["window"]) if batch.mask is None else batch.mask.sum(1).numpy()
        at = lengths // 2
        assert batch.targets is not None
        kind = classes(CHARACTERS)[batch.targets.numpy()[np.arange(len(split)), at]]
        return Stimuli(split, at, {"next": kind}, {"next": "categorical"})

    networks = _networks(lambda seed: code.build_network(s["shape"], seed), folders, seeds, device)
    return Material(
        row="code",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site=f"blocks.{s['shape']['layers'] - 1}",
        splits=splits,
        fit="fit",
        select="id_select",
        shifted=shifted,
        stimuli={name: stimuli(name) for name in ("fit", "id")},
        batch_size=code.BATCH,
        device=device,
    )


def _arithmetic(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import arithmetic_train as sums
    from heldout.studies.arithmetic import length_split
    from heldout.tasks.ragged import at_scored, everywhere

    kind = sums.kind_of(s)
    task = sums.task_of(kind)
    shifted = length_split(kind.longer[0])
    splits = {name: at_scored(task.splits[name], keep=()) for name in ("id_select", "id", shifted)}
    networks = _networks(lambda seed: sums.build_network(s, task, seed), folders, seeds, device)
    layers = len(networks.trained[0].get_submodule("blocks")._modules)

    def stimuli(name: str) -> Stimuli:
        return _scored(
            task.splits[name], lambda target, strata: {"units digit": target}, **{"units digit": "categorical"}
        )

    return Material(
        row="arithmetic",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site=f"blocks.{layers - 1}",
        splits=splits | {"train": everywhere(task.splits["train"])},
        fit="train",
        select="id_select",
        shifted=shifted,
        stimuli={"fit": stimuli("train"), "id": stimuli("id")},
        batch_size=8000,
        device=device,
    )


def _modular(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import degeneracy_modular as modular
    from heldout.training.seeds import initialised

    task = modular.task_of(s)
    splits = task.splits
    networks = _networks(lambda seed: initialised(lambda: modular.network_of(s), seed), folders, seeds, device)
    return Material(
        row="modular",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site="mlp",
        splits=splits,
        fit="train",
        select="select",
        shifted="corner" if "corner" in splits else "id",
        stimuli={
            name: _plain(splits[of], {"sum": _targets(splits[of])}, sum="categorical")
            for name, of in (("fit", "train"), ("id", "id"))
        },
        device=device,
    )


def _nuclear(s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import nuclear_train as nuclear
    from heldout.studies.nuclear_measure import PENULTIMATE

    task = nuclear.task_of(s, nuclear.Trained.named(s["network"]))

    def stimuli(name: str) -> Stimuli:
        z, n = nuclear.nuclei(task, name)
        labels = {"nucleons": z + n, "even protons": (z + 1) % 2, "even neutrons": (n + 1) % 2}
        return _plain(task.splits[name], labels, nucleons="continuous")

    networks = _networks(lambda seed: nuclear.network_of({**s, "seed": seed}, task), folders, seeds, device)
    return Material(
        row="nuclear",
        seeds=seeds,
        trained=networks.trained,
        untrained=networks.untrained,
        site=PENULTIMATE,
        splits=task.splits,
        fit="train",
        select="select",
        shifted="id",
        stimuli={"fit": stimuli("train"), "id": stimuli("id")},
        device=device,
    )


LOADERS: dict[str, Load] = {
    "digits": _digits,
    "dyck": _dyck,
    "code": _code,
    "arithmetic": _arithmetic,
    "modular": _modular,
    "nuclear": _nuclear,
}
