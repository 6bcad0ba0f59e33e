"""Probe transfer: what a linear probe reads in distribution, does it still read it out of distribution?

And of what the rule ignores: is it *erased*, or decodable but unused? An ignored digit never varies in distribution, so a
probe of it must be fitted on half of the out-of-distribution units and tested on the other half, then the other way round:
an oracle, and declared as one.

The probe is linear discriminant analysis: closed form, deterministic, and no settings to choose but a floor on the variance.
N rows, D features.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Origin

FLOOR = 1e-6  # of the mean variance of a feature, added to each: above float32's rounding, below a faint trace


def probe_values(
    fit_rows: np.ndarray,
    fit_labels: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    rng: np.random.Generator,
    shuffles: int = 5,
) -> dict[str, np.ndarray]:
    """A probe fitted on (N, D) activations and labels, tested on others: additive measures of each tested row.

    - ``correct``: 0 or 1. It shows that the label can be read there linearly, not that the network reads it.
    - ``shuffled``: the mean over `shuffles` probes fitted to permuted labels, 0 to 1: what this many parameters reach
      without any relation.
    - ``majority``: 0 or 1, the row has the most frequent label of the *tested* rows: no constant answer does better.

    Raises `StatisticsError` where the label does not vary among the rows of the fit.
    """
    if len(np.unique(fit_labels)) < 2:
        raise StatisticsError(
            f"the label is {fit_labels[0]} in all {len(fit_labels)} rows that a probe would be fitted on; what varies "
            "only out of distribution is read by crossed_values, which is declared an oracle"
        )
    if shuffles < 1:
        raise ConfigError(f"a probe needs at least one shuffled control; got {shuffles}")
    chance = [_predict(fit_rows, rng.permutation(fit_labels), rows) == labels for _ in range(shuffles)]
    kinds, counts = np.unique(labels, return_counts=True)
    return {
        "correct": (_predict(fit_rows, fit_labels, rows) == labels).astype(np.float64),
        "shuffled": np.mean(chance, axis=0),
        "majority": (labels == kinds[counts.argmax()]).astype(np.float64),
    }


def crossed_values(
    rows: np.ndarray, labels: np.ndarray, units: np.ndarray, *, rng: np.random.Generator, shuffles: int = 5
) -> dict[str, np.ndarray]:
    """`probe_values` of each row from a probe fitted on the other half of the units; an oracle where the split is a test.

    ``majority`` is then the most frequent label of the row's own half.
    """
    kinds = np.unique(units)
    if len(kinds) < 2:
        raise StatisticsError(f"two halves need at least two units; got {len(kinds)}")
    first = np.isin(units, rng.permutation(kinds)[: len(kinds) // 2])
    found: dict[str, np.ndarray] = {}
    for half in (first, ~first):
        part = probe_values(rows[~half], labels[~half], rows[half], labels[half], rng=rng, shuffles=shuffles)
        for name, values in part.items():
            found.setdefault(name, np.empty(len(rows)))[half] = values
    return found


def probe_origin(site: str, label: str, fit_split: str, *, oracle: bool = False) -> Origin:
    """The record under which a probe's scores are kept: ``probe.carry``, with ``-oracle`` behind it where it is one."""
    return Origin(f"probe.{label}", site, fit_split=fit_split, oracle=oracle, settings={"floor": FLOOR})


def _predict(fit_rows: np.ndarray, fit_labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    covariance = _Floored(FLOOR * float(np.var(fit_rows, axis=0).mean()))
    model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance).fit(fit_rows, fit_labels)
    predicted: np.ndarray = model.predict(rows)
    return predicted


class _Floored:
    """A class's covariance with a floor on every direction, so that classes without spread of their own can be told
    apart; in the shape that scikit-learn asks of a covariance estimator."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.covariance_: Any = None

    def fit(self, x: np.ndarray) -> Self:
        self.covariance_ = np.atleast_2d(np.cov(x, rowvar=False, bias=True)) + self.floor * np.eye(x.shape[1])
        return self
