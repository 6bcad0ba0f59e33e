"""The full 2^q decomposition: main effects, every interaction and the rest within cells, adding up to 1.

q binary labels make 2^q cells. All cells weigh alike, so that the effects are orthogonal however many rows each has: with
signs s_A = prod of s_f over f in A, s_f = -1 or 1, the effect of a set A of labels is a_A = mean over cells of s_A mu.
Held out, V gives a_A and its mean, and T is explained to the extent of 2 a_A(V) . a_A(T) - |a_A(V)|^2. With V = T that is
|a_A|^2, for one balanced label p (1 - p) |D|^2.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.features.moments import chunks
from heldout.errors import ConfigError, StatisticsError

MAX_FACTORS = 10
RESIDUAL: tuple[str, ...] = ()  # the key of what no function of the labels explains


def cell_moments(x: ArrayLike | Tensor, cells: NDArray[np.intp], count: int) -> Centroids:
    """Counts, means and scatter of each of `count` cells (see `Coding.cells`), from activations (n, D) in memory."""
    centroids = Centroids(count)
    for rows, part in chunks(x, cells[:, None]):
        centroids.update(rows, part[:, 0].long())
    return centroids


def factorial(fit: Centroids, test: Centroids, names: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """Set of labels -> share of T's variance about V's mean, cells balanced; `RESIDUAL` holds the rest. Sums to 1.

    `fit`, `test`: moments of the 2^q cells of `names`, the last label varying fastest, as `Coding.cells` numbers them.
    Single names are main effects. Shares are not clipped: an effect that is not there is about 0, and may be below.
    """
    q = len(names)
    if not 1 <= q <= MAX_FACTORS or len(fit.counts) != 2**q or len(test.counts) != 2**q:
        raise ConfigError(
            f"{q} binary labels have {2**q} cells (at most {MAX_FACTORS} labels); got {len(fit.counts)} and "
            f"{len(test.counts)} cells"
        )
    for which, centroids in (("fit", fit), ("test", test)):
        empty = np.flatnonzero((centroids.counts == 0).numpy())
        if len(empty):
            levels = " ".join(f"{n}={b}" for n, b in zip(names, np.binary_repr(empty[0], q), strict=True))
            raise StatisticsError(
                f"no rows of the {which} split have {levels}; the decomposition needs all {2**q} cells"
            )
    mean = fit.means.mean(dim=0)
    within = test.within / test.counts.double()
    total = float((within + (test.means - mean).square().sum(dim=1)).mean())
    if total <= 0:
        raise StatisticsError("the activations do not vary: there is no variance to decompose")
    signs = 2.0 * ((torch.arange(2**q)[:, None] >> torch.arange(q - 1, -1, -1)) & 1).double() - 1  # (cells, q)
    shares = {}
    for chosen in (c for k in range(1, q + 1) for c in combinations(range(q), k)):
        sign = signs[:, list(chosen)].prod(dim=1) / 2**q
        here, there = sign @ fit.means, sign @ test.means
        shares[tuple(names[i] for i in chosen)] = float(2 * here @ there - here @ here) / total
    shares[RESIDUAL] = 1 - sum(shares.values())
    return shares
