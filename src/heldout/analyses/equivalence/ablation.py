"""Does accuracy stem from the class structure? Remove the subspace of the class centroids, and subspaces like it.

The class subspace is spanned by the centroids' deviations from the mean: at most C - 1 dimensions. Removing it sets every
centroid to the mean. It usually holds most of the variance, so removing *as many* random directions would displace the
activations far less and cost less for that reason alone. Two controls displace them *as much*, in mean square over the fit
split, exactly; both are drawn uniformly (Haar) within the span of the activations' principal directions.

- `random_equal_rank`: as many directions, the deviation in them scaled. Where the scale exceeds 1 it overshoots the mean: a
  push of equal size along equally few directions rather than a removal.
- `random_equal_variance`: a removal. Directions are removed one after another until the displacement is reached, the last
  one in part. More directions are touched, which works against the claim; and where the class subspace holds nearly all
  variance, so must any removal of equal variance: the two are then nearly one subspace, as `Removal.overlap` says, and
  no difference between them can be seen. Read it where the overlap is small, the other where it is not.

D width, K dimensions removed, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.activations.edits import Edit
from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.equivalence.passes import check_positions, check_rows
from heldout.errors import ProxyError
from heldout.evidence import Origin

SUPPORT = 1e-12  # share of the largest eigenvalue below which a direction holds no activation
RANK = 1e-6  # share of the largest singular value below which centroids do not differ, above float32's rounding
DRAWS = 20


@dataclass(frozen=True, eq=False)
class Removal:
    """x -> x - B diag(w) B^T (x - m): `basis` B (D, K) orthonormal, `weights` w (K,), 1 to remove, `centre` m (D,)."""

    basis: Tensor
    weights: Tensor
    centre: Tensor

    @property
    def rank(self) -> int:
        return len(self.weights)

    def reconstruct(self, x: Tensor) -> Tensor:
        """(N, D) with the deviation in the subspace removed."""
        basis, weights, centre = self.basis.to(x), self.weights.to(x), self.centre.to(x)
        return x - (((x - centre) @ basis) * weights) @ basis.T

    def displacement(self, moments: Moments) -> float:
        """Mean squared length of what is removed, over the rows of `moments` (which `centre` is the mean of)."""
        covariance = moments.scatter().cpu() / moments.count
        return float(((self.basis.T @ covariance * self.basis.T).sum(dim=1) * self.weights**2).sum())

    def overlap(self, other: Removal) -> float:
        """The share of this subspace's dimensions that lies in the other's, 0 to 1: the mean squared cosine."""
        return float((self.basis.T @ other.basis).square().sum()) / self.rank

    def edit(self, site: str, positions: Sequence[int], length: int, origin: Origin) -> Edit:
        """The removal at some positions of sequences of `length`; the others keep their rows."""
        check_positions(positions, length)
        at = list(positions)

        def function(rows: Tensor, mask: Tensor | None) -> Tensor:
            check_rows(rows, length, site)
            new = rows.clone()
            new[:, at] = self.reconstruct(rows[:, at])
            return new

        return Edit({site: function}, origin)


def class_removal(centroids: Centroids, moments: Moments) -> Removal:
    """The subspace of the class centroids; K is their rank, at most C - 1. Classes weigh as they have rows.

    `moments` are of the same rows. Centroids of finitely many rows never coincide exactly: where classes do not differ,
    their sampling error spans it and follows the activations' largest directions (see `Centroids.adjusted_share`).
    Raises `ProxyError` where all centroids coincide.
    """
    assert_same(centroids, moments)
    weighted = centroids.deviations * centroids.counts.double().sqrt()[:, None]
    _, sizes, directions = torch.linalg.svd(weighted, full_matrices=False)
    spread = math.sqrt(float(moments.scatter().trace()))
    if float(sizes[0]) <= RANK * spread:
        raise ProxyError("all class centroids coincide: there is no class subspace to remove")
    rank = min(int((sizes > RANK * sizes[0]).sum()), int((centroids.counts > 0).sum()) - 1)
    return Removal(directions[:rank].T.contiguous(), torch.ones(rank, dtype=torch.float64), centroids.grand_mean)


def random_equal_variance(moments: Moments, target: float, *, seed: int) -> Removal:
    """Random directions, removed until the displacement on `moments` is `target`, the last one in part.

    Raises `ProxyError` where `target` exceeds all there is.
    """
    covariance, mean, basis = _haar(moments, seed)
    variances = (basis.T @ covariance * basis.T).sum(dim=1)
    held = variances.cumsum(0)
    if not 0 < target <= float(held[-1]) * (1 + 1e-9):
        raise ProxyError(
            f"a displacement of {target:.6g} cannot be removed: the activations' variance is {held[-1]:.6g}"
        )
    rank = min(int((held < target).sum()) + 1, len(held))
    before = float(held[rank - 1] - variances[rank - 1])
    weights = torch.ones(rank, dtype=torch.float64)
    weights[-1] = math.sqrt(min(1.0, max(0.0, target - before) / float(variances[rank - 1])))
    return Removal(basis[:, :rank], weights, mean)


def random_equal_rank(moments: Moments, target: float, rank: int, *, seed: int) -> Removal:
    """`rank` random directions, the deviation in them scaled so that the displacement on `moments` is `target`.

    A weight above 1 overshoots the mean: it is as large a push along as few directions, no longer a removal.
    """
    covariance, mean, basis = _haar(moments, seed)
    if not 1 <= rank <= basis.shape[1]:
        raise ProxyError(f"a rank of {rank}; the activations span {basis.shape[1]} dimensions")
    chosen = basis[:, :rank]
    held = float((chosen.T @ covariance * chosen.T).sum())
    return Removal(chosen, torch.full((rank,), math.sqrt(target / held), dtype=torch.float64), mean)


def assert_same(centroids: Centroids, moments: Moments) -> None:
    """Raise `ProxyError` where centroids and moments were not made of as many rows of one width."""
    if (
        moments.mean is None
        or int(centroids.counts.sum()) != moments.count
        or len(moments.mean) != centroids.means.shape[1]
    ):
        raise ProxyError(
            f"centroids of {int(centroids.counts.sum())} rows and moments of {moments.count}: "
            "accumulate both over the same rows"
        )


def _haar(moments: Moments, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance (D, D), mean (D,), and an orthonormal basis (D, R) of the activations' span, uniformly turned."""
    covariance = moments.scatter().cpu() / moments.count
    assert moments.mean is not None
    values, vectors = torch.linalg.eigh(covariance)
    span = vectors[:, values > SUPPORT * values[-1]]
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(span.shape[1], span.shape[1], generator=generator, dtype=torch.float64))
    return covariance, moments.mean.cpu(), span @ (q * r.diagonal().sign())  # uniform: Mezzadri (2007)
