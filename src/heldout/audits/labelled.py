"""Rows of activations with their labels: from a network's sites, item by item, or from files.

B items of a batch, T positions, D width of a site, n rows kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heldout.activations.capture import data_rows
from heldout.activations.sites import Site, module_at, resolve_view, to_rows
from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject
from heldout.analyses.features.overview import Labelled
from heldout.audits.parts import Features, SplitSpec
from heldout.audits.sources import resolve
from heldout.errors import ConfigError, HeldoutError, NonFiniteError, SplitError, unknown
from heldout.networks.load import import_function, importable
from heldout.tasks.base import Batch, Split
from heldout.tasks.columns import check_cells
from heldout.training.checkpoints import read_tensors

FIELD = "features.function"
MISSING = -100  # what torch ignores among targets: the row has no such label
TABLES = (".csv", ".parquet", ".jsonl")
ARRAYS = (".npz", ".safetensors")


@dataclass(frozen=True, eq=False)
class Rows:
    """`x` site -> (n, D), and of the same rows: `table` label -> (n,) and `unit` (n,), the clusters that they come from, of
    which several rows may be `clustered`. `items`: the numbers of the items behind them (none from files)."""

    x: dict[str, Tensor]
    table: dict[str, np.ndarray]
    unit: np.ndarray
    clustered: bool
    items: np.ndarray

    def labelled(self, site: str) -> Labelled:
        """The rows of one site, with groups where rows are not independent."""
        return Labelled(self.x[site], self.table, self.unit if self.clustered else None)


def rows_of(subject: Subject, split: Split, spec: Features, folder: Path, *, seed: int, batch_size: int) -> Rows:
    """At most about `spec.rows` labelled rows of a split, whole items of it in a random order.

    A site of items, (B, D), gives a row an item; one of positions, (B, T, D), one for each position that `spec.positions`
    names and that has every label; see `_clustered` for what is left out. Raises `ConfigError` where labels are missing or
    do not fit, `SplitError` where no row is left.
    """
    places = [*spec.sites, *spec.before.values()]
    for place in places:
        module_at(subject.network, Site.parse(place))
    of_labels = _labelling(spec, folder)
    order = np.random.default_rng([seed, len(split)]).permutation(len(split))
    where = f"split {split.name!r}"
    parts: dict[str, list[Tensor]] = {place: [] for place in places}
    columns: dict[str, list[np.ndarray]] = {}
    items: list[np.ndarray] = []
    count = 0
    with Tap(subject.network, read=places) as tap:
        for batch in split.batches(batch_size, order=order):
            given = batch.to(subject.device)
            reading = tap(given)
            for place in places:  # names the place where an activation is NaN or infinite
                data_rows(subject.network, Site.parse(place), reading[place], given, where=where)
            rows = {place: as_rows(subject, place, reading[place], batch, field="features.sites") for place in places}
            labels = of_labels(batch)
            item, keep, taken = _kept(rows, labels, batch, spec)
            for place, kept in rows.items():
                parts[place].append(kept.detach().cpu().reshape(-1, kept.shape[-1])[torch.from_numpy(keep)])
            for name, values in taken.items():
                columns.setdefault(name, []).append(values)
            items.append(item)
            count += len(item)
            if count >= spec.rows:
                break
    item = np.concatenate(items) if items else np.empty(0, dtype=np.int64)
    if not len(item):
        raise SplitError(
            f"no row of {where} has every label; features.positions is {spec.positions!r}, and rows in which a label is "
            f"NaN or {MISSING} are left out"
        )
    found = Rows(
        {place: torch.cat(values) for place, values in parts.items()},
        {name: np.concatenate(values) for name, values in columns.items()},
        split.unit_ids()[item],
        True,
        np.unique(item),
    )
    return _clustered(found)


def rows_of_files(name: str, spec: SplitSpec, features: Features, folder: Path) -> Rows:
    """A split that is a file of activations, (n, D) by site, and one of labels, a row for each."""
    field = f"splits.{name}"
    arrays = read_arrays(name, spec, folder)
    for site in (*features.sites, *features.before.values()):
        if site not in arrays:
            raise ConfigError(f"features.sites, split {name!r}: {unknown('array', site, arrays)}")
    table = read_table(name, spec, folder)
    wanted = features.labels or tuple(c for c in table if c != features.groups)
    for column in (*wanted, *([features.groups] if features.groups else [])):
        if column not in table:
            raise ConfigError(f"{field}.table: {unknown('column', column, table)}")
    if not wanted:
        raise ConfigError(f"{field}.table: no column but {features.groups!r}, which features.groups names; give labels")
    sites = (*features.sites, *features.before.values())
    x = {site: torch.from_numpy(site_rows(arrays[site], f"on split {name!r}: {site}")) for site in sites}
    first = next(iter(x.values()))
    for site, rows in x.items():
        if rows.ndim != 2 or not len(rows) == len(first) == len(table[wanted[0]]):
            raise ConfigError(
                f"{field}: {site} has shape {tuple(rows.shape)} and there are {len(table[wanted[0]])} rows of labels; "
                "(n, D) and n rows are needed"
            )
    unit = table[features.groups] if features.groups else np.arange(len(first))
    return Rows(x, {c: table[c] for c in wanted}, unit, features.groups is not None, np.empty(0, dtype=np.int64))


def _labelling(spec: Features, folder: Path) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Batch -> label -> (B,) or (B, T): from the user's function, or the split's strata."""
    if spec.function is None:
        return lambda batch: {name: _stratum(name, batch) for name in spec.labels or tuple(map(str, batch.strata))}
    function = import_function(spec.function, folder, field=FIELD)

    def asked(batch: Batch) -> dict[str, np.ndarray]:
        try:
            with importable(folder):
                given = function(batch)
        except HeldoutError:
            raise
        except Exception as error:
            raise ConfigError(f"{FIELD}: the function failed: {type(error).__name__}: {error}") from error
        if not isinstance(given, Mapping) or not given:
            raise ConfigError(f"{FIELD} returned a {type(given).__name__}; a mapping label -> (B,) or (B, T) is needed")
        for name in spec.labels:
            if name not in given:
                raise ConfigError(f"{FIELD}: {unknown('label', name, given)}")
        chosen = spec.labels or tuple(map(str, given))
        return {name: np.asarray(torch.as_tensor(given[name]).cpu()) if isinstance(given[name], Tensor) else
                np.asarray(given[name]) for name in chosen}  # fmt: skip

    return asked


