"""Probes: which outputs of a section are differentiated, one by one or as random signs over many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heldout.errors import ConfigError, unknown

Kind = Literal["auto", "exact", "position", "full"]
KINDS: tuple[Kind, ...] = ("auto", "exact", "position", "full")


@dataclass(frozen=True)
class Probes:
    """Which outputs are differentiated.

    ``exact``: each output, at each position. ``position``: random signs over positions, each feature on its own.
    ``full``: random signs over positions and features. ``auto``: ``position`` where the next layer has positions,
    otherwise ``exact``. `draws` of the random ones are averaged; signs depend on `seed`, the item and the draw alone.
    """

    kind: Kind = "auto"
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(unknown("kind of probes", str(self.kind), KINDS))
        if self.draws < 1:
            raise ConfigError(f"probes need at least one draw, got {self.draws}")

    def settled(self, positions: int) -> Probes:
        """These probes with ``auto`` decided by the number of positions of the next layer."""
        if self.kind == "auto":
            return replace(self, kind="position" if positions > 1 else "exact")
        return self

    def cotangents(
        self, end: Tensor, counted: Tensor, items: Tensor, factor: Tensor | None, chunk: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Chunks of at most `chunk` cotangents (k, B, T', D') of `end`, with the feature (k,) each belongs to (None under
        ``full``).

        Random ones are scaled so that the sum over all of them estimates the sum over outputs. Without a `factor` (D', K)
        each neuron is a feature.
        """

        def reading(feature: Tensor) -> Tensor:  # (k,) -> (k, D')
            return F.one_hot(feature, end.shape[-1]).to(end) if factor is None else factor.T[feature].to(end)

        positions = counted.any(dim=0).nonzero()[:, 0]
        features = end.shape[-1] if factor is None else factor.shape[1]
        number = {"exact": len(positions) * features, "position": self.draws * features, "full": self.draws}[self.kind]
        width = features if self.kind == "full" else 1
        signs = np.empty(0) if self.kind == "exact" else self._signs(items, counted.shape[1], number, width)
        for start in range(0, number, chunk):
            probe = torch.arange(start, min(start + chunk, number), device=end.device)
            if self.kind == "exact":
                place, feature = positions[probe // features], probe % features
                out = end.new_zeros(len(probe), *end.shape)
                at = counted[:, place].T.to(end)  # (k, B)
                out[torch.arange(len(probe)), :, place] = at[:, :, None] * reading(feature)[:, None]
                yield out, feature
                continue
            phi = torch.from_numpy(signs[start : start + len(probe)]).to(end) / math.sqrt(self.draws)
            phi = phi * counted[..., None]
            if self.kind == "full":
                yield phi if factor is None else phi @ factor.T.to(end), None
            else:
                feature = probe % features
                yield phi * reading(feature)[:, None, None], feature

    def _signs(self, items: Tensor, positions: int, number: int, width: int) -> np.ndarray:
        """(number, B, T', width) int8 of -1 and 1, the same for an item in whatever batch it comes."""
        size = (positions, number * width)
        draws = [np.random.default_rng([self.seed, i]).integers(0, 2, size, dtype=np.int8) for i in items.tolist()]
        return (2 * np.stack(draws) - 1).reshape(len(items), positions, number, width).transpose(2, 0, 1, 3)
