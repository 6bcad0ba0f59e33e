"""Small networks on tokens, and splits for them, with known parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from heldout.tasks.base import Rectangular, Role, Split


class TokenNet(nn.Module):
    """Two embedded tokens, one hidden layer and a linear readout: (B, 2) int64 -> (B, 1)."""

    def __init__(self, sizes: tuple[int, int], width: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embeddings = nn.ModuleList(nn.Embedding(n, width) for n in sizes)
            self.into = nn.Linear(2 * width, width)
            self.readout = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([e(x[:, c]) for c, e in enumerate(self.embeddings)], dim=1)
        out: Tensor = self.readout(torch.tanh(self.into(joined)))
        return out


class CircleAverage(nn.Module):
    """Modular addition by averaging: tokens on a circle, the class by twice the angle of their midpoint (a "pizza").

    Inputs (B, 2), one shared table; logits (B, p) are cos(2 angle - 2 pi c / p), largest at c = a + b mod p.
    """

    def __init__(self, p: int) -> None:
        super().__init__()
        angle = 2 * torch.pi * torch.arange(p, dtype=torch.float64) / p
        self.table = nn.Embedding(p, 2, dtype=torch.float64)
        self.table.weight.data = torch.stack([angle.cos(), angle.sin()], dim=1)
        self.angle = angle

    def forward(self, x: Tensor) -> Tensor:
        middle = self.table(x).mean(dim=1)
        twice = 2 * torch.atan2(middle[:, 1], middle[:, 0])
        return torch.cos(twice[:, None] - self.angle)


def split_of(
    network: nn.Module,
    sizes: tuple[int, int],
    n: int,
    seed: int,
    *,
    role: Role = "test",
    noise: float = 0.1,
    name: str = "held",
) -> Split:
    """Random tokens with the network's own outputs plus noise as targets; the first token is the unit."""
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(np.column_stack([rng.integers(0, size, n) for size in sizes]))
    with torch.no_grad():
        targets = network(tokens) + noise * torch.from_numpy(rng.normal(size=(n, 1))).float()
    return Split(name, role, Rectangular(tokens, targets), units=tokens[:, 0].numpy())
