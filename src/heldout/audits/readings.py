"""Readings that are no simplification of all a site holds: a circuit, a probe's direction, a steering vector, a sparse
autoencoder, a function.

`edits_of` makes edits from a reading and what was learned for it on the fit split, as named tensors. B batch, D width, N
sampled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.activations.edits import Edit, rowwise
from heldout.activations.sites import Site, module_at, position_mask, resolve_view, to_rows
from heldout.activations.tap import EditFunction, Tap
from heldout.audits.material import load_vector
from heldout.audits.parts import AnyReading, Circuit, Function, Made, Probe, SparseAutoencoder, Steering
from heldout.audits.sources import resolve
from heldout.errors import ConfigError, ProxyError, SplitError
from heldout.evidence import Origin
from heldout.networks.load import call, from_function, import_function
from heldout.proxies.wrapped import Autoencoder
from heldout.tasks.base import Split
from heldout.training.checkpoints import load_weights

Tensors = dict[str, Tensor]
CELLS = 8  # directions by which a row's place is told
ROWS = 2_000  # of the fit split, from which a resampled baseline is drawn


def sites_of(reading: AnyReading) -> list[str]:
    """The sites that a reading touches."""
    given = list(reading.keep) if isinstance(reading, Circuit) else [reading.site]
    return [str(Site.parse(site)) for site in given]


def wants_mean(reading: AnyReading) -> bool:
    return isinstance(reading, Probe) or (isinstance(reading, Circuit) and reading.baseline == "mean")


def wants_rows(reading: AnyReading) -> bool:
    return isinstance(reading, Circuit) and reading.baseline == "resample"


def class_direction(
    network: nn.Module, split: Split, reading: Probe, *, batch_size: int = 256, device: str = "cpu"
) -> Tensor:
    """(D,) the mean of the rows of the second class minus that of the first, by the targets of their item or position."""
    assert reading.classes is not None
    moments = {label: Moments() for label in reading.classes}
    site = Site.parse(reading.site)
    with Tap(network, read=[site]) as tap:
        for batch in split.batches(batch_size):
            batch = batch.to(device)
            if batch.targets is None:
                raise SplitError(f"reading {reading.name!r}: split {split.name!r} has no targets to tell classes by")
            value = tap(batch)[site]
            rows = to_rows(value, resolve_view(site, module_at(network, site), value, network), site)
            labels = batch.targets.reshape(*batch.targets.shape, *[1] * (rows.ndim - 1 - batch.targets.ndim))
            try:
                labels = labels.expand(rows.shape[:-1])
            except RuntimeError:
                raise SplitError(
                    f"reading {reading.name!r}: targets of shape {tuple(batch.targets.shape)} do not label rows of shape "
                    f"{tuple(rows.shape)} at {site}"
                ) from None
            mask = position_mask(batch.mask, rows, site)
            data = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
            for label, seen in moments.items():
                seen.update(rows[data & (labels == label)])
    for label, seen in moments.items():
        if seen.mean is None:
            raise SplitError(f"reading {reading.name!r}: no item of class {label} in split {split.name!r}")
    first, second = (moments[label].mean for label in reading.classes)
    assert first is not None
    assert second is not None
    return (second - first).cpu()


def edits_of(
    reading: AnyReading, tensors: Mapping[str, Tensor], folder: Path, *, fit_split: str, device: str
) -> list[Edit]:
    """The edits that a reading means: one, or one for each alpha.

    `tensors`: ``mean:SITE`` (D,), ``rows:SITE`` (N, D), ``probe:NAME`` (D,), where the reading needs them.
    """
    field = f"readings.{reading.name}"
    places = sites_of(reading)
    if isinstance(reading, Circuit):
        functions = {
            place: _kept(kept, reading, tensors, place)
            for place, kept in zip(places, reading.keep.values(), strict=True)
        }
        kept = {place: list(k) for place, k in zip(places, reading.keep.values(), strict=True)}
        fitted = fit_split if reading.baseline != "zero" else ""
        settings = {"keep": kept, "baseline": reading.baseline, "heads": reading.heads}
        return [Edit(functions, Origin(reading.name, " + ".join(places), fitted, settings=settings))]
    place = places[0]
    if isinstance(reading, Probe):
        direction = (
            tensors[f"probe:{reading.name}"]
            if reading.direction is None
            else load_vector(reading.direction, folder, field=f"{field}.direction")
        )
        function = _along(direction, tensors[f"mean:{place}"], keep=reading.action == "keep", name=reading.name)
        return [Edit({place: function}, Origin(reading.name, place, fit_split, settings={"action": reading.action}))]
    if isinstance(reading, Steering):
        vector = load_vector(reading.vector, folder, field=f"{field}.vector")
        single = len(reading.alpha) == 1
        return [
            Edit({place: _added(vector, a, reading.name)}, Origin(reading.name, place, parameter=None if single else a))
            for a in reading.alpha
        ]
    if isinstance(reading, SparseAutoencoder):
        encoder = _module(reading.encoder, folder, f"{field}.encoder").to(device)
        decoder = _module(reading.decoder, folder, f"{field}.decoder").to(device)
        return [Edit({place: rowwise(Autoencoder(encoder, decoder))}, Origin(reading.name, place))]
    assert isinstance(reading, Function)
    named = import_function(reading.function, folder, field=f"{field}.function")
    if reading.arguments is not None:
        named = call(named, reading.arguments, folder, field=f"{field}.function")
        if not callable(named):
            raise ConfigError(
                f"{field}.function: with arguments, {reading.function} must return a function (rows, mask) -> rows; it "
                f"returned a {type(named).__name__}"
            )
    return [Edit({place: named}, Origin(reading.name, place))]


def _kept(kept: Sequence[int], reading: Circuit, tensors: Mapping[str, Tensor], place: str) -> EditFunction:
    """Keep some components of each row; the rest is the baseline's."""
    if reading.baseline == "mean":
        rest = _mean(tensors[f"mean:{place}"])
    elif reading.baseline == "zero":
        rest = torch.zeros_like
    else:
        rest = _drawn(tensors[f"rows:{place}"])

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        width = rows.shape[-1]
        blocks = reading.heads or width
        if width % blocks or any(k >= blocks for k in kept):
            raise ConfigError(
                f"reading {reading.name!r} keeps components {list(kept)} of {blocks} at {place}, whose width is {width}; "
                "they are counted from 0, and heads must divide the width"
            )
        stays = torch.zeros(blocks, dtype=torch.bool)
        stays[list(kept)] = True
        stays = stays.repeat_interleave(width // blocks).to(rows.device)
        return torch.where(stays, rows, rest(rows))

    return function


def _mean(mean: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda rows: mean.to(rows).expand_as(rows)


def _drawn(sample: Tensor) -> Callable[[Tensor], Tensor]:
    """A row of `sample` (N, D) for each row, drawn by where the row lies: in which cell of a fine grid on random directions,
    1/16 of the sample's spread wide. So a row gets the same one in every pass, whatever else is in its batch; rounding
    moves about one row in some thousands to another cell."""
    directions = torch.randn(sample.shape[1], CELLS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = sample.double() @ directions
    centre, width = known.mean(dim=0), known.std(dim=0, correction=0).clamp(min=1e-12) / 16
    odd = torch.arange(1, CELLS + 1) * 0x9E3779B97F4A7C0 + 1

    def draw(rows: Tensor) -> Tensor:
        at = (rows.double() @ directions.to(rows.device) - centre.to(rows.device)) / width.to(rows.device)
        key = (at.clamp(-1e9, 1e9).floor().long() * odd.to(rows.device)).sum(dim=-1)
        chosen: Tensor = sample.to(rows)[(key ^ (key >> 29)) % len(sample)]
        return chosen

    return draw


def _along(direction: Tensor, mean: Tensor, *, keep: bool, name: str) -> EditFunction:
    """Remove what the rows hold along a direction beyond their mean, or keep that alone."""
    length = direction.double().norm()
    if not float(length) > 0:
        raise ProxyError(f"reading {name!r}: the direction is zero; it points nowhere")
    unit = direction.double() / length

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        _check_width(unit, rows, name)
        u, m = unit.to(rows), mean.to(rows)
        part = ((rows - m) @ u)[..., None] * u
        new: Tensor = m + part if keep else rows - part
        return new

    return function


def _added(vector: Tensor, alpha: float, name: str) -> EditFunction:
    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        _check_width(vector, rows, name)
        return rows + alpha * vector.to(rows)

    return function


def _check_width(vector: Tensor, rows: Tensor, name: str) -> None:
    if vector.shape[0] != rows.shape[-1]:
        raise ProxyError(f"reading {name!r}: a vector of width {vector.shape[0]} for a site of width {rows.shape[-1]}")


def _module(made: Made, folder: Path, field: str) -> nn.Module:
    weights = None if made.weights is None else resolve(folder, made.weights, field=f"{field}.weights")
    module = from_function(made.from_, made.arguments, folder, field=f"{field}.from")
    if weights is not None:
        load_weights(module, weights)
    return module
