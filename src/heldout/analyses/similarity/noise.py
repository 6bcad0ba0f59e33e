"""Noise ceilings: how similar any model could be, on average, to RDMs that differ between subjects.

Upper: the mean similarity of each subject's RDM with the mean RDM of all, itself among them, which no model can beat (exact
for Pearson and the cosine, where the mean of standardised RDMs is the best of all RDMs; for Spearman and Kendall the mean of
ranks is close to it). Lower: with the mean RDM of the *other* subjects, which a true model reaches if the others estimate
it well (Nili et al. 2014, PLoS Computational Biology 10). Both are means over subjects; few subjects put them far apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import Comparator, compare, require_spread, standardised
from heldout.errors import StatisticsError


class Ceiling(NamedTuple):
    lower: float
    upper: float


def noise_ceiling(rdms: ArrayLike, by: Comparator = "pearson") -> Ceiling:
    """Ceilings of condensed RDMs (S, m) of S >= 2 subjects over the same stimuli, -1 to 1."""
    table = np.asarray(rdms, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise StatisticsError(f"a noise ceiling needs the RDMs of 2 subjects or more, (S, m); got shape {table.shape}")
    if by in ("pearson", "cosine"):
        unit = standardised(table, by)
        lower, upper = gram_ceilings((unit @ unit.T)[None], np.ones((1, len(unit))))
        return Ceiling(float(lower[0]), float(upper[0]))
    from scipy.stats import rankdata

    require_spread(*table)
    ranks = rankdata(table, axis=-1)
    total = ranks.sum(axis=0)
    return Ceiling(
        float(np.mean([compare(total - own, rdm, by) for own, rdm in zip(ranks, table, strict=True)])),
        float(np.mean([compare(total, rdm, by) for rdm in table])),
    )


def gram_ceilings(grams: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Lower and upper ceilings, (R,) each, from the subjects' similarities `grams` (R, S, S), Pearson or cosine.

    Subject i occurs `counts` (R, S) times: copies weigh in the mean RDMs, are left out together, and are scored once.
    NaN where a single subject was drawn.
    """
    toward = np.einsum("rij,rj->ri", grams, counts)  # inner product of i's RDM with the sum of all
    whole = np.einsum("ri,ri->r", toward, counts)[:, None]
    own = np.einsum("rii->ri", grams) * counts
    rest = whole - 2 * counts * toward + counts * own
    drawn = counts > 0
    several = drawn.sum(axis=1, keepdims=True) > 1
    upper = toward / np.sqrt(whole)
    lower = (toward - own) / np.sqrt(np.where(several & drawn, rest, np.nan))
    return _mean(lower, drawn), _mean(upper, drawn)


def _mean(values: Floats, where: np.ndarray) -> Floats:
    mean: Floats = np.where(where, values, 0).sum(axis=1) / where.sum(axis=1)
    return mean
