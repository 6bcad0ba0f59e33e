"""A decoder by the numbers that costs follow from, and the units of a cost.

FLOPs are those of matrix products, a multiplication and an addition counted as two. Everything else (norms, activations,
softmax, hooks, reading the data) is left out: at a width of thousands it is little, in a small network it is most.
"""

from __future__ import annotations

from dataclasses import dataclass

from heldout.errors import ConfigError

DOUBLE = 8  # bytes: statistics and derivatives are float64


@dataclass(frozen=True)
class Decoder:
    """Embedding, `layers` blocks of attention and a feed-forward part, readout: `heldout.networks.transformer.Transformer`.

    - `length`: positions of an item. `hidden`: the feed-forward part's width, 4 `width` where None; for a gated one
      (three matrices) 3/2 of its width counts the same.
    - `bytes`: of a weight and of an activation.

    Raises `ConfigError` for sizes below 1 and a width that the heads do not divide.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    hidden: int | None = None
    bytes: int = 2

    def __post_init__(self) -> None:
        sizes = [self.layers, self.width, self.heads, self.vocabulary, self.length, self.bytes, self.inner]
        if min(sizes) < 1 or self.width % self.heads:
            raise ConfigError(
                f"a decoder of {self.layers} layers, width {self.width}, {self.heads} heads, hidden width {self.inner}, "
                f"{self.vocabulary} tokens, {self.length} positions, {self.bytes} bytes a weight: all must be at least 1, "
                "and the width a multiple of the heads"
            )

    @property
    def inner(self) -> int:
        """Width of the feed-forward part."""
        return 4 * self.width if self.hidden is None else self.hidden

    @property
    def parameters(self) -> int:
        """Entries of the matrices; positions, norms and biases are left out (below 1 in 1000 at 7 billion)."""
        return self.layers * self._block + 2 * self.vocabulary * self.width

    @property
    def forward(self) -> int:
        """FLOPs a position of one pass."""
        return self.after(-1)

    def after(self, layer: int) -> int:
        """FLOPs a position of what follows the output of block `layer`, from 0; all of the pass at -1.

        Each position attends to all `length` ones: what a causal kernel saves of that is not counted.
        """
        if not -1 <= layer < self.layers:
            raise ConfigError(f"there is no block {layer}; choose from 0 to {self.layers - 1}")
        return 2 * self._linear(layer) + self._attention(layer)

    def sweep(self, layer: int) -> int:
        """FLOPs a position of one vector-Jacobian product from the output back to block `layer`, weights held: one product
        for each of a linear map, two for each of attention's, where both sides change."""
        return 2 * self._linear(layer) + 2 * self._attention(layer)

    def working(self, positions: int) -> int:
        """Bytes that one plain pass over so many positions needs at once: feed-forward part or logits."""
        return self.bytes * positions * max(3 * self.width + 2 * self.inner, self.width + self.vocabulary)

    def graph(self, positions: int, layers: int, size: int = DOUBLE) -> int:
        """Bytes of what `layers` blocks and the readout keep of so many positions for derivatives, `size` an entry.

        Counted tensor by tensor: nine as wide as the stream and two as wide as the hidden layer in a block, patterns of
        all heads, three of logits.
        """
        a_block = 9 * self.width + 2 * self.inner + 2 * self.heads * self.length
        return size * positions * (layers * a_block + 2 * self.width + 3 * self.vocabulary)

    def _linear(self, layer: int) -> int:
        return (self.layers - 1 - layer) * self._block + self.vocabulary * self.width

    def _attention(self, layer: int) -> int:
        return (self.layers - 1 - layer) * 4 * self.length * self.width

    @property
    def _block(self) -> int:
        return 4 * self.width**2 + 2 * self.width * self.inner


@dataclass(frozen=True)
class Cost:
    """What one analysis costs.

    - `positions`: that pass the network, once for each pass, whole or from an edited site on.
    - `derivatives`: that are swept backwards, once for each sweep.
    - `flops`, `flops64`: of matrix products on the network's device, in its precision and in float64; `host`: in float64 on
      the processor, wherever the network is.
    - `memory`: bytes at its peak beside the network itself, one batch's own pass included.
    - `note`: what decides, or what is at most.
    """

    analysis: str
    positions: int
    derivatives: int
    flops: float
    flops64: float
    host: float
    memory: float
    note: str = ""

    def passes(self, decoder: Decoder, tokens: int) -> float:
        """The arithmetic as plain passes over so many tokens, were all of it equally fast."""
        return (self.flops + self.flops64 + self.host) / (decoder.forward * tokens)

    def hours(self, rate: float, rate64: float, host: float) -> float:
        """Hours where the network's device does `rate` FLOPs a second in its precision and `rate64` in float64, and the
        processor `host` in float64.

        A lower bound: nothing does products alone. Give rates that were measured on a plain pass, not the maker's.
        """
        if not (rate > 0 and rate64 > 0 and host > 0):
            raise ConfigError(f"rates must be positive FLOPs a second, got {rate:g}, {rate64:g} and {host:g}")
        return (self.flops / rate + self.flops64 / rate64 + self.host / host) / 3600
