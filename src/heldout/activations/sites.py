"""Sites: named places in a network that can be read and replaced.

A site is written as one string::

    hidden.1                     the output of the submodule hidden.1
    hidden.1:input               its first positional input          (:input[1], :input[mask] for others)
    lstm[0]   lstm[1][0]         an element of a nested output       (tuples, lists, mappings, output classes)
    relu#0    relu#1   relu#*    the first, the second, every call of a module that runs more than once
    conv1@channels               dimension 1 holds the features      (views: last, channels, flat, time_first)
    blocks.1.attn@attn.query     (B, heads, T, d), as it enters the product; also key, value, scores, pattern
    blocks.1.attn@attn.key[0]    one head of it, (B, T, d)
    .                            the network itself

Inside attention a site belongs to the innermost *named* module in which `scaled_dot_product_attention` is called; where
such a module calls it more than once, ``#k`` counts those calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from heldout.errors import SiteError, unknown

ATTENTION_PARTS = ("query", "key", "value", "scores", "pattern")
VIEWS = ("auto", "last", "channels", "flat", "time_first")
EVERY = -1  # the call index that stands for every call

_GRAMMAR = re.compile(
    r"(?P<path>[^#:@\[\]\s]+)(#(?P<call>\d+|\*))?(?P<input>:input)?(@attn\.(?P<attn>\w+))?"
    r"(?P<select>(\[[^\[\]]+\])*)(@(?P<view>\w+))?"
)
_CHANNELS_FIRST: tuple[type[nn.Module], ...] = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)
_FEATURES_LAST: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.RNNBase, nn.MultiheadAttention),
    *(nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder, nn.TransformerDecoderLayer),
)
_OVER_TIME: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
)


@dataclass(frozen=True)
class Site:
    """One place in a network; see the module's text for the grammar of `Site.parse`.

    `part` is ``output``, ``input`` or one of `ATTENTION_PARTS`; `call` the number of the call (None: the module must run
    once, `EVERY`: each call); `select` the way into a nested value; `view` where the features are.
    """

    path: str
    part: str = "output"
    call: int | None = None
    select: tuple[int | str, ...] = ()
    view: str = "auto"

    @staticmethod
    def parse(text: str | Site) -> Site:
        """Read a site from its string. Raises `SiteError` where the string does not follow the grammar."""
        return text if isinstance(text, Site) else _parse(text)

    @property
    def in_attention(self) -> bool:
        return self.part in ATTENTION_PARTS

    def __str__(self) -> str:
        call = "" if self.call is None else "#*" if self.call == EVERY else f"#{self.call}"
        part = f"@attn.{self.part}" if self.in_attention else ":input" if self.part == "input" else ""
        select = "".join(f"[{s}]" for s in self.select)
        return self.path + call + part + select + ("" if self.view == "auto" else f"@{self.view}")


@lru_cache(maxsize=1024)
def _parse(text: str) -> Site:
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise SiteError(
            f"site {text!r} cannot be read; write a module's path, then what of it is meant, for example "
            "'hidden.1', 'lstm[0]', 'relu#1', 'conv1@channels' or 'blocks.0.attn@attn.query[0]'"
        )
    attn, view = match["attn"], match["view"] or "auto"
    if attn is not None and attn not in ATTENTION_PARTS:
        raise SiteError(f"site {text!r}: {unknown('part of attention', attn, ATTENTION_PARTS)}")
    if attn is not None and match["input"]:
        raise SiteError(f"site {text!r}: ':input' and '@attn.{attn}' exclude each other; leave one out")
    if view not in VIEWS:
        raise SiteError(f"site {text!r}: {unknown('view', view, VIEWS)}")
    call = None if match["call"] is None else EVERY if match["call"] == "*" else int(match["call"])
    raw = re.findall(r"\[([^\[\]]+)\]", match["select"])
    select = tuple(int(s) if re.fullmatch(r"-?\d+", s) else s.strip("'\"") for s in raw)
    if match["input"] and not select:
        select = (0,)
    if attn is not None and len(select) > 1:
        raise SiteError(f"site {text!r}: inside attention one selector names a head; leave out {raw[1:]}")
    return Site(match["path"], attn or ("input" if match["input"] else "output"), call, select, view)


def module_at(network: nn.Module, site: Site) -> nn.Module:
    """The module that `site` belongs to, or a `SiteError` with the nearest paths that exist."""
    module: nn.Module | None = network
    for name in site.path.split(".") if site.path != "." else ():
        module = module._modules[name] if module is not None and name in module._modules else None
    if module is None:
        paths = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
        raise SiteError(f"site {str(site)!r}: {unknown('module', site.path, paths)} in {type(network).__name__}")
    return module


def pick(value: Any, site: Site) -> Tensor:
    """The tensor that the site's selector names inside a module's output or arguments."""
    for depth, step in enumerate(site.select):
        if isinstance(value, Tensor) and site.in_attention:
            heads = value.shape[1] if value.ndim == 4 else 0
            if not isinstance(step, int) or not -heads <= step < heads:
                raise SiteError(f"site {site}: head {step} of {heads} in {_shape(value)}; heads are counted from 0")
            return value[:, step]
        if isinstance(value, Tensor):  # [0] of a tensor would be an item of the batch, which is no place in a network
            raise SiteError(f"site {site}: [{step}] selects from {_shape(value)}; leave it out")
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            where = "".join(f"[{s}]" for s in site.select[:depth])
            raise SiteError(
                f"site {site}: no element [{step}] in {site.path}{where}, which is {_shape(value)}"
            ) from None
    if not isinstance(value, Tensor):
        raise SiteError(f"site {site} is {_shape(value)}, not a tensor; add a selector such as [{_first(value)}]")
    return value


def put(value: Any, site: Site, new: Tensor) -> Any:
    """`value` with the tensor that the site's selector names replaced by `new`; the original is left as it is."""
    old = pick(value, site)
    if new is old:
        return value
    if new.shape != old.shape:
        raise SiteError(f"the edit at site {site} returned shape {tuple(new.shape)}; {tuple(old.shape)} was expected")
    return _put(value, site.select, new.to(old.dtype), site.in_attention)


