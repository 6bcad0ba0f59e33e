"""Learning coefficients that are known: closed forms against each other, and chains against exact integrals.

Chains run at a finite temperature, where n beta E[L] is not yet the coefficient. So they are held to the exact value
there, an integral done by quadrature, and the integral to the coefficient as the temperature goes to 0.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.llc import LearningCoefficient, learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.analyses.degeneracy.volume import crossing_count, normal_crossing, reduced_rank, volume_count
from heldout.errors import ConfigError


def test_the_cross_counts_for_less_than_one() -> None:
    """T7."""
    assert crossing_count(2, 1, 1e-4) == pytest.approx(0.8216, abs=5e-5)
    for cut in (0.5, 1e-2, 1e-9):
        assert crossing_count(2, 1, cut) == pytest.approx(1 - 1 / (1 + math.log(1 / cut) / 2), rel=1e-12)
    found = volume_count(lambda w: w.prod(1).square(), 2, 1e-4)
    assert found.error < 0.006
    assert found.value == pytest.approx(crossing_count(2, 1, 1e-4), abs=4 * found.error)
    root = math.sqrt(1e-4) * (1 + math.log(1e4) / 2)  # V / 4
    assert found.share == pytest.approx(root, abs=4 * math.sqrt(root / 2**20))


@pytest.mark.parametrize(("weights", "power"), [(1, 1), (1, 3), (3, 1), (3, 2)])
def test_counts_of_crossings_are_slopes_of_volumes(weights: int, power: int) -> None:
    found = volume_count(lambda w: w.prod(1).pow(2 * power), weights, 1e-3, draws=2**18, seed=1)
    assert found.value == pytest.approx(crossing_count(weights, power, 1e-3), abs=4 * found.error + 0.002)
    coefficient = normal_crossing([power] * weights)
    assert coefficient == (1 / (2 * power), weights)
    slow = 2 * coefficient.value * (1 + 1.1 * (weights - 1) / math.log(1e-300))  # m - 1 over log, to come
    assert crossing_count(weights, power, 1e-300) == pytest.approx(slow, rel=0.02)


def test_a_regular_model_counts_its_weights() -> None:
    found = volume_count(lambda w: w.square().sum(1), 4, 0.2)
    assert found.value == pytest.approx(4, abs=4 * found.error)


@pytest.mark.parametrize(
    ("sizes", "coefficient"),  # (inputs, hidden, outputs, rank)
    [
        ((2, 2, 2, 0), (3 / 2, 1)),  # sum even: (-4 - 4 - 4 + 16 + 8) / 8
        ((3, 2, 2, 0), (2, 2)),  # sum odd: (-4 - 9 - 4 + 20 + 12 + 1) / 8
        ((5, 3, 4, 1), (7, 2)),  # (-16 - 25 - 16 + 72 + 40 + 1) / 8
        ((4, 3, 4, 1), (6, 1)),  # (-16 - 16 - 16 + 64 + 32) / 8
        ((1, 1, 5, 0), (1 / 2, 1)),  # M + H < N + r: |w1|^2 |w2|^2 is a crossing of one weight and five
        ((1, 2, 5, 1), (5 / 2, 1)),
        ((5, 1, 1, 0), (1 / 2, 1)),  # N + H < M + r
        ((5, 2, 1, 1), (5 / 2, 1)),
        ((1, 3, 1, 0), (1 / 2, 1)),  # M + N < H + r: every product is reached, MN/2
        ((2, 9, 3, 1), (3, 1)),
    ],
)
def test_reduced_rank_by_hand(sizes: tuple[int, int, int, int], coefficient: tuple[float, int]) -> None:
    assert reduced_rank(*sizes) == coefficient
    m, h, n, r = sizes
    assert reduced_rank(n, h, m, r) == coefficient  # the transposed problem


def test_reduced_rank_where_it_is_known_otherwise() -> None:
    for m in range(1, 7):
        for n in range(1, 7):
            # One hidden unit at rank 0 is |a|^2 |b|^2; at full rank, matrices of rank r are a smooth set.
            assert reduced_rank(m, 1, n, 0) == (min(m, n) / 2, 2 if m == n else 1)
            for h in range(1, min(m, n) + 1):
                assert reduced_rank(m, h, n, h) == (h * (m + n - h) / 2, 1)
            assert reduced_rank(m, m + n + 1, n, 0).value == m * n / 2


def test_what_is_no_landscape() -> None:
    with pytest.raises(ConfigError, match="rank from 0 to 2, got 3"):
        reduced_rank(4, 2, 4, 3)
    with pytest.raises(ConfigError, match="one of them positive"):
        normal_crossing([0, 0])
    with pytest.raises(ConfigError, match="1 to 12 weights"):
        volume_count(lambda w: w.sum(1), 13, 0.1)
    with pytest.raises(ConfigError, match="draws have a loss below"):
        volume_count(lambda w: w.square().sum(1), 6, 1e-6, draws=2**12)


class Crossing(nn.Module):
    """w1^a w2^b at 0."""

    def __init__(self, *powers: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(len(powers), dtype=torch.float64))
        self.register_buffer("powers", torch.tensor(powers))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.pow(self.powers).prod() * x


def crossing_at(n_beta: float, gamma: float, a: int, b: int) -> float:
    """n beta E[w1^2a w2^2b] under exp(-n beta w1^2a w2^2b - gamma/2 |w|^2), on a grid of log w."""
    u = np.linspace(-60, 4, 1_601)
    x, y = u[:, None], u[None, :]
    energy = n_beta * np.exp(2 * a * x + 2 * b * y)
    weight = np.exp(x + y - energy - gamma / 2 * (np.exp(2 * x) + np.exp(2 * y)))
    return float((energy * weight).sum() / weight.sum())


def linear_at(n_beta: float, gamma: float, m: int, h: int, n: int) -> float:
    """n beta E|W2 W1|^2, W1 (h, m) and W2 (n, h), h 1 or 2: without W2, integrated out, the eigenvalues of W1 W1^T."""
    u = np.linspace(-45, 5, 1_501)
    s = np.exp(u)
    each = (m - h - 1) / 2 * u - gamma / 2 * s - n / 2 * np.log(gamma / 2 + n_beta * s) + u  # Wishart, times ds = s du
    count = n / 2 * n_beta * s / (gamma / 2 + n_beta * s)
    if h == 1:
        weight = np.exp(each - each.max())
        return float((count * weight).sum() / weight.sum())
    both = np.exp(each[:, None] + each[None, :] - 2 * each.max()) * np.abs(s[:, None] - s[None, :])
    return float(((count[:, None] + count[None, :]) * both).sum() / both.sum())


def two_layers(m: int, h: int, n: int) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(m, h, bias=False), nn.Linear(h, n, bias=False)).double()
    for p in made.parameters():
        p.data.zero_()
    return made


def orthonormal(m: int) -> Tensor:
    """Inputs whose mean x x^T is 1."""
    return math.sqrt(m) * torch.eye(m, dtype=torch.float64)


def test_exact_integrals_tend_to_the_coefficients() -> None:
    assert crossing_at(1e20, 1.0, 2, 1) == pytest.approx(normal_crossing([2, 1]).value, abs=1e-4)
    assert crossing_at(1e12, 1.0, 3, 1) == pytest.approx(normal_crossing([3, 1]).value, abs=1e-4)
    # Multiplicity 2: lambda - 1 / log, and the difference of two temperatures shows the 1 / log.
    assert crossing_at(1e20, 1.0, 1, 1) == pytest.approx(0.5 - 1 / math.log(1e20), abs=2e-3)
    assert linear_at(1e8, 1.0, 3, 1, 1) == pytest.approx(reduced_rank(3, 1, 1, 0).value, abs=1e-3)
    assert linear_at(1e8, 1.0, 1, 1, 4) == pytest.approx(reduced_rank(1, 1, 4, 0).value, abs=1e-3)
    assert linear_at(1e12, 1.0, 2, 2, 2) == pytest.approx(reduced_rank(2, 2, 2, 0).value, abs=1e-3)
    assert linear_at(1e12, 1.0, 4, 2, 2) == pytest.approx(reduced_rank(4, 2, 2, 0).value, abs=1e-3)


def near(found: LearningCoefficient, exact: float, error: float) -> None:
    """Within four standard errors, which are at most `error` of the value, and plainly not what the curvature says."""
    assert not found.reason
    se = float(found.settings.n_beta * found.trace.mean(1).std()) / math.sqrt(found.settings.chains)
    assert se < error * exact
    assert found.value == pytest.approx(exact, abs=4 * se + 0.02 * exact)  # 2%: of the step
    assert found.quadratic.value == 0
    assert "directions that are flat to second order are not flat beyond" in found.meaning


# Chains take steps that the steepest places they come to allow, where the loss is a fourth power and more.
FAST = Sampling(100, 200, 800, localisation=4.0, n_beta=10.0, step=5e-3, seed=100)
LONG = Sampling(400, 2_000, 8_000, localisation=4.0, n_beta=100.0, step=5e-4, seed=100)


@pytest.mark.parametrize(
    ("powers", "how"),
    [
        ((1, 1), FAST),
        pytest.param((2, 1), FAST, marks=pytest.mark.slow),
        pytest.param((1, 1), LONG, marks=pytest.mark.slow),
        pytest.param((3, 1), LONG, marks=pytest.mark.slow),
    ],
)
def test_chains_find_a_crossing(powers: tuple[int, int], how: Sampling) -> None:
    found = learning_coefficient(Crossing(*powers), torch.ones(3, 1, dtype=torch.float64), sampling=how)
    near(found, crossing_at(found.settings.n_beta, 4.0, *powers), 0.05)


@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        ((3, 1, 1), FAST),
        pytest.param((2, 2, 2), LONG, marks=pytest.mark.slow),
        pytest.param((4, 2, 2), LONG, marks=pytest.mark.slow),
    ],
)
def test_chains_find_reduced_rank(sizes: tuple[int, int, int], how: Sampling) -> None:
    found = learning_coefficient(two_layers(*sizes), orthonormal(sizes[0]), sampling=how)
    near(found, linear_at(found.settings.n_beta, 4.0, *sizes), 0.05)
