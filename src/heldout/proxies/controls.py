"""Controls: simplifications that know nothing of the activations' structure, or nothing but their mean."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.proxies.base import check_fitted, check_rank, check_rows, check_width


class Mean:
    """Replaces every row by the mean of the fitted activations: the floor of every scale of faithfulness."""

    def __init__(self) -> None:
        self.mean_: Tensor | None = None

    def fit(self, x: Tensor) -> Self:
        self.mean_ = check_rows(x, "the mean").mean(dim=0)
        return self

    def fit_moments(self, moments: Moments) -> Self:
        moments.scatter()
        assert moments.mean is not None
        self.mean_ = moments.mean.cpu()
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        mean = check_fitted(self.mean_, "the mean")
        check_width(x, mean.shape[0], "the mean")
        return mean.to(x).expand_as(x).clone()


class RandomSubspace:
    """Projection on a subspace of dimension `rank` drawn uniformly (Haar measure), about the mean where `centred`.

    One draw is an anecdote: use several seeds. Subspaces of one seed are nested: a smaller rank lies inside a larger one.
    """

    def __init__(self, rank: int, *, seed: int, centred: bool = False) -> None:
        self.rank, self.seed, self.centred = rank, seed, centred
        self.basis_: Tensor | None = None  # (D, K) float64, orthonormal columns
        self.mean_: Tensor | None = None

    def fit(self, x: Tensor) -> Self:
        moments = Moments()
        moments.update(check_rows(x, "a random subspace"))
        return self.fit_moments(moments)

    def fit_moments(self, moments: Moments) -> Self:
        moments.scatter()
        assert moments.mean is not None
        width = moments.mean.shape[0]
        check_rank(self.rank, width, "a random subspace")
        generator = torch.Generator().manual_seed(self.seed)
        gaussian = torch.randn(width, width, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian)
        self.basis_ = (q * r.diagonal().sign())[:, : self.rank]  # the sign makes the draw uniform (Mezzadri 2007)
        self.mean_ = moments.mean.cpu() if self.centred else torch.zeros(width, dtype=torch.float64)
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        basis, mean = check_fitted(self.basis_, "a random subspace"), check_fitted(self.mean_, "a random subspace")
        check_width(x, basis.shape[0], "a random subspace")
        basis, mean = basis.to(x), mean.to(x)
        return mean + ((x - mean) @ basis) @ basis.T
