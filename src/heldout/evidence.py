"""The two tables that every number passes through, and the record of where an edit came from.

*Scores* are additive: one row a unit of resampling and stratum, metrics as sums beside their weight `n`, so that a
ratio of sums can be taken over any rows and ratios are never averaged. One Parquet part holds one `Cell`.

*Estimates* are what claims and figures read: a value, its interval, the method, its null, the counts behind it, and
the reason where there is no value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.errors import EvidenceError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT = 1  # of both tables; raised when a column changes its meaning


@dataclass(frozen=True)
class Origin:
    """Where an edit came from; it travels with every number.

    `name` is the family (``svd``, ``kmeans``, ``haar``, ``function``), `site` the places edited, `fit_split` the split
    it was fitted on (empty where it does not depend on data), `parameter` its size (rank, clusters; None where it has
    none), `oracle` whether it has seen what it is tested on. Several draws of a random edit share one origin.
    """

    name: str
    site: str = ""
    fit_split: str = ""
    parameter: float | None = None
    oracle: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A short name for tables and file names: ``svd-8``, ``kmeans-16-oracle``."""
        parts = [self.name]
        if self.parameter is not None:
            parts.append(f"{self.parameter:g}")
        if self.oracle:
            parts.append("oracle")
        return "-".join(parts)


@dataclass(frozen=True)
class Cell:
    """What one part of the scores table is about."""

    task: str
    network: str
    seed: int
    split: str
    edit: Origin

    @property
    def filename(self) -> str:
        """One name for each cell: readable, short enough for any file system, and ending in a hash that keeps cells apart
        whose names differ only in what a file name cannot hold."""
        names = (self.task, self.network, str(self.seed), self.split, self.edit.site, self.edit.label)
        digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
        shown = [self.network, f"s{self.seed}", self.split, self.edit.site, self.edit.label]
        plain = ["".join(c if c.isalnum() or c in "+-." else "_" for c in name)[:40] for name in shown]
        return f"{'-'.join(plain)}-{digest}.parquet"


@dataclass(frozen=True)
class Estimate:
    """One number with what it takes to believe it.

    `seed` is None where the value is over all seeds. `parameter` is the rank or cluster count. `reference` is the
    split that a gap is measured from. `null` is the value that the same quantity takes under its null, `n` the number
    of units, `seeds` the number of training seeds. Where there is no value
    (NaN), `reason` says why.
    """

    quantity: str
    value: float
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    null: float = math.nan
    n: int = 0
    seeds: int = 1
    network: str = ""
    seed: int | None = None
    split: str = ""
    reference: str = ""
    site: str = ""
    edit: str = ""
    parameter: float | None = None
    oracle: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.value) and not self.reason:
            raise EvidenceError(f"estimate {self.quantity!r} has no value and gives no reason")


class ScoresWriter:
    """Writes one part of the scores table as rows come: `unit`, strata, `n` and metric sums.

    Rows wait until there are `ROWS` of them, so memory does not grow with the data. They wait in blocks that stay where
    they are: many small arrays, kept between the large ones of a pass, would keep those from being given back. One unit
    may have several rows with the same strata: they are sums, and add up.
    """

    ROWS = 20_000
    FIRST = 256  # rows of a block at first; it doubles

    def __init__(self, path: Path, cell: Cell) -> None:
        self.path, self.cell = path, cell
        self._waiting: dict[str, np.ndarray] = {}
        self._rows = 0
        self._writer: Any = None

    def add(self, columns: dict[str, np.ndarray]) -> None:
        missing = {"unit", "n"} - set(columns)
        if missing:
            raise EvidenceError(
                f"a scores table needs the columns unit and n; {sorted(missing)} missing in {self.path.name}"
            )
        if self._waiting and columns.keys() != self._waiting.keys():
            raise EvidenceError(
                f"every row of {self.path.name} has the columns {', '.join(sorted(self._waiting))}; "
                f"got {', '.join(sorted(columns))}"
            )
        first, last = self._rows, self._rows + len(columns["unit"])
        for name, values in columns.items():
            self._waiting[name] = block = _block(self._waiting.get(name), values, at_least=max(last, self.FIRST))
            block[first:last] = values
        self._rows = last
        if self._rows >= self.ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        joined = {name: block[: self._rows] for name, block in self._waiting.items()}
        record = json.dumps({"format": FORMAT, "table": "scores", "cell": asdict(self.cell)}, sort_keys=True)
        table = pa.table(joined).replace_schema_metadata({b"heldout": record.encode()})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._rows = 0


