"""How a transformer knows where a token stands: one small module for each kind of positions.

Learned (`nn.Embedding`), `Sinusoidal` and `Abacus` are added to the token embeddings; `Rotary` turns queries and keys
and `Alibi` adds to the scores, inside every attention. Rotary and ALiBi know differences of positions only: moving all
positions by the same number changes nothing.

Shapes: B batch, T positions, Q queries, D width, H heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from heldout.errors import ConfigError

Positions = Literal["learned", "sinusoidal", "none", "rotary", "alibi", "abacus"]
POSITIONS: tuple[Positions, ...] = ("learned", "sinusoidal", "none", "rotary", "alibi", "abacus")


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


class Rotary(nn.Module):
    """The rotation of Su et al. 2021: entries (i, i + d/2) of a query or key at position p turn by p * 10000^(-2i/d)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(f"Transformer: rotary positions need an even width of a head, got {width}")
        rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.arange(length)[:, None] * rates
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:  # (B, H, Q, d), (Q,) or (B, Q) -> (B, H, Q, d)
        cos, sin = (table[index].unsqueeze(-3).to(x.dtype) for table in (self.cos, self.sin))  # (1 or B, 1, Q, d / 2)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Alibi(nn.Module):
    """The bias of Press et al. 2022: the score of a key falls by a head's slope for every position it is away."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(alibi_slopes(heads)), persistent=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:  # (Q,) or (B, Q), (T,) -> (1 or B, H, Q, T)
        away = (queries[..., :, None] - keys).abs().unsqueeze(-3)
        return -self.slopes[:, None, None] * away.reshape(-1, *away.shape[-3:])


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8h/H) for head h = 1 to H where H is a power of two; else those of the power below it, and of the power above
    it every other one, from the first on."""
    below = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * h / below) for h in range(1, below + 1)]
    return slopes + [2 ** (-8 * h / (2 * below)) for h in range(1, 2 * below, 2)][: heads - below]


class Abacus(nn.Module):
    """The embedding of McLeish et al. 2024: a digit's place within its number, counted from 1 as the number is written.

    A number is a run of tokens among `digits`; other tokens are all at place 0. While training, every place of a batch
    moves up by one random number less than `offsets`, so that the first place is uniform from 1 to `offsets` and high
    places are trained although no number is that long; the numbers of an item move together, so equal places stay
    equal. It lines digits up only where numbers are separated by other tokens and written units first.
    """

    digits: Tensor

    def __init__(self, vocabulary: int, length: int, width: int, digits: Sequence[int], *, offsets: int) -> None:
        super().__init__()
        if not digits or not all(0 <= d < vocabulary for d in digits):
            raise ConfigError(
                f"Transformer: Abacus positions need the token ids of the digits, below {vocabulary}, got {list(digits)}"
            )
        if offsets < 1:
            raise ConfigError(f"Transformer: offsets must be at least 1, got {offsets}")
        self.offsets = offsets
        self.table = nn.Embedding(length + offsets, width)
        self.register_buffer(
            "digits",
            torch.zeros(vocabulary, dtype=torch.bool).index_fill(0, torch.tensor(digits), True),
            persistent=False,
        )

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        index = self.places(tokens)
        if self.training and self.offsets > 1:
            index = torch.where(index > 0, index + torch.randint(self.offsets, (), device=index.device), index)
        out: Tensor = self.table(index)
        return out

    def places(self, tokens: Tensor) -> Tensor:
        """(B, T) int64, each digit's place within its number from 1 on, and 0 for other tokens."""
        digit = self.digits[tokens]
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).expand_as(tokens)
        before = torch.where(digit, 0, count).cummax(-1).values  # how many tokens up to the last that is no digit
        return count - before
