"""The band in which variance explained moves under changes of the activations that leave the network's function as it is.

- *Gauge*: each unit times a positive number, its outgoing weights divided by it. Behind a ReLU that changes nothing; the
  numbers are drawn log-normally.
- *z-scored*: each unit divided by its standard deviation; *whitened*: activations times Sigma^(-1/2). The next layer's
  weights can absorb either. Sigma and deviations are those of the fit split; Sigma is shrunk towards a multiple of the
  identity (oracle-approximating shrinkage: Chen, Wiesel, Eldar and Hero 2010), without which the smallest directions are
  noise.
- *Before and after the nonlinearity*, where both are given.

The map transforms with the activations, so every figure follows from second moments: under x -> A x, R^2 = 1 - tr(A E A^T) /
tr(A T A^T), E and T being T's mean squares of residual and of total. A rotation changes nothing. With Sigma unshrunk and of
rank r, whatever one linear readout decodes without error explains 1 / r, loud or quiet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments
from heldout.analyses.features.variance import about, explained, fit_map
from heldout.errors import ConfigError, StatisticsError

Floats = NDArray[np.float64]

DRAWS = 100
SIGMA_LOG = 1.0
RANK = 1e-10  # eigenvalues below this share of the largest are taken for zero


@dataclass(frozen=True, eq=False)
class Band:
    """R^2 as measured (`raw`) and under each change; `gauge` (draws,); `elsewhere`: other place -> R^2 there.

    `low` and `high` are the least and the greatest of all; with more gauge draws they lie further apart, so their number
    belongs to the band.
    """

    raw: float
    zscored: float
    whitened: float
    gauge: Floats
    elsewhere: Mapping[str, float]
    shrinkage: float

    @property
    def _all(self) -> Floats:
        return np.concatenate([[self.raw, self.zscored, self.whitened], self.gauge, list(self.elsewhere.values())])

    @property
    def low(self) -> float:
        return float(self._all.min())

    @property
    def high(self) -> float:
        return float(self._all.max())


def band(fit: JointMoments, test: JointMoments, coding: Coding, name: str, *, seed: int, **settings: Any) -> Band:
    """The band of one label; `settings` as for `bands`."""
    return bands(fit, test, coding, seed=seed, names=[name], **settings)[name]


def bands(
    fit: JointMoments,
    test: JointMoments,
    coding: Coding,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    elsewhere: Mapping[str, tuple[JointMoments, JointMoments]] | None = None,
    draws: int = DRAWS,
    sigma_log: float = SIGMA_LOG,
    shrinkage: float | None = None,
) -> dict[str, Band]:
    """The bands of the held-out, pooled R^2 of each label (all of them where no `names` are given), in the same gauges.

    - `elsewhere`: name of another place (``pre-activation``) -> moments of the fit and test split there, with this coding.
    - `shrinkage`: 0 to 1, of Sigma towards a multiple of the identity; None computes it, 0 inverts Sigma on its range.
    """
    rho = oas_shrinkage(fit.xx, fit.n) if shrinkage is None else shrinkage
    if not 0 <= rho <= 1:
        raise ConfigError(f"shrinkage lies between 0 and 1; got {rho}")
    scale = np.exp(2 * np.random.default_rng(seed).normal(0.0, sigma_log, size=(draws, fit.width)))
    variances = fit.variances
    inverse = np.divide(1.0, variances, out=np.zeros_like(variances), where=variances > 0)
    precision = _inverse(shrunk(fit.xx, rho))
    shift = test.mean()[1] - fit.mean()[1]
    white_total = float((precision * test.xx).sum() + shift @ precision @ shift)
    found = {}
    for name in coding.names if names is None else names:
        columns = coding.columns(name)
        fitted = fit_map(fit, columns)
        here, (bb, cross, _), w = explained(fitted, test), about(fitted, test), fitted.weights
        # tr(P E) with E = T - W^T C - C^T W + W^T B W, without forming it.
        at = w @ precision
        white_gain = 2 * float((at * cross).sum()) - float((at * (bb @ w)).sum())
        found[name] = Band(
            raw=here.pooled,
            zscored=1 - float(here.error @ inverse) / float(here.total @ inverse),
            whitened=white_gain / white_total,
            gauge=1 - (scale @ here.error) / (scale @ here.total),
            elsewhere={
                place: explained(fit_map(other_fit, columns), other_test).pooled
                for place, (other_fit, other_test) in (elsewhere or {}).items()
            },
            shrinkage=rho,
        )
    return found


def oas_shrinkage(covariance: Floats, n: int) -> float:
    """Oracle-approximating shrinkage of a sample covariance (D, D) of n rows, 0 to 1.

    Chen et al. (2010), equation 23, without its terms 2 / D, as in scikit-learn.
    """
    d = len(covariance)
    trace2, squares = float(np.trace(covariance)) ** 2, float((covariance**2).sum())
    if trace2 <= 0:
        raise StatisticsError("the activations do not vary: there is nothing to whiten")
    numerator = squares + trace2
    denominator = (n + 1) * (squares - trace2 / d)
    return 1.0 if denominator <= 0 else min(1.0, numerator / denominator)


def shrunk(covariance: Floats, rho: float) -> Floats:
    """(1 - rho) Sigma + rho (tr Sigma / D) I."""
    d = len(covariance)
    return (1 - rho) * covariance + rho * float(np.trace(covariance)) / d * np.eye(d)


def _inverse(covariance: Floats) -> Floats:
    """On the range of the matrix; directions that do not vary are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > RANK * values.max()
    inverse: Floats = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return inverse
