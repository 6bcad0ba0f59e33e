"""Squared errors summed by unit: all that a root mean square and its cluster bootstrap need.

    errors = squares({"network": a, "formula": b}, units)
    errors.rms("network")
    bootstrap_variance(errors.table, errors.log_ratio("network", "formula"), rng=rng)

N items, U units (the clusters that are resampled), M predictors scored on the same items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import NonFiniteError, StatisticsError, unknown
from heldout.statistics.bootstrap import Estimand

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Squares:
    """`sums` (U, M): the sum of squared errors of each predictor of `names` over each unit; `units` (U,) their labels,
    ascending, and `n` (U,) how many items each has. In the square of the errors' unit."""

    names: tuple[str, ...]
    units: NDArray[Any]
    n: Floats
    sums: Floats

    @property
    def table(self) -> Floats:
        """(U, 1 + M): items and sums side by side, as `bootstrap_totals` takes them."""
        return np.column_stack([self.n, self.sums])

    def rms(self, name: str) -> float:
        """Root mean square error of one predictor over all items, in the errors' unit."""
        return float(np.sqrt(self.sums[:, self._at(name)].sum() / self.n.sum()))

    def log_ratio(self, name: str, other: str) -> Estimand:
        """Totals of `table` (r, 1 + M) -> log RMS(name) - log RMS(other), (r,); NaN where one of them is exactly 0."""
        a, b = self._at(name) + 1, self._at(other) + 1

        def estimand(totals: Floats) -> Floats:
            top, bottom = totals[:, a], totals[:, b]
            with np.errstate(divide="ignore", invalid="ignore"):
                value: Floats = np.where((top > 0) & (bottom > 0), 0.5 * (np.log(top) - np.log(bottom)), np.nan)
            return value

        return estimand

    def _at(self, name: str) -> int:
        if name not in self.names:
            raise StatisticsError(unknown("predictor", name, self.names))
        return self.names.index(name)


def squares(errors: Mapping[str, ArrayLike], units: ArrayLike) -> Squares:
    """From errors, name -> (N,), on the same items, and `units` (N,), one label an item.

    Raises `StatisticsError` for shapes that disagree or nothing to score, `NonFiniteError` for NaN or infinite errors.
    """
    labels = np.asarray(units)
    if not errors or labels.ndim != 1 or not len(labels):
        raise StatisticsError(f"squared errors need one predictor and one item; got {len(errors)} and {labels.shape}")
    columns = []
    for name, values in errors.items():
        error = np.asarray(values, dtype=np.float64)
        if error.shape != labels.shape:
            raise StatisticsError(
                f"errors of {name!r} have shape {error.shape}; {labels.shape}, one a unit label, is due"
            )
        bad = np.flatnonzero(~np.isfinite(error))
        if len(bad):
            raise NonFiniteError(f"{len(bad)} errors of {name!r} are NaN or infinite, the first is of item {bad[0]}")
        columns.append(error)
    found, code = np.unique(labels, return_inverse=True)
    sums = [np.bincount(code, weights=error**2, minlength=len(found)) for error in columns]
    return Squares(tuple(errors), found, np.bincount(code).astype(np.float64), np.column_stack(sums))
