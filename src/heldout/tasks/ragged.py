"""Items of many lengths, kept flat and padded on the right when they are taken."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from heldout.errors import SplitError
from heldout.tasks.base import Batch

NO_STRATUM = -1  # the label of padding


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
        lengths = self.lengths[index]
        columns = np.arange(lengths.max(initial=0))
        mask = columns < lengths[:, None]
        at = np.where(mask, self.offsets[index][:, None] + columns, 0)

        def padded(flat: np.ndarray, fill: int) -> Tensor:
            return torch.from_numpy(np.where(mask, flat[at].astype(np.int64), fill))

        return Batch(
            inputs=padded(self.inputs, self.pad),
            index=torch.from_numpy(index),
            targets=padded(self.targets, self.pad),
            mask=torch.from_numpy(mask),
            scored=torch.from_numpy(self.scored[at] & mask),
            strata={name: padded(labels, NO_STRATUM) for name, labels in self.strata.items()},
        )
