"""Nuclides and their masses, as the atomic mass evaluations of 2003, 2012, 2016 and 2020 give them.

    masses(2020).only(masses(2020).measured)

A value is *measured* or the evaluators' estimate from its neighbours (the published tables mark those with ``#``). The table
in the package is derived from the published ones; its sources stand in ``data/README.md``.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib import resources

import numpy as np

from heldout.errors import ConfigError

VINTAGES = (2003, 2012, 2016, 2020)  # of the evaluations in the package
HEADER = "vintage,z,n,mass_excess,uncertainty,measured"
KEY_BASE = 1000  # above any number of neutrons
NEUTRON, HYDROGEN, HELIUM = (0, 1), (1, 0), (2, 2)  # (z, n)

# All of AME2020 lies within 34 MeV of the liquid drop at A >= 16, estimates too: what lies farther is mistyped.
_DROP_FROM, _DROP_WITHIN = 16, 50_000.0
_KEV = (1e3, 1e6)  # where the median mass excess of a table lies, sign apart


@dataclass(frozen=True, eq=False)
class Nuclides:
    """N nuclides of one evaluation.

    - `z`, `n`: (N,) int64, protons and neutrons; no pair twice.
    - `mass_excess`, `uncertainty`: (N,) float64, keV: the atomic mass less A atomic mass units, and its standard deviation.
    - `measured`: (N,) bool, False where the value is estimated from neighbours.
    - `name`: the evaluation, for messages.
    """

    z: np.ndarray
    n: np.ndarray
    mass_excess: np.ndarray
    uncertainty: np.ndarray
    measured: np.ndarray
    name: str = "nuclides"

    def __post_init__(self) -> None:
        if len({len(getattr(self, f.name)) for f in fields(self) if f.name != "name"}) != 1:
            raise ConfigError(f"{self.name}: z, n, mass_excess, uncertainty and measured must be equally long")
        keys, counts = np.unique(self.keys, return_counts=True)
        if len(twice := keys[counts > 1]):
            z, n = divmod(int(twice[0]), KEY_BASE)
            rows = np.flatnonzero(self.keys == twice[0])
            raise ConfigError(
                f"{self.name}: Z={z}, N={n} stands in rows {rows[0]} and {rows[1]}; give each nucleus once"
            )

    def __len__(self) -> int:
        return len(self.z)

    @property
    def a(self) -> np.ndarray:
        """(N,) int64, nucleons."""
        return np.asarray(self.z + self.n)

    @property
    def keys(self) -> np.ndarray:
        """(N,) int64, z * 1000 + n: the identity of a nucleus in every split."""
        return nucleus_keys(self.z, self.n)

    def only(self, mask: np.ndarray) -> Nuclides:
        """Those where `mask` (N,) is True."""
        return replace(self, **{f.name: getattr(self, f.name)[mask] for f in fields(self) if f.name != "name"})

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(M,) int64, the rows of the nuclei `keys`, -1 where a nucleus is not listed."""
        if not len(self):
            return np.full(len(keys), -1, dtype=np.int64)
        order = np.argsort(self.keys)
        at = order[np.searchsorted(self.keys, keys, sorter=order).clip(max=len(self) - 1)]
        return np.where(self.keys[at] == keys, at, -1)

    def row_of(self, z: int, n: int) -> int:
        """The row of one nucleus. Raises `ConfigError` where it is not listed."""
        row = int(self.find(nucleus_keys(np.array([z]), np.array([n])))[0])
        if row < 0:
            raise ConfigError(f"{self.name}: Z={z}, N={n} is not listed, and other energies are derived from its mass")
        return row


def nucleus_keys(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(N,) int64: one number for each nucleus."""
    return np.asarray(np.asarray(z, dtype=np.int64) * KEY_BASE + np.asarray(n, dtype=np.int64))


@lru_cache(maxsize=1)
def _package_table() -> tuple[np.ndarray, ...]:
    packed = resources.files("heldout.tasks.nuclear").joinpath("data", "masses.csv.gz").read_bytes()
    header, *lines = gzip.decompress(packed).decode("ascii").splitlines()
    assert header == HEADER
    columns = zip(*(line.split(",") for line in lines), strict=True)
    kinds: tuple[Callable[[str], float], ...] = (int, int, int, float, float, int)
    table = tuple(np.array([kind(v) for v in column]) for kind, column in zip(kinds, columns, strict=True))
    for column in table:
        column.setflags(write=False)
    return table


def masses(vintage: int) -> Nuclides:
    """The evaluation of `vintage` (one of `VINTAGES`), estimated values among them. Raises `ConfigError` for any other."""
    if vintage not in VINTAGES:
        raise ConfigError(
            f"no mass evaluation of {vintage} in the package; there are those of {', '.join(map(str, VINTAGES))}. "
            "Another's text file is read by read_mass_table"
        )
    vintages, z, n, mass_excess, uncertainty, measured = _package_table()
    at = vintages == vintage
    return Nuclides(z[at], n[at], mass_excess[at], uncertainty[at], measured[at].astype(bool), f"AME{vintage}")


def check_keV(nuclides: Nuclides, places: Sequence[str] | None = None) -> Nuclides:
    """`nuclides`, or a `ConfigError` where mass excesses cannot be keV: the whole table, or a single row, by its place
    in `places`.

    A row is compared with the liquid drop, which no nucleus of 16 nucleons or more misses by 34 MeV. A row in another unit
    whose mass excess is smaller than that shows in nothing.
    """
    from heldout.tasks.nuclear.formulas import SEMF  # formulas need no table

    usual = float(np.median(np.abs(nuclides.mass_excess))) if len(nuclides) >= 10 else _KEV[0]
    if not _KEV[0] <= usual <= _KEV[1]:
        unit = "MeV" if usual < _KEV[0] else "eV"
        raise ConfigError(
            f"{nuclides.name}: the median mass excess, sign apart, is {usual:g}; in keV it would be between "
            f"{_KEV[0]:g} and {_KEV[1]:g}. These look like {unit}; give keV"
        )
    from_drop = nuclides.z * 7289.0 + nuclides.n * 8071.3 - SEMF.binding(nuclides.z, nuclides.n)
    odd = (nuclides.a >= _DROP_FROM) & ~(np.abs(nuclides.mass_excess - from_drop) <= _DROP_WITHIN)
    if odd.any():
        i = int(np.flatnonzero(odd)[0])
        where = places[i] if places else f"row {i}"
        raise ConfigError(
            f"{nuclides.name}, {where}: a mass excess of {nuclides.mass_excess[i]:g} keV for Z={nuclides.z[i]}, "
            f"N={nuclides.n[i]} is beyond anything known; about {from_drop[i]:.0f} keV is expected, and within "
            f"{_DROP_WITHIN:g} keV of that accepted. Is it in another unit?"
        )
    return nuclides
