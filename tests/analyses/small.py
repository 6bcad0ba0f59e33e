"""Networks and splits so small that every number about them can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.analyses.estimates import Scores
from heldout.analyses.faithfulness import Subject
from heldout.analyses.tables import Memory
from heldout.evidence import Cell, Origin
from heldout.tasks.base import Rectangular, Split

COLUMNS = ("n", "same", "net_correct", "proxy_correct", "both_correct", "kl", "jsd", "net_loss", "proxy_loss")


class Linear2(nn.Module):
    """logits = V W x, with a site between: ``first``."""

    def __init__(self, width: int = 4, hidden: int = 5, classes: int = 3, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(width, hidden, bias=False).double()
        self.second = nn.Linear(hidden, classes, bias=False).double()
        for layer in (self.first, self.second):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def projector(width: int, rank: int, *, seed: int = 0) -> Tensor:
    """(D, D) float64, the orthogonal projector on a random subspace."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, rank)))
    return torch.from_numpy(basis @ basis.T)


def projection_edit(site: str, matrix: Tensor, name: str = "projection") -> Edit:
    return Edit.function(site, lambda rows, mask: rows @ matrix.to(rows), name=name)


def split(
    name: str, n: int, *, seed: int = 0, role: Any = "test", width: int = 4, classes: int = 3, **more: Any
) -> Split:
    rng = np.random.default_rng([seed, n])
    inputs = torch.from_numpy(rng.normal(size=(n, width)))
    return Split(name, role, Rectangular(inputs, torch.from_numpy(rng.integers(0, classes, size=n)), **more))


def totals(memory: Memory, split: str, label: str) -> dict[str, float]:
    """Sums over all rows of one cell."""
    parts = [rows for cell, rows in memory.parts.values() if (cell.split, cell.edit.label) == (split, label)]
    assert len(parts) == 1
    return {name: float(sum(columns[name].sum() for columns in parts[0])) for name in parts[0][0]}


def cell(split: str = "id", label: str = "svd", *, seed: int = 0, parameter: float | None = None) -> Cell:
    return Cell("task", "net", seed, split, Origin(label, "here", parameter=parameter))


def scores(cells: list[tuple[Cell, dict[str, Any]]]) -> Scores:
    """Hand-made scores; metrics that are not given are zero."""

    def columns(given: dict[str, Any]) -> dict[str, np.ndarray]:
        n = len(given["unit"])
        return {c: np.zeros(n) for c in COLUMNS} | {k: np.asarray(v) for k, v in given.items()}

    return Scores([(cell, lambda given=given: columns(given)) for cell, given in cells])


def subject(network: nn.Module, **more: Any) -> Subject:
    return Subject(network.eval(), **more)
