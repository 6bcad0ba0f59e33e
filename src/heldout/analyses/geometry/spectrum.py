"""Principal components of a table of tokens or of hidden rows, always with the spectrum that they are part of.

A picture of three components shows whatever they hold, however little of the variance that is. So components come with
all variances, the participation ratio, and the level that components of columns without any relation reach
(`noise_floor`).

N rows, D width, K components with variance. Components and scores are turned so that each component's score of largest
magnitude (the first of equals) is positive: a rotation of the table's width leaves scores, and all that is made of them,
as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.features.principal import effective_dimension
from heldout.analyses.similarity.checks import centred, table
from heldout.errors import StatisticsError

Floats = NDArray[np.float64]

TIE = 1e-9
LEAST = 3  # rows; the spectrum of two is one number
DRAWS = 199
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Principal:
    """PCA of rows (N, D): `mean` (D,), `components` (K, D) orthonormal, largest first, `scores` (N, K) and `variances`
    (K,), divisor N. K is the rank about the mean, at most min(N - 1, D)."""

    mean: Floats
    components: Floats
    scores: Floats
    variances: Floats

    @property
    def share(self) -> Floats:
        """(K,) explained variance ratios; they sum to 1."""
        share: Floats = self.variances / self.variances.sum()
        return share

    @property
    def participation(self) -> float:
        """(sum l)^2 / sum l^2 of the variances: how many components the variance is spread over, 1 to K."""
        return effective_dimension(self.variances)

    def project(self, rows: ArrayLike | Tensor) -> Floats:
        """(M, K) scores of other rows (M, D)."""
        other = table(rows, "rows", least=1)
        if other.shape[1] != len(self.mean):
            raise StatisticsError(f"components of width {len(self.mean)} cannot score rows of width {other.shape[1]}")
        scores: Floats = (other - self.mean) @ self.components.T
        return scores

    def rows(self, scores: ArrayLike, which: ArrayLike) -> Floats:
        """(M, D) rows with the given `scores` (M, k) on the components numbered `which` (k,) and the mean elsewhere."""
        values, numbers = np.asarray(scores, dtype=np.float64), np.asarray(which)
        if values.ndim != 2 or values.shape[1:] != numbers.shape:
            raise StatisticsError(
                f"scores {values.shape} do not fit {numbers.shape} components; (M, k) and (k,) are due"
            )
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self.components):
            raise StatisticsError(f"components {numbers.tolist()} of {len(self.components)}; they are counted from 0")
        made: Floats = self.mean + values @ self.components[numbers]
        return made


def principal(rows: ArrayLike | Tensor) -> Principal:
    """PCA of `rows` (N, D), all components that vary.

    Raises `StatisticsError` for fewer than 3 rows or rows that are all the same, `NonFiniteError` for NaN or infinity.
    """
    x = table(rows, "rows", least=LEAST)
    deviations = centred(x, "the table")
    left, sizes, right = np.linalg.svd(deviations, full_matrices=False)
    rank = int((sizes > max(x.shape) * np.finfo(float).eps * sizes[0]).sum())
    scores, components = left[:, :rank] * sizes[:rank], right[:rank]
    size = np.abs(scores)
    largest = (size >= (1 - TIE) * size.max(axis=0)).argmax(axis=0)  # the first, where both ends are as far out
    signs = np.sign(scores[largest, np.arange(rank)])
    return Principal(x.mean(axis=0), components * signs[:, None], scores * signs, sizes[:rank] ** 2 / len(x))


@dataclass(frozen=True, eq=False)
class NoiseFloor:
    """`share` (K,) of the table, `draws` (R, K) of tables whose columns were permuted one by one, and `level` (K,) the
    95th percentile of these. `above`: how many leading components exceed their level, one after another."""

    share: Floats
    draws: Floats

    @property
    def level(self) -> Floats:
        level: Floats = np.quantile(self.draws, LEVEL, axis=0)
        return level

    @property
    def above(self) -> int:
        below = np.flatnonzero(self.share <= self.level)
        return int(below[0]) if len(below) else len(self.share)


def noise_floor(rows: ArrayLike | Tensor, *, seed: int, draws: int = DRAWS) -> NoiseFloor:
    """Parallel analysis: each column (D) permuted over rows by itself, which keeps its variance and breaks every relation.

    Each component is compared with the one of its own rank in the permuted tables. Large components take variance from
    later ones, so for these the comparison is conservative. Columns are the network's units: unlike the spectrum, the
    floor depends on the basis. Permuting whole rows (tokens) would leave the spectrum as it is. Horn (1965),
    Psychometrika 30, 179; Buja and Eyuboglu (1992), Multivariate Behavioral Research 27, 509.
    """
    if draws < 1:
        raise StatisticsError(f"a noise floor needs at least 1 draw; got {draws}")
    share = principal(rows).share
    deviations = centred(table(rows, "rows", least=LEAST))
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(draws):
        variances = np.linalg.svd(rng.permuted(deviations, axis=0), compute_uv=False) ** 2
        null.append((variances / variances.sum())[: len(share)])
    return NoiseFloor(share, np.array(null))
