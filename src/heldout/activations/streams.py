"""A transformer of ours as a chain along its residual stream, so that the stream between attention and feed-forward is a
node layer too: inside a block no single module's output is all that the rest sees.

    stream = residual_stream(transformer)
    Sections(stream, ["embed", "attn0", "mlp0", "readout"])
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from heldout.networks.positions import Abacus
from heldout.networks.transformer import Block, Transformer


def residual_stream(transformer: Transformer) -> nn.Sequential:
    """``embed``, then ``attn0``, ``mlp0``, ``attn1``, ... (each the whole stream behind it, (B, T, D)), and ``readout``, the
    logits (B, T, V). The modules are the transformer's own; the function is its function in ``eval()`` mode."""
    steps: OrderedDict[str, nn.Module] = OrderedDict(embed=_Embed(transformer.embed, transformer.positions))
    for i, block in enumerate(transformer.blocks):
        assert isinstance(block, Block)
        steps[f"attn{i}"] = _Half(block.norm1, block.attn, post=block.post)
        steps[f"mlp{i}"] = _Half(block.norm2, block.mlp, post=block.post)
    steps["readout"] = nn.Sequential(transformer.norm, transformer.readout)
    return nn.Sequential(steps).train(transformer.training)


class _Embed(nn.Module):
    """Tokens and their places."""

    def __init__(self, embed: nn.Embedding, positions: nn.Module | None) -> None:
        super().__init__()
        self.embed, self.positions = embed, positions

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embed(tokens)
        if self.positions is None:
            return x
        places = tokens if isinstance(self.positions, Abacus) else torch.arange(tokens.shape[1], device=tokens.device)
        out: Tensor = x + self.positions(places)
        return out


class _Half(nn.Module):
    """The stream with what attention or feed-forward adds to it."""

    def __init__(self, norm: nn.Module, part: nn.Module, *, post: bool) -> None:
        super().__init__()
        self.norm, self.part, self.post = norm, part, post

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.part(x)) if self.post else x + self.part(self.norm(x))
        return out
