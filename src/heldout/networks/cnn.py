"""A small convolutional network for images: blocks of convolution, ReLU and pooling, then a linear readout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from heldout.errors import ConfigError, unknown

Readout = Literal["flat", "global"]
READOUTS: tuple[Readout, ...] = ("flat", "global")


class Block(nn.Module):
    """`conv` (3 x 3, same size), `act`, and `pool` (2 x 2 maximum, halves the size) where asked for."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H or H // 2, ...)
        out: Tensor = self.pool(self.act(self.conv(x)))
        return out


class CNN(nn.Module):
    """Blocks of `channels`, then a readout of `classes` from every position (``flat``) or their mean (``global``).

    `shape` is that of one image, (C, H, W). Inputs are (B, C, H, W), outputs (B, classes). A ``global`` readout does
    not know where something is, only how much of it there is.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: Sequence[int] = (16, 32),
        pool: bool = True,
        readout: Readout = "flat",
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise ConfigError(f"CNN: {unknown('readout', str(readout), READOUTS)}")
        if not channels or min(*channels, *shape, classes) < 1:
            raise ConfigError(
                f"CNN: channels, shape and classes must be positive, got {tuple(channels)}, {shape}, {classes}"
            )
        height, width = (size >> (len(channels) if pool else 0) for size in shape[1:])
        if min(height, width) < 1:
            raise ConfigError(
                f"CNN: {len(channels)} blocks with pooling leave nothing of a {shape[1]} x {shape[2]} image; "
                "use fewer channels or pool=False"
            )
        inputs = (shape[0], *channels[:-1])
        self.blocks = nn.Sequential(*(Block(a, b, pool=pool) for a, b in zip(inputs, channels, strict=True)))
        self.gather = nn.Flatten() if readout == "flat" else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.readout = nn.Linear(channels[-1] * (height * width if readout == "flat" else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.gather(self.blocks(x)))
        return out
