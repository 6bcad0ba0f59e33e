"""What the page of the arithmetic study reads: a finished run, its tables at hand, and how splits are called in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.runs import Run
from heldout.studies.arithmetic import ArithmeticConfig
from heldout.studies.arithmetic_answers import RULES
from heldout.studies.arithmetic_inside import INSIDE, POINTS

UNIT = "unordered pairs"


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: ArithmeticConfig, estimates: pd.DataFrame, folder: Path) -> None:
        self.run, self.config, self.estimates = run, config, estimates
        self.kinds = {kind.name: kind for kind in config.networks()}
        self.sums = [kind.name for kind in config.sums()]
        self.rule_records: Mapping[str, Any] = json.loads((folder / RULES).read_text())
        self.inside_records: Mapping[str, Any] = json.loads((folder / INSIDE).read_text())

    def value(self, quantity: str, network: str, split: str) -> float:
        e = self.estimates
        found = e[(e["quantity"] == quantity) & (e["network"] == network) & (e["split"] == split)]
        return float(found["value"].iloc[0])

    def weights(self, network: str, key: str) -> list[tuple[str, float]]:
        """Component -> weight, mean over seeds (0 where a seed's mixture lacks it), the largest first."""
        sums: dict[str, float] = {}
        seeds = self.config.seed_list()
        for seed in seeds:
            record = self.rule_records[f"{network}/{seed}"][key]
            for component, weight in zip(record["components"], record["weights"], strict=True):
                sums[component] = sums.get(component, 0.0) + weight / len(seeds)
        return sorted(sums.items(), key=lambda item: -item[1])

    def rows(self, network: str, quantities: Mapping[str, str], *, edit: str = "greedy") -> pd.DataFrame:
        """Estimates of a network, with a column `how` from quantity -> words and `lengths` to read."""
        e = self.estimates
        rows = e[(e["network"] == network) & e["quantity"].isin(quantities) & (e["edit"] == edit)].copy()
        rows["how"] = rows["quantity"].map(quantities)
        rows["lengths"] = [read(split) for split in rows["split"]]
        order = {q: i for i, q in enumerate(quantities)}
        return rows.assign(order=rows["quantity"].map(order)).sort_values("order", kind="stable")

    def inside_means(self, name: str, what: str, keys: Sequence[str]) -> pd.DataFrame:
        """The mean over seeds of a list of records, by `keys`."""
        rows = [r for seed in self.config.seed_list() for r in self.inside_records[f"{name}/{seed}"][what]]
        return pd.DataFrame(rows).groupby(list(keys), sort=False).mean(numeric_only=True).reset_index()

    def pictures(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.run.output(f"arithmetic-inside-{name}-s{self.config.first_seed}") / POINTS) as arrays:
            return {key: arrays[key] for key in arrays}


def read(split: str) -> str:
    """``len_4_3`` -> ``4 + 3 digits``."""
    if not split.startswith("len_"):
        return "in distribution" if split == "id" else split
    la, lb = split.removeprefix("len_").split("_")
    return f"{la} + {lb} digits"


def place(i: int) -> str:
    return "units" if i == 0 else f"10^{i}"


def rounded(*values: float) -> list[float]:
    return [round(float(v), 3) for v in values]
