"""Fourier spectrum of class centroids over Z_m: on how many circles do the classes lie, and which?

The m centroids, less their mean, are expanded in exp(2 pi i k c / m) over the class c. The energy of frequency k joins k
and -k, which real activations cannot tell apart: k from 1 to floor(m / 2). A circle that goes round k times has all its
energy at k; the energies are shares of the centroids' whole scatter and sum to 1 (Parseval).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.equivalence.centroids import Centroids
from heldout.errors import StatisticsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """`energy` (K,) shares of frequencies 1 to K = floor(m / 2), summing to 1.

    `corrected` (K,): the same less the energy that the sampling error of the centroids adds, which is alike at every
    frequency; sums to 1, may fall below 0 at a frequency that holds nothing, and is NaN where noise explains all.
    `noise`: the share of the centroids' scatter that is sampling error, 0 or more. `n`: rows in the smallest class.
    """

    energy: Floats
    corrected: Floats
    noise: float
    n: int

    @property
    def frequencies(self) -> NDArray[np.int64]:
        return np.arange(1, len(self.energy) + 1)

    def leading(self, count: int = 2) -> float:
        """The energy of the `count` largest frequencies together."""
        return float(np.sort(self.energy)[::-1][:count].sum())


def fourier_energy(centroids: np.ndarray) -> Floats:
    """(K,) energy of centroids (m, D), class c in row c, *unnormalised*: sum over k of it is m x the scatter about the
    centroids' own (unweighted) mean."""
    if centroids.ndim != 2 or len(centroids) < 2:
        raise StatisticsError(f"a spectrum needs at least two centroids, (m, D); got shape {centroids.shape}")
    centred = np.asarray(centroids, dtype=np.float64)
    centred = centred - centred.mean(axis=0)  # k = 0 holds the mean in any case; without it k > 0 keeps its digits
    power = np.square(np.abs(np.fft.rfft(centred, axis=0))).sum(axis=1)[1:]
    energy: Floats = power * _multiplicity(len(centred))
    return energy


def spectrum(centroids: Centroids) -> Spectrum:
    """The spectrum of accumulated class centroids; classes are weighted alike, however many rows each has.

    A centroid of n rows with covariance S errs by tr S / n in mean square; each Fourier coefficient collects the sum of it
    over classes. Classes of a single row have no variance of their own and raise `StatisticsError`, as do centroids that
    coincide.
    """
    centroids.require_all(at_least=2)
    m = len(centroids.counts)
    energy = fourier_energy(centroids.means.numpy())
    total = float(energy.sum())
    if total <= 0:
        raise StatisticsError("the class centroids coincide: there is no energy to divide among frequencies")
    counts = centroids.counts.double()
    error = float((centroids.within / (counts - 1) / counts).sum())
    left = energy - error * _multiplicity(m)
    corrected = left / left.sum() if left.sum() > 0 else np.full(len(left), np.nan)
    return Spectrum(energy / total, corrected, (m - 1) * error / total, int(centroids.counts.min()))


def _multiplicity(m: int) -> Floats:
    """(K,) how many of the m frequencies each k stands for: 2, but 1 for m / 2."""
    k = np.arange(1, m // 2 + 1)
    return np.where(2 * k == m, 1.0, 2.0)
