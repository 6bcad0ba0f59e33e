"""Nuclear tables from files: an evaluation's own text, and charge radii from a CSV.

    read_mass_table("mass.mas20"), read_radii("radii.csv")

The evaluations are fixed-width text that a Fortran format in their header describes; the columns are taken from there, so a
newer one is read as it comes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heldout.errors import ConfigError
from heldout.tasks.columns import number_column, read_table, whole_column
from heldout.tasks.nuclear.nuclides import KEY_BASE, Nuclides, check_keV, nucleus_keys

FIELDS = ("control", "N-Z", "N", "Z", "A", "element", "origin", "mass excess", "uncertainty")
_FORMAT = re.compile(r"^\s*format\s*:\s*(\S+)")
_EDIT = re.compile(r"(\d*)([aifx])(\d*)(?:\.\d+)?")
_HEADING = re.compile(r"^1\s*N-Z\s+N\s+Z\s+A\b")
_LONGEST_LINE = 10_000
_RADIUS = (0.5, 10.0)  # fm; those known lie between 0.8 and 6.3


def fields_of(layout: str) -> list[slice]:
    """Where each field of a line stands, by a Fortran format as in ``a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6``."""
    at, found = 0, []
    for part in layout.split(","):
        edit = _EDIT.fullmatch(part.strip())
        if edit is None:
            raise ConfigError(f"layout {layout!r}: {part!r} is no Fortran edit of the kinds a, i, f and x")
        repeat, kind, width = edit.groups()
        if max(int(repeat or 1), int(width or 1)) > _LONGEST_LINE:
            raise ConfigError(f"layout {layout!r}: {part!r} goes beyond {_LONGEST_LINE} characters, which no line has")
        if kind == "x":
            at += int(repeat or 1)
            continue
        for _ in range(int(repeat or 1)):
            found.append(slice(at, at + int(width or 1)))
            at = found[-1].stop
    return found


def columns_of(layout: str) -> dict[str, slice]:
    """The first fields of a line of a mass table, by name; see `fields_of`."""
    found = fields_of(layout)
    if len(found) < len(FIELDS):
        raise ConfigError(
            f"layout {layout!r} has {len(found)} fields; at least {len(FIELDS)} are needed: {', '.join(FIELDS)}"
        )
    return dict(zip(FIELDS, found[: len(FIELDS)], strict=True))


def read_mass_table(path: str | Path, *, layout: str | None = None, name: str | None = None) -> Nuclides:
    """An atomic mass evaluation's mass table (``mass.mas20`` and its like) as `Nuclides`.

    `layout` is the Fortran format of a line where the header does not give one. Raises `ConfigError` that names the line and
    the column.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give the text file of a mass evaluation")
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text file of a mass evaluation: byte {error.start} is not ASCII") from None
    return parse_mass_table(text, str(path), layout=layout, name=name or path.name)


def parse_mass_table(text: str, where: str, *, layout: str | None = None, name: str | None = None) -> Nuclides:
    """`read_mass_table` of the text itself; `where` it is from stands in messages."""
    lines = text.splitlines()
    layout = layout or next((m.group(1) for m in map(_FORMAT.match, lines) if m), None)
    if layout is None:
        raise ConfigError(
            f"{where}: no line of the header gives the format, as in 'format : a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6,...'; "
            "is it the mass table of an evaluation? Where it is, give layout"
        )
    headings = [i for i, line in enumerate(lines) if _HEADING.match(line)]
    begin = headings[0] if headings else 0
    beside = {j for i in headings for j in (i, i + 1)}  # a page may have its own; a line of units follows
    numbers = [i for i, line in enumerate(lines) if i >= begin and i not in beside and line.strip()]
    if not numbers:
        raise ConfigError(f"{where}: no line of data; is it the mass table of an evaluation?")
    places, at = [f"line {i + 1}" for i in numbers], columns_of(layout)
    rows = [_row(lines[i], at, f"{where}, {place}") for i, place in zip(numbers, places, strict=True)]
    z, n, mass_excess, uncertainty, measured = (np.array(column) for column in zip(*rows, strict=True))
    _refuse_twice(nucleus_keys(z, n), places, where)
    return check_keV(Nuclides(z, n, mass_excess, uncertainty, measured, name or where), places)


