"""How large partial correlations of components with terms are where there is no relation: residuals moved about.

    null = partial_null(features, terms, exchange="flips", groups=chains, seed=0)
    null.p, null.by_term, null.threshold

N items, K components, P terms, R draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.geometry.library import Library
from heldout.errors import ConfigError, StatisticsError, unknown
from heldout.statistics.permutation import null_p

Floats = NDArray[np.float64]
Exchange = Literal["flips", "rotations", "rows"]
EXCHANGES: tuple[Exchange, ...] = ("flips", "rotations", "rows")

DRAWS = 999
MIN_GROUPS = 10  # fewer have too few sign patterns for a level of .05 over a grid


@dataclass(frozen=True, eq=False)
class PartialNull:
    """`observed` (K, P) partial correlations and `draws` (R, K, P) of their absolute values under the null.

    The null of one pair is wider than another's: a component that does follow a smooth term leaves large residuals to move,
    which a plain maximum over the grid would hold against all others. So maxima are of each value over its own null's root
    mean square, `scale` (K, P); under the null of no relation at all this hardly matters.
    """

    terms: tuple[str, ...]
    exchange: Exchange
    observed: Floats
    draws: Floats

    @property
    def scale(self) -> Floats:
        """(K, P) root mean square of the null of each pair."""
        scale: Floats = np.sqrt((self.draws**2).mean(axis=0))
        return scale

    @property
    def alone(self) -> Floats:
        """(K, P) p of each pair by itself, corrected for nothing."""
        _, k, p = self.draws.shape
        values = np.abs(self.observed)
        return np.array([[null_p(values[i, t], self.draws[:, i, t]) for t in range(p)] for i in range(k)])

    @property
    def p(self) -> Floats:
        """(K, P) p corrected for the whole grid: the chance that the largest of *all* pairs is as large over its scale."""
        largest = _over(self.draws, self.scale).max(axis=(1, 2))
        return np.array([[null_p(v, largest) for v in row] for row in _over(self.observed, self.scale).tolist()])

    @property
    def by_term(self) -> Floats:
        """(P,) p of each term, corrected for the number of components."""
        draws, values = _over(self.draws, self.scale).max(axis=1), _over(self.observed, self.scale).max(axis=0)
        return np.array([null_p(value, draws[:, t]) for t, value in enumerate(values.tolist())])

    @property
    def threshold(self) -> Floats:
        """(K, P) the |partial correlation| that the null of the whole grid exceeds one time in twenty."""
        largest = _over(self.draws, self.scale).max(axis=(1, 2))
        threshold: Floats = np.quantile(largest, 0.95) * self.scale
        return threshold


def partial_null(
    components: ArrayLike | Tensor,
    terms: Library,
    *,
    exchange: Exchange,
    seed: int,
    groups: ArrayLike | None = None,
    draws: int = DRAWS,
) -> PartialNull:
    """The partial correlations that remain when what the *other* terms leave of the components is moved about.

    Freedman and Lane (1983): for each term, components are regressed on all others and the residuals moved, so that no
    other term's effect is counted. All components move together, which keeps their relations. What moves says what is
    taken to be exchangeable:

    - ``flips``: the residuals of each group of `groups` (N,) change sign together. Any dependence within a group is kept;
      groups are taken as independent with residuals as likely as their negatives (the wild cluster bootstrap: Cameron,
      Gelbach and Miller 2008, Review of Economics and Statistics 90, 414). Groups that resemble their neighbours are not
      independent, and no choice of groups mends that where components vary as slowly as the terms. On the chart of
      nuclides, smooth random functions, unrelated to the terms of a mass formula, were "found" in 20 of 20 trials with one
      isotopic chain a group; with eight, in 1, 2 and 17 of 20 at length scales of 3, 10 and 30 nucleons. So a small p
      may show smoothness alone: put networks trained on other smooth targets beside it (`terms.beside`).
    - ``rotations``: within each group residuals shift along the group's order in the table, around its end, each group by
      its own amount. Keeps most of the dependence along a group. What differs between groups stays where it is, so a
      relation that lies there is in the null too, and is never found.
    - ``rows``: items are exchangeable. Wrong, and far too ready to reject, where neighbouring items are alike.

    Raises `ConfigError` for groups that are missing or not wanted, `StatisticsError` for fewer than 10 of them.
    """
    if draws < 1:
        raise ConfigError(f"a null needs at least 1 draw; got {draws}")
    left, rng = terms.left(components), np.random.default_rng(seed)
    null = [
        np.abs(terms.partial(sign[:, None, None] * left[index]))
        for index, sign in _moves(exchange, groups, len(left), draws, rng)
    ]
    return PartialNull(terms.names, exchange, terms.partial(left), np.array(null))


def _over(values: Floats, scale: Floats) -> Floats:
    """|values| over their scale, 0 where the null never leaves 0."""
    magnitude = np.abs(values)
    out: Floats = np.zeros_like(magnitude)
    np.divide(magnitude, scale, out=out, where=scale > 0)
    return out


def _moves(
    exchange: Exchange, groups: ArrayLike | None, n: int, draws: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """For each draw where each item's residual comes from (N,), and its sign (N,)."""
    if exchange not in EXCHANGES:
        raise ConfigError(unknown("exchange", str(exchange), EXCHANGES))
    stay, ones = np.arange(n), np.ones(n)
    if exchange == "rows":
        if groups is not None:
            raise ConfigError(
                "rows are exchanged freely, whatever their group; choose 'flips' or 'rotations' for groups"
            )
        for _ in range(draws):
            yield rng.permutation(n), ones
        return
    if groups is None:
        raise ConfigError(f"{exchange!r} moves residuals by group; give groups, one label an item")
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ConfigError(f"groups have shape {labels.shape}; ({n},), one label an item, was expected")
    found, code = np.unique(labels, return_inverse=True)
    if len(found) < MIN_GROUPS:
        raise StatisticsError(f"{len(found)} groups; at least {MIN_GROUPS} are needed to move residuals by group")
    members = [np.flatnonzero(code == g) for g in range(len(found))]
    for _ in range(draws):
        if exchange == "flips":
            signs: Floats = 1.0 - 2.0 * rng.integers(0, 2, size=len(found)).astype(np.float64)
            yield stay, signs[code]
        else:
            index = stay.copy()
            for rows in members:
                index[rows] = np.roll(rows, rng.integers(len(rows)))
            yield index, ones
