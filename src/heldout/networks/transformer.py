"""A small, plain transformer whose parts read well as sites: ``blocks.1.attn.key``, ``blocks.0.mlp.up``, ``readout``.

Shapes: B batch, T positions, Q positions that are read, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError, unknown
from heldout.networks.cache import Cache, Past
from heldout.networks.positions import POSITIONS, Abacus, Alibi, Positions, Rotary, Sinusoidal

Norm = Literal["pre", "post", "none"]
Init = Literal["default", "gpt"]
Activation = Literal["gelu", "gelu_tanh", "relu"]
NORMS: tuple[Norm, ...] = ("pre", "post", "none")
INITS: tuple[Init, ...] = ("default", "gpt")
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_tanh", "relu")


class Attention(nn.Module):
    """Multi-head attention; queries may be asked for at some positions only, keys and values may have a past.

    Sites inside it see queries and keys after rotary positions have turned them, and scores with ALiBi's bias.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool,
        bias: bool = True,
        dropout: float = 0.0,
        rotary: Rotary | None = None,
        alibi: Alibi | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.rotary, self.alibi = rotary, alibi

    def forward(self, x: Tensor, at: Tensor | None = None, past: Past | None = None) -> Tensor:
        """(B, T, D), and (B, Q) -> (B, T or Q, D); with a past, x are the positions that follow it."""
        start = 0 if past is None else past.length
        keys = torch.arange(start + x.shape[1], device=x.device)
        queries = keys[start:] if at is None else at  # (T,) or (B, Q): where the queries stand
        q = self._split(self.query(x if at is None else rows(x, at)))  # (B, H, T or Q, D / H)
        k, v = self._split(self.key(x)), self._split(self.value(x))  # (B, H, T, D / H)
        if self.rotary is not None:
            q, k = self.rotary(q, queries), self.rotary(k, keys[start:])
        if past is not None:
            k, v = past.extend(k, v)
        mask = self._mask(queries, keys)
        plain = mask is None and self.causal and q.shape[2] > 1  # a single query, the last, sees everything
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, is_causal=plain
        )
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)

    def _mask(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """What is added to the scores (ALiBi) or which keys may be seen, (1 or B, H or 1, Q, T); None where the kernel's
        own causal mask, or none, does."""
        whole = queries.ndim == 1 and len(queries) in (1, len(keys))
        if self.alibi is None and (whole or not self.causal):
            return None
        later = (keys > queries[..., None]).unsqueeze(-3)  # (1 or B, Q, T) or (B, 1, Q, T)
        if self.alibi is None:
            return ~later
        bias: Tensor = self.alibi(queries, keys)
        return bias.masked_fill(later, -math.inf) if self.causal else bias

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Up, GELU (exact, or its approximation by tanh) or ReLU, down."""

    def __init__(
        self, width: int, hidden: int, *, bias: bool = True, dropout: float = 0.0, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.up = nn.Linear(width, hidden, bias=bias)
        self.act = nn.ReLU() if activation == "relu" else nn.GELU("tanh" if activation == "gelu_tanh" else "none")
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.down(self.act(self.up(x))), self.dropout, self.training)


class Block(nn.Module):
    """Attention and feed-forward around a residual stream, normed before each, after each, or not at all."""

    def __init__(self, width: int, attn: Attention, mlp: FeedForward, *, norm: Norm, bias: bool = True) -> None:
        super().__init__()
        self.post = norm == "post"
        self.norm1 = nn.Identity() if norm == "none" else nn.LayerNorm(width, bias=bias)
        self.attn = attn
        self.norm2 = nn.Identity() if norm == "none" else nn.LayerNorm(width, bias=bias)
        self.mlp = mlp

    def forward(self, x: Tensor, at: Tensor | None = None, past: Past | None = None) -> Tensor:
        """(B, T, D), and (B, Q) -> (B, T or Q, D)."""
        stream = x if at is None else rows(x, at)
        if self.post:
            stream = self.norm1(stream + self.attn(x, at, past))
            return self.norm2(stream + self.mlp(stream))  # type: ignore[no-any-return]
        stream = stream + self.attn(self.norm1(x), at, past)
        return stream + self.mlp(self.norm2(stream))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Embedding, `layers` blocks, norm, readout.

    Tokens (B, T) int64 below `vocabulary`, T at most `max_length`, give logits (B, T, V). With ``at`` (B, Q) int64 they
    are (B, Q, V), those at these positions, and the last block computes queries, feed-forward and readout there only.
    With a ``cache`` (see `cache`) tokens are those that follow what it holds, and it holds them too afterwards.
    Causal attention makes padding on the right harmless without a mask: no position sees a later one. With
    ``causal=False`` padding *is* seen, so give inputs of one length.

    - `positions`: see `heldout.networks.positions`; ``abacus`` needs the token ids of the `digits`, and moves them by
      up to `offsets` - 1 places while training.
    - `bias`: whether linear maps and norms have biases; `readout_bias`: whether the readout has one, `bias` permitting.
    - `tied`: the readout's weights are the embedding's.
    - `dropout`: the share that is set to zero, while training, of embeddings, attention patterns, and what attention and
      feed-forward add to the stream.
    - `init`: PyTorch's own (``default``), or GPT-2's (``gpt``): weights N(0, .02), what writes into the residual stream
      smaller by sqrt(2 layers), biases 0.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 1,
        mlp_ratio: float = 4,
        positions: Positions = "learned",
        norm: Norm = "pre",
        max_length: int = 513,
        causal: bool = True,
        digits: Sequence[int] = (),
        offsets: int = 100,
        bias: bool = True,
        readout_bias: bool = True,
        tied: bool = False,
        dropout: float = 0.0,
        activation: Activation = "gelu",
        init: Init = "default",
    ) -> None:
        super().__init__()
        for kind, given, known in (
            ("kind of positions", positions, POSITIONS),
            ("norm", norm, NORMS),
            ("activation", activation, ACTIVATIONS),
            ("init", init, INITS),
        ):
            if given not in known:
                raise ConfigError(f"Transformer: {unknown(kind, str(given), known)}")
        if min(vocabulary, width, layers, heads, max_length) < 1 or mlp_ratio * width < 1:
            raise ConfigError(
                "Transformer: vocabulary, width, layers, heads, max_length and mlp_ratio * width must be at least 1, "
                f"got {vocabulary}, {width}, {layers}, {heads}, {max_length} and {mlp_ratio * width:g}"
            )
        if width % heads:
            raise ConfigError(f"Transformer: width must be a multiple of heads, got width {width} and {heads} heads")
        if not 0 <= dropout < 1:
            raise ConfigError(f"Transformer: dropout must be from 0 to below 1, got {dropout}")
        self.max_length, self.causal, self.dropout = max_length, causal, dropout
        self.embed = nn.Embedding(vocabulary, width)
        self.positions: nn.Module | None = None
        if positions == "learned":
            self.positions = nn.Embedding(max_length, width)
            # Faint beside the tokens' unit variance, so that attention begins with content: in a pilot on Dyck this
            # took about half as many steps as equal variances.
            nn.init.normal_(self.positions.weight, std=0.1)
        elif positions == "sinusoidal":
            self.positions = Sinusoidal(max_length, width)
        elif positions == "abacus":
            self.positions = Abacus(vocabulary, max_length, width, digits, offsets=offsets)

        def block() -> Block:
            attn = Attention(
                width,
                heads,
                causal=causal,
                bias=bias,
                dropout=dropout,
                rotary=Rotary(max_length, width // heads) if positions == "rotary" else None,
                alibi=Alibi(heads) if positions == "alibi" else None,
            )
            mlp = FeedForward(width, int(mlp_ratio * width), bias=bias, dropout=dropout, activation=activation)
            return Block(width, attn, mlp, norm=norm, bias=bias)

        self.blocks = nn.ModuleList(block() for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=bias) if norm == "pre" else nn.Identity()
        self.readout = nn.Linear(width, vocabulary, bias=bias and readout_bias)
        if init == "gpt":
            gpt_init(self, layers)
        if tied:
            self.readout.weight = self.embed.weight

    def cache(self, capacity: int | None = None) -> Cache:
        """An empty cache for `capacity` positions, `max_length` by default; for causal attention."""
        if not self.causal:
            raise NetworkError("Transformer: with causal=False earlier positions see later ones and cannot be cached")
        return Cache(len(self.blocks), self.max_length if capacity is None else capacity)

    def forward(self, tokens: Tensor, at: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        if start + tokens.shape[1] > self.max_length:
            raise NetworkError(
                f"Transformer: {start + tokens.shape[1]} positions in a batch, but max_length is {self.max_length}; "
                "build it with a larger max_length or cap the sentences"
            )
        if cache is not None and at is not None:
            raise NetworkError("Transformer: at and cache do not go together; give one of them")
        so_far = tokens if cache is None else cache.extend(tokens)  # (B, start + T)
        x = self.embed(tokens)
        if isinstance(self.positions, Abacus):  # a digit's place depends on the tokens before it
            x = x + self.positions(so_far)[:, start:]
        elif self.positions is not None:
            x = x + self.positions(torch.arange(start, so_far.shape[1], device=tokens.device))
        x = F.dropout(x, self.dropout, self.training)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, at if i == last else None, None if cache is None else cache.layers[i])
        logits: Tensor = self.readout(self.norm(x))
        return logits


def gpt_init(network: nn.Module, layers: int) -> None:
    """GPT-2's initial weights, in place: N(0, .02), of ``out`` and ``down`` N(0, .02 / sqrt(2 layers)), biases 0."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            writes = name.endswith((".out", ".down"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * layers) if writes else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def rows(x: Tensor, at: Tensor) -> Tensor:
    """(B, T, ...) and (B, Q) int64 -> (B, Q, ...): the positions `at` of each item."""
    return x[torch.arange(len(x), device=x.device)[:, None], at]
