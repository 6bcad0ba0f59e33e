"""Subspace ablation: what accuracy costs the removal of the directions that hold a feature, beside random ones.

A cost says that decisions pass through the subspace; that there is none does not say that they do not, since a feature may
be read from elsewhere too. Random subspaces of the same rank stand beside; they hold less variance, so their cost is a
floor and not a match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.features.decisions import Decide, as_labels, decided
from heldout.analyses.features.intervals import Ratio, ratio_interval
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Origin

Floats = NDArray[np.float64]

RANDOM_DRAWS = 20


@dataclass(frozen=True, eq=False)
class Cost:
    """Accuracy lost by each feature, name -> `Ratio` (paired over rows or clusters), and `random` (draws, F) what random
    subspaces of the same `rank` cost."""

    cost: dict[str, Ratio]
    random: Floats
    rank: int


def ablation_cost(
    decide: Decide,
    rows: Tensor,
    labels: ArrayLike,
    names: Sequence[str],
    basis: ArrayLike,
    mean: ArrayLike,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    draws: int = RANDOM_DRAWS,
) -> Cost:
    """Accuracy on rows (n, D), of labels (n, F), less that without the span of `basis` (K, D), which keeps the `mean` (D,)
    of the fit split; the rows of `LinearMap.weights` are such a basis."""
    known = as_labels(labels, len(rows), names)
    remove = Removal(basis, mean)
    right = decided(decide, rows, names) == known
    lost = right.astype(np.float64) - (decided(decide, remove.reconstruct(rows), names) == known)
    rng = np.random.default_rng(seed)
    random = [
        right.mean(axis=0) - (decided(decide, other.reconstruct(rows), names) == known).mean(axis=0)
        for other in (Removal(rng.normal(size=(remove.rank, rows.shape[1])), mean) for _ in range(draws))
    ]
    ones = np.ones(len(rows))
    cost = {name: ratio_interval(lost[:, i], ones, groups) for i, name in enumerate(names)}
    return Cost(cost, np.array(random).reshape(draws, len(names)), remove.rank)


def subspace_removal(site: str | Site, basis: ArrayLike, mean: ArrayLike, *, name: str, fit_split: str) -> Edit:
    """Removes a subspace at `site`: rows keep the `mean` (D,) within the span of the rows of `basis` (K, D)."""
    remove = Removal(basis, mean)
    return Edit.from_proxy(site, remove, Origin(name, fit_split=fit_split, parameter=remove.rank))


class Removal:
    """x -> x less the part of x - mean within the span of the rows of `basis` (K, D), orthonormalised."""

    def __init__(self, basis: ArrayLike, mean: ArrayLike) -> None:
        rows = np.atleast_2d(np.asarray(basis, dtype=np.float64))
        centre = np.asarray(mean, dtype=np.float64)
        if rows.ndim != 2 or centre.shape != rows.shape[1:] or not np.isfinite(rows).all():
            raise ConfigError(f"a finite basis (K, D) and a mean (D,) are needed; got {rows.shape} and {centre.shape}")
        _, size, directions = np.linalg.svd(rows, full_matrices=False)
        if not size[0] > 0:
            raise StatisticsError("the basis is zero: there is no subspace to remove")
        kept = directions[size > 1e-10 * size[0]]
        self.rank = len(kept)
        self._basis, self._mean = torch.from_numpy(kept.copy()), torch.from_numpy(centre)

    def reconstruct(self, x: Tensor) -> Tensor:
        basis = self._basis.to(x)
        return x - ((x - self._mean.to(x)) @ basis.T) @ basis
