"""Convolutional networks with and without residual connections, which differ in nothing else.

The addition is the only difference: where a stage changes the shape, the shortcut averages over the stride and fills new
channels with zeros, so that it has no parameters. Networks of one seed have the same parameters and start from the same.
He, Zhang, Ren & Sun (2016), Deep residual learning for image recognition (arXiv 1512.03385), whose 18-layer network has
`blocks` (2, 2, 2, 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError


class Convolution(nn.Module):
    """`conv` (3 x 3, without bias) and `norm` (over the batch)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, ceil(H / stride), ...)
        out: Tensor = self.norm(self.conv(x))
        return out


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU between and behind; with `residual`, the input is added before the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, residual: bool) -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, stride)
        self.second = Convolution(outputs, outputs, 1)
        self.stride, self.residual = stride, residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(x)))
        return F.relu(out + shortcut(x, self.stride, out.shape[1]) if self.residual else out)


def shortcut(x: Tensor, stride: int, channels: int) -> Tensor:
    """(B, C, H, W) as (B, channels, ceil(H / stride), ...): the mean over each stride x stride patch (of what there is of
    it at the edge), and zeros in the new channels."""
    if stride > 1:
        x = F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


class ResNet(nn.Module):
    """`stem`, `stages` of residual (or plain) blocks, `pool` (the mean over positions) and `readout`.

    Inputs are (B, C, H, W) for an image's `shape` (C, H, W), outputs (B, `outputs`). Stage i has ``blocks[i]`` blocks of
    ``width * 2**i`` channels. The stem and the first block of each stage but the first halve the side. Weight layers:
    2 + 2 sum(blocks), so that (1, 1, 1, 1) is 10 deep and (2, 2, 2, 2) 18.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        residual: bool,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        if not blocks or min(*blocks, *shape, outputs, width) < 1:
            raise ConfigError(
                "ResNet: blocks, shape, outputs and width must be positive, got "
                f"{tuple(blocks)}, {shape}, {outputs}, {width}"
            )
        if min(shape[1:]) < 2 ** len(blocks):
            raise ConfigError(
                f"ResNet: stem and {len(blocks)} stages halve a {shape[1]} x {shape[2]} image {len(blocks)} times, to less "
                "than a pixel; use fewer stages or larger images"
            )
        self.stem = nn.Sequential(Convolution(shape[0], width, 2), nn.ReLU())
        stages, inputs = [], width
        for i, count in enumerate(blocks):
            channels, stride = width * 2**i, 2 if i else 1
            sizes = [(inputs, stride)] + [(channels, 1)] * (count - 1)
            stages.append(nn.Sequential(*(ResidualBlock(n, channels, s, residual=residual) for n, s in sizes)))
            inputs = channels
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.readout = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.pool(self.maps(x)[-1]))
        return out

    def maps(self, x: Tensor) -> list[Tensor]:
        """What the stem and each stage make of images: (B, channels, H, W) each."""
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        found: list[Tensor] = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found
