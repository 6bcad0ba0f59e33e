"""What greedy decoding remembers of the tokens so far, so that each is computed once."""

from __future__ import annotations

import torch
from torch import Tensor


class Past:
    """Keys and values (B, H, T, d) of one attention for the first `length` positions, in room for `capacity`."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self._keys = self._values = torch.empty(0)

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the next positions' keys and values; returns those of all positions so far."""
        if self.length == 0:
            room = (*keys.shape[:2], self.capacity, keys.shape[3])
            self._keys, self._values = keys.new_empty(room), values.new_empty(room)
        end = self.length + keys.shape[2]
        self._keys[:, :, self.length : end], self._values[:, :, self.length : end] = keys, values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]


class Cache:
    """The tokens so far (B, T) and every layer's `Past`, in room for `capacity` positions."""

    def __init__(self, layers: int, capacity: int) -> None:
        self.layers = [Past(capacity) for _ in range(layers)]
        self.tokens: Tensor | None = None

    @property
    def length(self) -> int:
        """How many positions are known."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    def extend(self, tokens: Tensor) -> Tensor:
        """Keep the next tokens (B, t); returns all tokens so far."""
        self.tokens = tokens if self.tokens is None else torch.cat((self.tokens, tokens), 1)
        return self.tokens
