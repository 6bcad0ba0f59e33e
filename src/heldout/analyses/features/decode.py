"""Decodability: how well a linear probe reads a label, by nested cross-validation, less what it reads of a control task.

An L2-regularised logistic regression on standardised activations; its strength is chosen on inner folds, its accuracy
counted on outer ones, so that no row has a say in its own probe. High accuracy shows that the label *can* be read
there, not that the network does; an untrained network and the inputs themselves are decoded beside (call this on
theirs), since a random layer already lets much be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.intervals import Ratio, group_codes, ratio_interval
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, the inverse of the penalty's weight, as in scikit-learn
OUTER, INNER = 5, 3
MAX_CLASSES = 64


@dataclass(frozen=True, eq=False)
class Decoded:
    """`accuracy` over held-out rows, the `majority` class's share, accuracy on the `control` task, and `selectivity`, their
    paired difference. `strengths`: C chosen in each outer fold. `right` (n,): which rows were read rightly."""

    accuracy: Ratio
    majority: float
    control: Ratio
    selectivity: Ratio
    strengths: tuple[float, ...]
    right: NDArray[np.bool_]


def decode(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    types: ArrayLike | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Decoded:
    """Read classes `labels` (n,) from activations `x` (n, D).

    - `groups`: (n,) clusters that stay on one side of every fold, and that intervals are over.
    - `types`: (n,) what the control task gives a random label of its own, at the label's frequencies (Hewitt and Liang
      2019): a word, an input pattern. A probe that reads it has memorised types, not a feature. None gives each row one,
      which no held-out row can reveal: the control is then chance, and shows only that folds do not leak.
    """
    rows, classes = checked_classes(x, labels)
    clusters = None if groups is None else group_codes(groups, len(rows))
    rng = np.random.default_rng(seed)
    right, chosen = _nested(rows, classes, clusters, strengths, rng)
    control, _ = _nested(rows, control_labels(classes, types, rng), clusters, strengths, rng)
    ones = np.ones(len(rows))
    return Decoded(
        accuracy=ratio_interval(right, ones, groups),
        majority=float(np.bincount(classes).max()) / len(classes),
        control=ratio_interval(control, ones, groups),
        selectivity=ratio_interval(right.astype(float) - control, ones, groups),
        strengths=chosen,
        right=right,
    )


def control_labels(classes: NDArray[np.intp], types: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """(n,) random labels, one a type: the label's values dealt out anew, so that types of equal size keep its entropy."""
    if types is None:
        return rng.permutation(classes)
    names, codes = np.unique(np.asarray(types), return_inverse=True)
    if codes.shape != classes.shape:
        raise ConfigError(f"types have shape {np.shape(types)}; {classes.shape} was expected, one a row")
    share = np.bincount(classes) / len(classes)
    if len(names) < len(share):
        raise StatisticsError(f"{len(names)} types cannot carry {len(share)} random labels; give finer types, or none")
    # As many types for each class as its share asks, at least one, in random order.
    count = np.maximum(np.floor(share * len(names)).astype(np.intp), 1)
    while count.sum() > len(names):
        count[count.argmax()] -= 1
    while count.sum() < len(names):
        count[(share * len(names) - count).argmax()] += 1
    dealt = rng.permutation(np.repeat(np.arange(len(share)), count))
    return np.asarray(dealt[codes], dtype=np.intp)


def probe(strengths: Sequence[float], folds: Any) -> Any:
    """Standardise, then logistic regression with C chosen by accuracy on `folds`; the most regularised of equals."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return GridSearchCV(model, {"logisticregression__C": sorted(strengths)}, cv=folds, scoring="accuracy")


def _nested(
    x: NDArray[np.float64],
    classes: NDArray[np.intp],
    clusters: NDArray[np.intp] | None,
    strengths: Sequence[float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    right, chosen = np.zeros(len(x), dtype=bool), []
    outer, inner = (_folds(k, clusters is not None, rng) for k in (OUTER, INNER))
    for train, test in outer.split(x, classes, clusters):
        part = None if clusters is None else clusters[train]
        if len(np.unique(classes[train])) < 2:
            raise StatisticsError("a fold has one class only: the label hardly varies between groups; give more groups")
        model = probe(strengths, list(inner.split(x[train], classes[train], part))).fit(x[train], classes[train])
        right[test] = model.predict(x[test]) == classes[test]
        chosen.append(float(model.best_params_["logisticregression__C"]))
    return right, tuple(chosen)


def _folds(k: int, grouped: bool, rng: np.random.Generator) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    return kind(k, shuffle=True, random_state=int(rng.integers(2**31)))


def checked_classes(x: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Activations (n, D) as float64 and labels (n,) as numbers of their classes, with enough rows of each for a probe."""
    rows, values = np.asarray(x, dtype=np.float64), np.asarray(labels)
    if rows.ndim != 2 or values.shape != rows.shape[:1]:
        raise ConfigError(f"activations (n, D) and labels (n,) are needed; got {rows.shape} and {values.shape}")
    if not np.isfinite(rows).all():
        raise NonFiniteError("activations are NaN or infinite; finite numbers are needed")
    names, classes, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise StatisticsError(f"the label is constant ({names[0].item()!r}): there is nothing to decode")
    if len(names) > MAX_CLASSES:
        raise ConfigError(f"the label has {len(names)} values; a probe reads up to {MAX_CLASSES} classes: bin it")
    if sizes.min() < OUTER * 2:
        raise StatisticsError(
            f"class {names[sizes.argmin()].item()!r} has {sizes.min()} rows; nested folds need {OUTER * 2} of each class"
        )
    return rows, classes.astype(np.intp)
