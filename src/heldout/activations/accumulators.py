"""Streaming accumulators in float64: what is kept of activations so that memory does not grow with the data.

Each has `update(rows)` for rows (N, D) of data (padding removed), and `merge(other)`. Merging shards in index order gives
the same answer as one stream: exactly for counts, to rounding for moments, in distribution for samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heldout.errors import ProxyError


class Moments:
    """Count, mean and centred Gram matrix of rows (N, D), updated chunk by chunk (Chan, Golub and LeVeque 1983).

    The centred form keeps its digits where the mean is large against the spread; the uncentred Gram is derived from it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self._scatter: Tensor | None = None

    @classmethod
    def of(cls, count: int, mean: Tensor, scatter: Tensor) -> Moments:
        """Moments gathered elsewhere: `count` rows, their `mean` (D,) and centred `scatter` (D, D), float64."""
        moments = cls()
        moments._join(count, mean, scatter)
        return moments

    def update(self, rows: Tensor) -> None:
        if rows.shape[0] == 0:
            return
        x = rows.detach().double()
        mean = x.mean(dim=0)
        x = x - mean
        self._join(x.shape[0], mean, x.T @ x)

    def merge(self, other: Moments) -> None:
        if other.mean is not None and other._scatter is not None:
            self._join(other.count, other.mean, other._scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self.mean is None or self._scatter is None:
            self.count, self.mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        if mean.shape != self.mean.shape:
            raise ProxyError(f"activations of width {mean.shape[0]} cannot join moments of width {self.mean.shape[0]}")
        total = self.count + count
        shift = mean - self.mean
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def scatter(self, *, centred: bool = True) -> Tensor:
        """(D, D) float64: the sum over rows of (x - mean)(x - mean)^T, or of x x^T where not centred."""
        if self.mean is None or self._scatter is None:
            raise ProxyError("no activations were seen: nothing to fit on")
        if centred:
            return self._scatter
        return self._scatter + self.count * torch.outer(self.mean, self.mean)

    @property
    def variance(self) -> float:
        """Total variance: the mean over rows of the squared distance to the mean (divisor N)."""
        return float(self.scatter().trace()) / self.count


class Counts:
    """How often each whole number from 0 to `size` - 1 occurs."""

    def __init__(self, size: int) -> None:
        self.values = torch.zeros(size, dtype=torch.int64)

    def update(self, labels: Tensor) -> None:
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.values):
            raise ProxyError(
                f"labels from {int(labels.min())} to {int(labels.max())} cannot be counted; this counts "
                f"0 to {len(self.values) - 1}"
            )
        self.values += torch.bincount(labels.detach().cpu().flatten(), minlength=len(self.values))

    def merge(self, other: Counts) -> None:
        self.values += other.values


class Reservoir:
    """A uniform sample of `size` rows, without replacement, whatever their number and however they are cut in chunks.

    Each row draws a number from a generator keyed by (seed, shard), and the rows with the smallest are kept, in order of
    arrival. So a sample does not depend on the chunk size, and shards, each with its own number, merge to a sample of
    all of them.
    """

    def __init__(self, size: int, *, seed: int, shard: int = 0) -> None:
        if size < 1:
            raise ProxyError(f"a sample needs at least one row, got {size}")
        self.size, self.seen = size, 0
        self._random = np.random.default_rng([seed, shard])
        self._streams = {(seed, shard)}
        self._rows: Tensor | None = None
        self._draws = np.empty(0)

    def update(self, rows: Tensor) -> None:
        draws = self._random.random(rows.shape[0])
        self.seen += rows.shape[0]
        threshold = self._draws.max() if len(self._draws) == self.size else 1.0
        chosen = np.flatnonzero(draws < threshold)
        if len(chosen):
            # Copied: rows may be a view of a tensor that the network goes on to change.
            self._keep(rows.detach()[torch.from_numpy(chosen).to(rows.device)].clone(), draws[chosen])

    def merge(self, other: Reservoir) -> None:
        if self.size != other.size or self._streams & other._streams:
            raise ProxyError(
                f"samples of {self.size} and {other.size} rows, streams (seed, shard) {sorted(self._streams)} and "
                f"{sorted(other._streams)}, do not merge to a uniform one; use one size, and one shard number for each"
            )
        self._streams |= other._streams
        self.seen += other.seen
        if other._rows is not None:
            self._keep(other._rows, other._draws)

    def _keep(self, rows: Tensor, draws: np.ndarray) -> None:
        if self._rows is not None:
            rows, draws = torch.cat([self._rows, rows]), np.concatenate([self._draws, draws])
        if len(draws) > self.size:
            kept = np.sort(np.argpartition(draws, self.size - 1)[: self.size])
            rows, draws = rows[torch.from_numpy(kept).to(rows.device)], draws[kept]
        self._rows, self._draws = rows, draws

    @property
    def rows(self) -> Tensor:
        """(min(size, seen), D): the sample, in order of arrival."""
        if self._rows is None:
            raise ProxyError("no activations were seen: nothing to fit on")
        return self._rows
