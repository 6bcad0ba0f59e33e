"""All pairs of two tokens through a network whose embeddings of the two may be replaced: what an algorithm is read
from.

Tables are (p, D), an embedding for each token; logits are (p, p, C): first token, second token, class.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heldout.activations.tap import Tap
from heldout.analyses.geometry.frequencies import points
from heldout.errors import ConfigError, NetworkError
from heldout.tasks.base import Batch
from heldout.tasks.modular import Modular

Floats = NDArray[np.float64]


class Pairs:
    """`network` on all p^2 pairs of an addition modulo an odd p.

    `site` is where the embedded tokens stand, (B, T, D) with the operands first; what is there for an operand may
    depend on that operand and its place alone. `logits` are those of the network as it is; of outputs (B, T, C) the
    last position is read. Raises `ConfigError` for another operation or an even modulus, `NetworkError` where site or
    outputs do not fit.
    """

    def __init__(self, network: nn.Module, task: Modular, site: str = "embed") -> None:
        settings = task.settings
        if settings.operation != "add" or settings.modulus % 2 == 0:
            raise ConfigError(
                "algorithms are told apart for addition modulo an odd number; "
                f"the task is {settings.operation} modulo {settings.modulus}"
            )
        self.network, self.site, self.p = network, site, settings.modulus
        a, b = (x.ravel() for x in np.meshgrid(np.arange(self.p), np.arange(self.p), indexing="ij"))
        columns = [a, b, np.full(len(a), self.p)][: settings.length]
        tokens = torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
        self.sums = ((a + b) % self.p).reshape(self.p, self.p)
        self._batch = Batch(tokens, torch.arange(len(a)))
        with Tap(network, read=[site]) as tap:
            reading = tap(self._batch)
        self.logits = self._table(reading.output)
        rows = reading[site]
        if rows.ndim != 3 or rows.shape[1] != settings.length:
            raise NetworkError(
                f"site {site} must hold (B, {settings.length}, D) embedded tokens, got {tuple(rows.shape)}"
            )
        embedded = rows.double().cpu().numpy().reshape(self.p, self.p, *rows.shape[1:])
        self.first, self.second = embedded[:, 0, 0], embedded[0, :, 1]  # (p, D) each
        if (embedded[:, :, 0] != self.first[:, None]).any() or (embedded[:, :, 1] != self.second).any():
            raise NetworkError(f"site {site}: what stands there for one operand depends on the other one too")

    def run(self, first: Floats, second: Floats) -> Floats:
        """(p, p, C) logits with these embeddings in place of the operands' own: (p, D) tables, or (p, p, D) pair by
        pair."""
        if first.ndim == 2:
            first, second = (np.broadcast_to(x, (self.p, *second.shape)) for x in (first[:, None], second))
        given = torch.from_numpy(np.stack([first, second], axis=2).reshape(self.p**2, 2, -1))

        def replace(rows: Tensor, mask: Tensor | None) -> Tensor:
            new = given.to(rows)
            return torch.cat([new, rows[:, 2:]], dim=1)

        with Tap(self.network, edit={self.site: replace}) as tap:
            return self._table(tap(self._batch).output)

    def middle(self) -> Floats:
        """(p, p, C) logits where both operands' embeddings are their average: what the network says of the average
        alone."""
        average = (self.first[:, None] + self.second) / 2
        return self.run(average, average)

    def middle_of(self, frequency: int, turn: float = 0.0) -> Floats:
        """The same with all other frequencies taken out of the embeddings, where the average is that of the first point
        and the second turned by `turn` (radians) on its circle; the second operand gets it turned back."""
        on_circle = np.exp(2j * np.pi * frequency / self.p * np.arange(self.p))
        average = (on_circle[:, None] + on_circle * np.exp(1j * turn)) / 2
        return self.run(
            points(self.first, frequency, average), points(self.second, frequency, average * np.exp(-1j * turn))
        )

    def gradients(self, classes: NDArray[np.int64]) -> Floats:
        """(p^2, 2, D): the gradient of one logit of each pair, of class `classes` (p^2,), by the two embeddings."""
        leaf: list[Tensor] = []

        def watch(rows: Tensor, mask: Tensor | None) -> Tensor:
            leaf.append(rows.detach().requires_grad_())
            return leaf[-1]

        with torch.enable_grad(), Tap(self.network, edit={self.site: watch}, grad=True) as tap:
            output = tap(self._batch).output
            output = output[:, -1] if output.ndim == 3 else output
            chosen = output.gather(1, torch.from_numpy(classes).to(output.device)[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, leaf[-1])
        return np.asarray(gradient[:, :2].double().cpu().numpy())

    def accuracy(self, logits: Floats, scored: NDArray[np.bool_]) -> float:
        """The share of the pairs `scored` (p, p) whose sum has the largest logit."""
        return float((logits.argmax(-1) == self.sums)[scored].mean())

    def _table(self, output: Tensor) -> Floats:
        output = output[:, -1] if output.ndim == 3 else output
        if output.ndim != 2 or output.shape[1] < self.p:
            raise NetworkError(f"outputs must be logits of at least {self.p} classes, got {tuple(output.shape)}")
        return np.asarray(output.detach().double().cpu().numpy().reshape(self.p, self.p, -1))
