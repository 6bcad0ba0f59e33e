"""Edits: what replaces the activations at some sites, and the record of where it came from.

An edit is data: a map from sites to functions ``(rows, mask) -> rows`` and one `Origin`. Rows are (B, ..., D), features
last; `mask` (B, ...) is True on data and None where all of it is. Functions must not change their argument in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from heldout.activations.sites import Site
from heldout.activations.tap import EditFunction
from heldout.errors import ConfigError, ProxyError
from heldout.evidence import Origin


class Reconstructs(Protocol):
    """Anything that simplifies a matrix of activations, (N, D) -> (N, D): a proxy, an autoencoder, a projection."""

    def reconstruct(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Edit:
    """A map from sites to functions, and where it came from.

    `origin` travels with every number that the edit leads to; `Edit.then` joins the edits of several sites.
    """

    functions: Mapping[str, EditFunction]
    origin: Origin

    @staticmethod
    def identity(sites: Iterable[str | Site]) -> Edit:
        """Replaces every site by a copy of itself: whatever this changes is the instrument's error, not a finding."""
        names = [str(Site.parse(s)) for s in sites]
        return Edit(dict.fromkeys(names, _copy), Origin("identity", " + ".join(names)))

    @staticmethod
    def function(site: str | Site, function: EditFunction, *, name: str = "function", **origin: object) -> Edit:
        """Any function of the rows at one site."""
        place = str(Site.parse(site))
        return Edit({place: function}, Origin(name, place, **origin))  # type: ignore[arg-type]

    @staticmethod
    def from_proxy(site: str | Site, proxy: Reconstructs, origin: Origin) -> Edit:
        """Replaces each row by its reconstruction; the proxy sees (N, D)."""
        place = str(Site.parse(site))
        return Edit({place: rowwise(proxy)}, replace(origin, site=place))

    @staticmethod
    def keep(
        site: str | Site, components: Iterable[int], *, baseline: Tensor | None = None, name: str = "keep"
    ) -> Edit:
        """Keeps the features (neurons, channels) in `components` and sets the others to `baseline`.

        `baseline`: (D,), usually the mean over the fit split; None sets zeros, which also removes what the mean carries.
        """
        place, kept = str(Site.parse(site)), sorted(set(components))

        def function(rows: Tensor, mask: Tensor | None) -> Tensor:
            width = rows.shape[-1]
            if kept and not 0 <= kept[0] <= kept[-1] < width:
                raise ConfigError(f"edit at {place}: components {kept} for a width of {width}; they are counted from 0")
            if baseline is not None and tuple(baseline.shape) != (width,):
                raise ConfigError(
                    f"edit at {place}: a baseline of shape {tuple(baseline.shape)}; ({width},) was expected"
                )
            new = torch.zeros_like(rows) if baseline is None else baseline.to(rows).expand_as(rows).clone()
            new[..., kept] = rows[..., kept]
            return new

        return Edit({place: function}, Origin(name, place, parameter=len(kept), settings={"components": kept}))

    @staticmethod
    def ablate(
        site: str | Site, components: Iterable[int], *, width: int, baseline: Tensor | None = None, name: str = "ablate"
    ) -> Edit:
        """Sets the features in `components` to `baseline` (zeros where None) and keeps the others."""
        place, removed = str(Site.parse(site)), set(components)
        if not removed <= set(range(width)):
            raise ConfigError(f"edit at {place}: components {sorted(removed)} for a width of {width}; counted from 0")
        edit = Edit.keep(place, set(range(width)) - removed, baseline=baseline, name=name)

        def function(rows: Tensor, mask: Tensor | None) -> Tensor:
            if rows.shape[-1] != width:
                raise ConfigError(f"edit at {place}: made for a width of {width}, the site's is {rows.shape[-1]}")
            return edit.functions[place](rows, mask)

        origin = replace(edit.origin, parameter=len(removed), settings={"components": sorted(removed)})
        return Edit({place: function}, origin)

    @staticmethod
    def resample(site: str | Site, *, seed: int) -> Edit:
        """Each item's activations are replaced by those of another item of its batch: what the site carries is gone,
        its distribution is kept. Where items differ in length, each position is taken from an item that has it, and
        one that a single item reaches keeps its own. A batch of one item cannot be resampled and raises `ConfigError`.
        """
        place = str(Site.parse(site))

        def function(rows: Tensor, mask: Tensor | None) -> Tensor:
            if rows.shape[0] < 2:
                raise ConfigError(f"resampling at {place} needs at least two items in a batch; use a larger batch size")
            count = rows.shape[0]
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(rows.device)
            column = (count, *[1] * (rows.ndim - 2))
            data = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device) if mask is None else mask
            cycle = torch.where(data, order.view(column), count).argsort(dim=0, stable=True)  # items with data first
            before = (torch.arange(count, device=rows.device).view(column) - 1) % data.sum(dim=0).clamp(min=1)
            other = torch.empty_like(cycle).scatter_(0, cycle, cycle.gather(0, before))  # no item keeps its own
            return rows.gather(0, other[..., None].expand_as(rows))

        return Edit({place: function}, Origin("resample", place, settings={"seed": seed}))

    def then(self, other: Edit, *, name: str | None = None) -> Edit:
        """Both edits at once, at different sites, under one origin."""
        shared = set(self.functions) & set(other.functions)
        if shared:
            raise ProxyError(f"two edits at one site: {', '.join(sorted(shared))}; join edits of different sites only")
        places = " + ".join([*self.functions, *other.functions])
        fitted = " + ".join(sorted({self.origin.fit_split, other.origin.fit_split} - {""}))
        oracle = self.origin.oracle or other.origin.oracle
        origin = replace(self.origin, name=name or self.origin.name, site=places, oracle=oracle, fit_split=fitted)
        return Edit({**self.functions, **other.functions}, origin)


def rowwise(proxy: Reconstructs) -> EditFunction:
    """A proxy of (N, D) matrices as a function of (B, ..., D) rows."""

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        return proxy.reconstruct(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape)

    return function


def _copy(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows.clone()
