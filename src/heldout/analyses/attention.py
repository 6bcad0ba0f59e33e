"""What attention looks at: how far two patterns are apart, and how mass and errors fall by depth of query and key.

Shapes: B batch, H heads, Q queries, T keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heldout.activations.replay import Replay
from heldout.activations.tap import EditFunction, Reading
from heldout.analyses.faithfulness import Extra, Subject
from heldout.tasks.base import Batch, Split

ATTENTION_JSD = "attention_jsd"


def pattern_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the rows of two patterns (..., T), base 2: 0 (equal) to 1 (nothing shared), (...)."""
    mixed, of_p, of_q = (-torch.xlogy(x, x).sum(-1) for x in ((p + q) / 2, p, q))
    return ((mixed - (of_p + of_q) / 2) / math.log(2)).clamp(0, 1)


def divergence_of(sites: Sequence[str]) -> Extra:
    """The metric ``attention_jsd`` for `faithfulness`: the divergence at the scored queries, mean over `sites`.

    The sites are patterns of single heads, read in both passes, (B, Q, T) with Q the positions that `scored` marks. It
    does not show whether the difference matters to the output.
    """

    def extra(network: Reading, proxy: Reading, batch: Batch) -> Mapping[str, Tensor]:
        each = torch.stack([pattern_divergence(network[site], proxy[site]) for site in sites]).mean(0)
        return {ATTENTION_JSD: each if batch.scored is None else each[batch.scored]}

    return extra


Depth = Callable[[Batch], Tensor]


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Sums over scored queries by the depth of the query (rows, R) and of the key (columns, C).

    - `mass`: (R, C) attention on keys of that depth; each query adds 1 over its row.
    - `looked`: (R, C) queries whose largest attention is on a key of that depth; `wrong`: those of them that err.
    - `queries`: (R,) number of queries. `same`: those with the original's prediction.
    """

    mass: np.ndarray
    looked: np.ndarray
    wrong: np.ndarray
    queries: np.ndarray
    same: np.ndarray

    def as_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The five arrays by name, for an ``.npz`` file."""
        return {f"{prefix}/{name}": value for name, value in vars(self).items()}


def depth_maps(
    subject: Subject,
    split: Split,
    edits: Mapping[str, Mapping[str, EditFunction]],
    *,
    pattern: str,
    query_depth: Depth,
    key_depth: Depth,
    rows: int,
    columns: int,
    batch_size: int = 256,
) -> dict[str, DepthMaps]:
    """Maps of the unedited network (``network``) and with each of `edits`, at the head whose pattern is the site `pattern`.

    `query_depth` and `key_depth` give a batch's depths: (B, Q) from 0 to below `rows`, (B, T) from 0 to below `columns`.
    """
    sites = sorted({pattern, *(site for functions in edits.values() for site in functions)})
    replay = Replay(subject.network, sites)
    sums = {name: _empty(rows, columns) for name in ("network", *edits)}
    for batch in split.batches(batch_size):
        batch = batch.to(subject.device)
        assert batch.scored is not None
        depth = query_depth(batch)[batch.scored]
        keys = key_depth(batch)[:, None, :].expand(-1, batch.scored.shape[1], -1)[batch.scored]  # (M, T)
        original = replay.record(batch, read=[pattern])
        first = subject.scoring.predictions(original.output, batch)
        for name in sums:
            reading = original if name == "network" else replay.run(batch, edits[name], read=[pattern])
            scored = subject.scoring.predictions(reading.output, batch)
            looked = reading[pattern][batch.scored]  # (M, T)
            best = keys.gather(1, looked.argmax(-1, keepdim=True)).squeeze(1)
            m, cell = sums[name], depth * columns
            _add(m.mass, cell[:, None] + keys, looked)
            _add(m.looked, cell + best, torch.ones_like(best, dtype=torch.float64))
            _add(m.wrong, cell + best, ~scored.correct)
            _add(m.queries, depth, torch.ones_like(depth, dtype=torch.float64))
            _add(m.same, depth, scored.top == first.top)
    return sums


def _empty(rows: int, columns: int) -> DepthMaps:
    maps = [np.zeros((rows, columns)) for _ in range(3)]
    return DepthMaps(maps[0], maps[1], maps[2], np.zeros(rows), np.zeros(rows))


def _add(total: np.ndarray, cell: Tensor, weights: Tensor) -> None:
    flat = np.bincount(
        cell.flatten().cpu().numpy(), weights=weights.double().flatten().cpu().numpy(), minlength=total.size
    )
    total += flat.reshape(total.shape)
