"""Order and parity of a token table: are tokens of one residue class closer, and do they follow one another on the first PC?

Both are read beside their nulls. Neighbouring tokens of a smooth table are close whatever their parity, so shuffling *all*
tokens mixes the period with the smoothness; shuffling only what departs from the local trend tests for the period alone.
The untrained table's value belongs beside both. N tokens, D width, R draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.geometry.spectrum import principal
from heldout.analyses.similarity.checks import centred, table
from heldout.errors import ConfigError, StatisticsError, unknown
from heldout.statistics.permutation import null_p

Floats = NDArray[np.float64]
Exchange = Literal["all", "local"]
EXCHANGES: tuple[Exchange, ...] = ("all", "local")

DRAWS = 999


@dataclass(frozen=True, eq=False)
class Tested:
    """A statistic with its null: `observed`, `draws` (R,) and the one-sided `p` of values as large."""

    observed: float
    draws: Floats
    p: float

    @property
    def threshold(self) -> float:
        """The null's 95th percentile."""
        return float(np.quantile(self.draws, 0.95))


def period_split(rows: ArrayLike | Tensor, tokens: ArrayLike, period: int = 2) -> float:
    """Mean distance between residue classes modulo `period` over that within them, of embeddings `rows` (N, D).

    Numerator: the mean over pairs of classes of the mean distance of their tokens, *all* pairs; denominator: the mean
    over classes of the mean distance of two different tokens. For `period` 2 the parity split. 1 where the class
    makes no difference; a little below 1 for smooth tables, whose nearest tokens differ in class.

    Raises `StatisticsError` where a class has fewer than two tokens.
    """
    return _split(_distances(rows), _residues(rows, tokens, period), period)


def period_split_test(
    rows: ArrayLike | Tensor,
    tokens: ArrayLike,
    period: int = 2,
    *,
    seed: int,
    exchange: Exchange = "local",
    draws: int = DRAWS,
) -> Tested:
    """`period_split` against tables in which tokens change places.

    - ``local``: tokens are cut into runs of one period; within each run, what departs from a local line (the run's mean, the
      slope from its neighbours' means) changes places, the line stays. The null is that these departures are
      exchangeable within a run: a noisy table that drifts or bends slowly keeps its level, one that bends within a few
      tokens is tested too timidly. Exchanging the tokens themselves would not do: on a line with noise it finds a period.
      Without noise the departures are the bend itself and p says nothing; then all draws nearly equal the observed value.
    - ``all``: tokens change places freely. The null is no order of any kind; smooth tables fall *below* it.
    """
    if exchange not in EXCHANGES:
        raise ConfigError(unknown("exchange", str(exchange), EXCHANGES))
    residues, distances = _residues(rows, tokens, period), _distances(rows)
    observed = _split(distances, residues, period)
    if exchange == "all":
        return _test(observed, lambda rng: _split(distances, rng.permutation(residues), period), seed, draws)
    places = np.asarray(tokens, dtype=np.int64)
    x = principal(rows).scores  # distances as they are, in at most N - 1 columns
    trend, runs = _trend(x, places, period), places // period
    departures, order = x - trend, np.argsort(runs, kind="stable")

    def drawn(rng: np.random.Generator) -> float:
        moved = np.empty_like(departures)
        moved[order] = departures[np.lexsort((rng.random(len(runs)), runs))]
        return _split(_distances(trend + moved), residues, period)

    return _test(observed, drawn, seed, draws)


def orderedness(scores: ArrayLike, tokens: ArrayLike, period: int = 2) -> float:
    """The share of neighbours within each residue class that are in order along `scores` (N,), in the better direction.

    Neighbours are consecutive tokens of one class; one direction is taken for all classes. From .5 up to 1; scores that
    tie are in order in neither direction. `period` 1 asks for the order of all tokens.
    """
    return _ordered(*_ranked(scores, tokens, period))


