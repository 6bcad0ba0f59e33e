"""A small, plain transformer whose parts read well as sites: ``blocks.1.attn.key``, ``blocks.0.mlp.up``, ``readout``.

Shapes: B batch, T positions, Q positions that are read, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError, unknown

Positions = Literal["learned", "sinusoidal", "none"]
Norm = Literal["pre", "post", "none"]
POSITIONS: tuple[Positions, ...] = ("learned", "sinusoidal", "none")
NORMS: tuple[Norm, ...] = ("pre", "post", "none")


class Attention(nn.Module):
    """Multi-head attention; queries may be asked for at some positions only."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:  # (B, T, D), (B, Q) -> (B, T or Q, D)
        q = self._split(self.query(x if at is None else rows(x, at)))  # (B, H, T or Q, D / H)
        k, v = self._split(self.key(x)), self._split(self.value(x))  # (B, H, T, D / H)
        if at is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            seen = torch.arange(x.shape[1], device=x.device) <= at[:, None, :, None]  # (B, 1, Q, T)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen if self.causal else None)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Up, GELU, down."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.act(self.up(x)))
        return out


class Block(nn.Module):
    """Attention and feed-forward around a residual stream, normed before each, after each, or not at all."""

    def __init__(self, width: int, heads: int, hidden: int, *, norm: Norm, causal: bool) -> None:
        super().__init__()
        self.post = norm == "post"
        self.norm1 = nn.Identity() if norm == "none" else nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal=causal)
        self.norm2 = nn.Identity() if norm == "none" else nn.LayerNorm(width)
        self.mlp = FeedForward(width, hidden)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:  # (B, T, D), (B, Q) -> (B, T or Q, D)
        stream = x if at is None else rows(x, at)
        if self.post:
            stream = self.norm1(stream + self.attn(x, at))
            return self.norm2(stream + self.mlp(stream))  # type: ignore[no-any-return]
        stream = stream + self.attn(self.norm1(x), at)
        return stream + self.mlp(self.norm2(stream))  # type: ignore[no-any-return]


class Sinusoidal(nn.Module):
    """The fixed positions of Vaswani et al. 2017: sines in the first half of the width, cosines in the second."""

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange((width + 1) // 2) / ((width + 1) // 2))
        angles = torch.arange(length)[:, None] * rates
        self.register_buffer("table", torch.cat((angles.sin(), angles.cos()), -1)[:, :width], persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.table[index]


class Transformer(nn.Module):
    """Embedding, `layers` blocks, norm, readout; weights of embedding and readout are not tied.

    Tokens (B, T) int64 below `vocabulary`, T at most `max_length`, give logits (B, T, V). With ``at`` (B, Q) int64 they
    are (B, Q, V), those at these positions, and the last block computes queries, feed-forward and readout there only.
    Causal attention makes padding on the right harmless without a mask: no position sees a later one. With
    ``causal=False`` padding *is* seen, so give inputs of one length.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 1,
        mlp_ratio: float = 4,
        positions: Positions = "learned",
        norm: Norm = "pre",
        max_length: int = 513,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ConfigError(f"Transformer: {unknown('kind of positions', str(positions), POSITIONS)}")
        if norm not in NORMS:
            raise ConfigError(f"Transformer: {unknown('norm', str(norm), NORMS)}")
        if min(vocabulary, width, layers, heads, max_length) < 1 or mlp_ratio * width < 1:
            raise ConfigError(
                "Transformer: vocabulary, width, layers, heads, max_length and mlp_ratio * width must be at least 1, "
                f"got {vocabulary}, {width}, {layers}, {heads}, {max_length} and {mlp_ratio * width:g}"
            )
        if width % heads:
            raise ConfigError(f"Transformer: width must be a multiple of heads, got width {width} and {heads} heads")
        self.max_length = max_length
        self.embed = nn.Embedding(vocabulary, width)
        self.positions: nn.Module | None = None
        if positions == "learned":
            self.positions = nn.Embedding(max_length, width)
            # Faint beside the tokens' unit variance, so that attention begins with content: in a pilot on Dyck this
            # took about half as many steps as equal variances.
            nn.init.normal_(self.positions.weight, std=0.1)
        elif positions == "sinusoidal":
            self.positions = Sinusoidal(max_length, width)
        hidden = int(mlp_ratio * width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, norm=norm, causal=causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.readout = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        if tokens.shape[1] > self.max_length:
            raise NetworkError(
                f"Transformer: {tokens.shape[1]} positions in a batch, but max_length is {self.max_length}; "
                "build it with a larger max_length or cap the sentences"
            )
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, at if i == last else None)
        logits: Tensor = self.readout(self.norm(x))
        return logits


def rows(x: Tensor, at: Tensor) -> Tensor:
    """(B, T, ...) and (B, Q) int64 -> (B, Q, ...): the positions `at` of each item."""
    return x[torch.arange(len(x), device=x.device)[:, None], at]
