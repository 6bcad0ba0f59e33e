"""Splits from files: Parquet, CSV, JSON lines and safetensors, and the items that sequences of many lengths become.

    read_split("id", "test", Path("id.parquet"), Columns(inputs={"input_ids": "tokens"}, mask_argument="attention_mask"))

A column of numbers is (N,); a column of equally long lists is (N, K); lists of different lengths are sequences, which are
padded on the right when a batch is taken, with a mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heldout.errors import SplitError, choices
from heldout.tasks.base import Batch, Derived, Items, Role, Split
from heldout.tasks.columns import check_cells
from heldout.tasks.make import split
from heldout.tasks.ragged import Flat, real_positions

Inputs = str | Sequence[str] | Mapping[str, str | Sequence[str]]
PICKLED = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib", ".npy", ".npz")
FORMATS = (".parquet", ".csv", ".jsonl", ".safetensors")


@dataclass(frozen=True)
class Columns:
    """Which columns (tensors, in safetensors) of a file are what.

    - `inputs`: one name is the network's single argument; a list of names are columns put side by side, (N, K) float32; a
      mapping gives keyword arguments, each one of these two.
    - `targets`, `mask`, `scored`, `units`, `keys`: see `heldout.split`; units may be text.
    - `mask_argument`: the keyword under which the network is given the mask as 0 and 1 (``attention_mask``);
      `padding_argument`: the same for its opposite, True on padding (``src_key_padding_mask``).
    - `pad`: the number that fills sequences on the right.
    """

    inputs: Inputs
    targets: str | None = None
    mask: str | None = None
    scored: str | None = None
    units: str | None = None
    keys: str | None = None
    strata: Mapping[str, str] = field(default_factory=dict)
    mask_argument: str | None = None
    padding_argument: str | None = None
    pad: int = 0


def read_split(name: str, role: Role, path: Path, columns: Columns, *, note: str = "") -> Split:
    """The items of one file as a split. Raises `SplitError` that names the split, the file and the column."""
    table = _Table(name, path)
    inputs = _inputs(table, columns.inputs)
    parts = {k: table.numbers(v) for k in ("targets", "mask", "scored") if (v := getattr(columns, k))}
    strata = {k: table.numbers(v) for k, v in columns.strata.items()}
    units = None if columns.units is None else unit_numbers(table.column(columns.units))
    keys = None if columns.keys is None else np.asarray([str(k) for k in table.column(columns.keys)])
    every = [*(inputs.values() if isinstance(inputs, Mapping) else [inputs]), *parts.values(), *strata.values()]
    for label in ("mask", "scored"):
        if label in parts and not _ragged(parts[label]):
            parts[label] = _as_bool(parts[label], f"{table.where}, {label}")
    if not any(_ragged(v) for v in every):
        made = split(name, role, inputs, parts.get("targets"), mask=parts.get("mask"), scored=parts.get("scored"),
                     units=units, keys=keys, strata=strata, note=note)  # fmt: skip
    else:
        items = Padded(inputs, **parts, strata=strata, pad=columns.pad, where=table.where)
        if keys is None:
            keys = items.hashes()
        own = None if units is None else units
        numbered = split(name, role, torch.zeros(len(items)), units=own, keys=keys)
        made = Split(name, role, items, note, keys=keys, units=numbered.units)
    if columns.mask_argument or columns.padding_argument:
        made = replace(made, items=WithMask(made.items, columns.mask_argument, columns.padding_argument))
    return made


class Padded:
    """N items of which some columns are sequences: padded on the right to the longest of a batch, with a mask.

    Every ragged column of an item has the same length; columns of one length stay as they are.
    """

    def __init__(
        self,
        inputs: Any,
        *,
        targets: Any = None,
        mask: Any = None,
        scored: Any = None,
        strata: Mapping[str, Any] | None = None,
        pad: int = 0,
        where: str = "",
    ) -> None:
        self.inputs, self.pad = inputs, pad
        self.parts = {"targets": targets, "mask": mask, "scored": scored}
        self.strata = dict(strata or {})
        named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
        every = {**named, **{k: v for k, v in self.parts.items() if v is not None}, **self.strata}
        ragged = {k: v for k, v in every.items() if _ragged(v)}
        first, longest = next(iter(ragged.items()))
        self._lengths = _sizes(longest)
        for label, values in ragged.items():
            other = _sizes(values)
            if not np.array_equal(other, self._lengths):
                at = int(np.flatnonzero(other != self._lengths)[0])
                raise SplitError(
                    f"{where}: item {at} has {self._lengths[at]} positions in {first!r} and {other[at]} in {label!r}; "
                    "one of each is needed for every position"
                )
        if len(self._lengths) and self._lengths.min() < 1:
            raise SplitError(f"{where}: item {int(self._lengths.argmin())} of {first!r} is empty")
        offsets = np.concatenate([[0], np.cumsum(self._lengths)])
        self._flat = {id(v): Flat(np.concatenate(v), offsets) for v in ragged.values()}

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    def take(self, index: np.ndarray) -> Batch:
        index = np.asarray(index, dtype=np.int64)
        real = real_positions(self._lengths[index])

        def pick(values: Any, fill: Any) -> Any:
            if values is None:
                return None
            if not _ragged(values):
                return torch.as_tensor(values)[torch.from_numpy(index)]
            return self._flat[id(values)].padded(index, fill)

        mask, scored = pick(self.parts["mask"], 0), pick(self.parts["scored"], 0)
        inputs = self.inputs
        return Batch(
            inputs={k: pick(v, self.pad) for k, v in inputs.items()}
            if isinstance(inputs, Mapping)
            else pick(inputs, self.pad),
            index=torch.from_numpy(index),
            targets=pick(self.parts["targets"], self.pad),
            mask=real if mask is None else real & mask.bool(),
            scored=None if scored is None else real & scored.bool(),
            strata={k: pick(v, -1) for k, v in self.strata.items()},
        )

    def hashes(self) -> np.ndarray:
        """(N,) a hash of each item's inputs."""
        parts = list(self.inputs.values()) if isinstance(self.inputs, Mapping) else [self.inputs]
        return np.array(
            [
                hashlib.blake2b(
                    b"".join(np.ascontiguousarray(np.asarray(p[i])).tobytes() for p in parts), digest_size=12
                ).hexdigest()
                for i in range(len(self))
            ]
        )


