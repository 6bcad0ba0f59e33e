from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import KNeighborsRegressor

from heldout.analyses.baselines import kernel_regression, nearest_neighbours
from heldout.errors import StatisticsError

THEIRS = {
    "exponential": Matern(length_scale=3.0, nu=0.5),
    "matern": Matern(length_scale=3.0, nu=1.5),
    "gaussian": RBF(3.0),
}


def planted(n: int = 120, m: int = 50, *, noise: float = 0.05) -> tuple[np.ndarray, ...]:
    """Points of a plane with a smooth function of them, in groups of neighbours."""
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 12, (n + m, 2))
    y = np.sin(x[:, 0] / 2) + 0.5 * np.cos(x[:, 1] / 3) + noise * draw.normal(size=n + m)
    return x[:n], y[:n], (x[:n, 0] // 2).astype(int), x[n:], y[n:]


@pytest.mark.parametrize("kernel", THEIRS)
def test_mean_deviation_and_left_out_error_are_sklearns(kernel: str) -> None:
    x, y, groups, new, _ = planted()
    ours = kernel_regression(x, y, groups, new, kernels=[kernel], lengths=[3.0], noises=[0.01])

    def theirs(at: np.ndarray, amplitude: float) -> GaussianProcessRegressor:
        kind = ConstantKernel(amplitude) * THEIRS[kernel] + WhiteKernel(0.01 * amplitude)
        return GaussianProcessRegressor(kind, optimizer=None, alpha=0.0).fit(x[at], y[at])

    everything = np.arange(len(y))
    unit = theirs(everything, 1.0)
    amplitude = float(y @ unit.alpha_) / len(y)
    mean, deviation = theirs(everything, amplitude).predict(new, return_std=True)
    np.testing.assert_allclose(ours.predictions, mean, atol=1e-9)
    np.testing.assert_allclose(ours.deviation, deviation, rtol=1e-8)
    errors = np.empty(len(y))
    for fit, left in LeaveOneGroupOut().split(x, y, groups):
        errors[left] = y[left] - theirs(fit, 1.0).predict(x[left])
    assert ours.score == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)


@pytest.mark.parametrize(("k", "power"), [(1, 0.0), (5, 0.0), (5, 1.0), (7, 2.0)])
def test_neighbours_are_sklearns(k: int, power: float) -> None:
    x, y, groups, new, _ = planted()
    ours = nearest_neighbours(x, y, groups, new, neighbours=[k], powers=[power])

    def theirs(at: np.ndarray) -> KNeighborsRegressor:
        return KNeighborsRegressor(k, weights=lambda d: d**-power).fit(x[at], y[at])

    np.testing.assert_allclose(ours.predictions, theirs(np.arange(len(y))).predict(new), rtol=1e-9)
    errors = np.empty(len(y))
    for fit, left in LeaveOneGroupOut().split(x, y, groups):
        errors[left] = y[left] - theirs(fit).predict(x[left])
    assert ours.score == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)
    assert ours.deviation is None


def test_ties_on_a_lattice_do_not_depend_on_the_order() -> None:
    x = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2)
    y = np.random.default_rng(1).normal(size=25)
    order = np.random.default_rng(2).permutation(25)
    new = [[2, 2], [2.5, 2.5], [7, 7]]
    a = nearest_neighbours(x, y, np.arange(25), new, neighbours=[2], powers=[0.0])
    b = nearest_neighbours(x[order], y[order], np.arange(25), new, neighbours=[2], powers=[0.0])
    np.testing.assert_allclose(a.predictions, b.predictions, atol=1e-14)
    at = [12, 7, 11, 13, 17]  # of (2, 2): itself and, all as far as the second, its four neighbours
    assert a.predictions[0] == pytest.approx(y[at].mean())
    close = nearest_neighbours(x, y, np.arange(25), [[2, 2]], neighbours=[5], powers=[2.0])
    assert close.predictions[0] == y[12]


def test_the_choice_is_by_groups_and_follows_them() -> None:
    """Left out item by item, noise that is one number a group looks predictable; left out by group, it is not."""
    draw = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 6)
    x = draw.uniform(0, 40, (30, 2))[groups] + draw.normal(size=(180, 2)) * 0.1
    y = draw.normal(size=30)[groups]
    alone = kernel_regression(x, y, np.arange(180), x[:1], kernels=["gaussian"])
    together = kernel_regression(x, y, groups, x[:1], kernels=["gaussian"])
    assert alone.score < 0.2
    assert together.score > 0.8
    assert float(together.chosen["noise"]) > float(alone.chosen["noise"])
    assert (
        nearest_neighbours(x, y, groups, x[:1]).score
        > 0.8
        > 0.1
        > nearest_neighbours(x, y, np.arange(180), x[:1]).score
    )


def test_a_smooth_function_is_found_and_its_deviation_is_honest() -> None:
    x, y, _, new, truth = planted(200, 300)
    for method in (nearest_neighbours, kernel_regression):
        found = method(x, y, np.arange(len(y)), new)
        rms = np.sqrt(np.mean((found.predictions - truth) ** 2))
        assert rms < 0.25 * truth.std()
    assert rms < 0.06  # noise is 0.05
    assert found.score == pytest.approx(rms, rel=0.15)
    assert found.deviation is not None
    assert np.mean(np.abs(found.predictions - truth) < 1.645 * found.deviation) == pytest.approx(0.9, abs=0.04)


def test_far_away_it_falls_back_to_the_formula_and_says_so() -> None:
    x, y, groups, _, _ = planted()
    found = kernel_regression(x, y, groups, [[6.0, 6.0], [1e4, 1e4]])
    assert found.predictions[1] == 0
    assert found.deviation is not None
    assert found.deviation[1] > 2 * found.deviation[0]


def test_hyperparameters_at_the_edge_are_named() -> None:
    x, y, groups, new, _ = planted()
    found = kernel_regression(x, y, groups, new, kernels=["gaussian"], lengths=[0.1, 0.2], noises=[1e-2])
    assert found.at_edge == ("length",)
    assert set(found.chosen) == {"kernel", "length", "noise"}


def test_what_cannot_be_fitted() -> None:
    x, y, groups, new, _ = planted(20, 3)
    with pytest.raises(StatisticsError, match=r"queries \(M, C\); got shapes"):
        nearest_neighbours(x, y[:-1], groups, new)
    with pytest.raises(StatisticsError, match="must be finite"):
        kernel_regression(x, np.where(y > 0, y, np.nan), groups, new)
    with pytest.raises(StatisticsError, match="at least two groups"):
        kernel_regression(x, y, np.zeros(20), new)
    with pytest.raises(StatisticsError, match="unknown kernel 'gausian'"):
        kernel_regression(x, y, groups, new, kernels=["gausian"])
    with pytest.raises(StatisticsError, match="must be positive"):
        kernel_regression(x, y, groups, new, noises=[0.0])
    with pytest.raises(StatisticsError, match="neighbours must be at least 1"):
        nearest_neighbours(x, y, groups, new, neighbours=[0])
    with pytest.raises(StatisticsError, match="10 items remain, fewer than 15"):
        nearest_neighbours(x, y, np.arange(20) % 2, new, neighbours=[15])
