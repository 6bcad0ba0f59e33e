"""How alike two RDMs are: correlations over pairs of stimuli.

Pearson asks for a linear relation of the distances, Spearman and Kendall only for a monotone one, the cosine also for a
common zero. Kendall's tau-a counts tied pairs against a prediction and so, unlike tau-b, cannot favour one that ties
(Nili et al. 2014, PLoS Computational Biology 10). Pairs that share a stimulus are dependent: the number of pairs is not
the number of observations, so a textbook p-value of any of these is wrong (see `heldout.analyses.similarity.permutation`).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from heldout.analyses.similarity.checks import FLAT, Floats
from heldout.errors import ConfigError, NonFiniteError, StatisticsError, unknown

Comparator = Literal["pearson", "spearman", "kendall", "cosine"]
COMPARATORS: tuple[Comparator, ...] = get_args(Comparator)


def compare(a: ArrayLike, b: ArrayLike, by: Comparator = "pearson") -> float:
    """Similarity, -1 to 1, of two condensed RDMs (m,) over the same stimuli in the same order.

    Raises `StatisticsError` for different lengths and where all distances of one are equal (all zero for the cosine).
    """
    if by not in COMPARATORS:
        raise ConfigError(unknown("comparator", by, COMPARATORS))
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise StatisticsError(
            f"two condensed RDMs of one length, 2 or more, are compared; got shapes {first.shape} and {second.shape}"
        )
    if by == "kendall":
        require_spread(first, second)
        return tau_a(first, second)
    u, v = standardised(first, by), standardised(second, by)
    return float(np.clip(u @ v, -1, 1))


def standardised(rdms: Floats, by: Comparator) -> Floats:
    """RDMs (..., m) transformed so that their inner product is their Pearson, Spearman or cosine similarity."""
    from scipy.stats import rankdata

    z: Floats = rankdata(rdms, axis=-1) if by == "spearman" else rdms
    if by != "cosine":
        require_spread(*z.reshape(-1, z.shape[-1]))
        z = z - z.mean(axis=-1, keepdims=True)
    norm = np.sqrt((z * z).sum(axis=-1, keepdims=True))
    if not np.isfinite(norm).all():
        raise NonFiniteError("an RDM holds NaN or infinite distances; only finite ones can be compared")
    if not norm.all():
        raise StatisticsError("all distances of an RDM are zero: it has no direction to compare")
    unit: Floats = z / norm
    return unit


def tau_a(a: Floats, b: Floats) -> float:
    """Kendall's tau-a: concordant minus discordant pairs, over all pairs, ties among them; O(m log m)."""
    from scipy.stats import kendalltau

    m = len(a)
    pairs = m * (m - 1) // 2
    untied_a, untied_b = (pairs - _tied(v) for v in (a, b))
    # SciPy gives tau-b = (concordant - discordant) / sqrt(untied_a untied_b); the count is a whole number.
    tau_b = float(kendalltau(a, b, method="asymptotic").statistic)
    return round(tau_b * math.sqrt(untied_a) * math.sqrt(untied_b)) / pairs


def require_spread(*rdms: Floats) -> None:
    for r in rdms:
        if not np.isfinite(r).all():
            raise NonFiniteError("an RDM holds NaN or infinite distances; only finite ones can be compared")
        if np.ptp(r) <= FLAT * np.abs(r).max():
            raise StatisticsError("all distances of an RDM are equal: nothing varies, so it correlates with nothing")


def _tied(values: Floats) -> int:
    _, counts = np.unique(values, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())
