"""The subspaces in which one network holds some features: fitted on its fit split, then removed or looked at alone.

The subspace of a feature is the span of the rows of the map from its labels to activations (`features.variance`): for a
binary or categorical label, of the differences between class means. After its removal all class means of the fit split
coincide, so that no linear readout finds the feature there. What else lies in the same directions goes with it, and what
of the feature is not linear in its labels stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.features.labels import Coding, Kind
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.subspace import Removal
from heldout.analyses.features.variance import explained, fit_map
from heldout.analyses.similarity.checks import FLAT, Floats, table
from heldout.errors import ConfigError, StatisticsError


@dataclass(frozen=True, eq=False)
class Subspaces:
    """What one network's fit split says of some labels: their `coding`, and the joint `moments` with the activations."""

    coding: Coding
    moments: JointMoments

    @staticmethod
    def fit(
        x: ArrayLike | Tensor, labels: Mapping[str, ArrayLike], kinds: Mapping[str, Kind] | None = None
    ) -> Subspaces:
        """From activations (n, D) and labels, name -> (n,), of the fit split; `kinds` as for `Coding.fit`.

        Raises `StatisticsError` for a label that is constant there, or more label columns than rows.
        """
        rows = table(x, "the fit split")
        coding = Coding.fit(labels, kinds)
        return Subspaces(coding, moments_of(rows, coding.encode(labels, len(rows))))

    @property
    def mean(self) -> Floats:
        return self.moments.mean()[1]

    def variance_explained(self, name: str) -> float:
        """Pooled R^2 of one label on the fit split itself, which fitting inflates by about (1 - R^2) q / (n - 1)."""
        return explained(fit_map(self.moments, self.coding.columns(name)), self.moments).pooled

    def presence(self, name: str) -> float:
        """p-value of no relation between activations and a label *beyond what the other labels explain*, on the fit split.

        F is the variance that R^2 of all labels loses without this one, per column, over the residual variance. Unrelated,
        its two parts are sums of chi-squares weighted by the eigenvalues of the residual covariance S; q and n - 1 - (all
        columns) times (tr S)^2 / tr S^2 are its degrees of freedom (Satterthwaite; normal residuals, independent rows).
        """
        from scipy.special import fdtrc

        columns = self.coding.columns(*self.coding.names)
        others = np.setdiff1d(columns, self.coding.columns(name))
        q = self._rank(columns) - self._rank(others)
        rows = self.moments.n - 1 - self._rank(columns)
        without, full = (explained(fit_map(self.moments, kept), self.moments) for kept in (others, columns))
        gained, whole = float(without.error.sum() - full.error.sum()), without.whole
        if q == 0 or rows < 1 or gained <= FLAT * whole:
            return 1.0
        weights = fit_map(self.moments, columns).weights
        residual = self.moments.xx - weights.T @ self.moments.bx[columns]
        left, squares = float(np.trace(residual)), float((residual * residual).sum())
        if left <= FLAT * whole:  # activations are a function of the labels
            return 0.0
        shape = left**2 / squares
        return float(fdtrc(q * shape, rows * shape, (gained / q) / (left / rows)))

    def without(self, x: ArrayLike | Tensor, *names: str) -> Floats:
        """Activations (N, D) of any split, the subspace of the labels named replaced by the fit split's mean."""
        removed: Floats = self._removal(names).reconstruct(self._rows(x)).numpy()
        return removed

    def within(self, x: ArrayLike | Tensor, *names: str) -> Floats:
        """Deviations (N, D) from the fit split's mean inside that subspace: zero outside of it.

        In one dimension the correlation distance knows only the sign; compare by CKA or a Euclidean distance.
        """
        rows = self._rows(x)
        inside: Floats = (rows - self._removal(names).reconstruct(rows)).numpy()
        return inside

    def unlabelled(self, x: ArrayLike | Tensor, labels: Mapping[str, ArrayLike], *names: str) -> Floats:
        """Activations (N, D) less what the map of the labels named, fitted on the fit split, says of *their* labels.

        On the fit split itself this is the projection of the labels out of the stimuli. Unlike `without` it takes no
        direction away, and it needs the labels of the stimuli that are compared.
        """
        rows = self._rows(x).numpy()
        fitted = fit_map(self.moments, self.coding.columns(*self._named(names)))
        design = self.coding.encode(labels, len(rows))[:, fitted.columns]
        left: Floats = rows - (design - fitted.mean_b) @ fitted.weights
        return left

    def basis(self, *names: str) -> Floats:
        """Rows (K, D) that span the subspace of the labels named, K their columns."""
        return fit_map(self.moments, self.coding.columns(*self._named(names))).weights

    def _rank(self, columns: NDArray[np.intp]) -> int:
        if not len(columns):
            return 0
        return int(np.linalg.matrix_rank(self.moments.bb[np.ix_(columns, columns)], hermitian=True))

    def _removal(self, names: tuple[str, ...]) -> Removal:
        return Removal(self.basis(*names), self.mean)

    def _named(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ConfigError(f"name one or more labels; there are {', '.join(self.coding.names)}")
        return names

    def _rows(self, x: ArrayLike | Tensor) -> Tensor:
        rows = table(x, "the activations", least=1)
        if rows.shape[1] != self.moments.width:
            raise StatisticsError(
                f"subspaces were fitted to {self.moments.width} units and cannot be applied to {rows.shape[1]}"
            )
        return torch.from_numpy(rows)
