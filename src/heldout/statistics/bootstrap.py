"""The crossed bootstrap: one draw of test units for all training seeds, splits, edits and metrics at once.

    totals = bootstrap_totals(sums, draws=2000, rng=rng)  # (R, C)
    gap = totals[:, 0] / totals[:, 1] - totals[:, 2] / totals[:, 3]  # (R,)

`sums` has one row a unit (the smallest independent cluster: a sentence, a pair, an image with all its distortions) and
one column a numerator or weight (per seed, split, edit, metric). Whole rows are drawn, so all that was measured on a
unit stays together: seeds are crossed with units and paired splits stay paired.

A bootstrap draw of n units is a multinomial draw over the *distinct* rows with their multiplicities. Counts have few
distinct rows (0/1 for 5 seeds: at most 32), so a draw costs as many binomials, whatever n is. Otherwise unit numbers
are drawn and counted, a block of draws at a time, in bounded memory. Both have the same distribution.

What it describes is *these networks* on other units; it knows nothing of other training runs, and over few seeds its
percentiles judge nothing (see `heldout.statistics.rule`, which takes only its variance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError

Floats = NDArray[np.float64]
Estimand = Callable[[Floats], Floats]

BINOMIAL_COST = 16  # one binomial costs about as much as drawing and counting this many units (benchmarks/bootstrap.py)
COUNT_BYTES = 8
MAX_UNDEFINED = 0.01  # share of draws that may leave an estimand undefined (an empty cell) and be left out


def bootstrap_totals(
    sums: ArrayLike,
    *,
    draws: int,
    rng: np.random.Generator,
    strata: ArrayLike | None = None,
    memory: int = 2**23,
) -> Floats:
    """Column totals of resampled units, shape (R, C), R = `draws`.

    - `sums`: shape (n_units, C), additive sums of each unit, finite.
    - `strata`: shape (n_units,), labels; the number of units of each stratum is kept, for example one label for each
      pattern of the splits that a unit appears in. Strata of a single unit, which could not vary, are resampled
      together (collapsed strata: Cochran 1977, section 5A.12). None is one stratum.
    - `memory`: bytes for a block of counts, beside the result and a few rows. The draws do not depend on it; totals
      of integers are exactly the same, totals of other numbers agree to rounding.
    """
    return np.concatenate(list(_blocks(sums, draws=draws, rng=rng, strata=strata, memory=memory)))


def bootstrap_variance(
    sums: ArrayLike,
    estimand: Estimand,
    *,
    rng: np.random.Generator,
    strata: ArrayLike | None = None,
    draws: int = 2000,
    memory: int = 2**23,
) -> float:
    """Bootstrap variance of `estimand`, which maps totals of shape (r, C) to values of shape (r,), row by row.

    Arguments as for `bootstrap_totals`; the totals are never held together. Its own relative standard error is about
    sqrt(2 / draws), 3% by default. Draws that leave the estimand undefined (NaN, a denominator of zero) are left out
    where they are at most 1%; above that there is no variance to speak of and `StatisticsError` is raised.
    """
    parts = []
    for totals in _blocks(sums, draws=draws, rng=rng, strata=strata, memory=memory):
        part = np.asarray(estimand(totals), dtype=np.float64)
        if part.shape != (len(totals),):
            raise StatisticsError(
                f"the estimand must map totals {totals.shape} to shape {(len(totals),)}; it gave {part.shape}"
            )
        parts.append(part)
    values = np.concatenate(parts)
    defined = np.isfinite(values)
    undefined = 1 - defined.mean()
    if undefined > MAX_UNDEFINED:
        raise StatisticsError(
            f"the estimand is undefined in {undefined:.0%} of {draws} resamples (at most {MAX_UNDEFINED:.0%} may be): "
            "too few units carry weight in one of its denominators"
        )
    values = values[defined]
    # Equal values must give exactly zero: the rounding of their mean would pass for a tiny variance.
    return float(values.var(ddof=1)) if np.ptp(values) > 0 else 0.0


def _blocks(
    sums: ArrayLike, *, draws: int, rng: np.random.Generator, strata: ArrayLike | None, memory: int
) -> Iterator[Floats]:
    """Totals of consecutive blocks of draws, each of shape (r, C)."""
    table = np.asarray(sums, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise StatisticsError(f"the bootstrap needs sums of shape (units, columns), neither empty; got {table.shape}")
    if not np.isfinite(table).all():
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        raise StatisticsError(f"sums must be finite; {len(bad)} units are not, the first in row {bad[0]}")
    if draws < 2:
        raise StatisticsError(f"the bootstrap needs at least 2 draws; got {draws}")
    members = _strata(strata, len(table))
    # A stream for each stratum, so that no draw depends on how draws are cut into blocks.
    samplers = [_Sampler(table[m], g) for m, g in zip(members, rng.spawn(len(members)), strict=True)]
    step = max(1, memory // (COUNT_BYTES * max(s.width for s in samplers)))
    for start in range(0, draws, step):
        r = min(step, draws - start)
        totals = samplers[0].totals(r)
        for sampler in samplers[1:]:
            totals += sampler.totals(r)
        yield totals


class _Sampler:
    """Draws the units of one stratum, through their distinct rows where that is cheaper."""

    def __init__(self, table: Floats, rng: np.random.Generator) -> None:
        self.rng = rng
        self.n = len(table)
        self.share: Floats | None = None
        self.rows = table
        found = distinct_rows(table, limit=self.n // BINOMIAL_COST)
        if found is not None:
            first, multiplicity = found
            self.rows = table[first]
            self.share = multiplicity / self.n
        self.width = len(self.rows)
        self.counts: Floats = np.empty((0, self.width))

    def totals(self, r: int) -> Floats:
        """Column totals of the next `r` draws, shape (r, C)."""
        if self.share is not None:
            counts: Floats = self.rng.multinomial(self.n, self.share, size=r).astype(np.float64)
            return counts @ self.rows
        if len(self.counts) < r:  # kept between blocks: fresh pages would cost more than the draws
            self.counts = np.empty((r, self.width))
        for count in self.counts[:r]:
            count[:] = np.bincount(self.rng.integers(0, self.n, size=self.n), minlength=self.n)
        totals: Floats = self.counts[:r] @ self.rows
        return totals


def distinct_rows(table: Floats, *, limit: int) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """First index and multiplicity of each distinct row of `table`, or None where there are more than `limit`.

    Column by column, so that a table of continuous numbers is given up after its first column.
    """
    code = np.zeros(len(table), dtype=np.int64)
    for column in table.T:
        _, value = np.unique(column, return_inverse=True)
        distinct, code = np.unique(code * (value.max() + 1) + value, return_inverse=True)
        if len(distinct) > limit:
            return None
    _, first, multiplicity = np.unique(code, return_index=True, return_counts=True)
    return first, multiplicity


def _strata(labels: ArrayLike | None, n: int) -> list[NDArray[np.intp]]:
    """Row numbers of each stratum, single units collapsed."""
    if labels is None:
        return [np.arange(n)]
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise StatisticsError(f"strata must hold one label for each of {n} units; got shape {labels.shape}")
    _, code, size = np.unique(labels, return_inverse=True, return_counts=True)
    members = sorted(np.split(np.argsort(code, kind="stable"), np.cumsum(size)[:-1]), key=len)
    singles = int((size == 1).sum())
    if singles:
        # A lone single unit joins the smallest other stratum.
        together = max(singles, 2)
        members = [np.sort(np.concatenate(members[:together])), *members[together:]]
    return members
