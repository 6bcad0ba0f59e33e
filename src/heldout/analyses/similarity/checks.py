"""What every measure asks of activations before it computes: two finite tables over the same stimuli, that vary."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.errors import NonFiniteError, StatisticsError

Floats = NDArray[np.float64]

FLAT = 1e-12  # spread below this share of the largest magnitude is rounding, not variation


def table(x: ArrayLike | Tensor, name: str = "x", *, least: int = 2) -> Floats:
    """Activations as (N, D) float64: N stimuli in rows, D units in columns; any real dtype, array or tensor.

    Raises `StatisticsError` for another shape and for fewer than `least` stimuli, `NonFiniteError` for NaN or infinite
    values.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu().double().numpy()
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise StatisticsError(
            f"{name} must be a table of stimuli by units (N, D); got shape {rows.shape}. Reshape what has more "
            "dimensions, for example images or tokens by (position, width)"
        )
    if len(rows) < least:
        raise StatisticsError(f"{name} has {len(rows)} stimuli; at least {least} are needed")
    if not np.isfinite(rows.sum()):  # a finite sum means finite rows: the common case in one cheap pass
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{name} is NaN or infinite in {len(bad)} of {len(rows)} stimuli, the first is row {bad[0]}"
            )
    return rows


def pair(x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, least: int = 2) -> tuple[Floats, Floats]:
    """Both tables, `x` (N, Dx) and `y` (N, Dy), over the same N stimuli in the same order; errors as for `table`."""
    a, b = table(x, "x", least=least), table(y, "y", least=least)
    if len(a) != len(b):
        raise StatisticsError(
            f"x has {len(a)} stimuli and y has {len(b)}: row i of both must be the same stimulus, so give both the same"
        )
    return a, b


def centred(rows: Floats, name: str = "x") -> Floats:
    """Rows minus their mean, unit by unit. Raises `StatisticsError` where nothing varies: there is no geometry then."""
    mean = rows.mean(axis=0)
    out: Floats = rows - mean
    if max(out.max(), -out.min()) <= FLAT * np.abs(mean).max():
        raise StatisticsError(f"{name} is the same for every stimulus: nothing varies, so there is nothing to compare")
    return out


def duplicates(x: Floats, y: Floats) -> tuple[int, tuple[int, int] | None]:
    """How many stimuli repeat, bit for bit, the activations of an earlier one in both tables, and the first such pair.

    A stimulus that only one network maps onto another's place is a finding about that network; one repeated in both is
    most likely the same stimulus twice.
    """
    seen: dict[bytes, int] = {}
    count, first = 0, None
    for i, (a, b) in enumerate(zip(np.ascontiguousarray(x), np.ascontiguousarray(y), strict=True)):
        earlier = seen.setdefault(a.tobytes() + b.tobytes(), i)
        if earlier != i:
            count += 1
            first = first or (earlier, i)
    return count, first
