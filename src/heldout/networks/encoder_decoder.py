"""An encoder-decoder transformer: it reads a sequence as a whole and answers it token by token.

Shapes: B batch, T source positions, F target positions, D width, H heads, V target vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError
from heldout.networks.transformer import Attention, Block, FeedForward


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another; every key may be seen."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, F, D) and (B, T, D) -> (B, F, D)."""
        q, k, v = (self._split(m) for m in (self.query(x), self.key(memory), self.value(memory)))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class DecoderBlock(nn.Module):
    """Causal attention, attention to the encoder's output, feed-forward; each normed before, around a residual stream."""

    def __init__(self, width: int, heads: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn = Attention(width, heads, causal=True, dropout=dropout)
        self.cross = CrossAttention(width, heads, dropout=dropout)
        self.mlp = FeedForward(width, hidden, dropout=dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, F, D) and (B, T, D) -> (B, F, D)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm2(x), memory)
        return x + self.mlp(self.norm3(x))  # type: ignore[no-any-return]


class EncoderDecoder(nn.Module):
    """`layers` encoder blocks, as many decoder blocks, a readout; learned positions, norms before each part and at the ends.

    Called with a source (B, T) int64 below `vocabulary` and what the decoder is given (B, F) int64 below `given`, it
    returns logits (B, F, V), V being `outputs`: those at place j see the whole source and the places up to j. Sources of a
    batch have one length (at most `max_source`); padding would be seen. `encode` and `decode` are its two halves, and
    `greedy` lets it answer by itself.
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: int,
        *,
        given: int | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        mlp_ratio: float = 4,
        max_source: int = 64,
        max_target: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(vocabulary, outputs, width, layers, heads, max_source, max_target) < 1 or mlp_ratio * width < 1:
            raise ConfigError(
                "EncoderDecoder: vocabulary, outputs, width, layers, heads, max_source, max_target and mlp_ratio * width "
                f"must be at least 1, got {vocabulary}, {outputs}, {width}, {layers}, {heads}, {max_source}, {max_target} "
                f"and {mlp_ratio * width:g}"
            )
        if width % heads:
            raise ConfigError(f"EncoderDecoder: width must be a multiple of heads, got width {width} and {heads} heads")
        if not 0 <= dropout < 1:
            raise ConfigError(f"EncoderDecoder: dropout must be from 0 to below 1, got {dropout}")
        hidden = int(mlp_ratio * width)
        self.max_source, self.max_target, self.dropout = max_source, max_target, dropout
        self.embed = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(max_source, width)
        self.embed_given = nn.Embedding(outputs if given is None else given, width)
        self.positions_given = nn.Embedding(max_target, width)
        self.encoder = nn.ModuleList(
            Block(
                width,
                Attention(width, heads, causal=False, dropout=dropout),
                FeedForward(width, hidden, dropout=dropout),
                norm="pre",
            )
            for _ in range(layers)
        )
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderBlock(width, heads, hidden, dropout=dropout) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, outputs)

    def encode(self, source: Tensor) -> Tensor:
        """(B, T) -> (B, T, D), the encoder's final states."""
        x = self._placed(source, self.embed, self.positions, self.max_source, "max_source")
        for block in self.encoder:
            x = block(x)
        out: Tensor = self.encoder_norm(x)
        return out

    def decode(self, memory: Tensor, given: Tensor) -> Tensor:
        """(B, T, D) and (B, F) -> (B, F, D), the decoder's final states, which the readout reads."""
        x = self._placed(given, self.embed_given, self.positions_given, self.max_target, "max_target")
        for block in self.decoder:
            x = block(x, memory)
        out: Tensor = self.decoder_norm(x)
        return out

    def forward(self, source: Tensor, given: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.decode(self.encode(source), given))
        return logits

    @torch.no_grad()
    def greedy(self, source: Tensor, start: int, length: int) -> Tensor:
        """(B, length) int64, the likeliest token at each place, each answer given to the next; the decoder begins with
        `start`."""
        memory = self.encode(source)
        given = torch.full((len(source), 1), start, dtype=torch.int64, device=source.device)
        for _ in range(length):
            answer = self.readout(self.decode(memory, given)[:, -1]).argmax(-1)
            given = torch.cat((given, answer[:, None]), dim=1)
        return given[:, 1:]

    def _placed(self, tokens: Tensor, embed: nn.Embedding, positions: nn.Embedding, most: int, name: str) -> Tensor:
        if tokens.shape[1] > most:
            raise NetworkError(f"EncoderDecoder: {tokens.shape[1]} positions in a batch, but {name} is {most}")
        x = embed(tokens) + positions(torch.arange(tokens.shape[1], device=tokens.device))
        return F.dropout(x, self.dropout, self.training)
