"""Do the classes that activations form in distribution persist out of it (on components that were fitted in distribution)?

Everything is fitted once, in distribution: the mean, the principal components and the class centroids. Out-of-distribution
activations are projected on them and nothing is refitted, so that a change is the activations' and not the axes'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.analyses.equivalence.centroids import Centroids
from heldout.errors import ConfigError, StatisticsError
from heldout.proxies.svd import SVD


@dataclass(frozen=True, eq=False)
class ClassStructure:
    """Principal components (K, D), their mean (D,) and class centroids (C, K) in them, all from the fit split, float64.

    `explained`: the share of the fit split's variance that the K components hold.
    """

    components: Tensor
    mean: Tensor
    centroids: Tensor
    explained: float

    @classmethod
    def fit(cls, moments: Moments, centroids: Centroids, *, rank: int) -> Self:
        """From streamed moments and centroids of the same rows; PCA is centred and not whitened."""
        centroids.require_all()
        pca = SVD(rank, centred=True).fit_moments(moments)
        assert pca.components_ is not None
        assert pca.mean_ is not None
        axes = pca.components_[:rank]
        return cls(axes, pca.mean_, (centroids.means - pca.mean_) @ axes.T, float(pca.explained()[rank - 1]))

    def project(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, K) coordinates about the fit split's mean."""
        if rows.ndim != 2 or rows.shape[1] != self.mean.shape[0]:
            raise ConfigError(f"rows (N, {self.mean.shape[0]}) are needed; got {tuple(rows.shape)}")
        return (rows.double().cpu() - self.mean) @ self.components.T

    def nearest(self, rows: Tensor) -> np.ndarray:
        """(N,) the class whose centroid is nearest among the components."""
        return np.asarray(torch.cdist(self.project(rows), self.centroids).argmin(dim=1))

    def values(self, rows: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """Additive measures of each row (N,) against the *fitted* structure, for a scores cell.

        - ``nearest``: 0 or 1, the nearest fitted centroid is the row's own class's; the largest class's share by chance.
        - ``within``, ``total``: squared distance to the own fitted centroid and to the fitted mean, in the components.
          1 - within / total, of sums, is the between-class share as fitted: at most 1, in distribution the ordinary one,
          below 0 where another place for each class has become its home (which `nearest` and the silhouette may not see).
        """
        at, own = self.project(rows), self.centroids[labels.cpu()]
        return {
            "nearest": (self.nearest(rows) == labels.cpu().numpy()).astype(np.float64),
            "within": (at - own).square().sum(dim=1).numpy(),
            "total": at.square().sum(dim=1).numpy(),
        }

    def silhouettes(self, rows: Tensor, labels: Tensor) -> np.ndarray:
        """(N,) silhouette of each row among *these* rows, in the components, -1 to 1; their mean is the usual score.

        (b - a) / max(a, b): a the mean distance to the row's own class, b to the nearest other class; Rousseeuw (1987).
        Quadratic in N. Each value depends on the other rows, so that resampling items understates its spread a little.
        """
        return silhouettes(self.project(rows), labels)


def silhouettes(rows: Tensor, labels: Tensor) -> np.ndarray:
    """(N,) silhouettes of rows (N, D) in all their dimensions; see `ClassStructure.silhouettes`."""
    from sklearn.metrics import silhouette_samples

    classes = len(torch.unique(labels))
    if not 2 <= classes < len(labels):
        raise StatisticsError(f"silhouettes need 2 classes or more and more rows than classes; got {classes} classes "
                              f"in {len(labels)} rows")  # fmt: skip
    return np.asarray(silhouette_samples(rows.double().cpu().numpy(), labels.cpu().numpy()), dtype=np.float64)


def permuted_hits(nearest: np.ndarray, labels: np.ndarray, *, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(R, N) bool: whose row is in its own class's place after the labels are dealt out anew: the null of ``nearest``.

    It keeps how many rows each place holds and how common each label is. The means of the draws make a p-value with
    `heldout.statistics.permutation.null_p`; their 95th percentile is what a structure claim is set against.
    """
    if nearest.shape != labels.shape or draws < 1:
        raise ConfigError(
            f"one label a row and a draw at least are needed; got {nearest.shape}, {labels.shape}, {draws}"
        )
    return np.stack([nearest == rng.permutation(labels) for _ in range(draws)])
