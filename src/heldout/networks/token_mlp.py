"""A network on a few categorical tokens: one embedding a column, a residual perceptron, real outputs in physical units.

    network = initialised(lambda: TokenMLP((119, 179), width=128, blocks=2), seed=0)
    network.fit_outputs(task["train"])
    train(network, shuffled(task["train"], 512, seed=0), squared_error(), settings=settings)

In the maximal-update parametrisation (Yang et al. 2022, arXiv 2203.03466) the sizes of activations, and what an update
of Adam does to them, do not depend on the width, so that settings found at one width hold at another. With m the width
over `BASE_WIDTH`:

| parameter                   | initial values                      | learning rate | weight decay |
|-----------------------------|-------------------------------------|---------------|--------------|
| embeddings, readout weights | uniform within 1/sqrt(`BASE_WIDTH`) | 1             | 1            |
| other weights               | uniform within 1/sqrt(inputs)       | 1/m           | m            |
| biases                      | uniform within sqrt(m/inputs)       | 1             | 0            |

and the readout reads its input divided by m. At m = 1 this is the standard parametrisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError, unknown
from heldout.tasks.base import Split, require_fit

Parametrisation = Literal["mup", "standard"]
PARAMETRISATIONS: tuple[Parametrisation, ...] = ("mup", "standard")
Outputs = Literal["range", "standard"]
OUTPUTS: tuple[Outputs, ...] = ("range", "standard")
BASE_WIDTH = 32  # where the two parametrisations are one


class Block(nn.Module):
    """x + ReLU(second(ReLU(first(x)))), (B, D) to (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.second(F.relu(self.first(x))))


