"""Reliance: of two features that predict a label equally well, which one does a linear classifier use?

It is trained on activations of items whose label agrees with feature a at one rate and with feature b at another (1 and 1:
the two always agree), and tested where they disagree: reliance on a is the share of those items that are labelled as a
says, chance .5. That says what a regularised linear readout *would* lean on, not what the network's own readout does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.features.decode import INNER, STRENGTHS, probe
from heldout.analyses.features.intervals import Ratio, ratio_interval
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

Bits = NDArray[np.int64]

GRID = ((1.0, 1.0), (0.95, 0.95), (0.9, 1.0))  # rates at which the label agrees with a and with b
MIN_ITEMS = 20


@dataclass(frozen=True, eq=False)
class Reliance:
    """`on_first`: P(decided as a says | a and b disagree) with its interval, NaN with a reason where it cannot be had.

    `accuracy`: on test items where both agree, the classifier's check. `strength`: C as chosen. `trained` items.
    """

    predictivity: tuple[float, float]
    on_first: Ratio
    accuracy: float
    strength: float
    trained: int


def reliance(
    fit: tuple[ArrayLike | Tensor, ArrayLike],
    test: tuple[ArrayLike | Tensor, ArrayLike],
    *,
    predictivity: tuple[float, float] = (1.0, 1.0),
    seed: int,
    groups: ArrayLike | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Reliance:
    """`fit`, `test`: activations (n, D) and the two features (n, 2), 0 or 1, of each split; `groups` (n,) of the test split.

    C is chosen by cross-validation on the training items.
    """
    from sklearn.model_selection import StratifiedKFold

    x, f = _checked(*fit)
    there, g = _checked(*test)
    rng = np.random.default_rng(seed)
    items, label = training_items(f, predictivity, rng)
    folds = StratifiedKFold(INNER, shuffle=True, random_state=int(rng.integers(2**31)))
    model = probe(strengths, folds).fit(x[items], label)
    said = model.predict(there)
    apart = g[:, 0] != g[:, 1]
    n = int(apart.sum())
    if n < MIN_ITEMS:
        why = f"the two features disagree in {n} test items; {MIN_ITEMS} are needed"
        on_first = Ratio(np.nan, np.nan, np.nan, np.nan, n, why)
    else:
        # Over all rows, weight 0 where the features agree: a cluster need not have two that disagree.
        on_first = ratio_interval(apart & (said == g[:, 0]), apart, groups)
    together = ~apart
    right = float((said == g[:, 0])[together].mean()) if together.any() else float("nan")
    strength = float(model.best_params_["logisticregression__C"])
    return Reliance(predictivity, on_first, right, strength, len(items))


def training_items(
    features: Bits, predictivity: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.intp], Bits]:
    """Item numbers (m,) and their labels (m,): half 0, half 1, agreeing with the two features at the rates asked for,
    independently; no item twice, and as many as the scarcest combination allows."""
    a, b = predictivity
    if not (0 <= a <= 1 and 0 <= b <= 1):
        raise ConfigError(f"predictivities are rates from 0 to 1; got {predictivity}")
    pools = {(i, j): rng.permutation(np.flatnonzero((features == (i, j)).all(axis=1))) for i in (0, 1) for j in (0, 1)}
    # Share of all items that have label y and feature values (i, j).
    share = {
        (y, i, j): 0.5 * (a if i == y else 1 - a) * (b if j == y else 1 - b)
        for y in (0, 1)
        for i in (0, 1)
        for j in (0, 1)
    }
    asked = {cell: share[0, *cell] + share[1, *cell] for cell in pools}
    size = min(len(pools[cell]) / s for cell, s in asked.items() if s > 0)
    items, labels = [], []
    for (i, j), pool in pools.items():
        start = 0
        for y in (0, 1):
            stop = start + int(share[y, i, j] * size + 1e-9)
            items.append(pool[start:stop])
            labels.append(np.full(stop - start, y))
            start = stop
    chosen, label = np.concatenate(items), np.concatenate(labels)
    if len(chosen) < MIN_ITEMS or min(np.bincount(label, minlength=2)) < INNER:
        raise StatisticsError(
            f"only {len(chosen)} items have the combinations of the two features that predictivities {predictivity} ask "
            f"for; {MIN_ITEMS} are needed"
        )
    return chosen, label


def _checked(x: ArrayLike | Tensor, features: ArrayLike) -> tuple[NDArray[np.float64], Bits]:
    rows, f = np.asarray(x, dtype=np.float64), np.asarray(features)
    if rows.ndim != 2 or f.shape != (len(rows), 2) or not np.isin(f, (0, 1)).all():
        raise ConfigError(
            f"activations (n, D) and two features (n, 2) of 0 and 1 are needed; got {rows.shape} and {f.shape}"
        )
    if not np.isfinite(rows).all():
        raise NonFiniteError("activations are NaN or infinite; finite numbers are needed")
    return rows, f.astype(np.int64)