def _stratum(name: str, batch: Batch) -> np.ndarray:
    if name not in batch.strata:
        raise ConfigError(
            f"features.labels: {unknown('label', name, batch.strata)} among the split's strata; name strata, or "
            "give features.function"
        )
    return np.asarray(batch.strata[name].cpu())


def as_rows(subject: Subject, place: str, value: Tensor, batch: Batch, *, field: str) -> Tensor:
    """(B, D) or (B, T, D); `field` of the spec names the place."""
    site = Site.parse(place)
    rows = to_rows(value, resolve_view(site, module_at(subject.network, site), value, subject.network), site)
    if rows.ndim not in (2, 3) or len(rows) != len(batch):
        raise ConfigError(
            f"{field}: {place} has shape {tuple(value.shape)}; rows belong to items, (B, D), or positions, "
            "(B, T, D): choose another view of it (@flat gives one row an item)"
        )
    return rows


def _kept(
    rows: Mapping[str, Tensor], labels: Mapping[str, np.ndarray], batch: Batch, spec: Features
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(n,) item of each row that is kept, (B * T,) bool which are, and label -> (n,)."""
    shapes = {place: tuple(r.shape[:-1]) for place, r in rows.items()}
    shape = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{place} {s}" for place, s in shapes.items())
        raise ConfigError(f"features.sites do not have the same rows: {listed}; audit them in specs of their own")
    keep = np.ones(shape, dtype=bool)
    if len(shape) == 2:
        keep = _positions(shape, batch, spec.positions)
    spread: dict[str, np.ndarray] = {}
    for name, values in labels.items():
        if values.shape not in {shape, shape[:1]}:
            raise ConfigError(
                f"label {name!r} has shape {values.shape} for rows {shape}; one an item, {shape[:1]}, or a row, {shape}, "
                "is needed"
            )
        full = values if values.shape == shape else np.broadcast_to(values[:, None], shape)
        spread[name] = full
        missing = np.isnan(full) if full.dtype.kind == "f" else full == MISSING
        keep = keep & ~missing
    item = np.broadcast_to(np.asarray(batch.index.cpu()).reshape(-1, *[1] * (len(shape) - 1)), shape)
    return item[keep], keep.reshape(-1), {name: values[keep] for name, values in spread.items()}


def _positions(shape: tuple[int, ...], batch: Batch, which: str) -> np.ndarray:
    """(B, T) bool: the positions that count."""
    data = np.ones(shape, dtype=bool) if batch.mask is None else np.asarray(batch.mask.cpu(), dtype=bool)
    if data.shape != shape:
        raise ConfigError(
            f"features.sites have rows {shape} where the mask is {data.shape}; sites of positions are needed"
        )
    if which == "last":
        last = shape[1] - 1 - data[:, ::-1].argmax(axis=1)
        at: np.ndarray = (np.arange(shape[1]) == last[:, None]) & data
        return at
    if which == "scored" and batch.scored is not None:
        scored = np.asarray(batch.scored.cpu(), dtype=bool)
        if scored.shape != shape:
            raise ConfigError(
                f"features.positions is scored, but {scored.shape} are scored of rows {shape}; say all or last"
            )
        both: np.ndarray = data & scored
        return both
    return data


def _clustered(rows: Rows) -> Rows:
    """Clusters of two rows or more, without the units that have one; where most rows are alone in their unit, the first row
    of each unit, which are independent."""
    _, first, codes, sizes = np.unique(rows.unit, return_index=True, return_inverse=True, return_counts=True)
    several = sizes[codes] > 1
    clustered = bool(several.mean() > 0.5)
    keep = several if clustered else np.isin(np.arange(len(codes)), first)
    at = torch.from_numpy(keep)
    return Rows(
        {place: values[at] for place, values in rows.x.items()},
        {name: values[keep] for name, values in rows.table.items()},
        rows.unit[keep],
        clustered,
        rows.items,
    )


def read_arrays(name: str, spec: SplitSpec, folder: Path) -> dict[str, np.ndarray]:
    """Every array of a split's activations, by name."""
    field = f"splits.{name}.activations"
    assert spec.activations is not None
    path = resolve(folder, spec.activations, field=field)
    if path.suffix not in ARRAYS:
        raise ConfigError(f"{field}: {path} is none of {', '.join(ARRAYS)}; nothing is unpickled here")
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)[0]
        return {k: (t if t.is_complex() else t.float()).numpy() for k, t in tensors.items()}
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # of the archive, of its packing, of an array, of what is no archive at all
        raise ConfigError(f"{field}: {path} cannot be read as arrays: {type(error).__name__}: {error}") from None


