"""Training batches as a function of the step number, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from heldout.errors import ConfigError
from heldout.tasks.base import Batch, Split, require_fit
from heldout.training.seeds import generator

WINDOW = 32  # batches that are sorted by length together: wide enough for little padding, far below an epoch


class Shuffled:
    """Epochs of seeded permutations of a split: calling it with a step number gives that step's batch.

    Each epoch holds every item once. A batch has at most `size` positions, padding included (items, where items have
    one size); the last of an epoch may be smaller. Items of many lengths are bucketed: the permutation is cut into
    windows of about `WINDOW` batches, sorted by length within each, cut, and the batches are shuffled. So the items of
    a batch have similar lengths and are *not* an independent sample; an epoch of batches is.

    `aligned`: the batch of a step has the same shape for every seed, so that seeds can be trained as one computation
    (`heldout.training.together`). Then a window is the whole epoch, and the order of the batches' shapes is common to all
    seeds; which items are in them is each seed's own.
    """

    def __init__(self, split: Split, size: int, *, seed: int, aligned: bool = False) -> None:
        self.split = require_fit(split, "a network")
        self.size, self.seed, self.aligned = size, seed, aligned
        self.lengths = np.asarray(split.items.lengths, dtype=np.int64)
        longest = int(self.lengths.max())
        if size < longest:
            raise ConfigError(
                f"a batch of {size} positions cannot hold the longest item of split {split.name!r} ({longest}); "
                f"give a size of at least {longest}"
            )
        self._one_size = bool((self.lengths == longest).all())
        self._starts = [0]  # the first step of each epoch planned so far, and of the next
        self._epoch, self._plan = -1, list[np.ndarray]()

    def __call__(self, step: int) -> Batch:
        return self.split.items.take(self.index(step))

    def index(self, step: int) -> np.ndarray:
        """(B,) int64, the item numbers of the batch of `step` >= 0."""
        while step >= self._starts[-1]:
            self._load(len(self._starts) - 1)
        if not self._starts[self._epoch] <= step < self._starts[self._epoch + 1]:
            self._load(int(np.searchsorted(self._starts, step, side="right")) - 1)
        return self._plan[step - self._starts[self._epoch]]

    def _load(self, epoch: int) -> None:
        self._epoch, self._plan = epoch, self.plan(epoch)
        if epoch + 1 == len(self._starts):
            self._starts.append(self._starts[-1] + len(self._plan))

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The item numbers of every batch of one epoch, in order; a function of the seed and the epoch alone."""
        draw = generator(self.seed, "order", epoch)
        order = draw.permutation(len(self.lengths))
        if self._one_size:
            per_batch = self.size // int(self.lengths[0])
            return [order[i : i + per_batch] for i in range(0, len(order), per_batch)]
        lengths = self.lengths[order]
        window = np.zeros_like(lengths) if self.aligned else (np.cumsum(lengths) - 1) // (WINDOW * self.size)
        by_length = np.lexsort((lengths, window))
        order, lengths, window = order[by_length], lengths[by_length], window[by_length]
        edges = np.flatnonzero(np.diff(window, prepend=-1, append=window[-1] + 1))
        batches = [
            order[start + a : start + b]
            for start, end in pairwise(edges)
            for a, b in _cuts(lengths[start:end], self.size)
        ]
        if self.aligned:
            draw = generator(0, "order", epoch, 1)  # the same for every seed
        return [batches[i] for i in draw.permutation(len(batches))]


def shuffled(split: Split, size: int, *, seed: int, aligned: bool = False) -> Shuffled:
    """Batches of at most `size` positions from a split whose role is ``fit``; see `Shuffled`."""
    return Shuffled(split, size, seed=seed, aligned=aligned)


def _cuts(lengths: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Consecutive ranges of ascending `lengths`, each the longest whose padded rectangle holds at most `size`."""
    cuts, start = [], 0
    while start < len(lengths):
        # Candidates end before the point where even the shortest item, repeated, overflows.
        ahead = lengths[start : start + size // int(lengths[start])]
        fits = ahead * np.arange(1, len(ahead) + 1) <= size
        end = start + int(np.argmin(fits)) if not fits.all() else start + len(ahead)
        cuts.append((start, end))
        start = end
    return cuts
