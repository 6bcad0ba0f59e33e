"""Columns of a user's table (CSV or Parquet), read one by one, with errors that name the row and the column.

Rows are counted from 1, without the header. A gap is an empty cell, or one that reads NaN, NA or null.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.errors import ConfigError, choices

SUFFIXES = (".csv", ".parquet")
GAPS = ("", "nan", "na", "n/a", "null", "none")
_WHOLE = 2**53  # below, a float64 holds every whole number


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table as it was read: `values` by column name, each (N,) objects (text, numbers or None)."""

    name: str
    values: dict[str, list[Any]]

    @property
    def columns(self) -> list[str]:
        return list(self.values)

    def column(self, name: str) -> list[Any]:
        if name not in self.values:
            raise ConfigError(f"{self.name}: no column {name!r}; {choices(name, self.values)}")
        return self.values[name]

    def place(self, name: str, row: int) -> str:
        """Where a cell stands, for messages; `row` from 0."""
        return f"{self.name}, row {row + 1}, column {name!r}"


def read_table(path: str | Path) -> Sheet:
    """The table at `path`. Raises `ConfigError` where there is none, or none that can be read."""
    import pandas as pd

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: {path.suffix or 'no suffix'} is not read; accepted are {' and '.join(SUFFIXES)}")
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES] if path.parent.is_dir() else []
        raise ConfigError(f"{path} does not exist; {choices(path.name, near)}")
    try:
        if path.suffix == ".csv":
            check_cells(path)
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
        else:
            frame = pd.read_parquet(path)
    except Exception as error:  # each reader has errors of its own
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not len(frame):
        raise ConfigError(f"{path} has no row below its header; give at least one")
    cells = frame.astype(object).where(frame.notna(), None)
    return Sheet(str(path), {str(name).strip(): cells[name].tolist() for name in cells.columns})


def check_cells(path: Path) -> None:
    """Raise `ValueError` unless every line of a CSV file has as many cells as its header, whose names are all different.

    pandas takes what is left over for an index, which moves every value to the next column, fills lines that are short, and
    renames what stands twice.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = [name.strip() for name in next(reader, [])]
        if twice := [name for i, name in enumerate(header) if name in header[:i]]:
            raise ValueError(f"the header has {twice[0]!r} twice; name each column once")
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(f"line {reader.line_num}: {len(row)} cells where the header has {len(header)}")
            if any("\0" in cell for cell in row):
                raise ValueError(f"line {reader.line_num} holds a byte 0, which is no text")


def is_gap(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in GAPS)


def number_column(sheet: Sheet, name: str, *, gaps: bool = False) -> np.ndarray:
    """(N,) float64; gaps are NaN where they are allowed."""
    out = np.empty(len(sheet.column(name)))
    for i, cell in enumerate(sheet.column(name)):
        if gaps and is_gap(cell):
            out[i] = np.nan
            continue
        try:
            out[i] = _number(cell)
        except (TypeError, ValueError, OverflowError):
            out[i] = np.nan
        if not abs(out[i]) <= np.finfo(np.float32).max:  # targets are kept in single precision
            accepted = "a finite number, or nothing," if gaps else "a finite number"
            raise ConfigError(f"{sheet.place(name, i)}: {cell!r} is not accepted; {accepted} is")
    return out


def whole_column(sheet: Sheet, name: str, *, least: int | None = None, most: int | None = None) -> np.ndarray:
    """(N,) int64; raises where a cell is no whole number, below `least` or above `most`."""
    values = number_column(sheet, name)
    wrong = (values != np.round(values)) | (np.abs(values) >= _WHOLE)
    if least is not None:
        wrong |= values < least
    if most is not None:
        wrong |= values > most
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        bound = "" if least is None else f" of at least {least}"
        if most is not None and values[i] > most:
            bound = f" of at most {most}"
        raise ConfigError(f"{sheet.place(name, i)}: {values[i]:g} is not accepted; a whole number{bound} is")
    return values.astype(np.int64)


def label_column(sheet: Sheet, name: str) -> np.ndarray:
    """(N,) int64 where every cell is a whole number, (N,) text where some are no number; gaps and fractions are refused."""
    cells = sheet.column(name)
    for i, cell in enumerate(cells):
        if is_gap(cell):
            raise ConfigError(f"{sheet.place(name, i)} is empty; a whole number or a name is needed in every row")
        if np.ndim(cell) or isinstance(cell, bytes | Mapping):
            raise ConfigError(f"{sheet.place(name, i)} holds {type(cell).__name__}; a whole number or a name is needed")
    if all(_is_number(cell) for cell in cells):
        return whole_column(sheet, name)
    return np.array([str(cell).strip() for cell in cells])


def _is_number(cell: Any) -> bool:
    try:
        _number(cell)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _number(cell: Any) -> float:
    """The number that a cell holds; a truth value, bytes and ``1_000`` are none, though Python takes them for numbers."""
    if isinstance(cell, bool | np.bool_ | bytes) or (isinstance(cell, str) and "_" in cell):
        raise TypeError
    return float(cell)
