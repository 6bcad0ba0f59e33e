"""Scores on their way to a table: summed by unit and stratum batch by batch, written as they come.

Memory does not grow with the data: what is waiting to be written is bounded, and one open Parquet part a cell takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from heldout.errors import EvidenceError
from heldout.evidence import Cell, ScoresWriter

Columns = dict[str, np.ndarray]


class Sink(Protocol):
    """Where scores go: `add` appends rows to a cell."""

    def add(self, cell: Cell, columns: Columns) -> None: ...


class Memory:
    """Scores kept in memory, for one network at the prompt."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[Cell, list[Columns]]] = {}

    def add(self, cell: Cell, columns: Columns) -> None:
        first, rows = self.parts.setdefault(cell.filename, (cell, []))
        _check_same(first, cell)
        rows.append(columns)


class Folder:
    """Scores written to one Parquet part a cell; a context, so that every part is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: dict[str, ScoresWriter] = {}

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, cell: Cell, columns: Columns) -> None:
        writer = self._writers.get(cell.filename)
        if writer is None:
            writer = self._writers[cell.filename] = ScoresWriter(self.path / cell.filename, cell)
        _check_same(writer.cell, cell)
        writer.add(columns)


def _check_same(first: Cell, cell: Cell) -> None:
    """Different edits under one name would be averaged unseen."""
    if first != cell:
        raise EvidenceError(
            f"two edits are both called {cell.edit.label!r} at {cell.edit.site} on split {cell.split!r}, but come from "
            f"{first.edit} and {cell.edit}; give one of them another name"
        )


class Groups:
    """How the M predictions of one batch fall into rows of the table: by unit and by every stratum.

    Made once a batch and used for each edit. `labels`: name -> (M,) whole numbers, the unit first. A label called ``n``
    stands in the table as ``n_``, because `n` is the number of predictions there.
    """

    def __init__(self, labels: Mapping[str, np.ndarray]) -> None:
        key = np.zeros(len(next(iter(labels.values()))), dtype=np.int64)
        for values in labels.values():
            _, inverse = np.unique(values, return_inverse=True)
            # Renumbered each time: the product of many strata could leave the range of whole numbers.
            _, key = np.unique(key * (int(inverse.max()) + 1 if len(inverse) else 1) + inverse, return_inverse=True)
        _, first, self._row = np.unique(key, return_index=True, return_inverse=True)
        self._labels = {"n_" if name == "n" else name: np.asarray(v)[first] for name, v in labels.items()}
        self._count = len(first)

    def sums(self, values: Mapping[str, Tensor]) -> Columns:
        """One row a group: its labels, its number of predictions `n`, and the sum of each metric, float64."""
        n = np.bincount(self._row, minlength=self._count).astype(np.float64)
        columns: Columns = {**self._labels, "n": n}
        for name, value in values.items():
            weights = value.detach().to(torch.float64).cpu().numpy()
            columns[name] = np.bincount(self._row, weights=weights, minlength=self._count)
        return columns

    def join(self, draws: Sequence[Columns]) -> Columns:
        """Columns of several draws of one edit as one: labels as they are, everything else added up."""
        first = draws[0]
        if len(draws) == 1:
            return first
        return {k: v if k in self._labels else np.sum([d[k] for d in draws], axis=0) for k, v in first.items()}
