"""The permutation null: the similarity that remains when the stimuli of one side are paired with the wrong ones.

Rows and columns of an RDM move together (Mantel 1967), so the dependence between pairs that share a stimulus is kept. The
null is that y's stimuli are exchangeable given x: rejecting it shows *some* relation between the two, however small, and
nothing about how much. Where all N! pairings are fewer than the draws asked for, each is used once and p is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.similarity import cka as linear_cka
from heldout.analyses.similarity.checks import Floats, centred
from heldout.analyses.similarity.compare import Comparator, standardised, tau_a
from heldout.analyses.similarity.measures import Measure
from heldout.analyses.similarity.rdm import stimuli_of

Order = NDArray[np.intp]
Scorer = Callable[[Order], float]


def pairings(n: int, draws: int, rng: np.random.Generator) -> Iterator[Order]:
    """`draws` random orders of n stimuli; all but the one given, each once, where they are no more than that."""
    if n <= 12 and math.factorial(n) - 1 <= draws:
        for i, order in enumerate(permutations(range(n))):
            if i:
                yield np.array(order)
    else:
        for _ in range(draws):
            yield rng.permutation(n)


def null_between(
    xs: Sequence[Floats], ys: Sequence[Floats], measure: Measure, *, draws: int, rng: np.random.Generator
) -> Floats:
    """Draws (R,) of the mean similarity of networks `xs` with networks `ys`, the stimuli of all `ys` reordered alike."""
    score = scorer(xs, ys, measure)
    return np.array([score(order) for order in pairings(len(xs[0]), draws, rng)])


def null_within(xs: Sequence[Floats], measure: Measure, *, draws: int, rng: np.random.Generator) -> Floats:
    """Draws (R,) of the mean similarity of two networks of `xs`, the stimuli of each reordered by itself."""
    n, pairs = len(xs[0]), list(combinations(range(len(xs)), 2))
    scores = [scorer([xs[i]], [xs[j]], measure) for i, j in pairs]
    null = []
    for _ in range(draws):
        orders = [rng.permutation(n) for _ in xs]
        inverse = [np.argsort(order) for order in orders]
        null.append(np.mean([s(orders[j][inverse[i]]) for s, (i, j) in zip(scores, pairs, strict=True)]))
    return np.array(null)


def scorer(xs: Sequence[Floats], ys: Sequence[Floats], measure: Measure) -> Scorer:
    """The mean similarity over pairs of one of `xs` and one of `ys`, as a function of the order of the latter's stimuli.

    What does not depend on the order is computed once.
    """
    if measure.rdms is not None:
        a, b = (measure.rdms.stack(side) for side in (xs, ys))
        return _of_ranks(a, b) if measure.rdms.by == "kendall" else _of_rdms(a, b, measure.rdms.by)
    if measure.hsic is not None:
        debiased = measure.hsic == "debiased"
        scores = [_of_cka(centred(x), centred(y, "y"), debiased=debiased) for x in xs for y in ys]
        return lambda order: float(np.mean([score(order) for score in scores]))
    return lambda order: float(np.mean([measure.of(x, y[order]) for x in xs for y in ys]))


def _of_rdms(a: Floats, b: Floats, by: Comparator) -> Scorer:
    """A mean of inner products is the inner product of means: one product an order, however many networks."""
    from scipy.spatial.distance import squareform

    one, other = (squareform(standardised(r, by).mean(axis=0), checks=False) for r in (a, b))
    return lambda order: float(np.vdot(one, other[order][:, order])) / 2


def _of_ranks(a: Floats, b: Floats) -> Scorer:
    from scipy.spatial.distance import squareform

    i, j = np.triu_indices(stimuli_of(a[0]), 1)
    squares = [squareform(r, checks=False) for r in b]
    return lambda order: float(np.mean([tau_a(r, square[order[i], order[j]]) for r in a for square in squares]))


def _of_cka(x: Floats, y: Floats, *, debiased: bool) -> Scorer:
    _, xx, yy = linear_cka.hsics(x, y, debiased=debiased)
    k, l = (np.einsum("nd,nd->n", v, v) for v in (x, y))  # noqa: E741 - as in the formula

    def score(order: Order) -> float:
        xy = linear_cka.cross_square(x, y[order])
        diagonal = linear_cka.own(float(k @ l[order]), float(k.sum()), float(l.sum()), len(k)) if debiased else 0.0
        return linear_cka.ratio(xy - diagonal, xx, yy)

    return score
