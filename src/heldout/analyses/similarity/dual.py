"""The dual bootstrap: how sure a similarity of RDMs is, for other stimuli *and* other subjects.

Subjects are what is drawn from a population beside the stimuli: networks trained from other seeds, runs, animals. Resampling
both at once counts the noise of single measurements once for each way of resampling it, and so is too wide; resampling one
is too narrow. Schütt et al. (2023, eLife 12, e82566) combine the three variances:

    V = c_s V_subjects + c_n V_stimuli - c_s c_n (V_both - V_subjects - V_stimuli),  c_s = S / (S - 1), c_n = N / (N - 1),

not below either of the first two terms and not above V_both. It is referred to Student's t with min(S, N) - 1 degrees of
freedom. rsatoolbox computes the same. Where both sides have several networks, both are resampled, independently; S is then
the smaller number, and the interval errs on the wide side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import Comparator, standardised
from heldout.analyses.similarity.noise import gram_ceilings
from heldout.analyses.similarity.rdm import stimuli_of
from heldout.analyses.similarity.resampling import draw_counts, resampled
from heldout.errors import StatisticsError

MAX_UNDEFINED = 0.01  # share of draws that may be undefined (all drawn distances equal) and be left out


class Variances(NamedTuple):
    """Bootstrap variances of one figure: over both factors at once, over subjects alone, over stimuli alone."""

    both: float
    subjects: float
    stimuli: float


class Draws(NamedTuple):
    """Bootstrap draws, each (R, 3): both factors, subjects alone, stimuli alone.

    `values`: mean similarity over pairs of networks; `lower` and `upper`: noise ceilings of side b (NaN for rank
    comparators, and where a single subject was drawn).
    """

    values: Floats
    lower: Floats
    upper: Floats


def dual_bootstrap(
    a: Floats,
    b: Floats,
    by: Comparator = "pearson",
    *,
    draws: int = 1000,
    rng: np.random.Generator,
    ceilings: bool = False,
) -> Draws:
    """Draws of the mean similarity of RDMs `a` (Sa, m) with RDMs `b` (Sb, m) over the same stimuli.

    A side of one RDM is a fixed model. `ceilings` computes the noise ceilings of side b in each draw too.
    """
    stimuli = draw_counts(stimuli_of(a[0]), draws, rng)
    networks_a, networks_b = (draw_counts(len(side), draws, rng) for side in (a, b))
    return of_counts(a, b, by, stimuli, networks_a, networks_b, ceilings=ceilings)


def of_counts(
    a: Floats, b: Floats, by: Comparator, stimuli: Floats, of_a: Floats, of_b: Floats, *, ceilings: bool = False
) -> Draws:
    """As `dual_bootstrap`, for given counts of stimuli (R, N) and of the networks of each side, (R, Sa) and (R, Sb)."""
    sampled = resampled(a, b, stimuli, by)
    whole = resampled(a, b, np.ones((1, stimuli.shape[1])), by)
    share_a, share_b = (w / w.sum(axis=1, keepdims=True) for w in (of_a, of_b))
    values = np.stack(
        [
            np.einsum("rab,ra,rb->r", sampled, share_a, share_b),
            np.einsum("ab,ra,rb->r", whole[0], share_a, share_b),
            sampled.mean(axis=(1, 2)),
        ],
        axis=1,
    )
    lower = upper = np.full_like(values, np.nan)
    if ceilings and by in ("pearson", "cosine"):
        grams = resampled(b, b, stimuli, by)
        unit = standardised(b, by)
        one = np.broadcast_to(unit @ unit.T, grams.shape)
        kinds = [gram_ceilings(grams, of_b), gram_ceilings(one, of_b), gram_ceilings(grams, np.ones_like(of_b))]
        lower, upper = (np.stack([kind[i] for kind in kinds], axis=1) for i in (0, 1))
    return Draws(values, lower, upper)


def variances(draws: Floats) -> Variances:
    """Variances of the columns of `draws` (R, 3); `StatisticsError` where more than 1% of the draws are undefined."""
    defined = np.isfinite(draws).all(axis=1)
    if (undefined := 1 - defined.mean()) > MAX_UNDEFINED:
        raise StatisticsError(
            f"the similarity is undefined in {undefined:.0%} of {len(draws)} resamples (at most {MAX_UNDEFINED:.0%}): "
            "too few stimuli, or too few distinct distances between them"
        )
    both, subjects, stimuli = draws[defined].var(axis=0, ddof=1)
    return Variances(float(both), float(subjects), float(stimuli))


def combined(v: Variances, *, subjects: int, stimuli: int) -> float:
    """Variance of a figure over other subjects and stimuli. With a single subject, over other stimuli for this subject."""
    c_n = stimuli / (stimuli - 1)
    if subjects < 2:
        return c_n * v.stimuli
    c_s = subjects / (subjects - 1)
    estimate = c_s * v.subjects + c_n * v.stimuli - c_s * c_n * (v.both - v.subjects - v.stimuli)
    return min(max(estimate, c_s * v.subjects, c_n * v.stimuli), v.both)
