"""Items of many lengths, kept flat and padded on the right when they are taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heldout.errors import SplitError
from heldout.tasks.base import Batch, Derived, Items, Split

NO_STRATUM = -1  # the label of padding


class Flat:
    """Values of N sequences laid end to end, (total, ...): those of item i are ``values[offsets[i] : offsets[i + 1]]``."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.offsets = values, offsets

    def padded(self, index: np.ndarray, fill: float, *, dtype: type | None = None) -> Tensor:
        """(B, T, ...) those of the items at `index`, T the longest, with `fill` on the right; as `dtype`, or as they are."""
        lengths = self.offsets[index + 1] - self.offsets[index]
        mask = real_positions(lengths).numpy()
        out = np.full((*mask.shape, *self.values.shape[1:]), fill, dtype=dtype or self.values.dtype)
        out[mask] = self.values[(self.offsets[index][:, None] + np.arange(mask.shape[1]))[mask]]
        return torch.from_numpy(out)


def real_positions(lengths: np.ndarray) -> Tensor:
    """(B, T) bool, True where an item of that length has a position; T is the largest."""
    return torch.from_numpy(np.arange(int(lengths.max(initial=0))) < np.asarray(lengths)[:, None])


class Ragged:
    """N sequences laid end to end: item i is ``inputs[offsets[i] : offsets[i + 1]]``.

    - `inputs`, `targets`: (total,) integer token ids; the target of a position is what should be predicted there.
    - `offsets`: (N + 1,) int64, from 0 to total, rising.
    - `pad`: the token id that fills inputs and targets on the right.
    - `scored`: (total,) bool, True where the prediction counts.
    - `strata`: name -> (total,) integer labels of at least 0.

    A batch has inputs, targets, mask, scored and strata of shape (B, T), T the longest of its items; the mask is False
    and strata are -1 on padding. Small integer dtypes save memory here; batches are int64.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        offsets: np.ndarray,
        pad: int,
        scored: np.ndarray,
        strata: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.inputs, self.targets, self.scored, self.pad = inputs, targets, scored, pad
        self.offsets = np.asarray(offsets, dtype=np.int64)
        self.strata = dict(strata or {})
        sizes = {"inputs": len(inputs), "targets": len(targets), "scored": len(scored)}
        sizes |= {name: len(labels) for name, labels in self.strata.items()}
        wrong = [f"{name} has {n}" for name, n in sizes.items() if n != self.offsets[-1]]
        if wrong or self.offsets[0] != 0:
            raise SplitError(
                f"offsets run from {self.offsets[0]} to {self.offsets[-1]}, but must run from 0 to the number of "
                f"positions: {', '.join(wrong) or 'the first is not 0'}"
            )
        self.lengths = np.diff(self.offsets)
        if len(self.lengths) and self.lengths.min() < 1:
            raise SplitError(f"item {int(self.lengths.argmin())} is empty; every item needs at least one position")

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: np.ndarray) -> Batch:
        index = np.asarray(index, dtype=np.int64)
        mask = real_positions(self.lengths[index])

        def padded(values: np.ndarray, fill: int) -> Tensor:
            return Flat(values, self.offsets).padded(index, fill, dtype=np.int64)

        return Batch(
            inputs=padded(self.inputs, self.pad),
            index=torch.from_numpy(index),
            targets=padded(self.targets, self.pad),
            mask=mask,
            scored=padded(self.scored, 0).bool(),
            strata={name: padded(labels, NO_STRATUM) for name, labels in self.strata.items()},
        )


class AtScored(Derived):
    """Items whose last layer is asked for scored positions only: the network is called with ``tokens`` and ``at``.

    A batch of B items, T the longest and Q the most scored positions of any, has inputs ``{"tokens": (B, T), "at":
    (B, Q)}``, mask (B, T), and targets, scored and strata of shape (B, Q). What the network returns is (B, Q, V).
    `strata` maps further names to functions of the full batch that give (B, T) labels; `keep` names those of the items'
    own strata that are kept (None: all), since every combination of labels is a row of the scores.
    """

    def __init__(
        self,
        items: Items,
        *,
        keep: Collection[str] | None = None,
        strata: Mapping[str, Callable[[Batch], Tensor]] | None = None,
    ) -> None:
        super().__init__(items)
        self.keep, self.strata = keep, dict(strata or {})

    def take(self, index: np.ndarray) -> Batch:
        full = self.items.take(index)
        if full.scored is None or full.targets is None:
            raise SplitError("items without scored marks or targets cannot be asked for their scored positions")
        at, real = positions_of(full.scored)
        strata = {name: labels for name, labels in full.strata.items() if self.keep is None or name in self.keep}
        strata |= {name: function(full) for name, function in self.strata.items()}
        return replace(
            full,
            inputs={"tokens": full.inputs, "at": at},
            targets=full.targets.gather(1, at),
            scored=real,
            strata={name: labels if labels.ndim == 1 else labels.gather(1, at) for name, labels in strata.items()},
        )


class Everywhere(Derived):
    """`AtScored` undone: the same items with the whole network computed at every position. For fitting."""

    def take(self, index: np.ndarray) -> Batch:
        batch = self.items.take(index)
        if not isinstance(batch.inputs, Mapping):
            return batch
        return Batch(inputs=batch.inputs["tokens"], index=batch.index, mask=batch.mask)


def at_scored(split: Split, **options: Any) -> Split:
    """`split` as `AtScored` items, without those that have no scored position; options are those of `AtScored`."""
    marked = [split.items.take(index).scored for index in split.batch_indices(100_000, order=np.arange(len(split)))]
    counts = np.concatenate([m.any(1).numpy() for m in marked if m is not None])
    kept = split.subset(np.flatnonzero(counts))
    return replace(kept, items=AtScored(kept.items, **options))


def everywhere(split: Split) -> Split:
    """`split` with the whole network computed at every position, whatever its items ask for."""
    return replace(split, items=Everywhere(split.items))


def positions_of(scored: Tensor) -> tuple[Tensor, Tensor]:
    """Where a (B, T) mask is True: positions (B, Q) in order, Q the most of any item, and which are real (B, Q).

    Items with fewer are filled up with other positions of theirs, so that every entry of `at` can be computed.
    """
    counts = scored.sum(1)
    most = max(1, int(counts.max()))
    at = torch.argsort(~scored, dim=1, stable=True)[:, :most]
    return at, torch.arange(most, device=scored.device) < counts[:, None]
