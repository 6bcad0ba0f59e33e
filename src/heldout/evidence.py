"""The two tables that every number passes through, and the record of where an edit came from.

*Scores* are additive: one row a unit of resampling and stratum, metrics as sums beside their weight `n`, so that a
ratio of sums can be taken over any rows and ratios are never averaged. One Parquet part holds one `Cell`.

*Estimates* are what claims and figures read: a value, its interval, the method, its null, the counts behind it, and
the reason where there is no value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.errors import EvidenceError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of both tables; raised when a column changes its meaning


@dataclass(frozen=True)
class Origin:
    """Where an edit came from; it travels with every number.

    `name` is the family (``svd``, ``kmeans``, ``haar``, ``function``), `site` the places edited, `fit_split` the split
    it was fitted on (empty where it does not depend on data), `parameter` its size (rank, clusters; None where it has
    none), `oracle` whether it has seen what it is tested on, `draw` the number of a random draw.
    """

    name: str
    site: str = ""
    fit_split: str = ""
    parameter: float | None = None
    oracle: bool = False
    draw: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A short name for tables and file names: ``svd-8``, ``kmeans-16-oracle``, ``haar-4-draw2``."""
        parts = [self.name]
        if self.parameter is not None:
            parts.append(f"{self.parameter:g}")
        if self.oracle:
            parts.append("oracle")
        if self.draw:
            parts.append(f"draw{self.draw}")
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
        site = "".join(c if c.isalnum() else "_" for c in self.edit.site)
        return f"{self.network}-s{self.seed}-{self.split}-{site}-{self.edit.label}.parquet"


@dataclass(frozen=True)
class Estimate:
    """One number with what it takes to believe it.

    `seed` is None where the value is over all seeds. `parameter` is the rank or cluster count. `reference` is the
    split that a gap is measured from. `null` is the value that the same quantity takes under its null, `n` the number
    of units, `weight` the number of scored predictions, `seeds` the number of training seeds. Where there is no value
    (NaN), `reason` says why.
    """

    quantity: str
    value: float
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    null: float = math.nan
    n: int = 0
    weight: float = 0.0
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


def write_scores(path: Path, cell: Cell, table: pd.DataFrame) -> None:
    """Write one part: `table` has `unit`, strata, `n` and metric sums; `cell` is kept in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing = {"unit", "n"} - set(table.columns)
    if missing:
        raise EvidenceError(f"a scores table needs the columns unit and n; {sorted(missing)} missing in {path.name}")
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    record = {"format": FORMAT, "cell": asdict(cell)}
    arrow = arrow.replace_schema_metadata({b"heldout": json.dumps(record, sort_keys=True).encode()})
    pq.write_table(arrow, path, compression="zstd")


def read_scores(path: Path) -> tuple[Cell, pd.DataFrame]:
    """Read one part written by `write_scores`."""
    import pyarrow.parquet as pq

    arrow = pq.read_table(path)
    raw = (arrow.schema.metadata or {}).get(b"heldout")
    if raw is None:
        raise EvidenceError(f"{path} is not a scores table of heldout")
    record = json.loads(raw)
    if record["format"] != FORMAT:
        raise EvidenceError(f"{path} has scores format {record['format']}; this version reads {FORMAT}")
    cell = record["cell"]
    return Cell(**{**cell, "edit": Origin(**cell["edit"])}), arrow.to_pandas()


def write_estimates(path: Path, estimates: Iterable[Estimate]) -> None:
    """Write estimates as one Parquet table, in the order given."""
    estimates_frame(estimates).to_parquet(path, index=False)


def read_estimates(paths: Path | Iterable[Path]) -> pd.DataFrame:
    """Read and stack tables written by `write_estimates`."""
    import pandas as pd

    paths = [paths] if isinstance(paths, Path) else list(paths)
    if not paths:
        raise EvidenceError("no estimates to read")
    return pd.concat([pd.read_parquet(p) for p in paths], ignore_index=True)


def estimates_frame(estimates: Iterable[Estimate]) -> pd.DataFrame:
    """Estimates as a data frame: one column a field of `Estimate`."""
    import pandas as pd

    frame = pd.DataFrame([asdict(e) for e in estimates], columns=[f.name for f in fields(Estimate)])
    return frame.astype(
        {"value": float, "low": float, "high": float, "null": float, "weight": float, "parameter": float}
        | {"seed": "Int64", "n": "int64", "seeds": "int64"}
    )
