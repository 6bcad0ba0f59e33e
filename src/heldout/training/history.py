"""The curves of a training run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

BATCH_LOSS = "batch/loss"


@dataclass
class History:
    """Rows of (number of updates made, {"split/metric": value}), in order.

    ``batch/loss`` is the mean training loss of the batches since the last row. It was taken while the weights moved
    and on a batch's own mean, so it is no estimate of the loss on `train` at that row; evaluate that split for one.
    """

    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        return iter(self.rows)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, {name: float(value) for name, value in values.items()}))

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) wherever `name` ("split/metric") was measured."""
        return [(step, values[name]) for step, values in self.rows if name in values]

    def last(self, name: str) -> float:
        """The latest value of `name`; a KeyError where it was never measured."""
        curve = self.curve(name)
        if not curve:
            raise KeyError(name)
        return curve[-1][1]

    def frame(self) -> pd.DataFrame:
        """Columns step, split, metric, value; one row a value."""
        import pandas as pd

        rows = []
        for step, values in self.rows:
            for name, value in values.items():
                split, _, metric = name.rpartition("/")
                rows.append((step, split, metric, value))
        frame = pd.DataFrame(rows, columns=["step", "split", "metric", "value"])
        return frame.astype({"step": "int64", "value": "float64"})

    def write(self, path: Path) -> None:
        """Write `frame()` as Parquet, or the rows as JSON where the name ends in ``.json``."""
        if path.suffix == ".json":
            path.write_text(json.dumps(self.rows))
        else:
            self.frame().to_parquet(path, index=False)

    @classmethod
    def read(cls, path: Path) -> History:
        """Read what `write` wrote."""
        if path.suffix == ".json":
            return cls([(int(step), dict(values)) for step, values in json.loads(path.read_text())])
        import pandas as pd

        history = cls()
        frame = pd.read_parquet(path)
        for step, part in frame.groupby("step", sort=True):
            prefix = part["split"].where(part["split"] == "", part["split"] + "/")
            history.add(int(step), dict(zip(prefix + part["metric"], part["value"], strict=True)))
        return history
