"""Do several chains tell one story? Split R-hat, the number of independent draws they are worth, and a test for drift.

All take a trace (S, D): S chains of D draws of one quantity, burn-in left out. They can show that chains have not settled;
none can show that they have. Chains that start at one point, as here, agree also where all of them miss a region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError

Trace = NDArray[np.float64]

R_HAT = 1.05  # at least this much: chains disagree
DRIFT = 0.05  # a p-value below this: they drift
SHORTEST = 8  # draws a chain: two halves of four


@dataclass(frozen=True)
class Diagnostics:
    """`r_hat`: 1 where chains agree. `effective_draws`: independent draws with the same error of the mean. `drift`: by how
    much the quantity moves from the first draw to the last, mean over chains, and `drift_p` its two-sided p-value."""

    r_hat: float
    effective_draws: float
    drift: float
    drift_p: float

    @staticmethod
    def of(trace: ArrayLike) -> Diagnostics:
        """Of a trace (S, D), S >= 2."""
        checked = _checked(trace)
        drift, p = drift_test(checked)
        return Diagnostics(split_r_hat(checked), effective_draws(checked), drift, p)

    @property
    def complaint(self) -> str:
        """What speaks against using the draws; empty where nothing does."""
        found = []
        if not self.r_hat < R_HAT:
            found.append(f"chains disagree (split R-hat {self.r_hat:.3f}, needed: below {R_HAT})")
        if self.drift_p < DRIFT:
            found.append(f"chains drift (by {self.drift:+.3g} from first draw to last, p = {self.drift_p:.2g})")
        return " and ".join(found)


def split_r_hat(trace: ArrayLike) -> float:
    """The larger of rank-normalised split R-hat and that of the distances from the median, so that chains of unlike
    spread are found as well as chains of unlike level.

    Each chain is cut in halves; R-hat^2 = (W (D' - 1) / D' + B / D') / W, with W the mean variance within the 2 S halves of
    D' draws and B / D' the variance of their means. Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian
    Analysis 16, 667. Infinite where halves do not vary but differ; 1 where no draw differs from any other.
    """
    halves = _halves(_checked(trace))
    folded = np.abs(halves - np.median(halves))
    return max(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))


def effective_draws(trace: ArrayLike) -> float:
    """S D / tau of the split chains, tau the integrated autocorrelation time of all together (Geyer's initial monotone
    sequence; the paper above, section 3), at most S D log10(S D). The error of the mean is sd / root of it."""
    halves = _halves(_checked(trace))
    chains, draws = halves.shape
    total = chains * draws
    covariance = np.stack([_autocovariance(row) for row in halves])
    within = covariance[:, 0].mean() * draws / (draws - 1)
    pooled = within * (draws - 1) / draws + halves.mean(1).var(ddof=1)
    if np.ptp(halves) == 0:
        return float(total)
    rho = 1 - (within - covariance.mean(0)) / pooled
    rho[0] = 1.0
    pairs = rho[: draws - draws % 2].reshape(-1, 2).sum(1)  # of lags 2 k and 2 k + 1
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    tau = -1 + 2 * float(np.minimum.accumulate(pairs[:stop]).sum())
    if stop < len(pairs):
        tau += max(float(rho[2 * stop]), 0.0)  # half a pair: its first lag, where that is positive
    return float(total / max(tau, 1 / math.log10(total)))


def drift_test(trace: ArrayLike) -> tuple[float, float]:
    """The rise of a straight line through each chain from its first draw to its last, mean over chains, and the two-sided
    p-value of its being zero: Student's t over the S chains.

    Chains are independent, so however draws of one chain depend on each other plays no part. Few chains have little power:
    with four, a rise below twice its standard deviation over chains is likely missed.
    """
    from scipy.special import stdtr

    checked = _checked(trace)
    chains, draws = checked.shape
    if chains < 2:
        raise StatisticsError("a test for drift compares chains; at least two are needed")
    time = np.linspace(-0.5, 0.5, draws)
    rises = (checked - checked.mean(1, keepdims=True)) @ time / (time @ time)
    mean, error = float(rises.mean()), float(rises.std(ddof=1)) / math.sqrt(chains)
    if error == 0:
        return mean, 1.0 if mean == 0 else 0.0
    return mean, float(2 * stdtr(chains - 1, -abs(mean) / error))


def _checked(trace: ArrayLike) -> Trace:
    found = np.asarray(trace, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] < SHORTEST:
        raise StatisticsError(f"a trace is (chains, draws) of at least {SHORTEST} draws, got shape {found.shape}")
    if not np.isfinite(found).all():
        raise StatisticsError("a trace must be finite; a chain that diverged has no diagnostics")
    return found


def _halves(trace: Trace) -> Trace:
    """(2 S, D // 2); the middle draw of an odd number is left out."""
    half = trace.shape[1] // 2
    return np.concatenate([trace[:, :half], trace[:, -half:]])


def _normal_scores(values: Trace) -> Trace:
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(values, method="average").reshape(values.shape)
    return np.asarray(ndtri((ranks - 0.375) / (values.size + 0.25)))


def _r_hat(halves: Trace) -> float:
    draws = halves.shape[1]
    if not np.ptp(halves, axis=1).any():  # not by the variance, which rounding may leave above 0
        return 1.0 if np.ptp(halves) == 0 else math.inf
    within, between = float(halves.var(axis=1, ddof=1).mean()), float(halves.mean(1).var(ddof=1))
    return math.sqrt((draws - 1) / draws + between / within)


def _autocovariance(row: Trace) -> Trace:
    """(D,) biased (divided by D at every lag)."""
    centred = row - row.mean()
    spectrum = np.fft.rfft(centred, 2 * len(row))
    return np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(row))[: len(row)] / len(row)
