"""All variance-like figures of some labels at one place, as evidence: what a study or an audit calls.

Quantities end in ``:<label>``. ``variance_explained`` has its permutation null (95th percentile, within strata of the other
labels) in `null`; ``variance_band`` has the least and greatest value under function-preserving rescalings in `low` and
`high`; ``permutation_p`` is the null's p-value; ``density`` has the mean over permuted labels in `null`, and
``density_random_direction`` stands beside. What cannot be estimated has its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.density import Density, densities
from heldout.analyses.features.guards import guards, shared_rows
from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.nulls import DRAWS, Null, permutation_null, strata_of
from heldout.analyses.features.principal import component_r2, components, effective_dimension
from heldout.analyses.features.strength import score, strength_estimates
from heldout.analyses.features.variance import RowErrors
from heldout.errors import StatisticsError
from heldout.evidence import Estimate


@dataclass(frozen=True, eq=False)
class Labelled:
    """Activations x (n, D) with their `table` of labels, each (n,), and, where rows are clustered, their `groups` (n,)."""

    x: ArrayLike | Tensor
    table: Mapping[str, ArrayLike]
    groups: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Overview:
    """`estimates` and `warnings`, and what they were made of, for figures: `errors`, moments, and density by label."""

    estimates: list[Estimate]
    warnings: list[str]
    errors: RowErrors
    fit: JointMoments
    test: JointMoments
    density: dict[str, Density]


def overview(
    fit: Labelled,
    test: Labelled,
    coding: Coding,
    *,
    seed: int,
    elsewhere: Mapping[str, tuple[ArrayLike | Tensor, ArrayLike | Tensor]] | None = None,
    draws: int = DRAWS,
    **where: Any,
) -> Overview:
    """Every figure of every label of `coding`, fitted on one split and scored on another.

    - `elsewhere`: other place -> activations of the same rows of both splits there (``pre-activation``), for the band.
    - `draws`: permutations behind each null; `where`: fields of `Estimate` (network, split, site).
    """
    design, there = coding.encode(fit.table, np.shape(fit.x)[0]), coding.encode(test.table, np.shape(test.x)[0])
    v, t = moments_of(fit.x, design), moments_of(test.x, there)
    errors = score(v, test.x, there, coding)
    places = {name: (moments_of(a, design), moments_of(b, there)) for name, (a, b) in (elsewhere or {}).items()}
    rows = strength_estimates(errors, coding, groups=test.groups, **where)
    units = t.n if test.groups is None else len(np.unique(np.asarray(test.groups)))
    spread = densities(t, coding, seed=seed, n=units)
    moving = bands(v, t, coding, seed=seed, elsewhere=places)
    pca = components(v)
    notes: list[str] = []
    for i, name in enumerate(coding.names):
        columns = coding.columns(name)
        null, said = _null(fit, test, (design[:, columns], there[:, columns]), coding, name, seed=seed + i, draws=draws)
        notes += said
        at = next(k for k, row in enumerate(rows) if row.quantity == f"variance_explained:{name}")
        rows[at] = replace(rows[at], null=null.threshold)
        rows.append(_estimate(f"permutation_p:{name}", null.p, null.reason, n=units, **where))
        moves = moving[name]
        method = f"least and greatest over z-scoring, whitening and {len(moves.gauge)} unit rescalings"
        rows.append(Estimate(f"variance_band:{name}", moves.raw, moves.low, moves.high, method, n=units, **where))
        rows += _of_density(name, spread[name], where)
        variances, r2 = component_r2(pca, t, columns)
        rows.append(Estimate(f"largest_component:{name}", float(np.nanargmax(r2)) + 1, n=units, **where))
    rows.append(Estimate("effective_dimension", effective_dimension(variances), n=units, **where))
    warnings = (
        notes + guards(coding, fit.table, v, split="fit split") + guards(coding, test.table, t, split="test split")
    )
    copies = shared_rows(fit.x, test.x)
    if copies:
        warnings.append(f"{copies} of {t.n} rows of the test split also occur in the fit split")
    return Overview(rows, warnings, errors, v, t, spread)


def _null(
    fit: Labelled,
    test: Labelled,
    columns: tuple[np.ndarray, np.ndarray],
    coding: Coding,
    name: str,
    *,
    seed: int,
    draws: int,
) -> tuple[Null, list[str]]:
    """Permutations within strata of the other labels; within clusters alone, which is said, where those fix the label."""
    groups = None if fit.groups is None or test.groups is None else (fit.groups, test.groups)
    sides = (fit.x, columns[0]), (test.x, columns[1])
    strata = strata_of(coding, fit.table, name), strata_of(coding, test.table, name)
    try:
        null = permutation_null(*sides, seed=seed, strata=strata, groups=groups, draws=draws)
        why = null.reason
    except StatisticsError as error:  # strata that vary within groups
        why = str(error)
    if not why:
        return null, []
    loose = permutation_null(*sides, seed=seed, groups=groups, draws=draws)
    within = "permuted over all rows" if groups is None else "permuted with regard to clusters alone"
    return loose, [f"label {name!r} is {within}, so that its null does not hold the other labels fixed ({why})"]


def _of_density(name: str, found: Density, where: Mapping[str, Any]) -> list[Estimate]:
    why = "nothing exceeds what chance correlations give"
    rows = [
        _estimate(f"density:{name}", found.value, found.reason, null=found.permuted, n=found.n, **where),
        _estimate(f"density_random_direction:{name}", found.random_direction, why, n=found.n, **where),
        Estimate(f"discoveries:{name}", found.discoveries, n=found.n, **where),
    ]
    over = [Estimate(f"units_over_{t:g}:{name}", share, n=found.n, **where) for t, share in found.fraction.items()]
    return rows + over


def _estimate(quantity: str, value: float, reason: str, **more: Any) -> Estimate:
    """The reason is kept where there is no value only."""
    return Estimate(quantity, value, reason=reason if np.isnan(value) else "", **more)
