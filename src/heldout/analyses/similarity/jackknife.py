"""Variances of any measure of similarity over other stimuli and over other networks, by leaving some out.

A bootstrap sample repeats stimuli. For RDMs the pairs of a stimulus with its copy can be left out; for CKA, Procrustes and
predictivity they cannot, and would bring back the diagonal that debiasing removes, or put copies on both sides of a split.
Leaving groups out repeats nothing: with G random groups of stimuli, V = (G - 1) / G sum (theta_g - mean)^2, G - 1 degrees of
freedom (Efron and Tibshirani 1993, chapter 11). It holds for figures that are smooth in the data and away from independence;
*at* independence these figures are degenerate and the permutation null is the test.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heldout.analyses.similarity.checks import Floats

GROUPS = 40


def stimulus_jackknife(
    figure: Callable[[np.ndarray], float], n: int, *, rng: np.random.Generator, groups: int = GROUPS
) -> tuple[float, int]:
    """Variance and degrees of freedom of `figure`, a function of the rows kept, over other draws of `n` stimuli."""
    g = min(groups, n)
    group = rng.permutation(n) % g
    return _jackknife(np.array([figure(np.flatnonzero(group != left)) for left in range(g)])), g - 1


def network_variances(matrix: Floats, *, within: bool) -> list[tuple[float, int]]:
    """Variance and degrees of freedom, for each side of several networks, of the mean of a `matrix` of similarities.

    Between: (Sa, Sb), each side's networks independent draws. Within: (S, S), of which the pairs i < j count.
    """
    if within:
        s = len(matrix)
        if s < 3:
            return []
        pairs = np.triu(matrix, 1) + np.triu(matrix, 1).T
        without = (pairs.sum() / 2 - pairs.sum(axis=1)) / ((s - 1) * (s - 2) / 2)
        return [(_jackknife(without), s - 1)]
    means = [matrix.mean(axis=1), matrix.mean(axis=0)]
    return [(float(m.var(ddof=1)) / len(m), len(m) - 1) for m in means if len(m) > 1]


def pooled(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """The sum of independent variances and its degrees of freedom (Welch 1947, Satterthwaite 1946)."""
    total = sum(v for v, _ in parts)
    if total <= 0:
        return 0.0, float(min(df for _, df in parts))
    return total, 1 / sum((v / total) ** 2 / df for v, df in parts)


def _jackknife(left_out: Floats) -> float:
    g = len(left_out)
    return float((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum())