def _row(line: str, at: dict[str, slice], where: str) -> tuple[int, int, float, float, bool]:
    """z, n, mass excess, uncertainty, measured. A ``#`` stands for the decimal point of what is estimated."""

    def place(field: str) -> str:
        return f"{where}, column {field!r} (characters {at[field].start + 1} to {at[field].stop})"

    counts = {}
    for field in ("N", "Z", "A"):
        written = line[at[field]].strip()
        if not written.isdigit():
            raise ConfigError(f"{place(field)}: {written!r} is no whole number; is the layout that of this file?")
        counts[field] = int(written)
    if counts["A"] >= KEY_BASE:
        raise ConfigError(f"{place('A')}: {counts['A']} is above {KEY_BASE - 1}; is the layout that of this file?")
    if counts["N"] + counts["Z"] != counts["A"]:
        raise ConfigError(f"{where}: N={counts['N']} and Z={counts['Z']} do not add up to A={counts['A']}")
    values = []
    for field in ("mass excess", "uncertainty"):
        written = line[at[field]].strip()
        edge = line[at[field].stop - 1 : at[field].stop + 1]
        if len(edge.strip()) == 2:
            raise ConfigError(
                f"{place(field)}: a number goes on beyond the column's end; is the layout that of this file?"
            )
        try:
            values.append(_finite(written.replace("#", ".")))
        except ValueError:
            raise ConfigError(
                f"{place(field)}: {written!r} is no number, nor one with # for its decimal point"
            ) from None
    if values[1] < 0:
        raise ConfigError(f"{place('uncertainty')}: {values[1]:g} is negative; a standard deviation is needed")
    return counts["Z"], counts["N"], values[0], values[1], "#" not in line[at["mass excess"]]


def _finite(written: str) -> float:
    """The number written; ``nan``, ``inf`` and ``1_0``, which Python reads as one, are none."""
    if not set(written) <= set("+-.0123456789eEdD"):
        raise ValueError
    return float(written)


@dataclass(frozen=True, eq=False)
class Radii:
    """Charge radii: `z`, `n` (N,) int64; `radius`, `uncertainty` (N,) float64, fm, the latter NaN where not known."""

    z: np.ndarray
    n: np.ndarray
    radius: np.ndarray
    uncertainty: np.ndarray


def read_radii(path: str | Path) -> Radii:
    """Root-mean-square charge radii from a CSV or Parquet file with columns z, n, radius and, where known, uncertainty (fm).

    Raises `ConfigError` that names the row and the column.
    """
    table = read_table(path)
    z, n = (whole_column(table, name, least=0, most=KEY_BASE - 1) for name in ("z", "n"))
    radius = number_column(table, "radius")
    known = "uncertainty" in table.columns
    uncertainty = number_column(table, "uncertainty", gaps=True) if known else np.full(len(z), np.nan)
    if (uncertainty < 0).any():
        i = int(np.flatnonzero(uncertainty < 0)[0])
        raise ConfigError(
            f"{table.place('uncertainty', i)}: {uncertainty[i]:g} is negative; a standard deviation is needed"
        )
    _refuse_twice(nucleus_keys(z, n), [f"row {i}" for i in range(1, len(z) + 1)], table.name)
    outside = ~((radius >= _RADIUS[0]) & (radius <= _RADIUS[1]))
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise ConfigError(
            f"{table.name}, row {i + 1}, column 'radius': {radius[i]:g} is outside {_RADIUS[0]:g} to {_RADIUS[1]:g} fm; "
            "give charge radii in fm"
        )
    return Radii(z, n, radius, uncertainty)


def _refuse_twice(keys: np.ndarray, places: Sequence[str], where: str) -> None:
    seen: dict[int, str] = {}
    for key, place in zip(keys.tolist(), places, strict=True):
        if key in seen:
            z, n = divmod(key, KEY_BASE)
            raise ConfigError(f"{where}: {seen[key]} and {place} are both Z={z}, N={n}; give each nucleus once")
        seen[key] = place
