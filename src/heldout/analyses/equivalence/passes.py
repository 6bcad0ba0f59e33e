"""Passes of a sequence network over prompts with a given answer behind them (teacher forcing).

Shapes: N items, B batch, T positions, W answer steps, P positions read, D width, V vocabulary. A *step* is the position
whose logits predict one token of the answer; the token it predicts stands one position further on.

Teacher forcing and greedy decoding agree where it matters: greedy decoding gives exactly the forced answer if and only
if the largest logit of every step is the forced token's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.sites import Site, finite, module_at, resolve_view, to_rows
from heldout.activations.tap import Tap
from heldout.errors import ConfigError, NetworkError, NonFiniteError, SiteError
from heldout.tasks.base import Batch


@dataclass(frozen=True, eq=False)
class Sequences:
    """Prompts with their answers: `tokens` (N, T) int64, `steps` the W positions that predict the answer, ascending.

    `labels`: name -> (N,) whole numbers for the scores table, ``unit`` (the unordered pair) first; by default each item is
    its own unit. What follows the last answer token is never fed.
    """

    tokens: Tensor
    steps: tuple[int, ...]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or not len(self.tokens):
            raise ConfigError(f"sequences must be tokens (N, T), N at least 1; got shape {tuple(self.tokens.shape)}")
        length = self.tokens.shape[1]
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[0] < 0:
            raise ConfigError(f"answer steps must be different positions in ascending order; got {self.steps}")
        if self.steps[-1] + 1 >= length:
            raise ConfigError(
                f"step {self.steps[-1]} predicts position {self.steps[-1] + 1} of {length}; none is there"
            )
        labels = dict(self.labels) or {"unit": np.arange(len(self.tokens))}
        if next(iter(labels)) != "unit":
            raise ConfigError(f"the first label of sequences must be 'unit'; got {', '.join(labels)}")
        for name, values in labels.items():
            if len(values) != len(self.tokens):
                raise ConfigError(f"label {name!r} has {len(values)} entries for {len(self.tokens)} sequences")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def fed(self) -> int:
        """How many positions the network is given: up to the last step."""
        return self.steps[-1] + 1

    def partner(self, tokens: Tensor) -> Sequences:
        """Other tokens (N, T), item by item, under the same steps and labels."""
        if tokens.shape != self.tokens.shape:
            raise ConfigError(f"partners have shape {tuple(tokens.shape)}, the items {tuple(self.tokens.shape)}")
        return Sequences(tokens, self.steps, self.labels)

    def slices(self, size: int) -> Iterator[slice]:
        """Consecutive ranges of at most `size` items."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True, eq=False)
class Forced:
    """What a network gives its forced answer: `log_p` (B, W, V) float64, nats; `given` (B, W) the forced tokens."""

    log_p: Tensor
    given: Tensor

    @cached_property
    def chosen(self) -> Tensor:
        """(B, W) the token of largest logit at each step."""
        return self.log_p.argmax(dim=-1)

    @cached_property
    def given_log_p(self) -> Tensor:
        """(B, W) log probability of the forced token, nats."""
        return self.log_p.gather(-1, self.given[..., None]).squeeze(-1)

    @cached_property
    def margin(self) -> Tensor:
        """(B, W) logit of the forced token minus the largest other one, nats; above 0 where greedy decoding gives it."""
        others = self.log_p.scatter(-1, self.given[..., None], -torch.inf).amax(dim=-1)
        return self.given_log_p - others

    @cached_property
    def correct(self) -> Tensor:
        """(B, W) whether the chosen token is the forced one."""
        return self.chosen == self.given

    @property
    def exact(self) -> Tensor:
        """(B,) whether every step is correct: then, and only then, greedy decoding gives the forced answer."""
        return self.correct.all(dim=1)

    def kl(self, other: Forced) -> Tensor:
        """(B, W) KL(self || other) at each step, nats, over the full vocabulary."""
        return (self.log_p.exp() * (self.log_p - other.log_p)).sum(dim=-1).clamp(min=0)


def forced(output: Any, tokens: Tensor, steps: Sequence[int]) -> Forced:
    """Read the answer steps of logits (B, T, V), given for at least the positions up to the last step.

    Raises `NetworkError` where the output does not fit, `NonFiniteError` where it is not finite.
    """
    at = list(steps)
    if not isinstance(output, Tensor) or output.ndim != 3 or len(output) != len(tokens) or output.shape[1] <= at[-1]:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise NetworkError(
            f"logits ({len(tokens)}, {at[-1] + 1}, V) are needed to read an answer; the network gave {got}"
        )
    logits, given = output[:, at].double(), tokens[:, [s + 1 for s in at]].to(output.device)
    if not finite(logits):
        raise NonFiniteError("the network's output is NaN or infinite at an answer step")
    if int(given.max()) >= logits.shape[-1]:
        raise NetworkError(f"the answers hold token {int(given.max())}, but the network has {logits.shape[-1]} classes")
    return Forced(logits.log_softmax(dim=-1), given)


def batch_of(tokens: Tensor, start: int = 0, device: str | torch.device = "cpu") -> Batch:
    """Tokens (B, T) as a batch for a `Tap`."""
    return Batch(tokens, torch.arange(start, start + len(tokens))).to(device)


def activations(
    network: nn.Module,
    sequences: Sequences,
    sites: Sequence[str],
    positions: Sequence[int],
    *,
    batch_size: int = 1024,
    device: str = "cpu",
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Stream (items, site -> rows (B, P, D) float64 on the CPU) at some positions, each item once, in order.

    Raises `SiteError` where a site does not hold one row a position.
    """
    check_positions(positions, sequences.fed)
    named = {s: Site.parse(s) for s in sites}
    for cut in sequences.slices(batch_size):
        # Closed before anything is handed out: several streams of one network may run side by side.
        with Tap(network, read=list(named.values())) as tap:
            reading = tap(batch_of(sequences.tokens[cut, : sequences.fed], cut.start, device))
        found = {}
        for name, site in named.items():
            value = reading[site]
            rows = to_rows(value, resolve_view(site, module_at(network, site), value), site)
            check_rows(rows, sequences.fed, name)
            found[name] = rows[:, list(positions)].double().cpu()
            if not finite(found[name]):
                raise NonFiniteError(f"site {name} holds NaN or infinite values, items {cut.start} to {cut.stop - 1}")
        yield cut, found


def collect(
    network: nn.Module, sequences: Sequences, site: str, position: int, *, batch_size: int = 1024, device: str = "cpu"
) -> Tensor:
    """(N, D) float64: one site's rows at one position, for what cannot be streamed (probes, silhouettes)."""
    parts = activations(network, sequences, [site], [position], batch_size=batch_size, device=device)
    return torch.cat([rows[site][:, 0] for _, rows in parts])


def check_rows(rows: Tensor, length: int, site: str) -> None:
    """Raise `SiteError` where `rows` are not (B, T, D) with T = `length`."""
    if rows.ndim != 3 or rows.shape[1] != length:
        raise SiteError(f"site {site} has shape {tuple(rows.shape)}; one row for each of {length} positions is needed")


def check_positions(positions: Sequence[int], length: int) -> None:
    """Raise `ConfigError` where a position is not fed."""
    if not positions or not all(0 <= p < length for p in positions):
        raise ConfigError(f"positions {list(positions)}: choose from 0 to {length - 1}, those that the network is fed")
