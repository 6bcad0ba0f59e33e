"""Inside attention: intercept `scaled_dot_product_attention` wherever it is called.

A torch function mode sees each call of `torch.nn.functional.scaled_dot_product_attention`, whoever makes it: our
transformer, Hugging Face models under ``sdpa``, or a user's own module. `nn.MultiheadAttention` hides that call inside
another overridable function, so its projections are done here in the open; where nothing is replaced, the result is
still that function's own. Where scores or patterns are read or
replaced, the call is computed explicitly; otherwise the network's own kernel runs on the (possibly edited) operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heldout.errors import SiteError

Visit = Callable[[str, Tensor], Tensor]


class Call(NamedTuple):
    """What one attention call may do: `visit(part, tensor)` reads and replaces, `explicit` asks for scores or pattern.

    `groups`: how many query heads share a key head in the module that calls; see `_shared`.
    """

    visit: Visit
    explicit: bool
    groups: int = 1


class AttentionMode(TorchFunctionMode):
    """Routes every attention call through `begin`, which returns a `Call`, or None to leave it alone."""

    def __init__(self, begin: Callable[[], Call | None]) -> None:
        super().__init__()
        self.begin = begin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            call = self.begin()
            return func(*args, **kwargs) if call is None else attend(call, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            call = self.begin()
            output = None if call is None else multi_head_attention(call, *args, **kwargs)
            return func(*args, **kwargs) if output is None else output
        return func(*args, **kwargs)


def attend(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """One attention call with its operands visited. (B, H, T, d) each; keys and values may have fewer heads."""
    query = call.visit("query", query)
    key, value = (_shared(call, part, x, query.shape[1]) for part, x in (("key", key), ("value", value)))
    if not call.explicit:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    output, _ = explicit_attention(call, query, key, value, attn_mask, is_causal, scale, dropout_p)
    return output


def groups_of(module: nn.Module) -> int:
    """How many query heads share a key head: what Hugging Face modules with grouped queries say of themselves."""
    groups = getattr(module, "num_key_value_groups", 1)
    return groups if isinstance(groups, int) else 1


def _shared(call: Call, part: str, tensor: Tensor, heads: int) -> Tensor:
    """Visit keys or values of grouped queries as the heads that there are, repeated for the call or not.

    Hugging Face repeats them where there is an attention mask and leaves that to the kernel where there is none: without
    this, a head's number would mean another head as soon as a batch holds padding.
    """
    if call.groups == 1 or tensor.ndim != 4 or tensor.shape[1] != heads:
        return call.visit(part, tensor)
    own = tensor[:, :: call.groups]
    new = call.visit(part, own)
    return tensor if new is own else new.repeat_interleave(call.groups, dim=1)


def explicit_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T * scale + mask) v with scores and pattern visited; returns the output and the pattern (B, H, Q, T).

    Scores are visited after the scale and the mask, so that a forbidden position reads minus infinity. A row with no
    permitted position has a pattern of zeros.
    """
    if query.shape[-3] != key.shape[-3]:  # grouped queries: each key head serves several
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    scores = call.visit("scores", scores)
    pattern = torch.softmax(scores, dim=-1)
    if attn_mask is not None:
        pattern = pattern.masked_fill((scores == -math.inf).all(dim=-1, keepdim=True), 0.0)
    pattern = call.visit("pattern", F.dropout(pattern, dropout_p) if dropout_p else pattern)
    return pattern @ value, pattern


def multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    *,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """`torch.nn.functional.multi_head_attention_forward` in the open, so that its operands are sites too.

    None where nothing was replaced, so that the function itself may run. Inputs are (T, B, D), or (T, D) for a single
    item, as that function has them.
    """
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise SiteError(
            "this nn.MultiheadAttention adds a bias, zero or static key (add_bias_kv, add_zero_attn), which the sites "
            "inside attention do not cover; use the module's output as the site instead"
        )
    single = query.ndim == 2
    if single:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    weights: tuple[Tensor | None, ...]
    biases: tuple[Tensor | None, ...]
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        assert in_proj_weight is not None
        weights = in_proj_weight.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    operands = [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]  # type: ignore[arg-type]
    q, k, v = (x.view(*x.shape[:2], num_heads, -1).permute(1, 2, 0, 3) for x in operands)  # (B, H, T, d)
    mask = _merged_mask(attn_mask, key_padding_mask, num_heads, q)
    seen = call.visit("query", q), call.visit("key", k), call.visit("value", v)
    if not call.explicit and seen[0] is q and seen[1] is k and seen[2] is v:
        return None
    q, k, v = seen
    dropout_p = dropout_p if training else 0.0
    pattern: Tensor | None = None
    if call.explicit or need_weights:
        out, pattern = explicit_attention(call, q, k, v, mask, False, None, dropout_p)
    else:
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p)
    out = F.linear(out.permute(2, 0, 1, 3).flatten(-2), out_proj_weight, out_proj_bias)
    if not need_weights or pattern is None:
        pattern = None
    elif average_attn_weights:
        pattern = pattern.mean(dim=1)
    if single:
        return out.squeeze(1), None if pattern is None else pattern.squeeze(0)
    return out, pattern


def _merged_mask(attn_mask: Tensor | None, padding: Tensor | None, heads: int, query: Tensor) -> Tensor | None:
    """nn.MultiheadAttention's two masks (True forbids) as one additive mask that broadcasts to (B, H, Q, T)."""

    def additive(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.to(query.dtype)
        return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, -math.inf)

    merged = None
    if attn_mask is not None:
        merged = additive(attn_mask)
        merged = merged if merged.ndim == 2 else merged.view(-1, heads, *merged.shape[1:])
    if padding is not None:
        pad = additive(padding)[:, None, None, :]
        merged = pad if merged is None else merged + pad
    return merged


@contextmanager
def reachable_attention(network: nn.Module) -> Iterator[None]:
    """While open, attention goes through calls that can be intercepted.

    Hugging Face models set to ``eager`` are switched to ``sdpa`` and back: the weights are untouched, the two kernels
    differ by rounding, which the identity check measures. Other kernels (flash, flex) are left alone, and their sites
    are reported as not running.
    """
    switched = []
    for module in network.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "_attn_implementation", None) == "eager":
            switched.append(config)
            config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        for config in switched:
            config._attn_implementation = "eager"
