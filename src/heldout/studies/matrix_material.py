"""What a row of the matrix is to its cells: networks, trained and untrained, splits, and stimuli with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject
from heldout.analyses.outputs import calibrated
from heldout.analyses.scoring import Scoring
from heldout.tasks.base import Split
from heldout.tasks.ragged import at_scored, everywhere
from heldout.training.checkpoints import load_weights

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


class Networks(NamedTuple):
    """One a seed, and the same as they were initialised."""

    trained: list[nn.Module]
    untrained: list[nn.Module]


@dataclass(frozen=True, eq=False)
class Material:
    """What cells of one row read: `networks`, where (`site`) and how predictions are scored; `splits` by name, of which
    `fit`, `select` and `shifted` name three (the reference is ``id``); `stimuli` of ``fit`` and ``id``."""

    row: str
    seeds: Sequence[int]
    networks: Networks
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

    def subject(self, i: int) -> Subject:
        """The i-th trained network with how its predictions are scored; the scale of numbers is that of its own on id."""
        network = self.networks.trained[i]
        scoring = calibrated(self.scoring, network, self.splits["id"], batch_size=self.batch_size, device=self.device)
        return Subject(network, self.row, self.row, self.seeds[i], scoring, device=self.device)


def networks_of(build: Callable[[int], nn.Module], weights: Mapping[int, Path], device: str) -> Networks:
    """Of every seed the network that `build` makes, with its `weights` (seed -> file) and as it is initialised."""
    trained, untrained = [], []
    for seed, path in weights.items():
        network = build(seed)
        load_weights(network, path)
        trained.append(network.to(device).eval())
        untrained.append(build(seed).to(device).eval())
    return Networks(trained, untrained)


def each(folders: Folders, seeds: Sequence[int]) -> dict[int, Path]:
    """Seed -> weights, of a step a seed."""
    return {seed: folders[f"weights-{seed}"] / "weights.safetensors" for seed in seeds}


def together(folders: Folders, seeds: Sequence[int]) -> dict[int, Path]:
    """Seed -> weights, of one step for all seeds."""
    return {seed: folders["weights"] / f"seed-{seed}.safetensors" for seed in seeds}


# -- stimuli -----------------------------------------------------------------------------------------------------------


def plain(split: Split, labels: Mapping[str, np.ndarray], **kinds: str) -> Stimuli:
    """Items with one row each."""
    return Stimuli(split, None, labels, kinds)


def targets(split: Split) -> np.ndarray:
    """(N, ...) the targets of a split."""
    found = split.items.take(np.arange(len(split))).targets
    assert found is not None
    return found.numpy()


def scored(split: Split, labels: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]], **kinds: str) -> Stimuli:
    """The first scored position of each item that has one; `labels` of its target and strata, (N,) each."""
    asked = at_scored(split)
    batch = asked.items.take(np.arange(len(asked)))
    assert batch.targets is not None
    at = batch.inputs["at"][:, 0].numpy()
    found = labels(
        batch.targets[:, 0].numpy(), {n: (v if v.ndim == 1 else v[:, 0]).numpy() for n, v in batch.strata.items()}
    )
    return Stimuli(everywhere(asked), at, found, kinds)


def halves(split: Split) -> dict[str, np.ndarray]:
    """Every other item to choose on (``select``), the others to score on (``id``): numbers of items, for tasks that have no
    split to choose on. Items are units of their own."""
    every = np.arange(len(split))
    return {"select": every[1::2], "id": every[::2]}
