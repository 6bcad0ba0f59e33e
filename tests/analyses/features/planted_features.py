"""Activations whose variance is known to be made of some features: x = mean + sum_f a_f (f - p_f) u_f + noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, moments_of

Floats = np.ndarray


@dataclass(frozen=True)
class Planted:
    """`table` of labels, activations `x` (n, D), and what each label explains of the population's variance."""

    table: dict[str, np.ndarray]
    x: Floats
    share: dict[str, float]


def planted(
    n: int,
    sizes: dict[str, float],
    *,
    width: int = 12,
    noise: float = 0.5,
    rate: float = 0.5,
    mean: float = 3.0,
    seed: int = 0,
    orthogonal: bool = True,
) -> Planted:
    """Independent binary labels with P(f = 1) = `rate`; class means of f lie sizes[f] apart. The directions depend on the
    width alone, so that draws of different seeds are of one population."""
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    rng = np.random.default_rng(seed)
    table = {name: (rng.random(n) < rate).astype(int) for name in sizes}
    x = mean + noise * rng.normal(size=(n, width))
    for i, (name, size) in enumerate(sizes.items()):
        x += size * np.outer(table[name] - rate, basis[i if orthogonal else 0])
    variance = {name: rate * (1 - rate) * size**2 for name, size in sizes.items()}
    total = sum(variance.values()) + width * noise**2
    return Planted(table, x, {name: v / total for name, v in variance.items()})


def both(fit: Planted, test: Planted, kinds: dict[str, str] | None = None) -> tuple[Coding, JointMoments, JointMoments]:
    coding = Coding.fit(fit.table, kinds)  # type: ignore[arg-type]
    return coding, moments_of(fit.x, coding.encode(fit.table)), moments_of(test.x, coding.encode(test.table))


def rotation(width: int, seed: int = 5) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