def orderedness_test(
    rows: ArrayLike | Tensor, tokens: ArrayLike, period: int = 2, *, seed: int, draws: int = DRAWS
) -> Tested:
    """`orderedness` of the first principal component of `rows` (N, D), against tokens permuted freely.

    The better direction is taken in each draw too. Permuting tokens leaves the component as it is.
    """
    scores, classes = _ranked(principal(rows).scores[:, 0], tokens, period)
    return _test(_ordered(scores, classes), lambda rng: _ordered(rng.permutation(scores), classes), seed, draws)


def _test(observed: float, drawn: Callable[[np.random.Generator], float], seed: int, draws: int) -> Tested:
    if draws < 1:
        raise ConfigError(f"a null needs at least 1 draw; got {draws}")
    rng = np.random.default_rng(seed)
    null = np.array([drawn(rng) for _ in range(draws)])
    return Tested(observed, null, null_p(observed, null))


def _distances(rows: ArrayLike | Tensor) -> Floats:
    from scipy.spatial.distance import pdist, squareform

    x = table(rows, "the table", least=4)
    centred(x, "the table")  # raises where nothing varies: every distance is 0
    distances: Floats = squareform(pdist(x))
    return distances


def _residues(rows: ArrayLike | Tensor, tokens: ArrayLike, period: int) -> NDArray[np.int64]:
    residues = _tokens(tokens, len(rows if isinstance(rows, Tensor) else np.asarray(rows)), period) % period
    count = np.bincount(residues, minlength=period)
    if period < 2 or count.min() < 2:
        raise StatisticsError(
            f"a split modulo {period} needs two or more tokens in each of two or more classes; they have {count.tolist()}"
        )
    return residues


def _tokens(tokens: ArrayLike, n: int, period: int) -> NDArray[np.int64]:
    numbers = np.asarray(tokens)
    if numbers.shape != (n,) or not np.issubdtype(numbers.dtype, np.integer) or len(np.unique(numbers)) < n:
        raise StatisticsError(
            f"tokens must be {n} different whole numbers, one a row; got {numbers.dtype} {numbers.shape}"
        )
    if period < 1:
        raise ConfigError(f"a period is 1 or more; got {period}")
    return numbers.astype(np.int64)


def _split(distances: Floats, residues: NDArray[np.int64], period: int) -> float:
    member = (residues[:, None] == np.arange(period)).astype(np.float64)
    sums, count = member.T @ distances @ member, member.sum(axis=0)
    within = np.diagonal(sums) / (count * (count - 1))
    between = (sums / np.outer(count, count))[np.triu_indices(period, 1)]
    if not within.mean() > 0:
        raise StatisticsError("the tokens of each class coincide: distances within classes are all 0")
    return float(between.mean() / within.mean())


def _trend(x: Floats, tokens: NDArray[np.int64], period: int) -> Floats:
    """(N, K) the local line through each run of one period: its mean, and the slope between the runs before and after."""
    _, run = np.unique(tokens // period, return_inverse=True)
    member = np.eye(int(run.max()) + 1)[:, run]
    member /= member.sum(axis=1, keepdims=True)
    means, centres = member @ x, member @ tokens
    slopes = np.gradient(means, centres, axis=0)
    trend: Floats = means[run] + slopes[run] * (tokens - centres[run])[:, None]
    return trend


def _ranked(scores: ArrayLike, tokens: ArrayLike, period: int) -> tuple[Floats, list[NDArray[np.intp]]]:
    """Scores, and for each class the rows of its tokens in ascending order."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise StatisticsError(f"scores must be finite numbers (N,); got shape {values.shape}")
    numbers = _tokens(tokens, len(values), period)
    order = np.argsort(numbers)
    classes = [order[numbers[order] % period == residue] for residue in range(period)]
    if sum(max(0, len(c) - 1) for c in classes) < 2:
        raise StatisticsError(f"{len(values)} tokens modulo {period} leave no neighbours to order; give more tokens")
    return values, classes


def _ordered(scores: Floats, classes: list[NDArray[np.intp]]) -> float:
    steps = np.concatenate([np.diff(scores[c]) for c in classes])
    return float(max((steps > 0).mean(), (steps < 0).mean()))
