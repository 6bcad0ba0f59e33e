"""What every figure is made of: the picture, the numbers behind it, and a caption that says how far they go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heldout.errors import EvidenceError, unknown

INTERVAL = "95% interval"


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure of a report.

    - `id`: a short name, unique within a page; files made from the figure are called after it.
    - `caption`: units, n, what the interval is, and what the figure does not show.
    - `plot`: ``{"data": [...], "layout": {...}}``, JSON-able, without NaN. ``layout["meta"]`` may hold ``wide`` and
      ``narrow``: relayout patches (dotted keys) for a wide page and for a telephone.
    - `data`: the numbers that are drawn and the ones that could not be, with the reason.
    """

    id: str
    title: str
    caption: str
    plot: dict[str, Any]
    data: pd.DataFrame


def select(estimates: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of `estimates` for `quantity` over all training seeds, in their order, with a column ``name``.

    Rows of single seeds (`seed` set) are left out. ``name`` is how a reader calls the edit: its family, its parameter
    where the family occurs with one parameter only, and "oracle" where it has seen what it is tested on. Raises
    `EvidenceError` where nothing is left.
    """
    needed = {"quantity", "value", "low", "high", "null", "n", "seeds", "seed", "split", "edit", "parameter", "oracle"}
    needed |= {"network", "site", "reference", "reason"}
    if missing := needed - set(estimates.columns):
        raise EvidenceError(f"estimates lack the columns {sorted(missing)}; see heldout.evidence.Estimate")
    rows = estimates[estimates["quantity"] == quantity]
    if rows.empty:
        raise EvidenceError(unknown("quantity", quantity, estimates["quantity"].astype(str).unique()))
    rows = rows[rows["seed"].isna()].copy()
    if rows.empty:
        raise EvidenceError(
            f"quantity {quantity!r} is estimated for single seeds only; a figure needs it over all seeds"
        )
    rows["name"] = [
        edit_name(edit, parameter, oracle)
        for edit, parameter, oracle in zip(rows["edit"], rows["parameter"], rows["oracle"], strict=True)
    ]
    return rows.reset_index(drop=True)


def edit_name(edit: str, parameter: float | None = None, oracle: bool = False) -> str:
    """How a reader calls an edit: ``svd 8``, ``kmeans 16 (oracle)``."""
    known = parameter is not None and not pd.isna(parameter)
    return f"{edit}{f' {parameter:g}' if known else ''}{' (oracle)' if oracle else ''}"


def facets(rows: pd.DataFrame, by: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """`rows` cut into small multiples: one (label, rows) for each combination of `by` that occurs, in order.

    A label names only the columns of `by` in which the rows differ; it is empty where there is a single panel.
    """
    varying = [column for column in by if rows[column].nunique(dropna=False) > 1]
    if not varying:
        return [("", rows)]
    groups = rows.groupby(varying, sort=False, dropna=False)
    return [(", ".join(str(v) for v in key if str(v)), group) for key, group in groups]


def counts(rows: pd.DataFrame, unit: str) -> str:
    """The sentence on n: units of resampling in each value that could be estimated, and training seeds."""
    there = rows[rows["value"].notna()]
    there = there if len(there) else rows
    return f"n = {span(there['n'])} {unit} in each value, {span(there['seeds'])} training seeds."


def span(column: pd.Series) -> str:
    """The least and the greatest count in `column`, or the one that all share."""
    low, high = int(column.min()), int(column.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def intervals(rows: pd.DataFrame) -> str:
    """The sentence on intervals: their level and method, and how many values have none."""
    drawn = rows[rows["value"].notna()]
    without = int((drawn["low"].isna() | drawn["high"].isna()).sum())
    if len(drawn) and without == len(drawn):
        return "No interval is shown: none was estimated."
    methods = [m for m in drawn.get("method", pd.Series(dtype=str)).dropna().unique() if m]
    how = f" ({'; '.join(methods)})" if methods else ""
    return f"Bars and bands: {INTERVAL}{how}." + (f" {without} values have none." if without else "")


def absent(rows: pd.DataFrame) -> str:
    """The sentence on what could not be drawn; empty where everything could."""
    missing = int(rows["value"].isna().sum())
    if not missing:
        return ""
    return f"{missing} of {len(rows)} values could not be estimated and are absent; the data below gives the reasons."


def sentences(parts: Iterable[str]) -> str:
    """A caption from its sentences; empty ones are dropped."""
    text = " ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of `rows` worth printing behind a figure: a column that is empty everywhere is dropped."""
    order = ["quantity", "network", "site", "split", "reference", "edit", "parameter", "oracle"]
    order += ["value", "low", "high", "null", "n", "seeds", "method", "reason"]
    kept = [c for c in order if c in rows.columns and (c == "value" or not _empty(rows[c]))]
    return rows[kept].reset_index(drop=True)


def _empty(column: pd.Series) -> bool:
    return bool(column.isna().all() or (column.astype(str) == "").all() or (column.dtype == bool and not column.any()))
