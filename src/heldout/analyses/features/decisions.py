"""What a network decides from activations: the frozen rest of it, as a function of rows.

A `Decide` maps activations (N, D) to the decided value of each feature, (N, F). Inside a network that is a pass with an
`Edit` at the site; for activations from a file it is whatever head they were read before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.errors import ConfigError

Decide = Callable[[Tensor], ArrayLike]

BATCH = 4096


def above_zero(head: Callable[[Tensor], Tensor]) -> Decide:
    """Binary decisions of a head with one logit a feature, (N, D) -> (N, F): 1 where the logit is above 0."""
    return lambda rows: (head(rows) > 0).long().cpu().numpy()


def decided(decide: Decide, rows: Tensor, names: Sequence[str]) -> NDArray[np.int64]:
    """(N, F) decisions for the features named, in batches and without gradients."""
    with torch.no_grad():
        parts = [np.asarray(decide(part), dtype=np.int64) for part in torch.split(rows, BATCH)]
    for part in parts:
        if part.ndim != 2 or part.shape[1] != len(names):
            raise ConfigError(f"decisions have shape {part.shape}; (rows, {len(names)}) was expected, one a feature")
    found = np.concatenate(parts)
    if len(found) != len(rows):
        raise ConfigError(f"{len(found)} decisions for {len(rows)} rows of activations; one a row was expected")
    return found


def as_labels(labels: ArrayLike, rows: int, names: Sequence[str], *, binary: bool = False) -> NDArray[np.int64]:
    """(N, F) whole-number labels, one column a feature; raises `ConfigError` for other shapes, and for other values than
    0 and 1 where they must be `binary`."""
    table = np.asarray(labels)
    if table.shape != (rows, len(names)):
        raise ConfigError(
            f"labels have shape {table.shape}; ({rows}, {len(names)}) was expected, one a row and feature"
        )
    if binary and not np.isin(table, (0, 1)).all():
        raise ConfigError("labels must be 0 or 1: directions and flips are between two classes")
    return table.astype(np.int64)
