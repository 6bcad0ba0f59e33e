"""Landscapes whose learning coefficients are known, and the volume that the coefficient is the exponent of.

V(e) is the volume of weights near w0 with a loss below e; as e goes to 0 it is c e^lambda (-log e)^(m-1), with lambda the
learning coefficient and m its multiplicity. At an e that is not small, N_eff(e) = 2 d log V / d log e: the effective number
of parameters where differences in behaviour below e do not count.

The known cases are what estimates are tested against. Each is the smallest coefficient of its zero set, that at its most
singular point; at other points of the set it is larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from heldout.errors import ConfigError

DRAWS = 2**20
CHUNK = 2**16  # of them at once
LARGEST = 12  # dimensions; above it hardly a draw falls where the loss is small
ENOUGH = 1_000  # draws below the smaller cut


class Coefficient(NamedTuple):
    """A learning coefficient and its multiplicity."""

    value: float
    multiplicity: int


def normal_crossing(powers: Sequence[int]) -> Coefficient:
    """Of the output w1^a w2^b ..., whose loss is w1^2a w2^2b ..., at 0: 1 / (2 max power), with as many multiplicities as
    there are weights of that power. Powers of 0 are weights that do nothing."""
    if not powers or min(powers) < 0 or max(powers) < 1:
        raise ConfigError(f"a normal crossing needs powers of 0 or more, one of them positive, got {list(powers)}")
    return Coefficient(1 / (2 * max(powers)), list(powers).count(max(powers)))


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> Coefficient:
    """Of a linear network of two layers (M inputs, H hidden, N outputs) whose product has `rank` r, under inputs of full
    covariance. Aoyagi & Watanabe (2005), Neural Networks 18, 924."""
    m, h, n, r = inputs, hidden, outputs, rank
    if min(m, h, n) < 1 or not 0 <= r <= min(m, h, n):
        raise ConfigError(f"a product of {n} x {h} and {h} x {m} has a rank from 0 to {min(m, h, n)}, got {r}")
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        odd = (m + h + n + r) % 2
        return Coefficient((-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd) / 8, 1 + odd)
    if m + h < n + r:
        return Coefficient((h * m - h * r + n * r) / 2, 1)
    if n + h < m + r:
        return Coefficient((h * n - h * r + m * r) / 2, 1)
    return Coefficient(m * n / 2, 1)


def crossing_count(weights: int, power: int, cut: float) -> float:
    """N_eff(`cut`) of the output (w1 w2 ... wd)^`power` over the box [-1, 1]^d, exactly.

    -log |w1 ... wd| is Gamma(d) distributed, so V is the upper tail of that at s = log(1/cut) / (2 power). For the cross
    w1^2 w2^2 it is 1 - 1 / (1 + log(1/cut) / 2): one parameter, as the cut goes to 0, though either may move freely.
    """
    from scipy.special import gammaincc, gammaln

    if weights < 1 or power < 1 or not 0 < cut < 1:
        raise ConfigError(f"needs a weight, a power of 1 and a cut within 0 to 1, got {weights}, {power} and {cut}")
    s = -math.log(cut) / (2 * power)
    log_density = (weights - 1) * math.log(s) - s - float(gammaln(weights))
    return math.exp(log_density) / float(gammaincc(weights, s)) / power


class VolumeCount(NamedTuple):
    """N_eff with its standard error, and the `share` of the box whose loss is below the cut."""

    value: float
    error: float
    share: float


def volume_count(
    loss: Callable[[Tensor], Tensor],
    weights: int,
    cut: float,
    *,
    half_width: float = 1.0,
    ratio: float = 2.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> VolumeCount:
    """N_eff at `cut` of `loss`, (B, `weights`) -> (B,), in the box of `half_width` around 0, from uniform draws.

    The slope of log V over log e is taken between cut / `ratio` and cut x `ratio`; the error is that of the share of draws
    below the one among those below the other. For a few weights: raises `ConfigError` above 12, or where fewer than 1000
    draws fall below the smaller of the two.
    """
    if not 1 <= weights <= LARGEST:
        raise ConfigError(f"volumes are counted for 1 to {LARGEST} weights, got {weights}; use learning_coefficient")
    if not (cut > 0 and half_width > 0 and ratio > 1):
        raise ConfigError(f"cut and half_width must be positive and ratio above 1, got {cut}, {half_width} and {ratio}")
    generator = torch.Generator().manual_seed(seed)
    inner = outer = below = 0
    for start in range(0, draws, CHUNK):
        shape = (min(CHUNK, draws - start), weights)
        values = loss(half_width * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1))
        inner += int((values < cut / ratio).sum())
        below += int((values < cut).sum())
        outer += int((values < cut * ratio).sum())
    if inner < ENOUGH:
        raise ConfigError(
            f"{inner} of {draws} draws have a loss below {cut / ratio:.3g}, at least {ENOUGH} are needed; raise draws or "
            "the cut, or make the box smaller"
        )
    share = inner / outer
    width = math.log(ratio)
    return VolumeCount(-math.log(share) / width, math.sqrt((1 - share) / inner) / width, below / draws)
