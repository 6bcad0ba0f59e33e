"""Procrustes similarity: how well one set of activations becomes the other by a rotation and one scale.

With columns centred, the best rotation leaves cos(theta) = |X^T Y|_* / (|X| |Y|), nuclear over Frobenius norms. The angle
theta is the angular Procrustes distance, a metric on representations up to shift, scale and rotation (Williams et al. 2021,
arXiv 2110.14739). The cosine is never negative and, like biased CKA, is high by chance alone with few stimuli and many
units: judge it beside its permutation null.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.checks import Floats, centred, pair

LEAST = 3  # two centred stimuli are one line each, and any two lines match


def procrustes(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """The cosine of the angular Procrustes distance, 0 to 1, of `x` (N, Dx) and `y` (N, Dy); widths may differ."""
    a, b = pair(x, y, least=LEAST)
    u, v = (_narrow(centred(rows, name)) for rows, name in ((a, "x"), (b, "y")))
    nuclear = float(np.linalg.svd(u.T @ v, compute_uv=False).sum())
    return float(np.clip(nuclear / (np.linalg.norm(u) * np.linalg.norm(v)), 0, 1))


def angular_distance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """The angular Procrustes distance in radians, 0 to pi / 2. Near 0 it is good to about 1e-8, as arc cosines are."""
    return math.acos(procrustes(x, y))


def _narrow(rows: Floats) -> Floats:
    """The same geometry in at most N columns: a rotation of the units, which Procrustes does not see."""
    n, d = rows.shape
    if d <= n:
        return rows
    _, r = np.linalg.qr(rows.T)
    return r.T
