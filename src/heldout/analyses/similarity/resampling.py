"""Similarities of RDMs on bootstrap samples of the stimuli, all samples at once.

A sample in which stimulus i occurs w_i times holds the pair (i, j) w_i w_j times. Pairs of a stimulus with its own copy are
left out: their distance of 0 is known beforehand and would make any two RDMs alike. So each sum over a sample's pairs is a
quadratic form w^T M w in a matrix M with a zero diagonal, and a correlation needs five of them: no sample is ever formed.
Ranks do change with the sample: Spearman's are computed from the weights of the sorted pairs, Kendall's sample by sample.
Copies of a pair tie, which lowers tau-a in the samples and makes its intervals too wide (rsatoolbox's too).
"""

from __future__ import annotations

import numpy as np

from heldout.analyses.similarity.checks import FLAT, Floats
from heldout.analyses.similarity.compare import Comparator, standardised, tau_a
from heldout.analyses.similarity.rdm import stimuli_of

CELLS = 2**21  # weights of pairs held at once


def draw_counts(n: int, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, n): how often each of n units occurs in each bootstrap sample."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def resampled(a: Floats, b: Floats, counts: Floats, by: Comparator) -> Floats:
    """(R, Sa, Sb): similarity of each RDM of `a` (Sa, m) with each of `b` (Sb, m) on samples with `counts` (R, N).

    NaN where all distances of a sample are equal, or none is left.
    """
    if by == "kendall":
        return np.stack([_kendall(a, b, w) for w in counts])
    if by == "spearman":
        step = max(1, CELLS // a.shape[1])
        return np.concatenate([_spearman(a, b, counts[s : s + step]) for s in range(0, len(counts), step)])
    return _moments(a, b, counts, centre=by == "pearson")


def _moments(a: Floats, b: Floats, counts: Floats, *, centre: bool) -> Floats:
    # Correlations know neither shift nor scale; near zero, the differences below keep their digits.
    u, v = (standardised(r, "pearson" if centre else "cosine") for r in (a, b))
    uu, vv = (np.stack([pair_sums(r * r, counts) for r in rdms], axis=1) for rdms in (u, v))
    if np.array_equal(u, v):  # symmetric: half of the products will do
        uv = np.empty((len(counts), len(u), len(u)))
        for i, j in zip(*np.triu_indices(len(u)), strict=True):
            uv[:, i, j] = uv[:, j, i] = uu[:, i] if i == j else pair_sums(u[i] * u[j], counts)
    else:
        uv = np.stack([np.stack([pair_sums(x * y, counts) for y in v], axis=1) for x in u], axis=1)
    if centre:
        total = counts.sum(axis=1) ** 2 - (counts * counts).sum(axis=1)
        total = np.where(total > 0, total, np.nan)[:, None] / 2
        su, sv = (np.stack([pair_sums(r, counts) for r in rdms], axis=1) for rdms in (u, v))
        uv -= su[:, :, None] * sv[:, None, :] / total[:, :, None]
        return _divided(uv, _spread(uu, su * su / total), _spread(vv, sv * sv / total))
    return _divided(uv, _spread(uu), _spread(vv))


def pair_sums(condensed: Floats, counts: Floats) -> Floats:
    """(R,): the sum over pairs i < j of w_i w_j times the entry of `condensed` (m,)."""
    from scipy.spatial.distance import squareform

    square = squareform(condensed, checks=False)
    sums: Floats = np.einsum("rn,rn->r", counts @ square, counts) / 2
    return sums


def _spearman(a: Floats, b: Floats, counts: Floats) -> Floats:
    n = stimuli_of(a[0])
    i, j = np.triu_indices(n, 1)
    weights = counts[:, i] * counts[:, j]
    u, v = (np.stack([_ranks(r, weights) for r in rdms], axis=1) for rdms in (a, b))
    total = weights.sum(axis=1)[:, None]
    total = np.where(total > 0, total, np.nan)
    u, v = (ranks - np.einsum("rsm,rm->rs", ranks, weights)[:, :, None] / total[:, :, None] for ranks in (u, v))
    uu, vv = (_spread(np.einsum("rsm,rsm,rm->rs", ranks, ranks, weights)) for ranks in (u, v))
    return _divided((u * weights[:, None, :]) @ v.transpose(0, 2, 1), uu, vv)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks (R, m) of `values` (m,) when each occurs as often as its weight (R, m) says, up to a constant."""
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    last = np.flatnonzero(np.diff(code[order], append=code.max() + 1))
    upto = np.cumsum(weights[:, order], axis=1)[:, last]
    before = np.concatenate([np.zeros((len(weights), 1)), upto[:, :-1]], axis=1)
    ranks: Floats = ((upto + before) / 2)[:, code]
    return ranks


def _kendall(a: Floats, b: Floats, w: Floats) -> Floats:
    from scipy.spatial.distance import squareform

    drawn = np.repeat(np.arange(len(w)), w.astype(int))
    i, j = (drawn[k] for k in np.triu_indices(len(drawn), 1))
    i, j = i[i != j], j[i != j]
    u, v = ([squareform(r, checks=False)[i, j] for r in rdms] for rdms in (a, b))
    return np.array([[tau_a(x, y) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan for y in v] for x in u])


def _spread(squares: Floats, of_mean: Floats | float = 0.0) -> Floats:
    """Squares about the mean; NaN where that is rounding, as when all distances of a sample are equal."""
    spread = squares - of_mean
    return np.where(spread > FLAT * squares, spread, np.nan)


def _divided(uv: Floats, uu: Floats, vv: Floats) -> Floats:
    """Correlations (R, Sa, Sb) from products and squares."""
    r: Floats = np.clip(uv / np.sqrt(uu[:, :, None] * vv[:, None, :]), -1, 1)
    return r