def _block(block: np.ndarray | None, values: np.ndarray, *, at_least: int) -> np.ndarray:
    """`block`, or a new one that holds its rows, where there are fewer than `at_least` or `values` need another type."""
    import numpy as np

    kind = np.asarray(values).dtype if block is None else np.result_type(block, values)
    if block is not None and len(block) >= at_least and kind == block.dtype:
        return block
    longer = np.empty(at_least if block is None else max(at_least, 2 * len(block)), dtype=kind)
    if block is not None:
        longer[: len(block)] = block
    return longer


def read_cell(path: Path) -> Cell:
    """What a part written by `ScoresWriter` is about; its rows are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise EvidenceError(f"{path} cannot be read as a table of scores: {error}") from None
    return _cell(_record(path, schema, "scores"))


def read_scores(path: Path) -> tuple[Cell, dict[str, np.ndarray]]:
    """Read one part written by `ScoresWriter`: its cell, and its columns by name."""
    arrow = _read_table(path, "scores")
    columns = {name: arrow.column(name).to_numpy() for name in arrow.column_names}
    return _cell(_record(path, arrow.schema, "scores")), columns


def _cell(record: Mapping[str, Any]) -> Cell:
    cell = record["cell"]
    return Cell(**{**cell, "edit": Origin(**cell["edit"])})


def _read_table(path: Path, kind: str) -> Any:
    """An Arrow table of this project, read whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            arrow = file.read()
    except (pa.ArrowException, OSError) as error:
        raise EvidenceError(f"{path} cannot be read as a table of {kind}: {error}") from None
    _record(path, arrow.schema, kind)
    return arrow


def _record(path: Path, schema: Any, kind: str) -> dict[str, Any]:
    """The record that a table of this project carries."""
    raw = (schema.metadata or {}).get(b"heldout")
    record: dict[str, Any] | None = None if raw is None else json.loads(raw)
    if record is None or record.get("table") != kind:
        raise EvidenceError(f"{path} is not a table of {kind} written by heldout")
    if record["format"] != FORMAT:
        raise EvidenceError(f"{path} has {kind} of format {record['format']}; this version reads {FORMAT}")
    return record


def write_estimates(path: Path, estimates: Iterable[Estimate]) -> None:
    """Write estimates as one Parquet table, in the order given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(estimates_frame(estimates), preserve_index=False)
    record = json.dumps({"format": FORMAT, "table": "estimates"}, sort_keys=True)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"heldout": record.encode()}), path)


def read_estimates(paths: Path | Iterable[Path]) -> pd.DataFrame:
    """Read and stack tables written by `write_estimates`. Raises `EvidenceError` for any other file."""
    import pandas as pd

    paths = [paths] if isinstance(paths, Path) else list(paths)
    if not paths:
        raise EvidenceError("no estimates to read")
    return pd.concat([_read_table(p, "estimates").to_pandas() for p in paths], ignore_index=True)


def estimates_frame(estimates: Iterable[Estimate]) -> pd.DataFrame:
    """Estimates as a data frame: one column a field of `Estimate`."""
    import pandas as pd

    frame = pd.DataFrame([asdict(e) for e in estimates], columns=[f.name for f in fields(Estimate)])
    return frame.astype(
        {"value": float, "low": float, "high": float, "null": float, "parameter": float}
        | {"seed": "Int64", "n": "int64", "seeds": "int64"}
    )
