"""What the page of the nuclear study reads: a finished run, its tables at hand, and how things are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.evidence import read_estimates
from heldout.runs import Run
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.audited import ESTIMATES
from heldout.studies.nuclear import JUDGE, UNTRAINED
from heldout.studies.nuclear_judge import GATES
from heldout.studies.nuclear_settings import NuclearConfig
from heldout.studies.nuclear_structure import ARRAYS, STRUCTURE
from heldout.studies.nuclear_train import PREDICTIONS

NUMBERS = {"z": "protons", "n": "neutrons"}
TRAINED_ON = {  # in words
    "binding": "binding energies",
    "residual": "residual of the formula",
    "vintage": "binding energies, old table",
    "vintage-residual": "residual, old table",
    "no-decay": "binding energies, no weight decay",
    "semf": "published formula",
    "asymmetry": "(N − Z)² / A",
    "noise": "random numbers",
    UNTRAINED: "nothing (untrained)",
}
BASELINES = {
    baselines.FORMULA: "formula of 5 terms, refitted",
    baselines.EXTENDED: "formula of 11 terms, refitted",
    "neighbours": "nearest neighbours, on the residual",
    "kernel": "kernel method, on the residual",
    baselines.PUBLISHED[0]: "formula of 5 terms, as published",
    baselines.PUBLISHED[1]: "formula of 11 terms, as published",
}


class Shown:
    """A finished run with its tables at hand; `seed` is the first, which pictures of one network are of."""

    def __init__(self, run: Run, config: NuclearConfig) -> None:
        self.run, self.config, self.folder = run, config, run.output(JUDGE)
        self.estimates = read_estimates(self.folder / ESTIMATES)
        together = self.estimates["method"] == "ensemble"  # of all seeds
        self.estimates["seeds"] = self.estimates["seeds"].mask(together, config.seeds)
        self.gates: list[dict[str, Any]] = json.loads((self.folder / GATES).read_text())
        self.seeds = config.seed_list()
        self.seed = self.seeds[0]
        self.steps = set(run.steps())

    def rows(self, *quantities: str) -> pd.DataFrame:
        return self.estimates[self.estimates["quantity"].isin(quantities)]

    def output(self, name: str) -> Path:
        return self.run.output(f"nuclear-{name}")

    def each(self, kind: str) -> list[Path]:
        """One folder a seed."""
        return [self.output(f"{kind}-s{seed}") for seed in self.seeds]

    def trained(self, names: Sequence[str]) -> list[str]:
        """Those networks of `names` that this run has."""
        return [name for name in names if name in self.config.networks]

    @property
    def cells(self) -> list[Path]:
        """Measured cells of the primer, in the order of the run."""
        return [self.run.output(s) for s in self.run.steps() if s.startswith("nuclear-primer-") and "train" not in s]

    @property
    def structure(self) -> dict[str, np.ndarray]:
        """Arrays of the first seed's network."""
        with np.load(self.output(f"structure-s{self.seed}") / ARRAYS) as arrays:
            return {key: arrays[key] for key in arrays}

    def records(self) -> list[dict[str, Any]]:
        """What was measured of each seed's structure."""
        return [json.loads((folder / STRUCTURE).read_text()) for folder in self.each("structure")]

    def ensemble(self, network: str) -> pd.DataFrame:
        """One row a nucleus of every split: measured, and predicted by the mean over seeds, keV; beside every baseline."""
        tables = [pd.read_parquet(folder / PREDICTIONS) for folder in self.each(f"train-{network}")]
        name = "baselines-vintage" if network.startswith("vintage") else "baselines"
        other = pd.read_parquet(self.output(name) / baselines.PREDICTED)
        mean = np.mean([table["predicted"].to_numpy() for table in tables], axis=0)
        own = tables[0].assign(predicted=mean)
        return own.merge(other.drop(columns=["unit", "region", "value", "uncertainty"]), on=["split", "z", "n"])

    def composition(self, vintage: bool) -> dict[str, Any]:
        """What splits are made of."""
        name = "baselines-vintage" if vintage else "baselines"
        record: dict[str, Any] = json.loads((self.output(name) / baselines.COMPOSITION).read_text())
        return record

    def chosen(self) -> list[tuple[int, dict[str, dict[str, Any]]]]:
        """Hyperparameters of neighbours and kernel, by the evaluation they were fitted to."""
        found: list[tuple[int, dict[str, dict[str, Any]]]] = []
        for name, year in (("baselines", self.config.table), ("baselines-vintage", self.config.old)):
            record = json.loads((self.output(name) / baselines.CHOSEN).read_text())
            found.append((year, {label: record[label] for label in baselines.REMEMBER}))
        return found


def kev(value: float) -> str:
    """Whole keV, with a sign for thousands."""
    return f"{value:,.0f}".replace("-", "−") if np.isfinite(value) else "none"


def model(network: str) -> str:
    """What made a prediction, in words: a network, the mean of several, or a baseline."""
    name, together, _ = network.partition(" (ensemble)")
    if name in BASELINES:
        return BASELINES[name]
    what = "the formula's residual" if "residual" in name else "binding energies"
    return f"{'mean of networks' if together else 'one network'} on {what}"


def spread(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, least and greatest of the column ``y`` over seeds, as a line with a band: columns y, low, high."""
    grouped = frame.groupby(list(by), sort=False)["y"]
    return pd.DataFrame({"y": grouped.mean(), "low": grouped.min(), "high": grouped.max()}).reset_index()
