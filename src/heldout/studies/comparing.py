"""What differs between two runs: the configuration, and every estimate that both have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.errors import EvidenceError
from heldout.evidence import read_estimates
from heldout.runs import Run

if TYPE_CHECKING:
    import pandas as pd

WHERE = ["quantity", "network", "split", "reference", "site", "edit", "parameter", "oracle"]
SHOWN = 40


def compare_runs(first: Path, second: Path) -> str:
    """A text: changed settings, then the estimates that differ most, each with both intervals.

    `z` is the difference over the standard error that the two intervals imply, as if the runs were independent; runs
    that share networks or items are not, and then it is too small.
    """
    a, b = Run.open(first), Run.open(second)
    lines = [f"{first} ({a.manifest['study']}) against {second} ({b.manifest['study']})", "", "configuration"]
    old, new = dict(_flat(a.manifest["config"])), dict(_flat(b.manifest["config"]))
    changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    lines += [f"  {k}: {old.get(k, 'absent')} -> {new.get(k, 'absent')}" for k in changed] or ["  the same"]
    for key in ("source_hash", "claims_hash"):
        if a.manifest.get(key) != b.manifest.get(key):
            lines.append(f"  {key} differs")
    first_rows, second_rows = _estimates(a), _estimates(b)
    joined = first_rows.merge(second_rows, on=WHERE, suffixes=("_a", "_b"), how="inner")
    if joined.empty:
        raise EvidenceError(f"{first} and {second} have no estimate in common; compare runs of one study")
    joined["difference"] = joined["value_b"] - joined["value_a"]
    spread = ((joined["high_a"] - joined["low_a"]) ** 2 + (joined["high_b"] - joined["low_b"]) ** 2) ** 0.5 / 3.92
    joined["z"] = joined["difference"] / spread.where(spread > 0)
    moved = joined[joined["difference"].abs() > 0].sort_values("z", key=lambda z: -z.abs(), kind="stable")
    alone = [len(each) - len(joined) for each in (first_rows, second_rows)]
    lines += ["", f"estimates: {len(joined)} in both, {len(moved)} differ" + (":" if len(moved) else "")]
    for row in moved.head(SHOWN).to_dict("records"):
        lines.append(f"  {_name(row)}: {_value(row, 'a')} -> {_value(row, 'b')}" + _z(row["z"]))
    if len(moved) > SHOWN:
        lines.append(f"  and {len(moved) - SHOWN} more")
    if any(alone):
        lines.append(f"  only in the first: {alone[0]}; only in the second: {alone[1]} (other sizes, splits or sites)")
    return "\n".join(lines)


def _estimates(run: Run) -> pd.DataFrame:
    folders = [run.output(step) for step in run.steps()]
    paths = [f / "estimates.parquet" for f in folders if (f / "estimates.parquet").exists()]
    frame = read_estimates(paths)
    frame = frame[frame["seed"].isna() & frame["value"].notna()].copy()
    frame["parameter"] = frame["parameter"].fillna(-1.0)
    return frame[[*WHERE, "value", "low", "high"]].drop_duplicates(WHERE)


def _name(row: dict[str, Any]) -> str:
    parts = [row["quantity"], row["network"], row["site"], row["edit"]]
    if row["parameter"] >= 0:
        parts.append(f"{row['parameter']:g}")
    return " ".join(p for p in [*parts, "on", row["split"]] if p)


def _value(row: dict[str, Any], which: str) -> str:
    value, low, high = (row[f"{k}_{which}"] for k in ("value", "low", "high"))
    return f"{value:.4g}" + ("" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]")


def _z(z: float) -> str:
    return "" if math.isnan(z) else f", z = {z:+.1f}"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flat(v, f"{prefix}.{k}" if prefix else k)]
    return [(prefix, value)]
