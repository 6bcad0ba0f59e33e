"""Principal components: which of them hold a feature, and with how few of them do the network's decisions survive?

With eigenvalues l_k, sum_k l_k r^2(PC_k, f) / sum_k l_k is the pooled R^2 of f on the rows the components were fitted to.
That a feature sits in small components does not show that it matters little: `survival` asks the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.features.decisions import Decide, as_labels, decided
from heldout.analyses.features.moments import JointMoments
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Origin
from heldout.proxies.svd import SVD

Floats = NDArray[np.float64]

KEPT = 0.95  # of the full network's accuracy


def components(fit: JointMoments) -> SVD:
    """The principal components of the activations behind `fit`, all ranks at once."""
    return SVD(centred=True).fit_moments(fit.activations())


def component_r2(pca: SVD, moments: JointMoments, columns: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Variance of each component in the rows behind `moments` (K,), and the share of it that the columns explain (K,), in
    sample; NaN where a component does not vary."""
    directions = _directions(pca)
    spread = np.einsum("kd,de,ke->k", directions, moments.xx, directions, optimize=True)
    bb, bx = moments.bb[np.ix_(columns, columns)], moments.bx[columns] @ directions.T
    explained = (bx * (np.linalg.pinv(bb, hermitian=True) @ bx)).sum(axis=0)
    # Below rounding of the largest, variance and covariance are both noise.
    varies = spread > len(spread) * np.finfo(float).eps * spread.max()
    with np.errstate(invalid="ignore", divide="ignore"):
        return spread, np.where(varies, explained / spread, np.nan)


def effective_dimension(variances: ArrayLike) -> float:
    """(sum l)^2 / sum l^2 of the components' variances: between 1 and their number."""
    spread = np.asarray(variances, dtype=np.float64)
    squares = float((spread**2).sum())
    if squares <= 0:
        raise StatisticsError("the activations do not vary: they have no dimension")
    return float(spread.sum()) ** 2 / squares


def top_components(site: str | Site, pca: SVD, rank: int, *, fit_split: str) -> Edit:
    """Replaces rows at `site` by their reconstruction from the `rank` largest components."""
    return Edit.from_proxy(site, pca.at(rank), Origin("pca", fit_split=fit_split, parameter=rank))


@dataclass(frozen=True, eq=False)
class Survival:
    """Accuracy of each feature with the top k components alone: `accuracy` (K, F) at `ranks` (K,), `full` (F,) with none
    removed."""

    names: tuple[str, ...]
    ranks: tuple[int, ...]
    accuracy: Floats
    full: Floats
    n: int

    def k95(self, name: str) -> int | None:
        """The smallest listed rank from which on accuracy stays at 95% of the full network's; None where none does.

        For a feature that the full network does not compute it says nothing: look at `full`.
        """
        if name not in self.names:
            raise ConfigError(f"no feature {name!r}; there are {', '.join(self.names)}")
        at = self.names.index(name)
        below = np.flatnonzero(self.accuracy[:, at] < KEPT * self.full[at])
        first = int(below[-1]) + 1 if len(below) else 0
        return self.ranks[first] if first < len(self.ranks) else None


def survival(
    decide: Decide, rows: Tensor, labels: ArrayLike, names: Sequence[str], pca: SVD, ranks: Sequence[int]
) -> Survival:
    """Decisions on rows (n, D), of labels (n, F), from reconstructions by the top components, at increasing `ranks`."""
    if list(ranks) != sorted(set(ranks)) or not ranks:
        raise ConfigError(f"ranks must increase and not be empty; got {list(ranks)}")
    known = as_labels(labels, len(rows), names)
    full = (decided(decide, rows, names) == known).mean(axis=0)
    cut = [(decided(decide, pca.at(k).reconstruct(rows), names) == known).mean(axis=0) for k in ranks]
    return Survival(tuple(names), tuple(ranks), np.array(cut), full, len(rows))


def _directions(pca: SVD) -> Floats:
    if pca.components_ is None:
        raise StatisticsError("components were not fitted; call components(fit)")
    directions: Floats = pca.components_.numpy()
    return directions
