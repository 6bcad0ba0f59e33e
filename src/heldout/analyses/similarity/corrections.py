"""Partial whitening: similarity when loud and quiet directions count more alike, swept from not at all to fully.

    x -> (x - m) Sigma^(-beta / 2),  0 <= beta <= 1        (zero-phase: no direction is turned)

so that a direction of variance v on the fit split comes to have v^(1 - beta): beta is the power of the *variance* that is
divided out. At 0 activations are only centred, at 1 the fit split's covariance is the identity. m and Sigma are those of the
fit split; Sigma is shrunk towards a multiple of the identity (Ledoit and Wolf 2004, as in scikit-learn), without which
the smallest directions are noise made loud.

With Sigma unshrunk, of rank r, whatever one linear readout decodes without error explains 1 / r at beta = 1, loud or quiet:
differences of loudness between features are gone. So are differences between features and noise: what whitening brings
forward need not be used by the network, and where stimuli are few for the units it is mostly chance. A number that holds
over the sweep does not hang on loudness; one that does not needs a reason to prefer one beta, and the sweep gives none.

Centring alone already changes the correlation distance, which sees each unit's mean; compare with beta = 0, not with raw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.invariance import RANK, shrunk
from heldout.analyses.similarity.checks import Floats, centred, pair, table
from heldout.analyses.similarity.measures import find_measure, similarity
from heldout.errors import ConfigError, StatisticsError

Scorer = Callable[[Floats, Floats], float]

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Whitening:
    """`mean` (D,) of the fit split, and eigenvalues `values` (D,) and eigenvectors `vectors` (D, D), in columns, of its
    covariance (divisor n), a share `shrinkage` of it replaced by the mean eigenvalue times the identity."""

    mean: Floats
    values: Floats
    vectors: Floats
    shrinkage: float

    @staticmethod
    def fit(x: ArrayLike | Tensor, *, shrinkage: float | None = None) -> Whitening:
        """Fitted on activations (n, D) of the fit split.

        `shrinkage`: 0 to 1; None computes Ledoit and Wolf's. At 0, directions that do not vary on the fit split (all beyond
        n - 1, where units are more) are left out by every beta above 0.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage

        rows = table(x, "the fit split")
        deviations = centred(rows, "the fit split")
        rho = ledoit_wolf_shrinkage(deviations, assume_centered=True) if shrinkage is None else shrinkage
        if not 0 <= rho <= 1:
            raise ConfigError(f"shrinkage lies between 0 and 1; got {shrinkage}")
        values, vectors = np.linalg.eigh(shrunk(deviations.T @ deviations / len(rows), float(rho)))
        return Whitening(rows.mean(axis=0), np.maximum(values, 0.0), vectors, float(rho))

    @property
    def rank(self) -> int:
        return int(self._kept.sum())

    def matrix(self, beta: float) -> Floats:
        """Sigma^(-beta / 2), (D, D) and symmetric; exactly the identity at 0."""
        if not 0 <= beta <= 1:
            raise ConfigError(f"beta lies between 0, which only centres, and 1, which whitens; got {beta}")
        if beta == 0:
            return np.eye(len(self.mean))
        kept = self._kept
        scaled = self.vectors[:, kept] * self.values[kept] ** (-beta / 2)
        power: Floats = scaled @ self.vectors[:, kept].T
        return power

    def __call__(self, x: ArrayLike | Tensor, beta: float = 1.0) -> Floats:
        """Activations (N, D) of any split, centred on the fit split's mean and whitened in part."""
        rows = table(x, "the activations to whiten", least=1)
        if rows.shape[1] != len(self.mean):
            raise StatisticsError(
                f"whitening was fitted to {len(self.mean)} units and cannot be applied to {rows.shape[1]}"
            )
        deviations: Floats = rows - self.mean
        return deviations if beta == 0 else deviations @ self.matrix(beta)

    @property
    def _kept(self) -> np.ndarray:
        kept: np.ndarray = self.values > RANK * self.values.max()
        return kept


def sweep(
    x_fit: ArrayLike | Tensor,
    y_fit: ArrayLike | Tensor,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    betas: Sequence[float] = BETAS,
    measure: str | Scorer = "cka",
    shrinkage: float | None = None,
) -> pd.DataFrame:
    """The similarity of x (N, Dx) and y (N, Dy), stimuli of the test split, whitened by what each is on its fit split.

    Columns ``beta``, ``similarity``, and of either side ``rank_x``, ``rank_y``, ``shrinkage_x``, ``shrinkage_y``. The fit
    splits x_fit (n, Dx) and y_fit (m, Dy) need not be of the same stimuli. `measure`: a name in `MEASURES`, or a function
    of two tables.
    """
    if not betas:
        raise ConfigError("no betas were given; name one or more between 0 and 1")
    a, b = pair(x, y)
    score = scorer(measure)
    of_x, of_y = Whitening.fit(x_fit, shrinkage=shrinkage), Whitening.fit(y_fit, shrinkage=shrinkage)
    return pd.DataFrame(
        {
            "beta": [float(beta) for beta in betas],
            "similarity": [score(of_x(a, beta), of_y(b, beta)) for beta in betas],
            "rank_x": of_x.rank,
            "rank_y": of_y.rank,
            "shrinkage_x": of_x.shrinkage,
            "shrinkage_y": of_y.shrinkage,
        }
    )


def scorer(measure: str | Scorer) -> Scorer:
    """A measure by its name in `MEASURES`, which then takes repeated stimuli (a correction may make them so), or itself."""
    if callable(measure):
        return measure
    name = find_measure(measure).name
    return lambda x, y: similarity(x, y, name, repeated=True)
