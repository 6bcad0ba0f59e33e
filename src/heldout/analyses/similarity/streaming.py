"""Linear CKA, debiased or not, of more stimuli than memory holds: from moments that merge.

Debiasing needs sums of k_i l_i, the squared distances of stimulus i to the *final* means. With x measured from a fixed
origin, k = |x|^2 - 2 m^T x + |m|^2 is linear in (x, |x|^2): so the moments of rows (x, |x|^2, y, |y|^2) hold all that is
needed, and the mean m may come last.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.analyses.similarity.checks import Floats, pair
from heldout.analyses.similarity.cka import LEAST, debias, ratio
from heldout.errors import StatisticsError


class CKAStream:
    """Linear CKA of two networks, chunk by chunk; memory (Dx + Dy)^2.

    `origin`: points (Dx,) and (Dy,) near the means of the activations; by default the means of the first chunk. Shards that
    are to be merged must share it.
    """

    def __init__(self, origin: tuple[ArrayLike, ArrayLike] | None = None) -> None:
        self.origin = None if origin is None else tuple(np.asarray(o, dtype=np.float64) for o in origin)
        self.moments = Moments()

    def update(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> None:
        """Activations (n, Dx) and (n, Dy) of further stimuli."""
        a, b = pair(x, y, least=1)
        if self.origin is None:
            self.origin = (a.mean(axis=0), b.mean(axis=0))
        if (a.shape[1], b.shape[1]) != tuple(len(o) for o in self.origin):
            raise StatisticsError(
                f"activations of {a.shape[1]} and {b.shape[1]} units cannot join those of "
                f"{' and '.join(str(len(o)) for o in self.origin)}"
            )
        sides = [v - o for v, o in zip((a, b), self.origin, strict=True)]
        rows = np.concatenate([part for v in sides for part in (v, (v * v).sum(axis=1, keepdims=True))], axis=1)
        self.moments.update(torch.from_numpy(rows))

    def merge(self, other: CKAStream) -> None:
        """Add the stimuli of another stream; `StatisticsError` where its origin is another."""
        if other.origin is None:
            return
        if self.origin is None:
            self.origin = other.origin
        if not all(np.array_equal(a, b) for a, b in zip(self.origin, other.origin, strict=True)):
            raise StatisticsError("streams of different origins do not merge; give all the same `origin`")
        self.moments.merge(other.moments)

    def cka(self, *, debiased: bool = True) -> float:
        """As `heldout.analyses.similarity.cka.cka` of all stimuli so far."""
        n, least = self.moments.count, LEAST if debiased else 3
        if self.origin is None or self.moments.mean is None or n < least:
            raise StatisticsError(f"CKA of {n} stimuli says nothing; at least {least} are needed")
        scatter, mean = self.moments.scatter().numpy(), self.moments.mean.numpy()
        at = len(self.origin[0]) + 1
        sides = (slice(0, at), slice(at, None))
        products = [
            float((scatter[u, v][:-1, :-1] ** 2).sum()) for u, v in ((sides[0], sides[1]), *((s, s) for s in sides))
        ]
        if not debiased:
            return ratio(*products)
        weights, totals = zip(*(_distances(mean[side], n) for side in sides), strict=True)
        dots = [
            float(weights[i] @ scatter[sides[i], sides[j]] @ weights[j]) + totals[i] * totals[j] / n
            for i, j in ((0, 1), (0, 0), (1, 1))
        ]
        return ratio(*debias(products, dots, totals, n))


def _distances(mean: Floats, n: int) -> tuple[Floats, float]:
    """Weights of (x, |x|^2) in the squared distance to the mean, and the sum of these distances."""
    m = mean[:-1]
    return np.append(-2 * m, 1.0), n * float(mean[-1] - m @ m)
