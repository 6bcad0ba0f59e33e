"""The clustering proxy: each activation is replaced by the nearest of K centroids (k-means, Euclidean)."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from heldout.errors import ProxyError
from heldout.proxies.base import check_fitted, check_rows, check_width


class KMeans:
    """`clusters` centroids by Lloyd's algorithm from k-means++ starts, the best of `restarts` (scikit-learn's).

    Raises `ProxyError` where there are more clusters than distinct rows. What it does not show: that the activations are
    clustered; a cloud without clusters is tiled just as well.
    """

    def __init__(self, clusters: int, *, restarts: int = 3, seed: int = 0, iterations: int = 300) -> None:
        self.clusters, self.restarts, self.seed, self.iterations = clusters, restarts, seed, iterations
        self.centroids_: Tensor | None = None  # (K, D) float64, in lexicographic order
        self.inertia_: float = float("nan")
        self._cast: tuple[Tensor, Tensor, Tensor] | None = None

    def fit(self, x: Tensor) -> Self:
        from sklearn.cluster import KMeans as SklearnKMeans

        rows = check_rows(x, "k-means").numpy()
        if self.clusters < 1:
            raise ProxyError(f"k-means needs at least one cluster, got {self.clusters}")
        distinct = len(np.unique(rows, axis=0)) if self.clusters > 1 else 1
        if self.clusters > distinct:
            raise ProxyError(
                f"k-means with {self.clusters} clusters on {len(rows)} rows, {distinct} of them distinct; "
                f"use at most {distinct} clusters or a larger sample"
            )
        model = SklearnKMeans(self.clusters, n_init=self.restarts, max_iter=self.iterations, random_state=self.seed)
        model.fit(rows)
        centroids = model.cluster_centers_
        order = np.lexsort(centroids.T[::-1])  # so that equal fits are equal to the byte
        self.centroids_, self.inertia_ = torch.from_numpy(centroids[order].copy()), float(model.inertia_)
        self._cast = None
        return self

    def assign(self, x: Tensor) -> Tensor:
        """(M,) int64: the nearest centroid of each row of `x`; the first where two are equally near."""
        _, centre, shifted = self._on(x)
        return ((shifted**2).sum(dim=1) - 2 * (x - centre) @ shifted.T).argmin(dim=1)

    def reconstruct(self, x: Tensor) -> Tensor:
        centroids, _, _ = self._on(x)
        return centroids[self.assign(x)]

    def _on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The centroids, their centre, and the centroids about it: distances keep their digits far from the origin."""
        centroids = check_fitted(self.centroids_, "k-means")
        check_width(x, centroids.shape[1], "k-means")
        if self._cast is None or self._cast[0].dtype != x.dtype or self._cast[0].device != x.device:
            centre = centroids.mean(dim=0)
            self._cast = centroids.to(x), centre.to(x), (centroids - centre).to(x)
        return self._cast
