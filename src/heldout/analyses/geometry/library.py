"""A library of named terms over items, and how far each stands apart from the others.

Terms that are nearly functions of one another share what they explain: which of them a component "is" cannot be told from
a correlation. The *tolerance* of a term is the share of its variance that the others do not explain linearly; its inverse
is the variance inflation factor. N items, K components, P terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.similarity.checks import FLAT, table
from heldout.errors import NonFiniteError, StatisticsError

Floats = NDArray[np.float64]

NOTHING = 1e-9  # of a component's length: less than this is rounding
DEPENDENT = 1e-10  # tolerance below which a term is a linear function of the others, up to rounding
SPARE = 3  # items beyond the number of terms that a partial correlation needs


@dataclass(frozen=True, eq=False)
class Library:
    """`values` (N, P) of the terms `names`, each finite and varying, none a linear function of the others; see `library`."""

    names: tuple[str, ...]
    values: Floats

    @cached_property
    def standard(self) -> Floats:
        """(N, P) about the mean, of unit length."""
        about = self.values - self.values.mean(axis=0)
        unit: Floats = about / np.linalg.norm(about, axis=0)
        return unit

    @cached_property
    def unique(self) -> Floats:
        """(N, P): the part of each standardised term that the others (and a constant) do not explain."""
        columns = [_beyond(self.standard[:, [i]], np.delete(self.standard, i, axis=1)) for i in range(len(self.names))]
        return np.concatenate(columns, axis=1)

    @cached_property
    def basis(self) -> Floats:
        """(N, P + 1), orthonormal: the span of a constant and all terms."""
        basis, _ = np.linalg.qr(np.column_stack([np.ones(len(self.values)), self.standard]))
        return basis

    @property
    def tolerance(self) -> Floats:
        """(P,) 1 - R^2 of each term on all others, 0 to 1."""
        tolerance: Floats = (self.unique**2).sum(axis=0)
        return tolerance

    @property
    def inflation(self) -> Floats:
        """(P,) variance inflation factors, 1 / tolerance."""
        return 1 / self.tolerance

    def components(self, components: ArrayLike | Tensor) -> Floats:
        """(N, K) components over the library's items, each about its mean and of unit length."""
        y = table(components, "components")
        if len(y) != len(self.values):
            raise StatisticsError(
                f"components have {len(y)} items, the terms {len(self.values)}; they must be the same"
            )
        flat = np.flatnonzero(np.ptp(y, axis=0) <= FLAT * np.abs(y).max(axis=0))
        if len(flat):
            raise StatisticsError(
                f"component {flat[0]} is the same for every item and correlates with nothing; leave it out"
            )
        about = y - y.mean(axis=0)
        unit: Floats = about / np.linalg.norm(about, axis=0)
        return unit

    def left(self, components: ArrayLike | Tensor) -> Floats:
        """(N, P, K) what all terms but one, and a constant, leave of each component; exactly 0 where that is rounding."""
        y = self.components(components)
        left = np.stack([_beyond(y, np.delete(self.standard, t, axis=1)) for t in range(len(self.names))], axis=1)
        left[:, np.linalg.norm(left, axis=0) <= NOTHING] = 0.0
        return left

    def partial(self, left: Floats) -> Floats:
        """(K, P) partial correlations with each term, from what the others leave of the components, as `left` gives it.

        Where residuals were moved about they hold something of the other terms again, and that is taken out once more: with
        u the unit vector of what is unique to the term, |residual|^2 = (u . left)^2 + |left beyond all terms|^2. 0 where
        the others leave nothing.
        """
        unit = self.unique / np.linalg.norm(self.unique, axis=0)
        along = np.einsum("np,npk->kp", unit, left)
        n, p, k = left.shape
        explained = (self.basis.T @ left.reshape(n, p * k)).reshape(-1, p, k)
        beyond = ((left**2).sum(axis=0) - (explained**2).sum(axis=0)).T
        length = np.sqrt(along**2 + np.maximum(beyond, 0))
        out: Floats = np.zeros_like(along)
        np.divide(along, length, out=out, where=length > 0)
        return out


def library(terms: Mapping[str, ArrayLike]) -> Library:
    """From terms, name -> (N,) numbers over the same items.

    Raises `StatisticsError` for shapes that disagree, a term that is constant, fewer than P + 3 items, and terms that are
    linear functions of the others; `NonFiniteError` for NaN or infinite values.
    """
    names, values = stacked(terms)
    spread, level = np.ptp(values, axis=0), np.abs(values).max(axis=0)
    flat = [name for name, s, top in zip(names, spread, level, strict=True) if s <= FLAT * top]
    if flat:
        raise StatisticsError(f"term {flat[0]!r} is the same for every item; leave it out")
    if len(values) < len(names) + SPARE:
        raise StatisticsError(f"{len(values)} items for {len(names)} terms; at least {len(names) + SPARE} are needed")
    made = Library(names, values)
    dependent = [n for n, t in zip(names, made.tolerance, strict=True) if t <= DEPENDENT]
    if dependent:
        raise StatisticsError(
            f"terms {', '.join(dependent)} are linear functions of one another (with a constant) on these items: partial "
            "correlations are not defined; leave one of them out"
        )
    return made


def stacked(terms: Mapping[str, ArrayLike]) -> tuple[tuple[str, ...], Floats]:
    """Names and columns (N, P) of finite terms over the same items; they may be constant and depend on one another."""
    if not terms:
        raise StatisticsError("a library needs at least one term")
    columns, items = [], None
    for name, given in terms.items():
        column = np.asarray(given, dtype=np.float64)
        items = len(column) if items is None and column.ndim == 1 else items
        if column.shape != (items,):
            raise StatisticsError(f"term {name!r} has shape {column.shape}; one number an item, ({items},), is needed")
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise NonFiniteError(f"term {name!r} is NaN or infinite for {len(bad)} items, the first is item {bad[0]}")
        columns.append(column)
    return tuple(terms), np.column_stack(columns)


def _beyond(values: Floats, others: Floats) -> Floats:
    if not others.shape[1]:
        return values
    basis, _ = np.linalg.qr(others)
    once = values - basis @ (basis.T @ values)
    left: Floats = once - basis @ (basis.T @ once)  # twice: after once, what is small is mostly rounding
    return left
