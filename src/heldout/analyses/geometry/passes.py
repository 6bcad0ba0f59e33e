"""Passes of a network with one output a item over a split: its predictions, its errors, and the rows at a site.

B batch, N items, C token columns, D width. Everything comes back in the split's own order, float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from heldout.activations.capture import data_rows
from heldout.activations.sites import Site
from heldout.activations.tap import EditFunction, Tap
from heldout.analyses.similarity.checks import table
from heldout.errors import ConfigError, NetworkError, NonFiniteError, SiteError, SplitError
from heldout.tasks.base import Batch, Split

Floats = NDArray[np.float64]
Edits = Mapping[str, EditFunction] | Callable[[Batch], Mapping[str, EditFunction]]  # the latter sees the batch's tokens

BATCH = 4096


def predict(
    network: nn.Module, split: Split, edits: Edits | None = None, *, batch_size: int = BATCH, device: str = "cpu"
) -> Floats:
    """(N,) outputs of a network of one output a item, (B, 1) or (B,), with some sites edited.

    Raises `NetworkError` for another shape and `NonFiniteError` for outputs that are NaN or infinite.
    """
    out = np.empty(len(split))
    for given in split.batches(batch_size):
        batch = given.to(device)
        with Tap(network, edit=edits(batch) if callable(edits) else edits) as tap:
            output = tap(batch).output
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if not isinstance(output, Tensor) or shape not in ((len(batch), 1), (len(batch),)):
            raise NetworkError(
                f"{type(network).__name__} gave {shape} for {len(batch)} items; one number an item is needed"
            )
        values = output.reshape(-1).double().cpu()
        if not bool(torch.isfinite(values).all()):
            item = int(batch.index[int((~torch.isfinite(values)).nonzero()[0])])
            raise NonFiniteError(
                f"{type(network).__name__} gave NaN or infinity for item {item} of split {split.name!r}"
            )
        out[batch.index.cpu().numpy()] = values.numpy()
    return out


def truth(split: Split, *, batch_size: int = BATCH) -> Floats:
    """(N,) targets of a split with one number an item, (B, 1) or (B,)."""
    out = np.empty(len(split))
    for batch in split.batches(batch_size):
        if batch.targets is None or tuple(batch.targets.shape) not in ((len(batch), 1), (len(batch),)):
            shape = None if batch.targets is None else tuple(batch.targets.shape)
            raise SplitError(f"split {split.name!r} has targets {shape}; one number an item, (N, 1), is needed")
        out[batch.index.numpy()] = batch.targets.reshape(-1).double().numpy()
    return out


def errors(
    network: nn.Module,
    split: Split,
    edits: Edits | None = None,
    *,
    scale: ArrayLike | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Floats:
    """(N,) `scale` times (output - target). `scale` (N,) takes an item's error to the caller's unit (a mass number, from
    energies per nucleon to energies); None is 1."""
    factor = np.ones(len(split)) if scale is None else np.asarray(scale, dtype=np.float64)
    if factor.shape != (len(split),) or not np.isfinite(factor).all():
        raise ConfigError(f"split {split.name!r}: scale must be {len(split)} finite numbers; got shape {factor.shape}")
    return factor * (predict(network, split, edits, batch_size=batch_size, device=device) - truth(split))


def rows_at(
    network: nn.Module, split: Split, site: str | Site, *, batch_size: int = BATCH, device: str = "cpu"
) -> Floats:
    """(N, D) activations at a site that holds one row an item; raises `SiteError` for one that does not."""
    place, where = Site.parse(site), f"split {split.name!r}"
    out: Floats | None = None
    for given in split.batches(batch_size):
        batch = given.to(device)
        with Tap(network, read=[place]) as tap:
            rows = data_rows(network, place, tap(batch)[place], batch, where=where)
        if len(rows) != len(batch):
            raise SiteError(f"site {place} has {len(rows)} rows for {len(batch)} items; one row an item is needed")
        if out is None:
            out = np.empty((len(split), rows.shape[1]))
        out[batch.index.cpu().numpy()] = rows.double().cpu().numpy()
    assert out is not None  # a split has at least one item
    return out


def embedded(site: str | Site, column: int, tokens: ArrayLike | Tensor) -> Edits:
    """Replaces the rows at an embedding's `site` by those of another table (V, D), looked up by token column `column`.

    The network's weights are left as they are.
    """
    rows, place = torch.from_numpy(table(tokens, "the table of tokens")), str(Site.parse(site))

    def edits(batch: Batch) -> Mapping[str, EditFunction]:
        if not isinstance(batch.inputs, Tensor) or batch.inputs.ndim != 2 or not 0 <= column < batch.inputs.shape[1]:
            raise ConfigError(f"tokens of column {column} are looked up in inputs (B, C); got {_shape(batch.inputs)}")
        index = batch.inputs[:, column].cpu()
        if int(index.max()) >= len(rows):
            raise ConfigError(f"token {int(index.max())} of column {column} is not in a table of {len(rows)}")
        return {place: lambda old, mask: rows[index].to(old)}

    return edits


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
