"""Diagnostics of chains: against ArviZ, against closed forms, and on chains that are as they should not be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from heldout.analyses.degeneracy.chains import Diagnostics, drift_test, effective_draws, split_r_hat
from heldout.errors import StatisticsError


def congruential(chains: int, draws: int, phi: float, shift: float) -> np.ndarray:
    """Autoregressive chains from a linear congruential sequence: the same numbers in whatever library."""
    out = np.zeros((chains, draws))
    state = 12_345
    for s in range(chains):
        x = 0.0
        for t in range(draws):
            state = (1_103_515_245 * state + 12_345) % 2**31
            x = phi * x + (state / 2**31 - 0.5)
            out[s, t] = x + shift * s
    return out


def autoregressive(chains: int, draws: int, phi: float, seed: int) -> np.ndarray:
    """Stationary from the first draw."""
    noise = np.random.default_rng(seed).standard_normal((chains, draws))
    out = np.empty_like(noise)
    out[:, 0] = noise[:, 0] / math.sqrt(1 - phi**2)
    for t in range(1, draws):
        out[:, t] = phi * out[:, t - 1] + noise[:, t]
    return out


@pytest.mark.parametrize(
    ("made", "r_hat", "draws"),  # by ArviZ 0.23.4: rhat(method="rank"), ess(method="mean")
    [
        ((4, 100, 0.0, 0.0), 1.0039589235862354, 429.9370468678516),
        ((4, 200, 0.8, 0.0), 1.0185608501115835, 98.52560760130659),
        ((3, 101, 0.5, 0.1), 1.0560798358950179, 69.59957010430158),
        ((2, 60, 0.9, 0.5), 1.0403241480804348, 23.301469322589753),
    ],
)
def test_agrees_with_arviz(made: tuple[int, int, float, float], r_hat: float, draws: float) -> None:
    trace = congruential(*made)
    assert split_r_hat(trace) == pytest.approx(r_hat, rel=1e-10)
    assert effective_draws(trace) == pytest.approx(draws, rel=1e-10)


@pytest.mark.parametrize("phi", [0.0, 0.6, 0.95])
def test_effective_draws_of_an_autoregression(phi: float) -> None:
    trace = autoregressive(8, 20_000, phi, seed=1)
    assert effective_draws(trace) == pytest.approx(trace.size * (1 - phi) / (1 + phi), rel=0.15)


def test_chains_of_one_law_agree_and_others_do_not() -> None:
    same = autoregressive(4, 1_000, 0.5, seed=2)
    assert split_r_hat(same) < 1.01
    level, spread, bend = same.copy(), same.copy(), same.copy()
    level[0] += 1.5
    spread[0] *= 3
    bend[:, 500:] += 1.5
    for trace in (level, spread, bend):
        assert split_r_hat(trace) > 1.05
        assert "chains disagree" in Diagnostics.of(trace).complaint


def test_r_hat_knows_ranks_alone() -> None:
    trace = autoregressive(4, 200, 0.5, seed=3)
    assert split_r_hat(2 * trace + 5) == pytest.approx(split_r_hat(trace), rel=1e-12)


def test_drift_is_found_and_measured() -> None:
    trace = autoregressive(4, 1_000, 0.5, seed=4)
    rise = 3 * np.linspace(0, 1, 1_000)
    before, after = drift_test(trace), drift_test(trace + rise)
    assert after[0] - before[0] == pytest.approx(3, rel=1e-12)
    assert before[1] > 0.05 > after[1]
    assert "chains drift" in Diagnostics.of(trace + rise).complaint


def test_drift_is_found_by_chance_as_often_as_it_says() -> None:
    p = np.array([drift_test(trace)[1] for trace in autoregressive(4_000, 100, 0.8, seed=5).reshape(1_000, 4, 100)])
    assert (p < 0.05).sum() == pytest.approx(50, abs=4 * math.sqrt(1_000 * 0.05 * 0.95))
    assert (p < 0.5).sum() == pytest.approx(500, abs=4 * math.sqrt(250))


def test_what_does_not_move() -> None:
    still = Diagnostics.of(np.zeros((4, 100)))
    assert (still.r_hat, still.effective_draws, still.drift, still.drift_p, still.complaint) == (1, 400, 0, 1, "")
    apart = np.zeros((4, 100))
    apart[0] = 1
    assert split_r_hat(apart) == math.inf


@pytest.mark.parametrize("trace", [np.zeros(100), np.zeros((4, 7)), np.full((4, 100), np.nan)])
def test_refuses_what_is_no_trace(trace: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match="trace"):
        Diagnostics.of(trace)
    with pytest.raises(StatisticsError, match="at least two"):
        drift_test(np.zeros((1, 100)))
