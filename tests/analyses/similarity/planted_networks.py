"""Networks whose content is known: x = mean + sum_f a_f (f - 1/2) u_f + noise, for binary labels, exactly balanced."""

from __future__ import annotations

from itertools import product

import numpy as np

Floats = np.ndarray
Labels = dict[str, np.ndarray]


def balanced(repeats: int, names: tuple[str, ...] = ("easy", "hard"), seed: int = 0) -> Labels:
    """Labels in a full factorial design, each cell `repeats` times, in random order: exactly uncorrelated."""
    cells = np.repeat(np.array(list(product((0, 1), repeat=len(names)))), repeats, axis=0)
    cells = np.random.default_rng(seed).permutation(cells)
    return {name: cells[:, i].copy() for i, name in enumerate(names)}


def directions(width: int, seed: int) -> Floats:
    """Orthonormal rows (width, width)."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def network(
    labels: Labels, sizes: dict[str, float], *, width: int = 12, noise: float = 0.3, seed: int = 0, mean: float = 2.0
) -> Floats:
    """(N, width) activations: class means of f lie sizes[f] apart, along a direction of the network's own."""
    rng = np.random.default_rng([seed, 1])
    basis = directions(width, seed)
    n = len(next(iter(labels.values())))
    x = mean * rng.normal(size=width) + noise * rng.normal(size=(n, width))
    for i, (name, size) in enumerate(sizes.items()):
        x += size * np.outer(labels[name] - 0.5, basis[i])
    return x
