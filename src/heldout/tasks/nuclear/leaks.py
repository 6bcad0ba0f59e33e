"""Which test values follow from training values by arithmetic alone.

Every energy is known once one mass (binding) or the difference of two (a separation or decay energy) is. So draw a graph:
nuclei are nodes, one more stands for what is known anyway, a binding energy joins its nucleus to that one, any other energy
its two nuclei. The training rows determine a test value exactly where its two ends are joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from heldout.tasks.nuclear.energies import ENERGIES, REACTIONS, partners
from heldout.tasks.nuclear.nuclides import HELIUM, HYDROGEN, KEY_BASE, NEUTRON
from heldout.tasks.rows import Rows

GROUND = -1
_KNOWN = tuple(z * KEY_BASE + n for z, n in (NEUTRON, HYDROGEN, HELIUM))  # what is freed has a known mass


def determined(test: Rows, train: Rows, targets: Sequence[str]) -> np.ndarray:
    """(N,) bool: which values of `test` are sums and differences of values of `train`.

    Of energies alone: radii determine nothing, and controls are no measurements. Between evaluations the same identity holds
    up to what was revised.
    """
    ours, theirs = ends(test, targets), ends(train, targets)
    nodes, flat = np.unique(np.concatenate([ours.reshape(-1), theirs.reshape(-1)]), return_inverse=True)
    flat = flat.reshape(-1, 2)
    mine, links = flat[: len(test)], flat[len(test) :][is_energy(train, targets)]
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(nodes), len(nodes)))
    part = connected_components(graph, directed=False)[1]
    return np.asarray(is_energy(test, targets) & (part[mine[:, 0]] == part[mine[:, 1]]))


def ends(rows: Rows, targets: Sequence[str]) -> np.ndarray:
    """(N, 2) int64: the nuclei that each row's value compares, by key; `GROUND` for what is known anyway."""
    other = np.full(len(rows), GROUND, dtype=np.int64)
    for i, target in enumerate(targets):
        if target in REACTIONS:
            at = rows.target == i
            other[at] = partners(rows.key[at] // KEY_BASE, rows.key[at] % KEY_BASE, REACTIONS[target])
    both = np.stack([rows.key, other], axis=1)
    return np.where(np.isin(both, _KNOWN), GROUND, both)


def is_energy(rows: Rows, targets: Sequence[str]) -> np.ndarray:
    """(N,) bool: the row's target is one of `ENERGIES`."""
    return np.asarray(np.array([target in ENERGIES for target in targets])[rows.target])


def involves(rows: Rows, targets: Sequence[str], keys: np.ndarray) -> np.ndarray:
    """(N,) bool: an energy that compares one of the nuclei `keys` with another."""
    return np.asarray(is_energy(rows, targets) & np.isin(ends(rows, targets), keys).any(axis=1))
