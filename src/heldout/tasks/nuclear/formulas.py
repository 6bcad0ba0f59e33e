"""Mass formulas: named terms of (Z, N) and their coefficients, as published or fitted.

    SEMF.binding(z, n)                                 # the published coefficients
    fit(SEMF.terms, z, n, binding).binding(z, n)       # the same terms, refitted

A term is a function of (z, n) alone, without unit; its coefficient is in keV. `TERMS` may be added to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from heldout.errors import ConfigError, unknown

Term = Callable[[np.ndarray, np.ndarray], np.ndarray]

MAGIC = (2, 8, 20, 28, 50, 82, 126, 184)


def mass_number(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(N,) float64, A = Z + N, at least one nucleon."""
    return np.asarray(z + n, dtype=np.float64)


def pairing(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(N,) float64: 1 / sqrt(A) where Z and N are even, -1 / sqrt(A) where both are odd, 0 where A is odd."""
    sign = np.where((z + n) % 2 == 1, 0, np.where(z % 2 == 0, 1, -1))
    return np.asarray(sign / np.sqrt(mass_number(z, n)))


def valence(count: np.ndarray) -> np.ndarray:
    """(N,) float64: how far a number of protons or of neutrons is from the nearest magic one."""
    return np.asarray(np.abs(np.asarray(count)[:, None] - np.array(MAGIC)).min(axis=1), dtype=np.float64)


def promiscuity(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(N,) float64: P = v_p v_n / (v_p + v_n) of the valences (Casten et al. 1987), 0 where both shells are closed."""
    p, q = valence(z), valence(n)
    return np.asarray(p * q / np.maximum(p + q, 1.0))


def _excess(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(n - z, dtype=np.float64)


TERMS: dict[str, Term] = {
    "volume": mass_number,
    "surface": lambda z, n: mass_number(z, n) ** (2 / 3),
    "curvature": lambda z, n: mass_number(z, n) ** (1 / 3),
    "coulomb": lambda z, n: z * (z - 1.0) / mass_number(z, n) ** (1 / 3),
    "coulomb_squared": lambda z, n: 1.0 * z * z / mass_number(z, n) ** (1 / 3),
    "exchange": lambda z, n: (1.0 * z) ** (4 / 3) / mass_number(z, n) ** (1 / 3),
    "asymmetry": lambda z, n: _excess(z, n) ** 2 / mass_number(z, n),
    "surface_asymmetry": lambda z, n: _excess(z, n) ** 2 / mass_number(z, n) ** (4 / 3),
    "wigner": lambda z, n: np.abs(_excess(z, n)) / mass_number(z, n),
    "pairing": pairing,
    "shell": promiscuity,
    "shell_squared": lambda z, n: promiscuity(z, n) ** 2,
}


@dataclass(frozen=True)
class MassFormula:
    """Total binding energy as a sum of terms.

    - `terms`: names in `TERMS`; `coefficients`: one each, keV.
    - `least`: the least binding it gives, keV; None where it may be negative.
    """

    name: str
    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    least: float | None = None

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.coefficients):
            raise ConfigError(
                f"mass formula {self.name!r}: {len(self.terms)} terms need as many coefficients, "
                f"got {len(self.coefficients)}"
            )

    def binding(self, z: np.ndarray, n: np.ndarray) -> np.ndarray:
        """(N,) float64, total binding energy in keV."""
        total: np.ndarray = columns(self.terms, z, n) @ np.array(self.coefficients)
        return total if self.least is None else np.maximum(total, self.least)


def columns(terms: Iterable[str], z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(N, K) float64, one column a term. Raises `ConfigError` for a name that is not in `TERMS`."""
    names = tuple(terms)
    for name in names:
        if name not in TERMS:
            raise ConfigError(f"mass formula: {unknown('term', name, TERMS)}")
    z, n = np.asarray(z), np.asarray(n)
    return np.stack([np.asarray(TERMS[name](z, n), dtype=np.float64) for name in names], axis=1)


def fit(
    terms: Iterable[str],
    z: np.ndarray,
    n: np.ndarray,
    binding: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    name: str = "fitted",
) -> MassFormula:
    """The coefficients with the least squared error of total `binding` (N,), keV; `weights` (N,) of the squares, 1 each.

    Weights of 1 / A² fit the binding energy per nucleon. Nuclei with a NaN are not accepted. Raises `ConfigError` where
    there are fewer nuclei than terms, or where terms cannot be told apart on them.
    """
    names = tuple(terms)
    x = columns(names, z, n)
    if not np.isfinite(binding).all():
        raise ConfigError(
            f"mass formula {name!r}: {int((~np.isfinite(binding)).sum())} of {len(binding)} binding energies are missing; "
            "give those alone that there are"
        )
    root = np.ones(len(x)) if weights is None else np.sqrt(weights)
    scale = np.linalg.norm(x * root[:, None], axis=0)
    solution, _, rank, _ = np.linalg.lstsq(
        x * root[:, None] / np.where(scale > 0, scale, 1.0), binding * root, rcond=None
    )
    if rank < len(names):
        raise ConfigError(
            f"mass formula {name!r}: {len(x)} nuclei tell only {rank} of the {len(names)} terms {', '.join(names)} apart; "
            "give more nuclei or fewer terms"
        )
    return MassFormula(name, names, tuple((solution / scale).tolist()))


# Coefficients in MeV as they are published, pairing 11.18 / sqrt(A).
SEMF = MassFormula(
    "SEMF",
    ("volume", "surface", "coulomb", "asymmetry", "pairing"),
    tuple(1e3 * c for c in (15.75, -17.8, -0.711, -23.7, 11.18)),
    least=0.0,
)
BW = MassFormula(
    "BW",
    ("volume", "surface", "coulomb_squared", "asymmetry", "pairing"),
    tuple(1e3 * c for c in (15.36, -16.42, -0.691, -22.53, 11.18)),
)
BW2 = MassFormula(  # Kirson, Nuclear Physics A 798 (2008) 29: eleven terms, shells among them
    "BW2",
    ("volume", "surface", "coulomb_squared", "asymmetry", "pairing", "shell", "shell_squared", "curvature", "exchange",
     "wigner", "surface_asymmetry"),
    tuple(1e3 * c for c in (16.58, -26.95, -0.774, -31.51, 11.18, -1.9, 0.14, 14.77, 2.22, -43.4, 55.62)),
)  # fmt: skip
FORMULAS = {formula.name.lower(): formula for formula in (SEMF, BW, BW2)}
