"""Surrogates against closed forms: what is held, the covariance drawn, and parameters that were planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from heldout.analyses.geometry.surrogates import (
    KERNELS,
    LENGTH_RATIO,
    Floats,
    Kernels,
    fit_process,
    permuted,
    stationary_kernels,
    walk_kernels,
)

N, D = 60, 48
TOKENS = np.arange(20, 20 + N)


@pytest.fixture(scope="module")
def stationary() -> Kernels:
    return stationary_kernels(TOKENS)


def smooth(
    length: float, *, kernel: str = "gaussian", dims: int = D, noise: float = 0.0, drift: float = 0.0, seed: int = 0
) -> Floats:
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(KERNELS[kernel](np.abs(TOKENS[:, None] - TOKENS) / length))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    axes = np.linalg.qr(rng.standard_normal((D, dims)))[0].T
    curve = np.sqrt(D / dims) * root @ rng.standard_normal((N, dims)) @ axes
    line = np.linspace(-1, 1, N)[:, None] * rng.standard_normal(D)
    table: Floats = curve + drift * line + np.sqrt(noise) * rng.standard_normal((N, D))
    return table


def test_kernels_are_scikit_learns() -> None:
    from sklearn.gaussian_process.kernels import RBF, Matern

    t = TOKENS[:, None].astype(float)
    distance = np.abs(t - t.T) / 7.5
    for name, nu in (("matern 1/2", 0.5), ("matern 3/2", 1.5), ("matern 5/2", 2.5)):
        np.testing.assert_allclose(KERNELS[name](distance), Matern(7.5, nu=nu)(t), atol=1e-12)
    np.testing.assert_allclose(KERNELS["gaussian"](distance), RBF(7.5)(t), atol=1e-12)


def test_permuted_rows_are_the_rows() -> None:
    table = smooth(5)
    moved = permuted(table, np.random.default_rng(0))
    assert not np.array_equal(moved, table)
    np.testing.assert_array_equal(np.sort(moved, axis=0), np.sort(table, axis=0))


def test_a_walks_kernel_grows_by_gaps() -> None:
    tokens = np.array([3, 4, 7, 8, 9, 12, 13, 14, 15, 20, 21, 22])
    kernel = walk_kernels(tokens).matrices[0]
    steps = np.diff(np.eye(len(tokens)), axis=0)
    np.testing.assert_allclose(steps @ kernel @ steps.T * 19, np.diag(np.diff(tokens)), atol=1e-12)


def test_planted_parameters_are_estimated(stationary: Kernels) -> None:
    for length in (4.0, 8.0):
        fit = fit_process(smooth(length, noise=0.5), stationary)
        assert fit.length == pytest.approx(length, rel=0.35)
        assert fit.noise == pytest.approx(0.5, rel=0.1)
        assert fit.curve == pytest.approx(1, rel=0.4)
        assert fit.dims > 20
    few = fit_process(smooth(4.0, dims=4, noise=0.5), stationary)
    assert 3 <= few.dims <= 7
    assert fit_process(smooth(4.0, kernel="matern 1/2", noise=0.0), stationary).kernel == "matern 1/2"


def test_a_length_between_those_of_the_grid_is_found(stationary: Kernels) -> None:
    """A smooth curve without noise. Its length rounded to the grid, 7% off, would have the variance off by much more, and
    one table in five given a drift that it has not."""
    length = (N - 1) / LENGTH_RATIO**9.5
    fits = [fit_process(smooth(length, seed=s), stationary) for s in range(10)]
    assert {fit.kernel for fit in fits} == {"gaussian"}
    np.testing.assert_allclose([fit.length for fit in fits], length, rtol=0.04)
    assert np.mean([fit.curve for fit in fits]) == pytest.approx(1, abs=0.12)
    assert all((fit.drift == 0).all() for fit in fits)


def test_no_other_length_or_noise_is_likelier(stationary: Kernels) -> None:
    """The exact Gaussian likelihood of a table, floor and drift left out of play, falls on either side of the fit."""
    table = smooth(6, noise=0.3, drift=3, seed=5)
    fit = fit_process(table, stationary)
    assert (fit.drift > 0).tolist() == [True, False]
    rest = stationary.beyond.T @ table

    def log_likelihood(length: float, curve: float, noise: float) -> float:
        matrix = curve * KERNELS[fit.kernel](np.abs(TOKENS[:, None] - TOKENS) / length) + noise * np.eye(N)
        given = stationary.beyond.T @ matrix @ stationary.beyond
        return float(multivariate_normal(np.zeros(len(given)), given).logpdf(rest.T).sum())

    best = log_likelihood(fit.length, fit.curve, fit.noise)
    for factors in ((1.1, 1, 1), (1 / 1.1, 1, 1), (1, 1.2, 1), (1, 1 / 1.2, 1), (1, 1, 1.1), (1, 1, 1 / 1.1)):
        parameters = np.multiply((fit.length, fit.curve, fit.noise), factors)
        assert log_likelihood(*parameters) < best


def test_white_noise_has_hardly_a_curve(stationary: Kernels) -> None:
    table = np.random.default_rng(0).standard_normal((N, D))
    fit = fit_process(table, stationary)
    assert fit.curve < 0.1
    assert fit.noise == pytest.approx(1, rel=0.1)
    assert fit_process(table, walk_kernels(TOKENS)).curve < 0.5  # over the window; .01 a token


def test_line_and_parabola_are_held(stationary: Kernels) -> None:
    table = smooth(6, noise=0.3, drift=3)
    fit = fit_process(table, stationary)
    assert fit.drift[0] > 0
    drawn = fit.draw(np.random.default_rng(1))
    np.testing.assert_allclose(stationary.drift.T @ drawn, stationary.drift.T @ table, atol=1e-10)
    assert np.abs(drawn.mean(axis=0)).max() < 1e-10  # the constant is no part of a principal component
    assert (fit_process(smooth(6, noise=0.3), stationary).drift == 0).all()


def test_draws_have_the_conditional_gaussians_moments(stationary: Kernels) -> None:
    """Mean and covariance given line and parabola, from the textbook's formula with the precision matrix instead."""
    fit = fit_process(smooth(6, noise=0.3, drift=2), stationary)
    matrix = KERNELS[fit.kernel](np.abs(TOKENS[:, None] - TOKENS) / fit.length)
    basis = np.concatenate([stationary.drift, stationary.beyond], axis=1)
    covariance = basis.T @ (fit.curve * matrix + fit.noise * np.eye(N)) @ basis
    covariance[[0, 1], [0, 1]] += fit.drift
    precision = np.linalg.inv(covariance)
    given = np.linalg.inv(precision[2:, 2:])
    line = stationary.drift.T @ fit.held
    np.testing.assert_allclose(stationary.beyond.T @ fit.held, -given @ precision[2:, :2] @ line, atol=1e-8)
    rng = np.random.default_rng(2)
    rest = np.concatenate([stationary.beyond.T @ (fit.draw(rng) - fit.held) for _ in range(400)], axis=1)
    drawn = rest @ rest.T / rest.shape[1]
    assert np.abs(drawn - given).max() < 0.05 * given.max()


def test_a_curve_in_few_dimensions_stays_in_them(stationary: Kernels) -> None:
    fit = fit_process(smooth(4.0, dims=4, noise=0.01, seed=3), stationary)
    assert fit.channels is not None
    np.testing.assert_allclose(fit.channels @ fit.channels.T, np.eye(fit.dims), atol=1e-12)
    curve = fit.draw(np.random.default_rng(0)) - fit.held
    inside = curve @ fit.channels.T
    assert (inside**2).sum() > 0.9 * (curve**2).sum()
    assert (curve**2).sum() == pytest.approx(
        ((stationary.beyond.T @ smooth(4.0, dims=4, noise=0.01, seed=3)) ** 2).sum(), rel=0.5
    )


def test_draws_are_the_seeds(stationary: Kernels) -> None:
    fit = fit_process(smooth(5), stationary)
    np.testing.assert_array_equal(fit.draw(np.random.default_rng(4)), fit.draw(np.random.default_rng(4)))
    assert not np.array_equal(fit.draw(np.random.default_rng(4)), fit.draw(np.random.default_rng(5)))
