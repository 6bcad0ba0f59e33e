"""What a cell of the matrix leaves: a value over seeds with its interval, the null beside it, and tables for its section."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heldout.statistics.rule import MeanTest, mean_test

EVIDENCE = "evidence.json"
DRAWS = 1000  # resamples behind a variance over units
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Evidence:
    """A cell: `value` over seeds with its interval, `null` the value that it is set beside, `by_seed` (empty where pairs of
    seeds are what is measured), `n` units; `tables` as `figures.page.Table` takes them; `reason` where there is no value."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null: float = math.nan
    n: int = 0
    seeds: int = 0
    by_seed: tuple[float, ...] = ()
    method: str = ""
    tables: tuple[Mapping[str, Any], ...] = ()
    identity: tuple[Mapping[str, Any], ...] = ()
    finding: Mapping[str, Any] | None = None
    reason: str = ""

    def write(self, out: Path) -> None:
        (out / EVIDENCE).write_text(json.dumps(asdict(self), sort_keys=True))

    @staticmethod
    def read(folder: Path) -> Evidence:
        found = json.loads((folder / EVIDENCE).read_text())
        for name in ("by_seed", "tables", "identity"):
            found[name] = tuple(found[name])
        return Evidence(**found)

    @staticmethod
    def of(test: MeanTest, *, null: float = 0.0, **more: Any) -> Evidence:
        """From a test over seeds, and units where there are any."""
        method = "t over seeds" + (" and units" if test.n_clusters else "")
        return Evidence(
            test.value,
            test.low,
            test.high,
            null,
            test.n_clusters or 0,
            test.seeds,
            test.theta_by_seed,
            method,
            **more,
        )


@dataclass(frozen=True)
class Asked:
    """How a cell is measured: the configuration's fields that its column reads, where scores go, and who hears of it."""

    settings: Mapping[str, Any]
    out: Path
    progress: Progress = field(default=lambda done, total, note: None)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> dict[str, Any]:
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "caption": caption}


def alone(values: Sequence[float]) -> MeanTest:
    """Quantities of trained networks, of which there is no sampling over test units."""
    return mean_test(values, unit_variance=0.0, n_clusters=None, delta=0.0)
