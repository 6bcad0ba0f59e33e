"""Capture: stream a split through a network and hand each site's rows to accumulators.

    moments, sample = Moments(), Reservoir(4096, seed=0)
    capture(network, split, {"hidden.0": [moments, sample]})

Rows are (N, D): features last, padding removed. Nothing is kept but what the accumulators keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from heldout.activations.sites import Site, finite, module_at, position_mask, resolve_view, to_rows
from heldout.activations.tap import Tap, Watch
from heldout.errors import NonFiniteError
from heldout.tasks.base import Batch, Split


class Accumulator(Protocol):
    """Takes rows (N, D) in the middle of a pass: what it keeps of them it must copy."""

    def update(self, rows: Tensor) -> None: ...


def capture(
    network: nn.Module,
    split: Split,
    sites: Mapping[str, Sequence[Accumulator]],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> None:
    """Run every item of `split` once, and update each site's accumulators with its rows.

    `batch_size` counts positions (items, where items have one size). Raises `NonFiniteError` with the site and the items
    where an activation is NaN or infinite.
    """
    where = f"split {split.name!r}"
    batch: Batch

    def updating(site: Site, accumulators: Sequence[Accumulator]) -> Watch:
        def update(value: Tensor) -> None:
            rows = data_rows(network, site, value, batch, where=where)
            for accumulator in accumulators:
                accumulator.update(rows)

        return update

    watch = {site: updating(Site.parse(site), accumulators) for site, accumulators in sites.items()}
    with Tap(network, watch=watch) as tap:
        for given in split.batches(batch_size):
            batch = given.to(device)
            tap(batch)


def data_rows(network: nn.Module, site: Site, value: Tensor, batch: Batch, *, where: str) -> Tensor:
    """The rows (N, D) of one site's tensor that are data, checked to be finite."""
    rows = to_rows(value, resolve_view(site, module_at(network, site), value, network), site)
    mask = position_mask(batch.mask, rows, site)
    chosen = rows.reshape(-1, rows.shape[-1]) if mask is None else rows[mask]
    if not finite(chosen):
        bad = ~torch.isfinite(rows if mask is None else rows.masked_fill(~mask[..., None], 0)).flatten(1).all(dim=1)
        named = batch.index[bad] if len(bad) == len(batch) else batch.index  # a site need not hold items first
        items = f"{named[:5].tolist()}{' ...' if len(named) > 5 else ''}"
        raise NonFiniteError(
            f"site {site} holds NaN or infinite values on {where}, items {items}; "
            "check the weights and the inputs of these items"
        )
    return chosen
