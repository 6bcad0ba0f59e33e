"""Which hypotheses deserve every pair: all are tried on few pairs, those still in the running on twenty times as many.

A hypothesis leaves the race when the upper bound of its rate of matches lies below the lower bound of the best one's.
Bounds are Clopper and Pearson's at `DOUBT` a side, so the best of H hypotheses is lost with probability at most about
2 H `DOUBT`; the `KEPT` best classes stay in any case. Hypotheses that answer alike on the pairs tried count as one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.equivalence.evaluation import Bools, Ints, Plan, Table
from heldout.analyses.equivalence.grammar import Hypothesis

START = 250  # pairs on which the whole grammar is tried: counts of them fit into a byte
GROWTH = 20
DOUBT = 1e-6
KEPT = 20
CHUNK = 65_536  # pairs computed at a time


class Screen(NamedTuple):
    """The whole grammar on the first pairs: `codes` (H, n), and the codes `answers` (n,) with their `length` (n,)."""

    codes: Ints
    answers: Ints
    length: Ints


def screen(plan: Plan, table: Table, ring: int | None) -> Screen:
    return Screen(plan.codes(table, ring), table.codes(ring), table.length)


def race(hypotheses: Sequence[Hypothesis], first: Screen, table: Table, ring: int | None) -> list[Hypothesis]:
    """The hypotheses that may be the best of all on `table`, whose first rows are those of `first`, in random order."""
    alive = list(range(len(hypotheses)))
    hits = (first.codes == first.answers).sum(axis=1)
    keys = fingerprints(first.codes)
    n = len(first.answers)
    while True:
        alive = [alive[i] for i in _in_the_running(hits, keys, n).tolist()]
        n *= GROWTH
        if n >= len(table):  # what is left is tried on all pairs next
            return [hypotheses[i] for i in alive]
        stage = table.take(np.arange(n))
        keys, matches = matched([hypotheses[i] for i in alive], stage, ring)
        hits = matches.sum(axis=1)


def matched(hypotheses: Sequence[Hypothesis], table: Table, ring: int | None) -> tuple[NDArray[np.uint64], Bools]:
    """(H,) fingerprints of what the hypotheses answer, and (H, N) whether that is the answer given."""
    plan, answers = Plan(hypotheses), table.codes(ring)
    keys = np.zeros(len(hypotheses), dtype=np.uint64)
    hits = np.empty((len(hypotheses), len(table)), dtype=bool)
    for at in range(0, len(table), CHUNK):
        rows = slice(at, min(at + CHUNK, len(table)))
        part = table if len(table) <= CHUNK else table.take(np.arange(rows.start, rows.stop))
        codes = plan.codes(part, ring)
        hits[:, rows] = codes == answers[rows]
        keys += fingerprints(codes, start=at)
    return keys, hits


def fingerprints(codes: Ints, start: int = 0) -> NDArray[np.uint64]:
    """(H,) uint64: one number for each row of codes (H, N); rows that differ share one with a chance below 2^-30.

    Those of consecutive columns, from `start` on, add up to that of all.
    """
    # Differences that are multiples of a high power of two would not reach the low bits otherwise.
    folded = (codes ^ (codes >> 31)).view(np.uint64)
    return folded @ scrambled(np.arange(start, start + codes.shape[1], dtype=np.uint64))


def scrambled(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of uint64 without visible pattern (the finaliser of splitmix64)."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _in_the_running(hits: Ints, keys: NDArray[np.uint64], n: int) -> Ints:
    from scipy.special import betaincinv

    best = int(hits.max())
    floor = betaincinv(best, n - best + 1, DOUBT) if best else 0.0  # the best one's lower bound
    counts, of = np.unique(hits, return_inverse=True)
    short = counts < n
    ceiling = np.ones(len(counts))
    ceiling[short] = betaincinv(counts[short] + 1, n - counts[short], 1 - DOUBT)
    _, firsts = np.unique(keys, return_index=True)
    leaders = np.sort(hits[firsts])[::-1]
    least = leaders[min(KEPT, len(leaders)) - 1]
    return np.flatnonzero((ceiling[of] >= floor) & (hits > 0) | (hits >= max(least, 1)))
