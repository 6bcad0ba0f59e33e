"""Outputs that are no classes: numbers (regression) and embeddings.

Both need something of the network first, measured once on one split so that no number depends on the batch:

    scoring = calibrated(scoring_of("regression", tolerance=0.1), network, splits["id"])

Shapes: M scored predictions of a batch, B items, T positions, V outputs, D the embedding's width, A reference items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heldout.activations.tap import Tap
from heldout.analyses.scoring import Marked, Predictions, Scoring
from heldout.errors import ConfigError, NetworkError, SplitError, unknown
from heldout.statistics.thinning import place_hash, smallest
from heldout.tasks.base import Batch, Split

KINDS = ("classification", "next_token", "regression", "embedding")
ITSELF = 1e-5  # a reference item is taken for the item itself where 1 - cosine is less
LEAST_SCALE = 1e-12  # of an output that varies less, a share of its scale means nothing


@dataclass(frozen=True, eq=False)
class Regression(Scoring):
    """Outputs (B,), (B, V) or (B, T, V) are numbers.

    Two predictions are the same where they differ by at most `tolerance` times the network's output scale: the root mean
    square, over the V outputs, of each difference divided by `scale` (V,). `scale` is the standard deviation of the
    network's own output on the split that `calibrated` is given, and `centre` (V,) its mean there.
    """

    tolerance: float = 0.1
    centre: Tensor | None = None
    scale: Tensor | None = None
    kind: ClassVar[str] = "regression"
    divergence: ClassVar[str] = "squared"

    def predictions(self, output: Any, batch: Batch, *, where: str = "") -> Numbers:
        if self.centre is None or self.scale is None:
            raise ConfigError("regression has no scale yet; call calibrated(scoring, network, split) first")
        marked = _rows(self._logits(output), batch, where)
        targets = None if batch.targets is None else marked.at(batch.targets).to(marked.rows)
        if targets is not None and targets.ndim == 1:
            targets = targets[:, None]
        if targets is not None and targets.shape != marked.rows.shape:
            raise NetworkError(
                f"the network returned {marked.rows.shape[1]} numbers a prediction{where}, the targets hold "
                f"{tuple(targets.shape[1:])}; one target for each is needed"
            )
        return Numbers(
            **marked.fields(batch),
            targets=targets,
            candidates=None,
            centre=self.centre.to(marked.rows),
            scale=self.scale.to(marked.rows),
            tolerance=self.tolerance,
        )


@dataclass(frozen=True, eq=False)
class Numbers(Predictions):
    """M predictions of V numbers; see `Regression`. The margin of numbers is zero: nothing is chosen among."""

    centre: Tensor
    scale: Tensor
    tolerance: float

    @property
    def margin(self) -> Tensor:
        return torch.zeros_like(self.item, dtype=torch.float32)

    @property
    def top(self) -> Tensor:
        """(M,) or (M, V): the numbers themselves."""
        return self.logits.squeeze(1) if self.logits.shape[1] == 1 else self.logits

    def distance(self, other: Tensor) -> Tensor:
        """(M,) squared difference to (M, V) numbers in units of the scale, mean over outputs."""
        return (((self.logits - other) / self.scale) ** 2).mean(dim=1)

    @property
    def loss(self) -> Tensor:
        """(M,) squared error at the target in units of the scale; zeros where there are no targets."""
        return torch.zeros_like(self.logits[:, 0]) if self.targets is None else self.distance(self.targets)

    @property
    def correct(self) -> Tensor:
        """(M,) within the tolerance of the target."""
        if self.targets is None:
            return torch.zeros_like(self.item, dtype=torch.bool)
        return self.loss <= self.tolerance**2

    def same(self, other: Predictions) -> Tensor:
        return self.distance(other.logits) <= self.tolerance**2

    def against(self, other: Predictions) -> dict[str, Tensor]:
        """Additive metrics, (M,) each.

        - ``same``: 0 or 1, within the tolerance.
        - ``squared``: squared difference in units of the scale, mean over outputs; 0 or more. Its mean is the mean squared
          difference; a few large differences can carry it.
        - ``spread``: squared distance of the network's output from its mean on the calibration split, in the same units;
          1 - squared / spread, of sums, is an R^2 (at most 1, below 0 where the mean would do better). It does not show
          whether either is right, and away from the calibration split it grows with the shift of the output itself.
        - ``net_loss``, ``proxy_loss``: squared error at the target; ``*_correct``: within the tolerance of it.
        """
        return {
            "same": self.same(other),
            "net_correct": self.correct,
            "proxy_correct": other.correct,
            "both_correct": self.correct & other.correct,
            "squared": self.distance(other.logits),
            "spread": self.distance(self.centre),
            "net_loss": self.loss,
            "proxy_loss": other.loss,
        }


@dataclass(frozen=True, eq=False)
class Embedding(Scoring):
    """Outputs (B, D) or (B, T, D) are embeddings, compared by direction.

    Neighbours are sought in a fixed reference set of the network's own embeddings, `anchors` (A, D) of length one, at
    most `size` of them, that `calibrated` takes from one split: so no neighbour depends on the batch. Reference items
    whose embedding is the item's own (itself, or a duplicate) are left out, for the network and for the edit alike.
    Two embeddings are the same where their nearest reference item is.
    """

    neighbours: int = 10
    size: int = 1000
    anchors: Tensor | None = None
    kind: ClassVar[str] = "embedding"
    divergence: ClassVar[str] = "distance"

    def predictions(self, output: Any, batch: Batch, *, where: str = "") -> Directions:
        if self.anchors is None:
            raise ConfigError("embedding has no reference set yet; call calibrated(scoring, network, split) first")
        marked = _rows(self._logits(output), batch, where)
        if marked.rows.shape[1] != self.anchors.shape[1]:
            raise NetworkError(
                f"the network returned embeddings of width {marked.rows.shape[1]}{where}; {self.anchors.shape[1]} before"
            )
        return Directions(
            **marked.fields(batch),
            targets=None,
            candidates=None,
            anchors=self.anchors.to(marked.rows),
            neighbours=self.neighbours,
        )


@dataclass(frozen=True, eq=False)
class Directions(Predictions):
    """M embeddings (M, D); see `Embedding`."""

    anchors: Tensor
    neighbours: int

    def similarity(self, embeddings: Tensor) -> Tensor:
        """(M, A) cosine of `embeddings` (M, D) to each reference item; minus infinity for those that are the item itself."""
        itself = F.normalize(self.logits, dim=1) @ self.anchors.T > 1 - ITSELF
        return (F.normalize(embeddings, dim=1) @ self.anchors.T).masked_fill(itself, -torch.inf)

    @property
    def top(self) -> Tensor:
        """(M,) the number of the nearest reference item."""
        return self.similarity(self.logits).argmax(dim=1)

    @property
    def margin(self) -> Tensor:
        """(M,) by how much the nearest reference item is nearer than the next, in cosine."""
        best = self.similarity(self.logits).topk(2, dim=1).values
        return torch.nan_to_num(best[:, 0] - best[:, 1], nan=0.0, posinf=2.0)

    def same(self, other: Predictions) -> Tensor:
        return self.top == self.similarity(other.logits).argmax(dim=1)

    def against(self, other: Predictions) -> dict[str, Tensor]:
        """Additive metrics, (M,) each.

        - ``same``: 0 or 1, the nearest reference item is the same.
        - ``neighbours``: the share of the k nearest reference items that is common, 0 to 1; k / (A - 1) by chance.
        - ``cosine``: of the network's and the edited embedding, -1 to 1. Where embeddings point one way (a large common
          mean) it is near 1 whatever is lost; ``distance`` is 1 - cosine.

        None of them shows whether the embedding serves its purpose, and none sees its length.
        """
        mine, theirs = self.similarity(self.logits), self.similarity(other.logits)
        k = min(self.neighbours, mine.shape[1] - 1)
        a, b = mine.topk(k, dim=1).indices, theirs.topk(k, dim=1).indices
        cosine = F.cosine_similarity(self.logits, other.logits, dim=1).clamp(-1, 1)
        none = torch.zeros_like(self.item, dtype=torch.bool)
        return {
            "same": mine.argmax(dim=1) == theirs.argmax(dim=1),
            "net_correct": none,
            "proxy_correct": none,
            "both_correct": none,
            "neighbours": (a[:, :, None] == b[:, None, :]).any(dim=2).to(cosine).mean(dim=1),
            "cosine": cosine,
            "distance": 1 - cosine,
        }


def scoring_of(
    kind: str,
    *,
    output: str = "",
    candidates: tuple[int, int] | None = None,
    tolerance: float = 0.1,
    neighbours: int = 10,
    references: int = 1000,
) -> Scoring:
    """The scoring that a word stands for, not yet calibrated: one of `KINDS`, with the settings that it reads."""
    if kind not in KINDS:
        raise ConfigError(unknown("scoring", kind, KINDS))
    if kind == "regression":
        return Regression(output=output, tolerance=tolerance)
    if kind == "embedding":
        return Embedding(output=output, neighbours=neighbours, size=references)
    return Scoring(output=output, candidates=candidates)


def calibrated(
    scoring: Scoring, network: nn.Module, split: Split, *, batch_size: int = 256, device: str = "cpu"
) -> Scoring:
    """`scoring` with what it needs of the network's own output on `split`, in one pass; classes need nothing.

    Memory does not grow with the split. Raises `SplitError` where the output does not vary there (regression) or there
    are fewer than three items (embedding).
    """
    if not isinstance(scoring, Regression | Embedding):
        return scoring
    where = f" on split {split.name!r}"
    seen = _Spread() if isinstance(scoring, Regression) else _Drawn(scoring.size)
    with Tap(network) as tap:
        for batch in split.batches(batch_size):
            batch = batch.to(device)
            seen.update(_rows(scoring._logits(tap(batch).output), batch, where))
    return restored(scoring, seen.found(where))


class _Spread:
    """Mean (V,) and sum of squares about it (V,), float64, batch by batch (Chan, Golub and LeVeque's update)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squared = 0, torch.zeros(1), torch.zeros(1)

    def update(self, marked: Marked) -> None:
        rows = marked.rows.detach().double().cpu()
        if not len(rows):
            return
        if not self.count:
            self.mean, self.squared = torch.zeros(2, rows.shape[1], dtype=torch.float64)
        mean, total = rows.mean(dim=0), self.count + len(rows)
        apart = mean - self.mean
        self.squared = self.squared + ((rows - mean) ** 2).sum(dim=0) + apart**2 * (self.count * len(rows) / total)
        self.mean = self.mean + apart * (len(rows) / total)
        self.count = total

    def found(self, where: str) -> dict[str, Tensor]:
        scale = (self.squared / max(1, self.count - 1)).sqrt()
        if self.count < 2 or bool((scale < LEAST_SCALE).any()):
            raise SplitError(f"the network's output does not vary{where}; a tolerance relative to it means nothing")
        return {"centre": self.mean, "scale": scale}


class _Drawn:
    """At most `size` rows, in the split's order: those whose place has the smallest hash, whatever the batches were."""

    def __init__(self, size: int) -> None:
        self.size, self.rows = size, torch.zeros(0)
        self._item = self._place = np.zeros(0, dtype=np.int64)

    def update(self, marked: Marked) -> None:
        item = np.concatenate([self._item, marked.item.cpu().numpy()])
        place = np.concatenate([self._place, marked.place.cpu().numpy()])
        rows = marked.rows.detach().double().cpu()
        rows = torch.cat([self.rows, rows]) if len(self._item) else rows
        kept = smallest(place_hash(item, place), self.size)
        kept = kept[np.lexsort((place[kept], item[kept]))]
        self._item, self._place, self.rows = item[kept], place[kept], rows[torch.from_numpy(kept)]

    def found(self, where: str) -> dict[str, Tensor]:
        if len(self.rows) < 3:
            raise SplitError(f"{len(self.rows)} embeddings{where}; neighbours need at least three")
        return {"anchors": F.normalize(self.rows, dim=1)}


def calibration(scoring: Scoring) -> Mapping[str, Tensor]:
    """The tensors that `calibrated` added: to be stored, and put back with `restored`."""
    names = ("centre", "scale", "anchors")
    return {n: getattr(scoring, n) for n in names if getattr(scoring, n, None) is not None}


def restored(scoring: Scoring, tensors: Mapping[str, Tensor]) -> Scoring:
    """`scoring` with the tensors that `calibration` gave."""
    changed: Scoring = replace(scoring, **tensors)  # type: ignore[arg-type]
    return changed


def _rows(values: Tensor, batch: Batch, where: str) -> Marked:
    """The rows that count of an output (B,), (B, V) or (B, T, V). Raises `NetworkError`, `NonFiniteError`."""
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim not in (2, 3) or values.shape[0] != len(batch) or not values.is_floating_point():
        raise NetworkError(
            f"the network returned {values.dtype} of shape {tuple(values.shape)} for {len(batch)} items{where}; numbers "
            f"(B,), (B, V) or (B, T, V) with B = {len(batch)} are needed"
        )
    marked = Marked.of(values, batch)
    marked.check_finite(where)
    return marked
