"""Isotopic chains: where a nucleus lies relative to those of its element that were measured, and the ends of chains."""

from __future__ import annotations

import numpy as np

from heldout.tasks.nuclear.nuclides import KEY_BASE

REGIONS = ("known", "neutron-rich", "proton-rich", "interior", "new element")
FIRST_LONG_CHAIN = 28  # protons from which chains are long enough to be cut at both ends


def regions(keys: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(N,) int64 into `REGIONS`: where the nuclei `keys` lie relative to those `measured` (M,), by key.

    Beyond the heaviest measured isotope of its element a nucleus is neutron-rich, below the lightest proton-rich, between
    them interior; an element of which nothing is measured is new.
    """
    z, n = keys // KEY_BASE, keys % KEY_BASE
    out = np.full(len(keys), REGIONS.index("new element"), dtype=np.int64)
    for element in np.unique(measured // KEY_BASE):
        chain, at = measured[measured // KEY_BASE == element] % KEY_BASE, z == element
        below = np.where(n[at] < chain.min(), REGIONS.index("proton-rich"), REGIONS.index("interior"))
        out[at] = np.where(n[at] > chain.max(), REGIONS.index("neutron-rich"), below)
    return np.where(np.isin(keys, measured), REGIONS.index("known"), out)


def ends_of_chains(keys: np.ndarray, edge: int) -> np.ndarray:
    """(N,) bool: N < Nmin + edge or N > Nmax - edge, for each Z >= 28 whose Nmax - Nmin >= 2 edge; by key."""
    z, n = keys // KEY_BASE, keys % KEY_BASE
    out = np.zeros(len(keys), dtype=bool)
    for element in np.unique(z[z >= FIRST_LONG_CHAIN]):
        at = z == element
        low, high = n[at].min(), n[at].max()
        if high - low >= 2 * edge:
            out |= at & ((n < low + edge) | (n > high - edge))
    return out
