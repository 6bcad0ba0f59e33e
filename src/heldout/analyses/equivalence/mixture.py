"""Answers as a mixture: some follow one rule, some another, some a rule and a slip, and some none of these.

p(y | pair) = sum_c w[s, c] 1[y = h_c(pair)] + w[s, 0] / |Y|, in each stratum s (the lengths of both operands). The
uniform part is what stays unexplained; it cannot be left out. EM draws the weights of a stratum towards those of all
pairs by `PRIOR` pairs' worth, so that a stratum of three pairs does not speak alone.

Components were chosen with these answers in view: the weights describe them and test nothing. Where two components give
the same answer to a pair, the pair is shared out as elsewhere, which the data can neither confirm nor deny.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNEXPLAINED = "unexplained"
PRIOR = 1.0
STEPS = 500
CLOSE = 1e-6


@dataclass(frozen=True, eq=False)
class Mixture:
    """What the answers are made of.

    - `components` (C): names, the last one "unexplained"; `weights` (C,) over all pairs.
    - `strata` (S): labels (length of a, length of b); `sizes` (S,); `by_stratum` (S, C) weights.
    - `responsibilities` (N, C): which component gave each answer; every row adds up to 1.
    """

    components: tuple[str, ...]
    weights: Floats
    strata: tuple[tuple[int, int], ...]
    sizes: NDArray[np.int64]
    by_stratum: Floats
    responsibilities: Floats

    @property
    def unexplained(self) -> float:
        return float(self.weights[-1])

    def table(self) -> pd.DataFrame:
        """One row a component, one column a stratum, and the weight over all pairs."""
        frame = pd.DataFrame(self.by_stratum.T, columns=[f"{i}+{j} digits" for i, j in self.strata])
        frame.insert(0, "component", list(self.components))
        frame.insert(1, "all", self.weights)
        return frame


def fit(names: Sequence[str], hits: Bools, strata: NDArray[np.int64], log_answers: float) -> Mixture:
    """EM from equal weights.

    - `hits` (C, N): whether each component gives the answer. - `strata` (N, 2): lengths of the operands.
    - `log_answers`: natural logarithm of the number of answers that could have been given, |Y|.
    """
    wide = int(strata.max()) + 1
    codes, of, sizes = np.unique(strata @ np.array([wide, 1]), return_inverse=True, return_counts=True)
    labels = np.column_stack(np.divmod(codes, wide))
    # Pairs of one stratum that the same components match are alike: EM runs over kinds of pairs, not pairs.
    key = of.ravel().astype(np.int64)
    for row in hits:
        key = 2 * key + row
    _, first, kind, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    where = of.ravel()[first]
    likelihood = np.column_stack([hits[:, first].T, np.full(len(first), np.exp(-log_answers))])
    width = likelihood.shape[1]
    overall, weights = np.full(width, 1 / width), np.full((len(labels), width), 1 / width)
    belongs = (np.arange(len(labels))[:, None] == where).astype(np.float64)  # (S, kinds)
    for _ in range(STEPS):
        share = _responsibilities(weights[where], likelihood)
        total = belongs @ (share * counts[:, None])
        overall = total.sum(axis=0) / counts.sum()
        new = (total + PRIOR * overall) / (sizes[:, None] + PRIOR)
        step = np.abs(new - weights).max()
        weights = new
        if step < CLOSE:
            break
    share = _responsibilities(weights[where], likelihood)
    return Mixture(
        components=(*names, UNEXPLAINED),
        weights=(share * counts[:, None]).sum(axis=0) / counts.sum(),
        strata=tuple((int(i), int(j)) for i, j in labels),
        sizes=sizes,
        by_stratum=weights,
        responsibilities=share[kind.ravel()],
    )


def _responsibilities(weights: Floats, likelihood: Floats) -> Floats:
    joint = weights * likelihood
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))
