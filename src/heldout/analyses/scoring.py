"""From a network's output to scored predictions, and from two of them to additive metrics.

Shapes: M scored predictions of a batch, V classes (the vocabulary), B batch, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from heldout.errors import NetworkError, NonFiniteError, choices
from heldout.tasks.base import Batch

METRICS = ("same", "net_correct", "proxy_correct", "both_correct", "kl", "jsd", "net_loss", "proxy_loss")


@dataclass(frozen=True)
class Scoring:
    """How an output is read: `output` names the logits in it where it is a tuple or mapping (``"logits"``, ``"0"``), and
    `candidates` (first, past the last) restricts the *prediction* to some classes; KL and losses use all of them.

    Logits (B, V) are one prediction an item; logits (B, T, V) one a position, of which those count that the batch's
    `scored` marks (or its `mask`, or all).
    """

    output: str = ""
    candidates: tuple[int, int] | None = None
    kind: ClassVar[str] = "classification"
    divergence: ClassVar[str] = "kl"  # the metric by which disagreements are ordered

    def predictions(self, output: Any, batch: Batch, *, where: str = "") -> Predictions:
        """The scored predictions of one batch. Raises `NetworkError` where the output does not fit the batch."""
        logits = self._logits(output)
        if logits.ndim not in (2, 3) or logits.shape[0] != len(batch):
            raise NetworkError(
                f"the network returned logits of shape {tuple(logits.shape)} for {len(batch)} items; (B, V) or (B, T, V) "
                f"with B = {len(batch)} is needed to score classes (a network that takes positions first needs a wrapper "
                "that transposes)"
            )
        marked = Marked.of(logits, batch)
        chosen = marked.rows
        self._check(chosen, batch, logits.ndim)
        marked.check_finite(where)
        targets = None if batch.targets is None else marked.at(batch.targets)
        if targets is not None and targets.numel() and not 0 <= targets.min() <= targets.max() < chosen.shape[1]:
            raise NetworkError(
                f"targets run from {int(targets.min())} to {int(targets.max())}{where}, but the network has "
                f"{chosen.shape[1]} classes, numbered from 0; mark the positions that count (scored=...) or mend the targets"
            )
        return Predictions(**marked.fields(batch), targets=targets, candidates=self.candidates)

    def _check(self, chosen: Tensor, batch: Batch, ndim: int) -> None:
        """Raise where `candidates` or the targets do not fit logits (M, V), or there is nothing to choose from."""
        classes = chosen.shape[1]
        low, high = self.candidates or (0, classes)
        if not 0 <= low < high <= classes:
            raise NetworkError(
                f"candidates run from {low} to {high} (excluded), but the network has {classes} classes; choose from "
                f"0 to {classes}"
            )
        if high - low < 2:
            raise NetworkError(f"a prediction needs at least two classes to choose from, here {high - low}")
        if batch.targets is not None and batch.targets.ndim > ndim - 1:
            raise NetworkError(
                f"the network returned one prediction an item, but targets have shape {tuple(batch.targets.shape)}; "
                f"({len(batch)},) is needed"
            )

    def part(self, output: Any) -> str:
        """The name (or number) of the part of `output` that is read; empty where it is one tensor. Raises `NetworkError`."""
        if isinstance(output, Tensor):
            return ""
        if not isinstance(output, Mapping | Sequence):
            raise NetworkError(f"the network returned a {type(output).__name__}; a tensor of logits is needed")
        names = list(output) if isinstance(output, Mapping) else [str(i) for i in range(len(output))]
        name = self.output or ("logits" if "logits" in names else "")
        if name not in names:
            raise NetworkError(
                f"the network returned a {type(output).__name__}; say which part holds the logits (output=...): "
                + choices(name, names)
            )
        return name

    def _logits(self, output: Any) -> Tensor:
        name = self.part(output)
        if not name:
            found: Tensor = output
            return found
        value = output[name] if isinstance(output, Mapping) else output[int(name)]
        if not isinstance(value, Tensor):
            raise NetworkError(f"output {name!r} of the network is a {type(value).__name__}, not a tensor of logits")
        return value


@dataclass(frozen=True, eq=False)
class Marked:
    """The rows of an output that count: `rows` (M, V), with `item` (M,) place in the split and `place` (M,) position.

    `pick` is (B,) or (B, T) bool; `at` takes the same rows of labels (B, ...) or (B, T, ...).
    """

    rows: Tensor
    item: Tensor
    place: Tensor
    batch_row: Tensor
    pick: Tensor

    @staticmethod
    def of(values: Tensor, batch: Batch) -> Marked:
        """Every item of (B, V); of (B, T, V) the positions that the batch marks. Raises `NetworkError`."""
        rows = torch.arange(len(batch), device=values.device)
        if values.ndim == 2:
            every = torch.ones_like(rows, dtype=torch.bool)
            return Marked(values, batch.index, torch.zeros_like(rows), rows, every)
        marked = batch.scored if batch.scored is not None else batch.mask
        pick = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if marked is None else marked
        if pick.shape != values.shape[:2]:
            raise NetworkError(
                f"the network returned logits for {tuple(values.shape[:2])} positions, but the batch marks "
                f"{tuple(pick.shape)}; one prediction a marked position is needed"
            )
        row, place = pick.nonzero(as_tuple=True)
        return Marked(values[pick], batch.index[row], place, row, pick)

    def at(self, labels: Tensor) -> Tensor:
        """(M, ...): labels of items, or of positions where they have as many dimensions as `pick`."""
        return labels[self.batch_row] if labels.ndim < self.pick.ndim else labels[self.pick]

    def fields(self, batch: Batch) -> dict[str, Any]:
        """What predictions of every kind hold of these rows."""
        strata = {name: self.at(labels) for name, labels in batch.strata.items()}
        return {"logits": self.rows, "item": self.item, "place": self.place, "strata": strata}

    def check_finite(self, where: str) -> None:
        bad = ~torch.isfinite(self.rows).all(dim=1)
        if bool(bad.any()):
            items = sorted(set(self.item[bad].tolist()))
            raise NonFiniteError(f"the network's output is NaN or infinite{where}, items {items[:5]}")


@dataclass(frozen=True, eq=False)
class Predictions:
    """M scored predictions: `logits` (M, V), `item` (M,) place in the split, `place` (M,) position within the item."""

    logits: Tensor
    item: Tensor
    place: Tensor
    targets: Tensor | None
    strata: Mapping[str, Tensor]
    candidates: tuple[int, int] | None

    @cached_property
    def log_p(self) -> Tensor:
        """(M, V) log probabilities, nats; float32, or float64 where the network computes in it."""
        return F.log_softmax(_wide(self.logits), dim=-1)

    @cached_property
    def top(self) -> Tensor:
        """(M,) the predicted class, among the candidates."""
        low, high = self.candidates or (0, self.logits.shape[-1])
        return self.logits[:, low:high].argmax(dim=-1) + low

    @cached_property
    def margin(self) -> Tensor:
        """(M,) logit of the predicted class minus the next one's, among the candidates; 0 or more, nats."""
        low, high = self.candidates or (0, self.logits.shape[-1])
        best = _wide(self.logits[:, low:high]).topk(2, dim=-1).values
        return best[:, 0] - best[:, 1]

    @cached_property
    def loss(self) -> Tensor:
        """(M,) cross-entropy at the target, nats; zeros where there are no targets."""
        if self.targets is None:
            return torch.zeros_like(self.logits[:, 0], dtype=torch.float32)
        return -self.log_p.gather(1, self.targets[:, None]).squeeze(1)

    @cached_property
    def correct(self) -> Tensor:
        if self.targets is None:
            return torch.zeros_like(self.top, dtype=torch.bool)
        return self.top == self.targets

    def same(self, other: Predictions) -> Tensor:
        """(M,) bool: whether `other`, of the same items, predicts the same."""
        return self.top == other.top

    def against(self, other: Predictions) -> dict[str, Tensor]:
        """The metrics of `compare`, with these as the network's predictions."""
        p, q = self.log_p, other.log_p
        mixture = torch.logaddexp(p, q) - math.log(2)
        jsd = 0.5 * ((p.exp() * (p - mixture)).sum(-1) + (q.exp() * (q - mixture)).sum(-1)) / math.log(2)
        return {
            "same": self.same(other),
            "net_correct": self.correct,
            "proxy_correct": other.correct,
            "both_correct": self.correct & other.correct,
            "kl": (p.exp() * (p - q)).sum(-1),
            "jsd": jsd.clamp(0, 1),
            "net_loss": self.loss,
            "proxy_loss": other.loss,
        }


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def compare(network: Predictions, proxy: Predictions) -> dict[str, Tensor]:
    """Each metric's value for each scored prediction, (M,), to be summed.

    ``same``: equal predicted class. ``kl``: KL(network || proxy), nats, all classes. ``jsd``: Jensen-Shannon divergence,
    base 2, 0 to 1. ``net_loss``, ``proxy_loss``: cross-entropy at the target, nats. ``*_correct``: 0 or 1. Agreement
    does not show that the proxy computes what the network computes, only that it answers alike. Regression and embedding
    have metrics of their own: see `heldout.analyses.outputs`.
    """
    return network.against(proxy)
