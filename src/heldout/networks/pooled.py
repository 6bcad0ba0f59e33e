"""Two tokens pooled, one hidden layer, logits: the smallest network that may add modulo p.

    network = PooledMLP(11, width=4, hidden=64)                   # sees the mean of two embeddings and nothing else
    network = PooledMLP(11, width=4, hidden=64, pooling="concat")  # sees both

Sites: ``embed`` (B, 2, D), ``up`` and ``act`` (B, H), ``readout`` (B, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError, unknown

Pooling = Literal["mean", "concat"]
POOLINGS: tuple[Pooling, ...] = ("mean", "concat")


class PooledMLP(nn.Module):
    """Tokens (B, 2) int64 below `vocabulary` -> logits (B, `classes`), as many classes as tokens where none are given.

    Both tokens share one embedding of D = `width`. With `pooling` ``mean`` the hidden layer of H = `hidden` ReLU sees
    the average of the two, so that pairs of equal average are one pair to it, whatever is trained; with ``concat`` it
    sees one behind the other. Embeddings start with variance 1 / width, the rest as PyTorch has it.
    """

    def __init__(
        self, vocabulary: int, *, width: int, hidden: int, pooling: Pooling = "mean", classes: int | None = None
    ) -> None:
        super().__init__()
        classes = vocabulary if classes is None else classes
        if pooling not in POOLINGS:
            raise ConfigError(f"PooledMLP: {unknown('pooling', str(pooling), POOLINGS)}")
        if min(vocabulary, width, hidden, classes) < 1:
            raise ConfigError(
                "PooledMLP: vocabulary, width, hidden and classes must be at least 1, "
                f"got {vocabulary}, {width}, {hidden} and {classes}"
            )
        self.pooling = pooling
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.up = nn.Linear(width if pooling == "mean" else 2 * width, hidden)
        self.act = nn.ReLU()
        self.readout = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        _require_pairs(tokens, 2)
        x = self.embed(tokens)  # (B, 2, D)
        x = x.mean(1) if self.pooling == "mean" else x.flatten(1)
        logits: Tensor = self.readout(self.act(self.up(x)))
        return logits

    def forward_stacked(self, state: Mapping[str, Tensor], tokens: Tensor, *, own: bool) -> Tensor:
        """S such networks at once, (S, B, C): `state` has every parameter with S first, and `tokens` too where each has
        its `own`. The numbers are those of `forward` to rounding: tokens are few and pairs many, so that each token
        goes through the first layer once and pairs are sums of two looked up."""
        _require_pairs(tokens, 3 if own else 2)
        table, up = state["embed.weight"], state["up.weight"]  # (S, V, D), (S, H, D or 2 D)
        halves = (up / 2, up / 2) if self.pooling == "mean" else up.chunk(2, dim=2)
        of_network = torch.arange(len(table), device=table.device)[:, None] * table.shape[1]
        at = (tokens if own else tokens[None]) + of_network[..., None]  # (S, B, 2) rows of all tables together
        first, second = ((table @ half.mT).flatten(0, 1) for half in halves)  # (S V, H)
        x = F.embedding(at[..., 0], first) + F.embedding(at[..., 1], second) + state["up.bias"][:, None]
        return torch.baddbmm(state["readout.bias"][:, None], self.act(x), state["readout.weight"].mT)


def _require_pairs(tokens: Tensor, dimensions: int) -> None:
    if tokens.ndim != dimensions or tokens.shape[-1] != 2:
        raise NetworkError(f"PooledMLP takes pairs of tokens, (B, 2); got a tensor of shape {tuple(tokens.shape)}")
