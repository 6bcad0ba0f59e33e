"""What follows from masses: binding, separation and decay energies, in keV.

Every one is a sum and difference of mass excesses, so whatever knows enough of them knows the rest: `leaks` reads the same
table. Atomic masses throughout, so electrons cancel; their binding does not, and is left in, as the evaluations do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heldout.errors import ConfigError, unknown
from heldout.tasks.nuclear.formulas import SEMF, mass_number
from heldout.tasks.nuclear.nuclides import HELIUM, HYDROGEN, NEUTRON, Nuclides, nucleus_keys


@dataclass(frozen=True)
class Reaction:
    """An energy that compares a nucleus with one partner: sign * (M(Z, N) - M(Z + dz, N + dn) - M(freed)).

    - `partner`: (dz, dn), from the nucleus to its partner.
    - `sign`: +1 for what a decay releases, -1 for what separation costs.
    - `freed`: the particle, as (z, n), or None; electrons are part of the atomic masses.
    """

    partner: tuple[int, int]
    sign: int
    freed: tuple[int, int] | None
    meaning: str


REACTIONS: dict[str, Reaction] = {
    "sn": Reaction((0, -1), -1, NEUTRON, "separation of a neutron"),
    "sp": Reaction((-1, 0), -1, HYDROGEN, "separation of a proton"),
    "qa": Reaction((-2, -2), 1, HELIUM, "alpha decay"),
    "qbm": Reaction((1, -1), 1, None, "beta-minus decay"),
    "qbm_n": Reaction((1, -2), 1, NEUTRON, "beta-minus decay with a neutron"),
    "qec": Reaction((-1, 1), 1, None, "electron capture"),
}
ENERGIES = ("binding", *REACTIONS)


@dataclass(frozen=True, eq=False)
class Derived:
    """One quantity of N nuclides: `value` and `uncertainty` (N,) float64, NaN where it cannot be derived.

    `uncertainty` adds those of the masses in quadrature. Masses that were measured against each other are correlated, which
    the tables do not list; the true figure is then smaller.
    """

    value: np.ndarray
    uncertainty: np.ndarray


def derive(nuclides: Nuclides, energy: str, *, include_estimated: bool = False, per_nucleon: bool = False) -> Derived:
    """One of `ENERGIES` for each nuclide, keV; `per_nucleon` divides binding energies by A and nothing else.

    With `include_estimated` False a value counts only where the nucleus and its partner are both measured.
    """
    if energy not in ENERGIES:
        raise ConfigError(f"nuclear: {unknown('energy', energy, ENERGIES)}")
    excess = np.where(nuclides.measured | include_estimated, nuclides.mass_excess, np.nan)
    if energy == "binding":
        hydrogen, neutron = (nuclides.mass_excess[nuclides.row_of(*of)] for of in (HYDROGEN, NEUTRON))
        over = nuclides.a if per_nucleon else 1
        value = (nuclides.z * hydrogen + nuclides.n * neutron - excess) / over
        return Derived(value, np.where(np.isnan(value), np.nan, nuclides.uncertainty / over))
    reaction = REACTIONS[energy]
    partner = nuclides.find(partners(nuclides.z, nuclides.n, reaction))
    theirs = np.where(partner < 0, np.nan, excess[partner])
    freed = 0.0 if reaction.freed is None else nuclides.mass_excess[nuclides.row_of(*reaction.freed)]
    value = reaction.sign * (excess - theirs - freed)
    uncertainty = np.hypot(nuclides.uncertainty, nuclides.uncertainty[partner])
    return Derived(value, np.where(np.isnan(value), np.nan, uncertainty))


def partners(z: np.ndarray, n: np.ndarray, reaction: Reaction) -> np.ndarray:
    """(N,) int64, the key of each nucleus's partner; -1 where that would have less than no nucleons."""
    z, n = np.asarray(z) + reaction.partner[0], np.asarray(n) + reaction.partner[1]
    return np.where((z < 0) | (n < 0), -1, nucleus_keys(z, n))


def _noise(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Standard normal, the same for a nucleus wherever it appears."""
    return np.asarray(np.random.Generator(np.random.PCG64(42)).normal(size=(200, 400))[z, n])


# Targets that hold no measurement: what a structure found in a network trained on these shows, data did not put there.
CONTROLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "semf": SEMF.binding,  # keV, as published; it has no shells
    "control": _noise,
    "mass_number": mass_number,
    "asymmetry": lambda z, n: (1.0 * n - z) ** 2 / (z + n),
}
TARGETS = (*ENERGIES, "radius", *CONTROLS)
PER_NUCLEON = ("binding", "semf")