class WithMask(Derived):
    """Items whose mask is also given to the network: as 0 and 1 under one keyword, its opposite under another."""

    def __init__(self, items: Items, mask_argument: str | None, padding_argument: str | None) -> None:
        super().__init__(items)
        self.mask_argument, self.padding_argument = mask_argument, padding_argument

    def take(self, index: np.ndarray) -> Batch:
        batch = self.items.take(index)
        if not isinstance(batch.inputs, Mapping):
            raise SplitError("a mask is given to the network by keyword; write inputs as a mapping (argument: column)")
        inputs, first = dict(batch.inputs), next(iter(batch.inputs.values()))
        mask = torch.ones(first.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
        if self.mask_argument:
            inputs[self.mask_argument] = mask.long()
        if self.padding_argument:
            inputs[self.padding_argument] = ~mask
        return replace(batch, inputs=inputs)


def unit_numbers(labels: Any) -> np.ndarray:
    """(N,) int64: whole numbers as they are, text by a hash, so that the same text is the same unit in every split."""
    values = np.asarray(labels)
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    digests = (hashlib.blake2b(str(v).encode(), digest_size=8).digest() for v in values.tolist())
    return np.array([int.from_bytes(d, "big") >> 1 for d in digests], dtype=np.int64)


class _Table:
    """The columns of one file, read when they are asked for."""

    def __init__(self, name: str, path: Path) -> None:
        self.where = f"split {name!r}: {path}"
        if path.suffix in PICKLED:
            raise SplitError(
                f"{self.where} may hold pickled objects, and nothing is unpickled here; accepted are {', '.join(FORMATS)}"
            )
        if path.suffix not in FORMATS:
            raise SplitError(
                f"{self.where}: {path.suffix or 'no suffix'} is not read; accepted are {', '.join(FORMATS)}"
            )
        if not path.is_file():
            near = [p.name for p in path.parent.glob("*") if p.suffix in FORMATS] if path.parent.is_dir() else []
            raise SplitError(f"{self.where} does not exist; {choices(path.name, near)}")
        try:
            self._columns: dict[str, Any] = _READERS[path.suffix](path)
        except Exception as error:  # each reader has errors of its own
            raise SplitError(f"{self.where} cannot be read: {str(error).splitlines()[0]}") from error

    def column(self, name: str) -> Any:
        """(N, ...) array or tensor, or a list of N arrays where lengths differ."""
        if name not in self._columns:
            raise SplitError(f"{self.where}: no column {name!r}; {choices(name, self._columns)}")
        return _array(self._columns[name], f"{self.where}, column {name!r}")

    def numbers(self, name: str) -> Any:
        """A column that a tensor can hold."""
        values = self.column(name)
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biuf":
            raise SplitError(f"{self.where}: column {name!r} holds {values.dtype}; numbers are needed")
        return values


def _inputs(table: _Table, wanted: Inputs) -> Any:
    if isinstance(wanted, str):
        return table.numbers(wanted)
    if isinstance(wanted, Mapping):
        return {k: _inputs(table, v) for k, v in wanted.items()}
    columns = []
    for name in wanted:
        values = table.column(name)
        if _ragged(values) or values.ndim != 1 or not np.issubdtype(np.asarray(values).dtype, np.number):
            raise SplitError(f"{table.where}: column {name!r} is no column of single numbers, which features must be")
        columns.append(np.asarray(values, dtype=np.float32))
    return np.stack(columns, axis=1)


def _array(values: Any, where: str) -> Any:
    if isinstance(values, Tensor):
        return values
    if len(values) and isinstance(values[0], list | tuple | np.ndarray):
        try:
            rows = [_numbers(np.asarray(v)) for v in values]
        except SplitError as error:
            raise SplitError(f"{where}: {error}") from None
        except (ValueError, TypeError):
            raise SplitError(f"{where}: lists must hold numbers") from None
        return np.stack(rows) if len({r.shape for r in rows}) == 1 else rows
    array = np.asarray(values)
    gaps = [i for i, v in enumerate(values) if v is None or (isinstance(v, float) and v != v)]
    if gaps and array.dtype.kind != "f":  # text beside NaN would become the text "nan"
        raise SplitError(f"{where}: item {gaps[0]} is missing")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise SplitError(f"{where}: item {int(np.flatnonzero(~np.isfinite(array))[0])} is missing or not finite")
    try:
        return _numbers(array)
    except SplitError as error:
        raise SplitError(f"{where}: {error}") from None


def _numbers(array: np.ndarray) -> np.ndarray:
    """Double precision is not what networks are fed with; whole numbers become int64."""
    if array.dtype == np.float64:
        if array.size and np.abs(array).max() > np.finfo(np.float32).max:
            raise SplitError(f"{np.abs(array).max():g} is beyond single precision; rescale the column")
        return array.astype(np.float32)
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array


def _as_bool(values: Any, where: str) -> Any:
    tensor = torch.as_tensor(values)
    if not bool(((tensor == 0) | (tensor == 1)).all()):
        raise SplitError(f"{where} holds other values than 0 and 1 (or False and True)")
    return tensor.bool()


def _sizes(values: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) the number of positions of each item."""
    return np.array([len(x) for x in values], dtype=np.int64)


def _ragged(values: Any) -> bool:
    return isinstance(values, list)


def _parquet(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _csv(path: Path) -> dict[str, Any]:
    import pandas as pd

    check_cells(path)
    frame = pd.read_csv(path, encoding="utf-8-sig")
    return {str(name): frame[name].to_list() for name in frame.columns}


def _jsonl(path: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = list(rows[0]) if rows else []
    for i, row in enumerate(rows):
        if missing := [n for n in names if n not in row]:
            raise ValueError(f"line {i + 1} lacks {', '.join(missing)}")
    return {name: [row[name] for row in rows] for name in names}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


_READERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".safetensors": _safetensors}