class TokenMLP(nn.Module):
    """Tokens (B, C) int64 to (B, 1) in physical units: shift + scale * readout.

    - `sizes`: the number of tokens of each of the C columns; column c holds 0 to sizes[c] - 1.
    - `outputs`: how many quantities are predicted. With two or more, the last column names the one that is returned (it
      has an embedding as the others have, and sizes[-1] must be `outputs`).
    - `width`: D, of embeddings and hidden layers; `blocks`: residual blocks behind the first layer.
    - `parametrisation`: ``mup`` (see above) or ``standard``, in which readout weights and all biases start within
      1/sqrt(inputs), every learning rate is that of the settings and the readout reads its input as it is.

    Sites: ``embeddings.<c>`` (B, D); ``into``, ``act``; ``blocks.<i>``; ``readout:input``, the penultimate layer as it is
    read; ``readout``, (B, outputs) before shift and scale. The buffers `shift` and `scale` (outputs,) are 0 and 1 until
    `fit_outputs`, and are saved with the weights.

    A token outside its column's range raises `NetworkError` with column and value; on an accelerator that look is a
    synchronisation a pass.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        width: int = 128,
        blocks: int = 2,
        outputs: int = 1,
        parametrisation: Parametrisation = "mup",
    ) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"TokenMLP: sizes must be positive, one for each column of tokens, got {sizes!r}")
        if width < 1 or blocks < 0 or outputs < 1:
            raise ConfigError(
                f"TokenMLP: width and outputs must be at least 1 and blocks at least 0, got {width}, {outputs}, {blocks}"
            )
        if outputs > 1 and sizes[-1] != outputs:
            raise ConfigError(
                f"TokenMLP: with {outputs} outputs the last column of tokens names the output and must have as many "
                f"tokens; its size is {sizes[-1]}"
            )
        if parametrisation not in PARAMETRISATIONS:
            raise ConfigError(f"TokenMLP: {unknown('parametrisation', str(parametrisation), PARAMETRISATIONS)}")
        self.sizes, self.outputs, self.parametrisation = tuple(sizes), outputs, parametrisation
        self.growth = width / BASE_WIDTH if parametrisation == "mup" else 1.0  # m
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.into = nn.Linear(len(sizes) * width, width)
        self.act = nn.SiLU()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.readout = nn.Linear(width, outputs)
        self.register_buffer("shift", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                _uniform(module.weight, 1 / BASE_WIDTH)
            elif isinstance(module, nn.Linear):
                grown = self.growth if module is self.readout else 1.0
                _uniform(module.weight, grown / module.in_features)
                _uniform(module.bias, self.growth / module.in_features)

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Parameter name -> factors on learning rate and weight decay under AdamW; none in the standard parametrisation.

        What is not named has factors of 1. Which parameters decay at all is the training settings' own.
        """
        hidden = [] if self.parametrisation == "standard" else [self.into, *self.blocks.modules()]
        matrices = {id(m.weight) for m in hidden if isinstance(m, nn.Linear)}
        return {n: (1 / self.growth, self.growth) for n, p in self.named_parameters() if id(p) in matrices}

    @torch.no_grad()
    def fit_outputs(self, split: Split, kind: Outputs = "range") -> None:
        """Set `shift` and `scale` of each output from the targets of a split whose role is ``fit``.

        ``range``: minimum, and maximum minus minimum. ``standard``: mean and standard deviation (1/n). Raises
        `SplitError` for a split of another role, `NetworkError` where an output has no two different targets.
        """
        if kind not in OUTPUTS:
            raise ConfigError(f"TokenMLP: {unknown('kind of outputs', str(kind), OUTPUTS)}")
        batch = require_fit(split, "the outputs' scale").items.take(np.arange(len(split)))
        if batch.targets is None:
            raise NetworkError(f"split {split.name!r} has no targets to take the outputs' scale from")
        targets = batch.targets.double().flatten()
        which = batch.inputs[:, -1] if self.outputs > 1 else torch.zeros(len(targets), dtype=torch.int64)
        for output in range(self.outputs):
            own = targets[which == output]
            if len(own) < 2 or not own.max() > own.min():
                raise NetworkError(
                    f"output {output} has no two different targets on split {split.name!r}, so no scale; leave it out"
                )
            ends = (own.min(), own.max() - own.min()) if kind == "range" else (own.mean(), own.std(correction=0))
            self.shift[output], self.scale[output] = ends

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.act(self.into(torch.cat(self._embedded(tokens), dim=1)))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.shift + self.scale * self.readout(x / self.growth)
        return y if self.outputs == 1 else y.gather(1, tokens[:, -1:])

    def _embedded(self, tokens: Tensor) -> list[Tensor]:
        """The embedding (B, D) of each column."""
        columns = len(self.sizes)
        if tokens.ndim != 2 or tokens.shape[1] != columns or tokens.is_floating_point():
            raise NetworkError(
                f"TokenMLP reads integer tokens of shape (items, {columns}), got {tuple(tokens.shape)} of {tokens.dtype}"
            )
        if tokens.device.type != "cpu":  # there an index out of range would end the process
            self._check_range(tokens)
        try:
            return [embedding(tokens[:, c]) for c, embedding in enumerate(self.embeddings)]
        except IndexError:
            self._check_range(tokens)
            raise

    def _check_range(self, tokens: Tensor) -> None:
        if torch._C._functorch.is_batchedtensor(tokens):  # under vmap nothing may depend on data
            return
        sizes = torch.tensor(self.sizes, device=tokens.device)
        outside = ((tokens < 0) | (tokens >= sizes)).nonzero()
        if len(outside):
            item, column = outside[0].tolist()
            raise NetworkError(
                f"TokenMLP: item {item} of the batch has token {int(tokens[item, column])} in column {column}, which has "
                f"tokens 0 to {int(sizes[column]) - 1}; {len(outside)} tokens of the batch are outside their columns"
            )


def _uniform(parameter: Tensor, square: float) -> None:
    """Uniform within plus and minus the root of `square`."""
    parameter.uniform_(-math.sqrt(square), math.sqrt(square))
