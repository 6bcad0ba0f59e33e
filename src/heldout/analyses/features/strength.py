"""Variance explained as evidence: every label's figure with its interval over rows or clusters, and on balanced labels.

A binary label explains p (1 - p) |D|^2 / tr Sigma, so figures of splits that differ in base rate do not compare. Weights
that make the labels' cells equally frequent undo that, in two ways that answer different questions and are never mixed:

- *carried over*: map and centring from the fit split, T's rows weighted. Does what was found there hold here?
- *refitted*: map and centring from one half of T, weighted, scored on the other. How loud is the feature here?
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.features.intervals import Ratio, group_codes, ratio_interval
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, chunks, moments_of
from heldout.analyses.features.variance import ALL, RowErrors, standard_maps
from heldout.errors import StatisticsError
from heldout.evidence import Estimate

Floats = NDArray[np.float64]

REDUCTIONS = ("variance_explained", "variance_per_example", "variance_unique", "variance_shared")


def strength(
    errors: RowErrors, name: str, *, groups: ArrayLike | None = None, weights: ArrayLike | None = None
) -> dict[str, Ratio]:
    """The four figures of one label, from rows scored under `standard_maps`.

    ``variance_explained`` is pooled; ``variance_per_example`` the mean over rows of 1 - |e|^2 / |x - m|^2, rows at the mean
    left out, which small rows can drag far below 0; ``variance_unique`` and ``variance_shared`` are pooled parts.
    `groups`: (n,) clusters of rows; `weights`: (n,) as `balancing_weights` gives them, taken as known.

    An interval is for *the fitted map* on other rows. For a feature that is represented that is the population's figure to
    first order; an absent one lies about q / n of the fit split below 0, which its interval may exclude, so whether a
    feature is there at all is for its permutation null to say (`nulls`).
    """
    total, alone = errors.total, errors.error(name)
    w = np.ones(len(total)) if weights is None else np.asarray(weights, dtype=np.float64)
    unique = errors.error(f"-{name}") - errors.error(ALL)
    moves = total > 0
    share = np.zeros_like(total)
    share[moves] = 1 - alone[moves] / total[moves]
    numerators = (w * (total - alone), w * share, w * unique, w * (total - alone - unique))
    denominators = (w * total, w * moves, w * total, w * total)
    return {
        quantity: ratio_interval(a, b, groups)
        for quantity, a, b in zip(REDUCTIONS, numerators, denominators, strict=True)
    }


def score(fit: JointMoments, x: ArrayLike | Tensor, design: ArrayLike, coding: Coding) -> RowErrors:
    """Rows of T held in memory, x (n, D) and design (n, q), scored under the maps of `fit`; streams call
    ``RowErrors.update`` themselves."""
    errors = RowErrors(standard_maps(fit, coding))
    for rows, part in chunks(x, design):
        errors.update(rows, part)
    return errors


def balancing_weights(cells: NDArray[np.intp], count: int) -> Floats:
    """(n,) weights of mean 1 that make `count` cells equally frequent; raises `StatisticsError` for an empty one."""
    sizes = np.bincount(cells, minlength=count)
    if len(sizes) > count or not len(cells):
        raise StatisticsError(f"cells from 0 to {count - 1} are needed, with rows in them; got {len(sizes)} cells")
    if (sizes == 0).any():
        raise StatisticsError(
            f"{int((sizes == 0).sum())} of {count} combinations of levels have no rows (the first is number "
            f"{int(np.argmin(sizes))}): labels cannot be balanced; balance fewer labels, or add rows"
        )
    weights: Floats = (len(cells) / count / sizes)[cells]
    return weights


def carried_over(
    errors: RowErrors, name: str, cells: NDArray[np.intp], count: int, *, groups: ArrayLike | None = None
) -> dict[str, Ratio]:
    """`strength` on labels balanced over `cells` (n,), with the fit split's map and centring; see `Coding.cells`."""
    return strength(errors, name, groups=groups, weights=balancing_weights(cells, count))


def refitted(
    x: ArrayLike | Tensor,
    design: ArrayLike,
    coding: Coding,
    name: str,
    cells: NDArray[np.intp],
    count: int,
    *,
    seed: int,
    groups: ArrayLike | None = None,
) -> dict[str, Ratio]:
    """`strength` on labels balanced over `cells`, map and centring refitted on a random half of these rows (of the groups,
    where given) and scored on the other, each half balanced by itself. x (n, D), design (n, q)."""
    rows, design = np.asarray(x), np.asarray(design, dtype=np.float64)
    units = np.arange(len(rows)) if groups is None else group_codes(groups, len(rows))
    order = np.random.default_rng(seed).permutation(units.max() + 1)
    first = np.isin(units, order[: len(order) // 2])
    fit = moments_of(rows[first], design[first], balancing_weights(cells[first], count))
    errors = score(fit, rows[~first], design[~first], coding)
    there = None if groups is None else np.asarray(groups)[~first]
    return strength(errors, name, groups=there, weights=balancing_weights(cells[~first], count))


def strength_estimates(
    errors: RowErrors, coding: Coding, *, groups: ArrayLike | None = None, **where: Any
) -> list[Estimate]:
    """`strength` of every label as evidence, quantities ``variance_explained:<label>`` and so on; `where` are fields of
    `Estimate` (network, seed, split, site)."""
    method = "linearised t interval over " + ("rows" if groups is None else "clusters")
    return [
        ratio.estimate(f"{quantity}:{name}", method=method, **where)
        for name in coding.names
        for quantity, ratio in strength(errors, name, groups=groups).items()
    ]
