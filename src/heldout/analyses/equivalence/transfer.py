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


class Probe:
    """A probe fitted once on (N, D) activations and labels, with `shuffles` fitted to permuted labels beside it.

    Raises `StatisticsError` where the label does not vary among the rows of the fit.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, *, rng: np.random.Generator, shuffles: int = 5) -> None:
        if len(np.unique(labels)) < 2:
            raise StatisticsError(
                f"the label is {labels[0]} in all {len(labels)} rows that a probe would be fitted on; what varies only out "
                "of distribution is read by crossed_values, which is declared an oracle"
            )
        if shuffles < 1:
            raise ConfigError(f"a probe needs at least one shuffled control; got {shuffles}")
        self._model = _fitted(rows, labels)
        self._shuffled = [_fitted(rows, rng.permutation(labels)) for _ in range(shuffles)]

    def values(self, rows: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Additive measures of each tested row.

        - ``correct``: 0 or 1. It shows that the label can be read there linearly, not that the network reads it.
        - ``shuffled``: the mean over the shuffled probes, 0 to 1: what this many parameters reach without any relation.
        - ``majority``: 0 or 1, the row has the most frequent label of the *tested* rows: no constant answer does better.
        """
        kinds, counts = np.unique(labels, return_counts=True)
        return {
            "correct": (self._model.predict(rows) == labels).astype(np.float64),
            "shuffled": np.mean([model.predict(rows) == labels for model in self._shuffled], axis=0),
            "majority": (labels == kinds[counts.argmax()]).astype(np.float64),
        }


def crossed_values(
    rows: np.ndarray, labels: np.ndarray, units: np.ndarray, *, rng: np.random.Generator, shuffles: int = 5
) -> dict[str, np.ndarray]:
    """`Probe.values` of each row from a probe fitted on the other half of the units; an oracle where the split is a test.

    ``majority`` is then the most frequent label of the row's own half.
    """
    kinds = np.unique(units)
    if len(kinds) < 2:
        raise StatisticsError(f"two halves need at least two units; got {len(kinds)}")
    first = np.isin(units, rng.permutation(kinds)[: len(kinds) // 2])
    found: dict[str, np.ndarray] = {}
    for half in (first, ~first):
        part = Probe(rows[~half], labels[~half], rng=rng, shuffles=shuffles).values(rows[half], labels[half])
        for name, values in part.items():
            found.setdefault(name, np.empty(len(rows)))[half] = values
    return found


def probe_origin(site: str, label: str, fit_split: str, *, oracle: bool = False) -> Origin:
    """The record under which a probe's scores are kept: ``probe.carry``, with ``-oracle`` behind it where it is one."""
    return Origin(f"probe.{label}", site, fit_split=fit_split, oracle=oracle, settings={"floor": FLOOR})


def _fitted(rows: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    covariance = _Floored(FLOOR * float(np.var(rows, axis=0).mean()))
    return LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance).fit(rows, labels)


class _Floored:
    """A class's covariance with a floor on every direction, so that classes without spread of their own can be told
    apart; in the shape that scikit-learn asks of a covariance estimator."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.covariance_: Any = None

    def fit(self, x: np.ndarray) -> Self:
        self.covariance_ = np.atleast_2d(np.cov(x, rowvar=False, bias=True)) + self.floor * np.eye(x.shape[1])
        return self
