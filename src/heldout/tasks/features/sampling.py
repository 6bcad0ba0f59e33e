"""Rows of bits that have wanted feature values: the values are drawn first, then a uniform row among those that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.errors import ConfigError, SplitError
from heldout.tasks.features.library import Feature, codes, patterns

MOST_TOGETHER = 20  # bits that features sharing bits may read together: all their patterns are listed
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Planted:
    """A feature of certain bits of a row: input j of `feature` is bit ``bits[j]``; `name` is unique within the task."""

    name: str
    feature: Feature
    bits: tuple[int, ...]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(N,) int64, its class in each of (N, bits) rows."""
        return self.feature.of(rows[:, list(self.bits)])


class Sampler:
    """Draws rows of `bits` bits that have given values of the `planted` features; all else is uniform.

    Features that share no bit are drawn apart. Those that do are drawn together, from the list of all patterns of the
    bits that they read, so that nothing is rejected and rare values cost what common ones do.
    """

    def __init__(self, planted: Sequence[Planted], bits: int) -> None:
        self.planted, self.bits = tuple(planted), bits
        self._groups = [_Group(self.planted, members) for members in _sharing(self.planted)]

    def draw(self, values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """(N, bits) uint8: row i is uniform among the rows whose features have the classes ``values[i]`` (F,)."""
        rows = draw.integers(2, size=(len(values), self.bits), dtype=np.uint8)
        for group in self._groups:
            rows[:, group.bits] = group.draw(values[:, group.members], draw)
        return rows

    def draw_new(self, values: np.ndarray, taken: np.ndarray, draw: np.random.Generator, name: str) -> np.ndarray:
        """As `draw`, but no row has a key in `taken`; see `row_keys`."""
        rows = self.draw(values, draw)
        for _ in range(_TRIES):
            again = np.flatnonzero(np.isin(row_keys(rows), taken))
            if not len(again):
                return rows
            rows[again] = self.draw(values[again], draw)
        raise SplitError(
            f"features: split {name!r} cannot be drawn without rows of an earlier split: {len(again)} of {len(rows)} "
            f"rows have no free place among {self.bits} bits. Give more bits, or ask for fewer rows"
        )


class _Group:
    """Features that share bits, and every pattern of those bits, sorted by the values that it gives them."""

    def __init__(self, planted: Sequence[Planted], members: list[int]) -> None:
        self.members = members
        self.bits = sorted({b for f in members for b in planted[f].bits})
        names = ", ".join(planted[f].name for f in members)
        if len(self.bits) > MOST_TOGETHER:
            raise ConfigError(
                f"features: {names} read {len(self.bits)} bits together; at most {MOST_TOGETHER} are accepted. "
                "Let them share fewer, or have fewer inputs"
            )
        self.classes = [planted[f].feature.classes for f in members]
        self.patterns = patterns(len(self.bits))
        place = {b: i for i, b in enumerate(self.bits)}
        cells = self._cells(
            np.stack([planted[f].feature.of(self.patterns[:, [place[b] for b in planted[f].bits]]) for f in members], 1)
        )
        self.order = np.argsort(cells, kind="stable")
        edges = np.searchsorted(cells[self.order], np.arange(int(np.prod(self.classes)) + 1))
        self.starts, self.sizes = edges[:-1], np.diff(edges)
        if not self.sizes.all():
            empty = np.unravel_index(int(np.flatnonzero(self.sizes == 0)[0]), self.classes[::-1])[::-1]
            raise ConfigError(
                f"features: no row has the values {tuple(int(v) for v in empty)} of {names}, so these cannot be "
                "independent. Let them read other bits"
            )

    def _cells(self, values: np.ndarray) -> np.ndarray:
        """(N,) int64, one number for each combination of values (N, members)."""
        return np.asarray(values @ np.cumprod([1, *self.classes[:-1]]))

    def draw(self, values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """(N, bits of the group) uint8."""
        cells = self._cells(values)
        return np.asarray(self.patterns[self.order[self.starts[cells] + draw.integers(self.sizes[cells])]])


def row_keys(rows: np.ndarray) -> np.ndarray:
    """(N,) int64, a row of at most 63 bits as one number."""
    return codes(rows)


def balanced(n: int, classes: int, draw: np.random.Generator) -> np.ndarray:
    """(n,) int64, every class equally often (up to one), in random order."""
    return np.asarray(draw.permutation(np.arange(n) % classes))


def largest_correlation(values: np.ndarray, classes: Sequence[int]) -> float:
    """The largest absolute correlation between indicators of classes of two different features; (N, F) `values`.

    A feature that is constant correlates with nothing; 0 for a single feature.
    """
    columns, owner = [], []
    for f, k in enumerate(classes):
        for c in range(1 if k == 2 else 0, k):
            columns.append((values[:, f] == c).astype(float))
            owner.append(f)
    centred = np.stack(columns, 1) - np.mean(columns, 1)
    scale = np.sqrt((centred**2).sum(0))
    correlation = np.abs(centred.T @ centred) / np.maximum(np.outer(scale, scale), 1e-300)
    apart = np.asarray(owner)[:, None] != np.asarray(owner)
    return float(correlation[apart].max(initial=0.0))


def independent(n: int, classes: Sequence[int], draw: np.random.Generator) -> np.ndarray:
    """(n, F) int64, balanced columns whose largest correlation is below 4/sqrt(n).

    Columns are permuted independently, so a pair exceeds that bound once in 16 000 draws; with many features one
    would, sooner or later, and is drawn again.
    """
    for _ in range(_TRIES):
        values = np.stack([balanced(n, k, draw) for k in classes], 1)
        if largest_correlation(values, classes) < 4 / np.sqrt(n):
            return values
    raise SplitError(
        f"features: {n} rows of {len(classes)} features could not be drawn with correlations below 4/sqrt(n) = "
        f"{4 / np.sqrt(n):.3f}; ask for more rows or fewer features"
    )


def _sharing(planted: Sequence[Planted]) -> list[list[int]]:
    """The features, by number, in groups that share no bit with each other."""
    groups: list[tuple[set[int], list[int]]] = []
    for f, one in enumerate(planted):
        touching = [g for g in groups if g[0] & set(one.bits)]
        merged = (set(one.bits).union(*(g[0] for g in touching)), [m for g in touching for m in g[1]] + [f])
        groups = [g for g in groups if g not in touching] + [merged]
    return [sorted(members) for _, members in groups]
