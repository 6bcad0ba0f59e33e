"""Linear centred kernel alignment (CKA; Kornblith et al. 2019, arXiv 1905.00414), debiased by default.

With columns centred, CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), HSIC being the sum of products of the two Gram
matrices. The diagonals of the Grams, which know of no second stimulus, are part of that sum: with few stimuli and many
units even unrelated activations score near 1 (see `chance`). The debiased form puts the unbiased estimator of Song et al.
(2012, JMLR 13, equation 5) in place of each HSIC (Nguyen et al. 2021, arXiv 2010.15327; Murphy et al. 2024, arXiv
2405.01012). Each HSIC is then unbiased; their ratio nearly so. It lies between -1 and 1 and is 0 on average, over the
pairings of stimuli, for unrelated activations.

Both are invariant to rotations, to one scale and to a shift of either side; not to the scales of single units. Neither
shows that two networks compute alike: a few directions of large variance decide the figure.

With k_i = |x_i|^2 and l_i = |y_i|^2 of centred rows, Song's sums over Gram matrices without their diagonals become

    n (n - 3) HSIC = |X^T Y|^2 - n / (n - 2) sum k_i l_i + sum k_i sum l_i / ((n - 1) (n - 2)),

so that no (N, N) matrix is formed where the units are fewer than the stimuli.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.checks import FLAT, Floats, centred, pair
from heldout.errors import StatisticsError

LEAST = 4  # n (n - 3) divides the debiased estimator


def cka(x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, debiased: bool = True) -> float:
    """Linear CKA of activations `x` (N, Dx) and `y` (N, Dy) of the same N >= 4 stimuli (3 for the biased form).

    Through the units, O(N D^2), or through the Gram matrices, O(N^2 D), whichever is cheaper; the figure is the same.
    """
    a, b = pair(x, y, least=LEAST if debiased else 3)
    return ratio(*hsics(centred(a), centred(b, "y"), debiased=debiased))


def chance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """The mean of the *biased* CKA over all pairings of the stimuli of `x` with those of `y`: what no relation scores.

    tr K tr L / ((n - 1) |K| |L|) with centred Gram matrices K and L; about D / (D + N) for unrelated white noise of D units
    a side. The mean of the debiased one is 0.
    """
    a, b = (centred(v, name) for v, name in zip(pair(x, y, least=3), "xy", strict=True))
    n, norms = len(a), [math.sqrt(cross_square(v, v)) for v in (a, b)]
    return float((a * a).sum() * (b * b).sum()) / ((n - 1) * norms[0] * norms[1])


def hsics(x: Floats, y: Floats, *, debiased: bool) -> tuple[float, float, float]:
    """HSIC(X, Y), HSIC(X, X) and HSIC(Y, Y) of centred rows, up to one factor common to all."""
    n, p, q = len(x), x.shape[1], y.shape[1]
    if n * (p + q) < p * p + q * q + p * q:
        gram_x, gram_y = x @ x.T, y @ y.T
        xy, xx, yy = (float(np.vdot(u, v)) for u, v in ((gram_x, gram_y), (gram_x, gram_x), (gram_y, gram_y)))
    else:
        xy, xx, yy = cross_square(x, y), cross_square(x, x), cross_square(y, y)
    if not debiased:
        return xy, xx, yy
    k, l = (np.einsum("nd,nd->n", v, v) for v in (x, y))  # noqa: E741 - as in the formula
    dots = (float(k @ l), float(k @ k), float(l @ l))
    return debias((xy, xx, yy), dots, (float(k.sum()), float(l.sum())), n)


def debias(
    products: Sequence[float], dots: Sequence[float], totals: Sequence[float], n: int
) -> tuple[float, float, float]:
    """Debiased HSICs from the biased ones; `dots`: sum k l, sum k k, sum l l; `totals`: sum k, sum l."""
    (xy, xx, yy), (kl, kk, ll), (k, l) = products, dots, totals  # noqa: E741
    return xy - own(kl, k, l, n), _positive(xx - own(kk, k, k, n), xx), _positive(yy - own(ll, l, l, n), yy)


def own(kl: float, k: float, l: float, n: int) -> float:  # noqa: E741
    """What the diagonals k and l of two Gram matrices put into their product: from sum k l, sum k, sum l."""
    return n / (n - 2) * kl - k * l / ((n - 1) * (n - 2))


def ratio(xy: float, xx: float, yy: float) -> float:
    """CKA from the three HSICs; `StatisticsError` where one side's own is 0: its stimuli are equally far apart."""
    if xx <= 0 or yy <= 0:
        raise StatisticsError(
            f"CKA is undefined: {'x' if xx <= 0 else 'y'}'s stimuli are all equally far apart (or the same), so no "
            "relation of distances can be seen; use other or more stimuli"
        )
    return float(np.clip(xy / math.sqrt(xx) / math.sqrt(yy), -1, 1))


def _positive(debiased: float, biased: float) -> float:
    """A sum of squares, where it is more than rounding."""
    return debiased if debiased > FLAT * biased else 0.0


def cross_square(x: Floats, y: Floats) -> float:
    """|X^T Y|^2, through whichever product is smaller."""
    n, p, q = len(x), x.shape[1], y.shape[1]
    if p * q <= n * n:
        product = x.T @ y
        return float(np.vdot(product, product))
    return float(np.vdot(x @ x.T, y @ y.T))
