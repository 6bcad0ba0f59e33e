"""When a rule is confirmed, when two are separable, and what the grammar reaches on answers that follow none.

CLAIMS: a rule is confirmed when its held-out exact match (lower 95% bound, Holm over the shortlist) exceeds by .1 the
95th percentile of the best-of-grammar score on answers shuffled within answer length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.equivalence.evaluation import NONE, Bools, Ints
from heldout.analyses.equivalence.race import Screen, fingerprints
from heldout.statistics.permutation import holm

Floats = NDArray[np.float64]

LEVEL = 0.05
MARGIN = 0.1  # by which a rule must beat what the grammar reaches on shuffled answers
SHUFFLES = 199
REMAINDERS = 4096  # a power of two
ABSENT, MISSING = 255, 254  # a code that no answer has, and no answer: they match nothing, each other neither


def shuffled_best(screen: Screen, rng: np.random.Generator, shuffles: int = SHUFFLES) -> Floats:
    """(R,) the best exact match of the grammar on answers shuffled among pairs whose answers have the same length.

    Fewer pairs than the held-out ones make the best of chance matches larger, never smaller: this is on the safe side.
    """
    _, firsts = np.unique(fingerprints(screen.codes), return_index=True)
    # Pair by pair, as bytes: a few hundred kilobytes are compared and summed in each shuffle.
    wanted = np.ascontiguousarray(_places(screen.codes[firsts], screen.answers).T)
    given = _places(screen.answers[None], screen.answers)[0]
    given[screen.answers == NONE] = MISSING
    groups = [np.flatnonzero(screen.length == n) for n in np.unique(screen.length)]
    best = np.empty(shuffles)
    for r in range(shuffles):
        answers = np.empty_like(given)
        for group in groups:
            answers[group] = given[rng.permutation(group)]
        same = (wanted == answers[:, None]).view(np.uint8)
        best[r] = same.sum(axis=0, dtype=np.uint8).max() / len(given)
    return best


def percentile_of(best: Floats) -> float:
    """The 95th percentile of the null: the smallest draw that at least 95% of the draws do not exceed."""
    return float(np.quantile(best, 1 - LEVEL, method="inverted_cdf"))


def exceedance(matches: Ints, n: int, threshold: float) -> Floats:
    """(K,) exact binomial p-values of a rate of matches above `threshold`, Holm-adjusted over the K rules."""
    from scipy.special import betainc

    k = np.asarray(matches, dtype=np.float64)
    if threshold >= 1 or n == 0:
        return np.ones(len(k))
    return holm(np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, threshold), 1.0))


def lower_bounds(matches: Ints, n: int) -> Floats:
    """(K,) one-sided lower 95% bounds (Clopper and Pearson), each at its level in Holm's order.

    A bound exceeds a threshold exactly where the p-value of `exceedance` at its place in the order is significant.
    """
    from scipy.special import betaincinv

    k = np.asarray(matches, dtype=np.float64)
    rank = np.empty(len(k))
    rank[np.argsort(-k, kind="stable")] = np.arange(len(k))
    if n == 0:
        return np.zeros(len(k))
    return np.asarray(np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, LEVEL / (len(k) - rank)), 0.0))


def mcnemar(best: Bools, others: Bools) -> Floats:
    """(K,) exact two-sided p-values of McNemar's test: matches of `best` (N,) against those of `others` (K, N).

    Only pairs that one rule matches and the other does not count; 1 where there are none. McNemar (1947),
    Psychometrika 12, 153, with the binomial distribution in place of its approximation.
    """
    from scipy.special import bdtr

    won, lost = (best & ~others).sum(axis=1), (others & ~best).sum(axis=1)
    return np.asarray(np.minimum(1.0, 2 * bdtr(np.minimum(won, lost).astype(np.float64), won + lost, 0.5)))


def significantly_worse(best: Bools, others: Bools) -> Bools:
    """(K,) whether McNemar's test separates a rule from the best one, which matches more."""
    p = mcnemar(best, others)
    worse: Bools = (p <= LEVEL) & ((best & ~others).sum(axis=1) > (others & ~best).sum(axis=1))
    return worse


def _places(codes: Ints, answers: Ints) -> NDArray[np.uint8]:
    """Where each code stands among the distinct answers, of which there are at most 250; `ABSENT` where nowhere."""
    known = np.unique(answers[answers != NONE])
    place = np.full(codes.shape, ABSENT, dtype=np.uint8)
    if not len(known):
        return place
    # By a small table of remainders: a search for every code would cost ten times as much.
    remainders = known & (REMAINDERS - 1)
    listed = np.full(REMAINDERS, ABSENT, dtype=np.uint8)
    listed[remainders] = np.arange(len(known))
    first = listed[codes & (REMAINDERS - 1)]
    maybe = first != ABSENT
    some, found = codes[maybe], first[maybe]
    if len(np.unique(remainders)) < len(known):  # two answers share one: those few codes are searched for
        found = np.minimum(np.searchsorted(known, some), len(known) - 1).astype(np.uint8)
    place[maybe] = np.where(known[found] == some, found, ABSENT)
    return place
