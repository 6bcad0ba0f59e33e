"""A multi-layer perceptron whose layers read well as sites: ``hidden.0.act``, ``hidden.1.linear``, ``readout``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from heldout.errors import ConfigError, unknown
from heldout.networks.stacked import stacked_linear

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]
Initialisation = Literal["torch", "zero_bias", "lecun", "he"]
Norm = Literal["layer", "batch"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
VARIANCES: dict[str, float | None] = {"torch": None, "zero_bias": None, "lecun": 1.0, "he": 2.0}  # times the inputs


class Hidden(nn.Module):
    """One hidden layer: `linear`, then `norm` where there is one, `act`, and `drop` where there is dropout."""

    def __init__(
        self, inputs: int, outputs: int, activation: Activation, norm: Norm | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = None if norm is None else NORMS[norm](outputs)
        self.act = ACTIVATIONS[activation]()
        self.drop = nn.Dropout(dropout) if dropout else None

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs) -> (B, outputs)
        x = self.linear(x)
        x = x if self.norm is None else self.norm(x)
        x = self.act(x)
        return x if self.drop is None else self.drop(x)


class MLP(nn.Module):
    """Hidden layers and a linear readout.

    `widths` are inputs, each hidden layer, outputs: ``MLP((64, 128, 128, 10))`` has two hidden layers. Inputs of shape
    (B, ...) are flattened to (B, widths[0]); outputs are (B, widths[-1]). `dropout` is the chance of each unit of each
    hidden layer, behind its activation. Initial weights by `init`: PyTorch's default (``torch``: weights and biases
    uniform within 1/sqrt(inputs)), the same with biases 0 (``zero_bias``), or biases 0 and normal weights of variance
    1/inputs (``lecun``) or 2/inputs (``he``); weights are then multiplied by `gain`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation = "relu",
        *,
        norm: Norm | None = None,
        dropout: float = 0.0,
        init: Initialisation = "torch",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigError(
                f"MLP: widths must be two or more positive numbers (inputs, ..., outputs), got {widths!r}"
            )
        if activation not in ACTIVATIONS:
            raise ConfigError(f"MLP: {unknown('activation', str(activation), ACTIVATIONS)}")
        if norm is not None and norm not in NORMS:
            raise ConfigError(f"MLP: {unknown('norm', str(norm), NORMS)}")
        if init not in VARIANCES:
            raise ConfigError(f"MLP: {unknown('init', str(init), VARIANCES)}")
        if not (0 <= dropout < 1 and 0 < gain < math.inf):
            raise ConfigError(f"MLP: dropout must be from 0 to below 1 and gain positive, got {dropout} and {gain}")
        self.hidden = nn.Sequential(*(Hidden(a, b, activation, norm, dropout) for a, b in pairwise(widths[:-1])))
        self.readout = nn.Linear(widths[-2], widths[-1])
        if init != "torch" or gain != 1.0:
            self._initialise(init, gain)

    @torch.no_grad()
    def _initialise(self, init: Initialisation, gain: float) -> None:
        variance = VARIANCES[init]
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            if variance is not None:
                linear.weight.normal_(0.0, math.sqrt(variance / linear.in_features))
            if init != "torch":
                linear.bias.zero_()
            linear.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.hidden(x.flatten(1)))
        return out

    def forward_stacked(self, state: Mapping[str, Tensor], x: Tensor, *, own: bool) -> Tensor:
        """S such networks at once, (S, B, outputs): `state` has every parameter and buffer with S first.

        `x` is (B, ...), the same for all, or (S, B, ...) where each network has its `own`. The numbers are those of
        `forward` with each state in turn; units dropped are drawn anew for each network.
        """

        def linear(x: Tensor, name: str) -> Tensor:
            return stacked_linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

        x = x.flatten(2 if own else 1)
        for i, layer in enumerate(self.hidden):
            assert isinstance(layer, Hidden)
            x = linear(x, f"hidden.{i}.linear")
            if layer.norm is not None:
                start = f"hidden.{i}.norm."
                norms = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
                x = vmap(lambda norm, x, module=layer.norm: functional_call(module, norm, (x,)))(norms, x)
            x = layer.act(x)
            x = x if layer.drop is None else layer.drop(x)
        return linear(x, "readout")
