"""A split in one line, from arrays or tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heldout.tasks.base import Rectangular, Role, Split


def split(
    name: str,
    role: Role,
    inputs: Any,
    targets: Any = None,
    *,
    mask: Any = None,
    scored: Any = None,
    units: Any = None,
    keys: Any = None,
    strata: Mapping[str, Any] | None = None,
    note: str = "",
) -> Split:
    """N items as a split.

    - `inputs`: (N, ...) array or tensor; a tuple of them is spread as positional, a mapping as keyword arguments.
    - `targets`: (N,) class of each item, or (N, T) class of each position.
    - `mask`, `scored`: (N, T) bool, which positions hold data, and which are scored (see `Batch`).
    - `units`: (N,) whole numbers, the smallest independent cluster of each item; the same number in two splits is the
      same unit. Default: every item of every split is one of its own.
    - `keys`: (N,) what makes an item the same item in two splits. Default: a hash of its inputs.

    >>> import heldout
    >>> heldout.split("fit", "fit", [[0.0, 1.0], [1.0, 0.0]], [0, 1]).role
    'fit'
    """
    items = Rectangular(
        _tensors(inputs),
        _tensor(targets),
        mask=_tensor(mask),
        scored=_tensor(scored),
        strata={k: torch.as_tensor(np.asarray(v)) for k, v in (strata or {}).items()},
    )
    found = _hashes(items) if keys is None else np.asarray(keys)
    # Numbered by content and name: apart in every split, and the same each time.
    own = _numbers(name, len(items)) if units is None else np.asarray(units, dtype=np.int64)
    return Split(name, role, items, note, keys=found, units=own)


def _tensors(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_tensor(v) for v in value)
    if isinstance(value, Mapping):
        return {k: _tensor(v) for k, v in value.items()}
    return _tensor(value)


def _tensor(value: Any) -> Tensor | None:
    return None if value is None else torch.as_tensor(value)


def _hashes(items: Rectangular) -> np.ndarray:
    """(N,) a hash of each item's inputs."""
    whole = items.take(np.arange(len(items))).inputs
    parts = whole if isinstance(whole, tuple) else list(whole.values()) if isinstance(whole, Mapping) else [whole]
    arrays = [p.detach().cpu().contiguous().numpy() for p in parts if isinstance(p, Tensor)]
    return np.array(
        [
            hashlib.blake2b(b"".join(a[i].tobytes() for a in arrays), digest_size=12).hexdigest()
            for i in range(len(items))
        ]
    )


def _numbers(name: str, n: int) -> np.ndarray:
    """(N,) int64 unit numbers that no other split of another name shares."""
    start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    return (start << 30) + np.arange(n, dtype=np.int64)
