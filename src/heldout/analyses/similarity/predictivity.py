"""Linear predictivity: how much of one set of activations a linear map from the other predicts on held-out stimuli.

It has a direction: x may predict y while y does not predict x. It is invariant to invertible linear maps of x only as far
as the penalty allows, and to rotations and one scale of y; units of y count by their variance. High predictivity shows
that y's large variance is linearly contained in x, not that x is like y: more units predict more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.checks import Floats, pair
from heldout.errors import ConfigError, StatisticsError

LEAST = 10  # five folds of two, trained on eight
PENALTIES = 10.0 ** np.arange(-10, 7)  # as shares of the mean squared singular value of the training rows


def predictivity(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    folds: int = 5,
    seed: int = 0,
    groups: ArrayLike | None = None,
    penalties: ArrayLike = PENALTIES,
) -> float:
    """Held-out pooled R^2 of `y` (N, Dy) from `x` (N, Dx) by ridge regression: 1 - sum |error|^2 / sum |y - mean|^2.

    At most 1, below 0 where the map predicts worse than the training mean; never clipped. Each fold's map and mean come from
    the other folds alone, and so does its one penalty, by their leave-one-out error.

    - `groups`: (N,) labels of stimuli that belong together (views of one object, tokens of one sentence) and so in one fold.
    - `penalties`: to choose from, as shares of the mean squared singular value of the centred training rows.
    """
    a, b = pair(x, y, least=LEAST)
    shares = np.asarray(penalties, dtype=np.float64)
    if shares.ndim != 1 or not len(shares) or not (shares > 0).all():
        raise ConfigError(f"penalties must be a row of positive numbers; got {penalties!r}")
    error = total = 0.0
    for held in fold_rows(len(a), folds, seed, groups):
        predicted, mean = _ridge(np.delete(a, held, axis=0), np.delete(b, held, axis=0), a[held], shares)
        error += float(((b[held] - predicted) ** 2).sum())
        total += float(((b[held] - mean) ** 2).sum())
    if total <= 0:
        raise StatisticsError("y is the same for every stimulus: there is nothing to predict")
    return 1 - error / total


def fold_rows(n: int, folds: int, seed: int, groups: ArrayLike | None = None) -> list[np.ndarray]:
    """The held-out rows of each fold: whole groups, shuffled by `seed`, as equal in number of groups as can be."""
    labels = np.arange(n) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise ConfigError(f"groups must hold one label for each of {n} stimuli; got shape {labels.shape}")
    _, code = np.unique(labels, return_inverse=True)
    count = int(code.max()) + 1
    if not 2 <= folds <= count:
        raise ConfigError(f"folds must be between 2 and the number of groups, {count}; got {folds}")
    fold_of = np.random.default_rng(seed).permutation(count) % folds
    return [np.flatnonzero(fold_of[code] == f) for f in range(folds)]


def _ridge(x: Floats, y: Floats, new: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Predictions for rows `new`, and the mean of `y`; the penalty has the least leave-one-out error on (x, y)."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    u, s, vt = np.linalg.svd(x - mean_x, full_matrices=False)
    if not s[0] > 0:  # x does not vary here: only the mean is left to predict with
        return np.broadcast_to(mean_y, (len(new), y.shape[1])), mean_y
    uy, centred_y = u.T @ (y - mean_y), y - mean_y
    unit = float((s * s).mean())
    losses = []
    for share in shares:
        kept = s * s / (s * s + share * unit)
        leverage = 1 / len(x) + (u * u) @ kept
        loo = (centred_y - u @ (kept[:, None] * uy)) / np.maximum(1 - leverage, 1e-12)[:, None]
        losses.append(float((loo * loo).sum()))
    penalty = float(shares[int(np.argmin(losses))]) * unit
    weights = vt.T @ ((s / (s * s + penalty))[:, None] * uy)
    return mean_y + (new - mean_x) @ weights, mean_y
