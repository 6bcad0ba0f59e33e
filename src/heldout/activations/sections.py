"""Node layers and the sections between them: a network as f^0 -> f^1 -> ... -> f^L, for derivatives in float64.

    sections = Sections(network, ["blocks.0:input", "blocks.0", "blocks.1"])
    crossing = sections.cross(batch, 0, 1)       # rows of the two layers, joined by a graph

A node layer is a site, so that a chain of modules, a transformer's blocks, the decoder layers of a Hugging Face model
(with whatever arguments they are called) and a user's function (`chain`) are all treated alike. A section is the map from
one layer's rows to the next one's; what reaches the next layer past the first is held at its value. Biases stay in the
network: for centred bases, folding them into the weights changes nothing.

Shapes: B items, T positions (1 where a layer has none), D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heldout.activations.accumulators import Moments
from heldout.activations.layers import NodeLayer
from heldout.activations.sites import Site, finite, module_at, position_mask, resolve_view, to_rows
from heldout.activations.tap import EditFunction, Tap, Watch
from heldout.errors import ConfigError, HeldoutError, NonFiniteError, SiteError
from heldout.tasks.base import Batch, Split


@dataclass(frozen=True, eq=False)
class Crossing:
    """One batch on its way through some node layers.

    `rows`: (B, T, D) float64 of each layer, joined by a graph where it was asked for; `counted`: (B, T) bool of each.
    `largest` is the number of entries of the largest tensor made on the way, which decides how many derivatives fit.
    """

    rows: tuple[Tensor, ...]
    counted: tuple[Tensor, ...]
    largest: int
    where: str


class Sections:
    """The node layers of a network, in the order in which it runs, and the sections between neighbours.

    - `network`: any module; the passes use a float64 copy of it in ``eval()`` mode, so it stays as it is.
    - `layers`: sites, or (site, positions); see `NodeLayer`. ``".:input"`` is the network's input, ``"."`` its output.

    A network that itself computes in less than float64 somewhere (some norms do) limits what ranks can be read off it.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[NodeLayer | str | tuple[str, str]],
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.layers = tuple(NodeLayer.parse(given) for given in layers)
        self.sites = tuple(Site.parse(layer.site) for layer in self.layers)
        if len(self.layers) < 2 or len(set(self.sites)) < len(self.sites):
            raise ConfigError(
                f"sections need two or more different node layers, got {', '.join(map(str, self.sites)) or 'none'}"
            )
        for site in self.sites:
            module_at(network, site)
        self.network = copy.deepcopy(network).to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        self.device = device

    def __len__(self) -> int:
        """The number of sections: one less than that of layers."""
        return len(self.layers) - 1

    def number(self, layer: str) -> int:
        """The place of a layer, by its site."""
        try:
            return self.sites.index(Site.parse(layer))
        except ValueError:
            raise ConfigError(f"no node layer {layer!r}; there are {', '.join(map(str, self.sites))}") from None

    def prepared(self, batch: Batch) -> Batch:
        """`batch` on the device, with floating-point inputs in float64."""
        moved = batch.to(self.device)
        return replace(moved, inputs=_double(moved.inputs))

    def cross(
        self,
        batch: Batch,
        first: int,
        last: int,
        *,
        enter: Callable[[Tensor], Tensor] | None = None,
        graph: bool = True,
    ) -> Crossing:
        """Run `batch` (prepared) from layer `first`, where its rows start a graph, to layer `last`, where the pass ends.

        `enter` replaces the rows (B, T, D) of layer `first`. Raises `SiteError` where a layer does not run, or not in the
        order given, or has another number of items than the batch; or where nothing differentiable joins the two.
        """
        where = f"section {self.sites[first]} -> {self.sites[last]}"
        rows: dict[int, Tensor] = {}
        counted: dict[int, Tensor] = {}

        def seen(layer: int, value: Tensor, mask: Tensor | None) -> Tensor:
            site = self.sites[layer]
            if value.shape[0] != len(batch):
                raise SiteError(
                    f"node layer {site} has shape {tuple(value.shape)} for a batch of {len(batch)}; a section must leave "
                    "the items as they are, one row of activations or more for each"
                )
            if not value.is_floating_point():
                raise SiteError(
                    f"node layer {site} holds {value.dtype}, of which there is no derivative; begin behind the embedding"
                )
            if layer != first and len(rows) != layer - first:
                missing = next(self.sites[i] for i in range(first, last) if i not in rows)
                raise SiteError(
                    f"node layer {site} is reached before {missing}; give layers in the order in which the network runs"
                )
            if not finite(value):
                raise NonFiniteError(f"{where}: activations at {site} are NaN or infinite on items {_named(batch)}")
            flat = value.reshape(len(batch), -1, value.shape[-1])
            data = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
            data = data if mask is None else mask.reshape(flat.shape[:2])
            counted[layer] = self.layers[layer].counted(data, batch.scored)
            return flat

        def passing(layer: int) -> EditFunction:
            def edit(value: Tensor, mask: Tensor | None) -> Tensor:
                flat = seen(layer, value, mask)
                if layer == first:
                    flat = flat.detach() if enter is None else enter(flat.detach()).detach()
                    flat = flat.clone().requires_grad_(graph)
                    size.active = True
                else:
                    flat = flat.clone()
                rows[layer] = flat
                return flat.reshape(value.shape).clone()  # the network may go on to change it in place

            return edit

        def arriving(site: Site) -> Watch:
            def watch(value: Tensor) -> None:
                found = to_rows(value, resolve_view(site, module_at(self.network, site), value, self.network), site)
                rows[last] = seen(last, found, position_mask(batch.mask, found, site))
                raise _Arrived

            return watch

        size = _Largest()
        tap = Tap(
            self.network,
            edit={str(self.sites[i]): passing(i) for i in range(first, last)},
            watch={str(self.sites[last]): arriving(self.sites[last])},
            grad=graph,
        )
        # The fused attention kernels have no rule for many derivatives at once.
        with tap, sdpa_kernel(SDPBackend.MATH), size, suppress(_Arrived):
            tap(batch)
        if graph and not rows[last].requires_grad:
            raise SiteError(
                f"{where}: no differentiable path joins the two layers (a detached tensor, an argmax, or another branch)"
            )
        order = range(first, last + 1)
        return Crossing(tuple(rows[i] for i in order), tuple(counted[i] for i in order), size.entries, where)

    def bypass(self, batch: Batch, section: int) -> float:
        """How much of a section's end does not come through its start: 0 where all of it does.

        The inputs of the items are exchanged while the start's rows are held; what moves the end went another way. The
        root mean square of that, over the root of the end's variance. Items should have one length.
        """
        ready = self.prepared(batch)
        plain = self.cross(ready, section, section + 1, graph=False)
        turn = torch.arange(len(ready), device=self.device).roll(1)
        other = replace(ready, inputs=_taken(ready.inputs, turn))
        held = self.cross(other, section, section + 1, enter=lambda _: plain.rows[0], graph=False)
        counted = plain.counted[1]
        before, after = plain.rows[1][counted], held.rows[1][counted]
        moved, spread = (after - before).square().mean(), before.var(dim=0, correction=0).mean()
        return float((moved / spread).sqrt()) if float(moved) > 0 else 0.0

    def moments(self, split: Split, *, layers: int | None = None, batch_size: int = 256) -> list[Moments]:
        """Streaming moments of the counted rows of every layer (the first `layers`), in one pass over `split`."""
        gathered = [Moments() for _ in self.layers[:layers]]
        for batch in split.batches(batch_size):
            crossing = self.cross(self.prepared(batch), 0, len(self), graph=False)
            for moments, rows, counted in zip(gathered, crossing.rows, crossing.counted, strict=False):
                moments.update(rows[counted])
        return gathered


def chain(*steps: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Modules and functions of one tensor, applied in turn; node layers are ``.:input``, ``0``, ``1``, ...

    A function must compute in the dtype it is given, float64, and should be a module where it has weights of its own.
    """
    return nn.Sequential(*(step if isinstance(step, nn.Module) else _Step(step) for step in steps))


class _Step(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Arrived(HeldoutError):
    """Ends a pass at its last layer; never seen outside."""


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the entries of the largest new tensor made while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries, self.active = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.active and all(r.alias_info is None for r in func._schema.returns):  # neither a view nor in place
            self.entries = max([self.entries, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_double(v) for v in value)
    if isinstance(value, Mapping):
        return {k: _double(v) for k, v in value.items()}
    return value


def _taken(value: Any, items: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[items]
    if isinstance(value, tuple):
        return tuple(_taken(v, items) for v in value)
    if isinstance(value, Mapping):
        return {k: _taken(v, items) for k, v in value.items()}
    return value


def _named(batch: Batch) -> str:
    return f"{batch.index[:5].tolist()}{' ...' if len(batch) > 5 else ''}"
