"""Networks that add by hand, exactly, so that every measure has a known answer.

Layout: a and b with 5 digits each, most significant first, then the sum with 6 digits, units first: 16 tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from heldout.analyses.equivalence.passes import Sequences

W, T = 5, 16
STEPS = tuple(range(9, 15))
SPARE = (0, 1, 5, 6)  # the two high positions of each operand
USED = (2, 3, 4, 7, 8, 9)
LOW = 1000


def digits(values: np.ndarray, width: int) -> np.ndarray:
    """(N, width), units first."""
    return values[:, None] // 10 ** np.arange(width) % 10


def tokens(a: np.ndarray, b: np.ndarray, answer: np.ndarray) -> Tensor:
    """(N, 16): the two operands and an answer behind them."""
    parts = [digits(a, W)[:, ::-1], digits(b, W)[:, ::-1], digits(answer, W + 1)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def operands(n: int, *, low: int = 0, high: int = 10_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, n), rng.integers(low, high, n)


def items(a: np.ndarray, b: np.ndarray, answer: np.ndarray | None = None) -> Sequences:
    """Prompts with the rule's answer f(pi a, pi b) behind them, or another."""
    behind = a % LOW + b % LOW if answer is None else answer
    labels = {"unit": np.minimum(a, b) * 100_000 + np.maximum(a, b), "la": np.char.str_len(a.astype(str))}
    return Sequences(tokens(a, b, behind), STEPS, labels)


class Digits(nn.Module):
    """Tokens as one-hot rows, (B, T, 10)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 10).double()


class Sum(nn.Module):
    """(B, T, 10) -> (B, T, 10 + M): at each step the one-hot digit of (a mod m) + (b mod m), elsewhere the input's rows;
    then M numbers that nothing reads: the tokens of all used positions, `loud` times."""

    def __init__(self, modulus: int, loud: float) -> None:
        super().__init__()
        self.modulus, self.loud = modulus, loud

    def forward(self, x: Tensor) -> Tensor:
        value = (x @ torch.arange(10, dtype=x.dtype)).round().long()
        place = 10 ** torch.arange(W - 1, -1, -1)
        a, b = (value[:, :W] * place).sum(1), (value[:, W : 2 * W] * place).sum(1)
        answer = a % self.modulus + b % self.modulus
        out = x.clone()
        for i, step in enumerate(STEPS):
            if step < x.shape[1]:
                out[:, step] = nn.functional.one_hot(answer // 10**i % 10, 10).to(x)
        unread = self.loud * x[:, list(USED)].flatten(1)[:, None].expand(-1, x.shape[1], -1)
        return torch.cat([out, unread], dim=-1)


class Adder(nn.Module):
    """Sites: ``embed`` and ``sum``; `modulus` 1000 is the rule that ignores high digits, a large one the truth."""

    def __init__(self, modulus: int = LOW, *, loud: float = 0.0, sharp: float = 20.0) -> None:
        super().__init__()
        self.embed, self.sum, self.sharp = Digits(), Sum(modulus, loud), sharp

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.sharp * self.sum(self.embed(x))[..., :10]
        return logits


TRUE = 10**6


def greedy(network: nn.Module, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 6) answers, token by token and without any cache."""
    x = tokens(a, b, np.zeros_like(a))
    for step in STEPS:
        x[:, step + 1] = network(x[:, : step + 1])[:, step].argmax(-1)
    return x[:, 10:].numpy()
