"""The small GPTs of the arithmetic papers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from heldout.errors import ConfigError, unknown
from heldout.networks.positions import Positions
from heldout.networks.transformer import Transformer

Size = Literal["nano", "micro", "mini"]


class Shape(NamedTuple):
    """Layers, heads of each, and the width of the residual stream."""

    layers: int
    heads: int
    width: int


SIZES: Mapping[str, Shape] = MappingProxyType(
    {"nano": Shape(3, 3, 48), "micro": Shape(4, 4, 128), "mini": Shape(6, 6, 192)}
)


def mingpt(
    vocabulary: int,
    size: Size,
    *,
    max_length: int,
    positions: Positions = "learned",
    digits: Sequence[int] = (),
    dropout: float = 0.1,
) -> Transformer:
    """A transformer of minGPT's size and kind: norm before, GELU by tanh, no bias in the readout, GPT-2's initial weights.

    >>> sum(p.numel() for p in mingpt(10, "nano", max_length=15).parameters())
    86592
    """
    if size not in SIZES:
        raise ConfigError(unknown("size", str(size), SIZES))
    return Transformer(
        vocabulary,
        **SIZES[size]._asdict(),
        max_length=max_length,
        positions=positions,
        digits=digits,
        dropout=dropout,
        activation="gelu_tanh",
        readout_bias=False,
        init="gpt",
    )