def _put(value: Any, select: tuple[int | str, ...], new: Tensor, in_attention: bool) -> Any:
    if not select:
        return new
    if in_attention:
        value = value.clone()
        value[:, select[0]] = new
        return value
    step, rest = select[0], select[1:]
    inner = _put(value[step], rest, new, in_attention)
    if isinstance(value, tuple) and isinstance(step, int):
        items = [inner if i == step % len(value) else v for i, v in enumerate(value)]
        if type(value) is tuple:
            return tuple(items)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # named, or torch.return_types
    if isinstance(value, list) and isinstance(step, int):
        return [inner if i == step % len(value) else v for i, v in enumerate(value)]
    if isinstance(value, Arguments):
        return value.replaced(step, inner)
    if isinstance(value, Mapping):  # Hugging Face output classes are mappings that are rebuilt from their keywords
        changed = dict(value)
        changed[step if step in changed else list(changed)[int(step)]] = inner
        return changed if type(value) is dict else type(value)(**changed)
    raise SiteError(f"cannot replace an element of {_shape(value)}; edit the tensor before it is packed")


class Arguments(Mapping[Any, Any]):
    """A call's positional (by number) and keyword (by name) arguments as one mapping; [0] is the first of either."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return (*self.args, *self.kwargs.values())[key]
        return self.kwargs[key]

    def __iter__(self) -> Iterator[Any]:
        yield from range(len(self.args))
        yield from self.kwargs

    def __len__(self) -> int:
        return len(self.args) + len(self.kwargs)

    def replaced(self, key: int | str, new: Any) -> Arguments:
        """The same arguments with one replaced."""
        if isinstance(key, int):
            key %= len(self)
            if key >= len(self.args):
                key = list(self.kwargs)[key - len(self.args)]
        if isinstance(key, int):
            return Arguments((*self.args[:key], new, *self.args[key + 1 :]), self.kwargs)
        return Arguments(self.args, {**self.kwargs, key: new})


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        kind = "a call with arguments" if isinstance(value, Arguments) else f"a {type(value).__name__} with keys"
        return f"{kind} {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _first(value: Any) -> str:
    return str(next(iter(value))) if isinstance(value, Mapping) and value else "0"


def to_rows(value: Tensor, view: str, site: Site) -> Tensor:
    """(B, ..., D) as the site's view has it, moved so that features come last: (..., D); a view where possible.

    ``last``: as it is. ``channels``: dimension 1 holds the features. ``flat``: all dimensions but the first.
    ``time_first``: (T, B, D) becomes (B, T, D).
    """
    if view == "last":
        return value
    if view == "channels":
        return value.movedim(1, -1)
    if view == "flat":
        return value.flatten(1)
    if view == "time_first":
        return value.transpose(0, 1)
    raise SiteError(f"site {site}: {unknown('view', view, VIEWS)}")


def from_rows(rows: Tensor, view: str, like: Tensor) -> Tensor:
    """The inverse of `to_rows`, in the shape of `like`."""
    if view == "channels":
        return rows.movedim(-1, 1)
    if view == "flat":
        return rows.reshape(like.shape)
    if view == "time_first":
        return rows.transpose(0, 1)
    return rows


def resolve_view(site: Site, module: nn.Module, value: Tensor, network: nn.Module | None = None) -> str:
    """The site's view, decided from the module where the site leaves it open.

    Attention and tensors of two or three dimensions hold their features last; convolutions, their norms and pools in
    dimension 1. A tensor of more dimensions from any other module is ambiguous, and so is one of three, (B, C, L) or
    (B, T, D), from a module that does not say (an activation, a block) in a `network` with one-dimensional convolutions:
    that is an error, not a guess.
    """
    if site.view != "auto":
        return site.view
    if site.in_attention:
        return "last"
    if isinstance(module, _CHANNELS_FIRST) and value.ndim >= 3:
        return "channels"
    if value.ndim < 3 or (value.ndim == 3 and (isinstance(module, _FEATURES_LAST) or not _convolves(network))):
        return "last"
    raise SiteError(
        f"site {site} has shape {tuple(value.shape)}; say where its features are: {site}@channels (dimension 1), "
        f"{site}@last or {site}@flat (everything but the batch)"
    )


def _convolves(network: nn.Module | None) -> bool:
    """Whether a network may hand on (B, C, L)."""
    return network is not None and any(isinstance(m, _OVER_TIME) for m in network.modules())


def position_mask(mask: Tensor | None, rows: Tensor, site: Site) -> Tensor | None:
    """`mask` (B, T) fitted to `rows` (B, ..., D): True where a row is data.

    None where every row is data: no mask, or rows that stand for whole items (B, D). Inside attention, (B, H, T, d), the
    mask is in the last dimension but one; elsewhere, (B, T, D) or (B, T, H, d), in the second. A query that was computed
    for some positions only has no mask of its own. Rows (T, B, D) would take padding for data, and raise `SiteError`.
    """
    if mask is None or rows.ndim < 3:
        return None
    if rows.shape[0] != mask.shape[0]:
        if site.view == "auto" and tuple(rows.shape[:2]) == (mask.shape[1], mask.shape[0]):
            raise SiteError(
                f"site {site} has shape {tuple(rows.shape)}, positions first, on a batch with a mask of shape "
                f"{tuple(mask.shape)}; write {site}@time_first (or {site}@last where its first dimension is no position)"
            )
        return None
    if site.in_attention and rows.ndim == 4:
        return mask[:, None, :].expand(rows.shape[:3]) if rows.shape[2] == mask.shape[1] else None
    if rows.shape[1] != mask.shape[1]:
        return None
    return mask.view(*mask.shape, *[1] * (rows.ndim - 3)).expand(rows.shape[:-1])


def finite(value: Tensor) -> bool:
    """Whether every entry is finite. A finite sum settles it with one reduction; an infinite one may have overflowed."""
    value = value.detach()
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())
