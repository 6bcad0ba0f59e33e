"""Scores by one label at a time: a sink that keeps each stratum's sums and not those of every combination.

Six axes of a few labels each have thousands of combinations but some forty labels. Each prediction is counted once on
every axis; labels of all axes share the column ``category``. So the *sums* of a cell are over predictions and axes, its
ratios are those of the predictions, and a ratio in one category is that category's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heldout.analyses.tables import Columns, Sink
from heldout.errors import EvidenceError
from heldout.evidence import Cell

CATEGORY, MARGIN = "category", "margin_bin"
NONE = -1


class Categories:
    """The numbering of labels: axis after axis, `axes` maps each to the names of its labels 0, 1, ..."""

    def __init__(self, axes: Mapping[str, Sequence[str]]) -> None:
        self.axes = {axis: tuple(names) for axis, names in axes.items()}
        self._start: dict[str, int] = {}
        for axis in self.axes:
            self._start[axis] = sum(len(self.axes[before]) for before in self._start)

    def code(self, axis: str, label: int | str) -> int:
        """The category of one label of an axis, by its number or name."""
        names = self.axes[axis]
        number = names.index(label) if isinstance(label, str) else label
        if not 0 <= number < len(names):
            raise EvidenceError(f"axis {axis!r} has labels 0 to {len(names) - 1}, got {number}")
        return self._start[axis] + number

    def listed(self) -> list[tuple[str, str, int]]:
        """(axis, name, category) of every label."""
        return [(axis, name, self.code(axis, i)) for axis, names in self.axes.items() for i, name in enumerate(names)]


class Marginals:
    """Takes rows whose strata are axes and passes on rows by unit and category, and by unit and margin bin.

    Sums of a cell wait until the split is done, so that each unit and category is one row; a context, so that the last
    ones are passed on. Axes that a cell's rows lack are left out for it.
    """

    def __init__(self, sink: Sink, categories: Categories) -> None:
        self.sink, self.categories = sink, categories
        self._split = ""
        self._waiting: dict[str, tuple[Cell, list[Columns]]] = {}

    def __enter__(self) -> Marginals:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def add(self, cell: Cell, columns: Columns) -> None:
        if cell.split != self._split:
            self.flush()
            self._split = cell.split
        first, parts = self._waiting.setdefault(cell.filename, (cell, []))
        if first != cell:
            raise EvidenceError(f"two edits are both called {cell.edit.label!r} at {cell.edit.site} on {cell.split!r}")
        parts.append(self._by_label(columns))

    def flush(self) -> None:
        """Pass on what is waiting."""
        for cell, parts in self._waiting.values():
            joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
            self.sink.add(cell, _grouped(joined, ("unit", CATEGORY, MARGIN)))
        self._waiting = {}

    def _by_label(self, columns: Columns) -> Columns:
        axes = [a for a in self.categories.axes if a in columns]
        sums = [n for n in columns if n not in (*axes, "unit", MARGIN)]
        blank = np.full(len(columns["unit"]), NONE, dtype=np.int64)
        margin = np.asarray(columns.get(MARGIN, blank), dtype=np.int64)
        copies = [(blank, margin)] + [
            (np.asarray(columns[a], dtype=np.int64) + self.categories.code(a, 0), blank) for a in axes
        ]
        parts = [
            _grouped(
                {"unit": columns["unit"], CATEGORY: c, MARGIN: m, **{n: columns[n] for n in sums}},
                ("unit", CATEGORY, MARGIN),
            )
            for c, m in copies
        ]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _grouped(columns: Columns, by: Sequence[str]) -> Columns:
    """Rows of equal labels added up."""
    rows = len(columns[by[0]])
    key = np.zeros(rows, dtype=np.int64)
    for name in by:
        _, place = np.unique(columns[name], return_inverse=True)
        key = key * (int(place.max()) + 1 if rows else 1) + place.reshape(-1)
    _, first, row = np.unique(key, return_index=True, return_inverse=True)
    sums = {n: np.bincount(row, weights=v, minlength=len(first)) for n, v in columns.items() if n not in by}
    return {name: np.asarray(columns[name])[first] for name in by} | sums
