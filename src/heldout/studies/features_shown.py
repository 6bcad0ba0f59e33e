"""What the page of the features study reads: a finished run, its tables at hand, and what a section is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.figures import Figure, faithfulness_curves, forest
from heldout.figures.page import Section, Table
from heldout.runs import Run
from heldout.studies.features import FeaturesConfig, measure_name
from heldout.studies.features_conditions import EXPERIMENTS, Condition
from heldout.studies.features_judge import GATES
from heldout.studies.features_measured import PICTURES, VALUES

UNIT = "test rows"
EXPLAINED = "pooled variance explained, held out"

Wanted = Mapping[str, Callable[[], Figure]]  # what a figure shows -> how it is drawn


class NotRunError(Exception):
    """A figure that this run has no data for; the message names the conditions that it needs."""


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: FeaturesConfig, estimates: pd.DataFrame, folder: Path) -> None:
        self.run, self.config = run, config
        self.conditions: Mapping[str, Condition] = {c.name: c for c in config.chosen()}
        self.gates: list[dict[str, Any]] = json.loads((folder / GATES).read_text())
        kind, feature = zip(*(q.partition(":")[::2] for q in estimates["quantity"]), strict=True)
        self.estimates = estimates.assign(kind=kind, feature=feature)

    def rows(self, kind: str, conditions: Iterable[str] | None = None) -> pd.DataFrame:
        """Estimates of one kind of quantity, of some conditions in the order named (None: all, in theirs)."""
        names = list(self.conditions if conditions is None else conditions)
        e = self.estimates[(self.estimates["kind"] == kind) & self.estimates["network"].isin(names)]
        e = e.assign(condition=e["network"], at=[names.index(n) for n in e["network"]])
        return e.sort_values("at", kind="stable").drop(columns="at")

    def together(self, kinds: Mapping[str, str], conditions: Iterable[str]) -> pd.DataFrame:
        """Estimates of several kinds, one row of a figure for each condition and feature (`where`); `how` is the kind in
        words, as the values of `kinds` say it."""
        names = list(conditions)
        found = pd.concat([self.rows(kind, names).assign(how=how) for kind, how in kinds.items()])
        found["where"] = found["condition"] + ", " + found["feature"]
        order = {where: i for i, where in enumerate(found["where"].unique())}
        at = [(names.index(c), order[w]) for c, w in zip(found["condition"], found["where"], strict=True)]
        return found.assign(at=at).sort_values("at", kind="stable").drop(columns="at")

    def ran(self, experiment: Iterable[str], *, least: int = 1) -> list[str]:
        """Those of some conditions that this run has; `NotRunError` where they are fewer than `least`."""
        wanted = list(experiment)
        found = [name for name in wanted if name in self.conditions]
        if len(found) < least:
            missing = [name for name in wanted if name not in self.conditions]
            raise NotRunError(f"{', '.join(missing[:6])}{' and others' if len(missing) > 6 else ''}")
        return found

    def compared(self) -> list[str]:
        """The conditions of E1 and E3 that this run has: features of growing complexity."""
        return self.ran(dict.fromkeys([*EXPERIMENTS["E1"], *EXPERIMENTS["E3"]]))

    def differ(self, condition: str) -> bool:
        """Whether a condition has features of more than one kind."""
        return len(set(self.conditions[condition].task.features)) > 1

    def features(self, condition: str) -> list[str]:
        return [p.name for p in self.conditions[condition].task.planted()]

    def values(self, condition: str) -> dict[int, list[list[Any]]]:
        """Seed -> the values of that network, as `features_measured.Value` wrote them."""
        record = json.loads((self.run.output(measure_name(condition)) / VALUES).read_text())
        return {int(seed): rows for seed, rows in record.items()}

    def pictures(self, condition: str) -> dict[str, np.ndarray]:
        with np.load(self.run.output(measure_name(condition)) / PICTURES) as arrays:
            return {key: arrays[key] for key in arrays}


def section(key: str, title: str, text: Sequence[str], figures: Wanted, tables: Sequence[Table] = ()) -> Section:
    """Figures that can be drawn, and for each that cannot a sentence that says so; tables without rows are left out."""
    drawn: list[Figure] = []
    absent: list[str] = []
    for name, make in figures.items():
        try:
            drawn.append(make())
        except NotRunError as why:
            absent.append(f"Not run here: {name}. It needs {why}.")
    there = tuple(table for table in tables if table.rows)
    return Section(id=key, title=title, text=(*text, *absent), figures=tuple(drawn), tables=there)


def gaps(here: Shown, names: Sequence[str], key: str, title: str) -> Figure:
    """The gap of some conditions."""
    return forest(
        here.rows("gap", names),
        id=key,
        title=title,
        label="condition",
        x=f"gap in {EXPLAINED}",
        limits="Conditions that miss the accuracy gate are drawn too; the table of gates names them.",
        unit=UNIT,
    )


def curves(rows: pd.DataFrame, words: str, *, key: str, title: str, parameter: str) -> Figure:
    """Values of one kind, in `words`, over their parameter; a panel for each condition."""
    rows = rows.assign(split=rows["feature"], quantity=words, edit="")
    return faithfulness_curves(
        rows, quantity=words, id=key, title=title, unit="networks", by=("network",), parameter=parameter
    )


def interval(row: Mapping[str, Any], show: Callable[[float], str] | None = None) -> tuple[str, str]:
    """Value and interval as text, by `rounded` unless said otherwise; the reason where there is no value."""
    show = show or rounded
    if not np.isfinite(row["value"]):
        return "none", str(row["reason"])
    return show(row["value"]), f"{show(row['low'])} to {show(row['high'])}" if np.isfinite(row["low"]) else ""


def rounded(value: float) -> str:
    """Three significant figures, or "none"."""
    return f"{value:.3g}" if np.isfinite(value) else "none"


def share(value: float) -> str:
    """Three decimals, or "none"."""
    return f"{round(float(value), 3) + 0.0:.3f}" if np.isfinite(value) else "none"
