"""A multi-layer perceptron whose layers read well as sites: ``hidden.0.act``, ``hidden.1.linear``, ``readout``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from heldout.errors import ConfigError, unknown

Activation = Literal["relu", "gelu", "silu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Hidden(nn.Module):
    """One hidden layer: `linear`, then `act`."""

    def __init__(self, inputs: int, outputs: int, activation: Activation) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs) -> (B, outputs)
        out: Tensor = self.act(self.linear(x))
        return out


class MLP(nn.Module):
    """Hidden layers and a linear readout.

    `widths` are inputs, each hidden layer, outputs: ``MLP((64, 128, 128, 10))`` has two hidden layers. Inputs of shape
    (B, ...) are flattened to (B, widths[0]); outputs are (B, widths[-1]).
    """

    def __init__(self, widths: Sequence[int], activation: Activation = "relu") -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigError(
                f"MLP: widths must be two or more positive numbers (inputs, ..., outputs), got {widths!r}"
            )
        if activation not in ACTIVATIONS:
            raise ConfigError(f"MLP: {unknown('activation', str(activation), ACTIVATIONS)}")
        self.hidden = nn.Sequential(*(Hidden(a, b, activation) for a, b in pairwise(widths[:-1])))
        self.readout = nn.Linear(widths[-2], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.hidden(x.flatten(1)))
        return out
