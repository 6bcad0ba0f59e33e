"""Long tables of scalar targets behind integer tokens: what `nuclear` and `table` are made of.

A row is one value of one target for one combination of tokens. A network that looks tokens up in tables knows nothing of a
token that no training row had: rows with one cannot be scored, and are set apart and counted, never lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Rectangular, Role, Split


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows.

    - `tokens`: (N, C) int64, the ids that are looked up; `target`: (N,) int64, which target the value is of.
    - `value`, `uncertainty`: (N,) float64, in the target's unit, the latter NaN where not known.
    - `key`: (N,) int64, what the row is about: its rows are never parted; `unit`: (N,) int64, what is resampled as one.
    """

    tokens: np.ndarray
    target: np.ndarray
    value: np.ndarray
    uncertainty: np.ndarray
    key: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    def take(self, index: np.ndarray) -> Rows:
        """The rows at `index`: numbers, or a mask (N,)."""
        return Rows(*(getattr(self, f.name)[index] for f in fields(self)))


def lengthen(
    tokens: np.ndarray, key: np.ndarray, unit: np.ndarray, values: np.ndarray, uncertainties: np.ndarray
) -> Rows:
    """Rows of the `values` (N, T) that are there; NaN are gaps. Order: by line, then by target."""
    at, target = np.nonzero(np.isfinite(values))
    return Rows(
        tokens=np.asarray(tokens[at], dtype=np.int64),
        target=target.astype(np.int64),
        value=values[at, target],
        uncertainty=uncertainties[at, target],
        key=np.asarray(key[at], dtype=np.int64),
        unit=np.asarray(unit[at], dtype=np.int64),
    )


def random_parts(keys: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """(N,) int64: which part each row goes to, rows of one key together; the last part is what the `shares` leave.

    The keys there are, sorted, are shuffled by `seed` alone.
    """
    known, inverse = np.unique(keys, return_inverse=True)
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).permutation(len(known))
    cuts = np.round(np.cumsum(shares) * len(known)).astype(np.int64)
    part = np.empty(len(known), dtype=np.int64)
    part[order] = np.searchsorted(cuts, np.arange(len(known)), side="right")
    return np.asarray(part[inverse.reshape(-1)])


def check_shares(task: str, train: float, select: float) -> None:
    """Raise `ConfigError` where the shares of ``train`` and ``select`` leave nothing for ``id``, or are none."""
    if not (0 < train < 1 and 0 < select < 1 and train + select < 1):
        raise ConfigError(
            f"{task}: train and select are shares above 0 that add up to less than 1, the rest is id; got {train} and "
            f"{select}"
        )


def trained_tokens(train: Rows) -> tuple[np.ndarray, ...]:
    """C sorted arrays: the tokens of each column that some training row has."""
    return tuple(np.unique(column) for column in train.tokens.T)


def scorable(rows: Rows, train: Rows) -> np.ndarray:
    """(N,) bool: every token of the row occurs in `train` too."""
    known = [np.isin(column, seen) for column, seen in zip(rows.tokens.T, trained_tokens(train), strict=True)]
    return np.asarray(np.all(known, axis=0))


def check_trained(
    columns: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
    task: str,
    names: Mapping[str, Sequence[Any]] | None = None,
) -> np.ndarray:
    """(N, C) int64 tokens, one column a name of `trained`. Raises `ConfigError` for one that no training row has, by row.

    `names` is what tokens are called in messages, column -> by id; as they are where not given.
    """
    parts = []
    for name, seen in trained.items():
        values = np.asarray(columns[name], dtype=np.int64)
        unknown = ~np.isin(values, seen)
        if unknown.any():
            i = int(np.flatnonzero(unknown)[0])
            called = [names[name][k] if names else k for k in (values[i], seen[0], seen[-1])]
            raise ConfigError(
                f"{task}: row {i + 1}, column {name!r}: no training row has {called[0]}; trained are {len(seen)} tokens "
                f"from {called[1]} to {called[2]}"
            )
        parts.append(values)
    return np.stack(parts, axis=1)


def make_split(
    name: str, role: Role, note: str, rows: Rows, columns: Sequence[str], targets: Sequence[str], **strata: np.ndarray
) -> Split:
    """Inputs (B, C) int64, with the target's number as a last column if there are several `targets`; targets (B, 1) float32.

    Strata are the token columns, ``target``, and those given (N,). Raises `SplitError` for a target without a row.
    """
    counts = np.bincount(rows.target, minlength=len(targets))
    if not counts.all():
        missing = targets[int(np.flatnonzero(counts == 0)[0])]
        raise SplitError(
            f"split {name!r} has no row of target {missing!r} that can be scored (of {len(rows)} rows in all; those with a "
            "token that no training row has are set apart). Leave the target out, or change shares, seed or selection"
        )
    inputs = np.concatenate([rows.tokens, rows.target[:, None]], axis=1) if len(targets) > 1 else rows.tokens
    labels = {**dict(zip(columns, rows.tokens.T, strict=True)), "target": rows.target, **strata}
    items = Rectangular(
        torch.from_numpy(np.ascontiguousarray(inputs)),
        torch.from_numpy(rows.value.astype(np.float32)[:, None]),
        strata={k: torch.from_numpy(np.ascontiguousarray(v, dtype=np.int64)) for k, v in labels.items()},
    )
    return Split(name, role, items, note, keys=rows.key, units=rows.unit)