def site_rows(array: np.ndarray, where: str) -> np.ndarray:
    """(n, D) float32 or float64 activations. Raises `ConfigError` where an array is anything else, and
    `NonFiniteError`."""
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"{where} has shape {array.shape}; (n, D) is needed")
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{where} holds {array.dtype}; real numbers are needed")
    rows = array.astype(np.float32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.float64)
    if not (finite := np.isfinite(rows).all(axis=1)).all():
        raise NonFiniteError(f"{where} holds NaN or infinite values in row {int(np.flatnonzero(~finite)[0])}")
    return rows


def read_table(name: str, spec: SplitSpec, folder: Path) -> dict[str, np.ndarray]:
    """Every column of a split's labels, by name."""
    import pandas as pd

    field = f"splits.{name}.table"
    assert spec.table is not None
    path = resolve(folder, spec.table, field=field)
    if path.suffix not in TABLES:
        raise ConfigError(f"{field}: {path} is none of {', '.join(TABLES)}")
    try:
        if path.suffix == ".csv":
            check_cells(path)
            frame = pd.read_csv(path, encoding="utf-8-sig")
        elif path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_json(path, lines=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field}: {path} cannot be read as a table: {error}") from None
    if frame.empty:
        raise ConfigError(f"{field}: {path} has no rows")
    return {str(column): frame[column].to_numpy() for column in frame.columns}
