"""Class centroids of activations, streamed in float64: what the spectrum, the class subspace and the shares are made of.

Rows (N, D), labels (N,) from 0 to C - 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heldout.errors import StatisticsError


class Centroids:
    """Count, mean and within-class scatter of each of C classes, updated chunk by chunk and mergeable.

    `counts` (C,), `means` (C, D) float64 (zeros for an empty class), `within` (C,) sums of squared distances to the class's
    own mean. Pairwise updating (Chan, Golub and LeVeque 1983) keeps the digits where means are large.
    """

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise StatisticsError(f"class centroids need at least two classes; got {classes}")
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self.within = torch.zeros(classes, dtype=torch.float64)
        self._means: Tensor | None = None

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Add rows (N, D) of classes `labels` (N,)."""
        labels, rows = labels.detach().cpu(), rows.detach().double().cpu()
        if rows.ndim != 2 or labels.shape != rows.shape[:1]:
            raise StatisticsError(f"rows (N, D) and labels (N,) are needed; got {rows.shape} and {labels.shape}")
        if len(rows) == 0:
            return
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.counts):
            raise StatisticsError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; 0 to {len(self.counts) - 1} are expected"
            )
        counts = torch.bincount(labels, minlength=len(self.counts))
        means = torch.zeros(len(counts), rows.shape[1], dtype=torch.float64).index_add_(0, labels, rows)
        means /= counts.clamp(min=1)[:, None]
        spread = (rows - means[labels]).square().sum(dim=1)
        self._join(counts, means, torch.zeros_like(self.within).index_add_(0, labels, spread))

    def merge(self, other: Centroids) -> None:
        if other._means is not None:
            self._join(other.counts, other._means, other.within)

    def _join(self, counts: Tensor, means: Tensor, within: Tensor) -> None:
        if self._means is None:
            self._means = torch.zeros_like(means)
        if means.shape != self._means.shape or counts.shape != self.counts.shape:
            raise StatisticsError(f"centroids {tuple(means.shape)} cannot join {tuple(self._means.shape)}")
        total = self.counts + counts
        share = counts.double() / total.clamp(min=1)  # integers would be divided in float32
        shift = means - self._means
        self.within += within + shift.square().sum(dim=1) * self.counts * share
        self._means = self._means + shift * share[:, None]
        self.counts = total

    @property
    def means(self) -> Tensor:
        if self._means is None:
            raise StatisticsError("no activations were seen: there are no centroids")
        return self._means

    @property
    def grand_mean(self) -> Tensor:
        """(D,) the mean of all rows."""
        return (self.counts.double() @ self.means) / self.counts.sum()

    @property
    def deviations(self) -> Tensor:
        """(C, D) each centroid minus the mean of all rows; zeros for an empty class."""
        return (self.means - self.grand_mean) * (self.counts > 0)[:, None]

    @property
    def between_share(self) -> float:
        """The share of all variance that lies between class centroids (eta squared), 0 to 1; NaN where nothing varies.

        It is not 0 without class structure: labels dealt out at random give (C - 1) / (N - 1) on average.
        """
        between = float((self.counts * self.deviations.square().sum(dim=1)).sum())
        total = between + float(self.within.sum())
        return between / total if total > 0 else float("nan")

    @property
    def adjusted_share(self) -> float:
        """`between_share` less what chance gives (epsilon squared, Kelley 1935): at most 1, on average about 0 without
        structure, and so sometimes below."""
        n, used = int(self.counts.sum()), int((self.counts > 0).sum())
        if n <= used:
            return float("nan")
        return 1 - (1 - self.between_share) * (n - 1) / (n - used)

    def require_all(self, at_least: int = 1) -> None:
        """Raise `StatisticsError` where a class has fewer rows than `at_least`."""
        few = np.flatnonzero((self.counts < at_least).numpy()).tolist()
        if few:
            raise StatisticsError(
                f"every class needs {at_least} rows or more; classes {few[:5]} of {len(self.counts)} have fewer"
            )
