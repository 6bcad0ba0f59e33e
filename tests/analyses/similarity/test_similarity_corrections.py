"""Whitening: what its exponent does, on which split, and what is equal after it."""

from __future__ import annotations

import numpy as np
import pytest
from planted_networks import balanced, network
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.variance import explained, fit_map
from heldout.analyses.similarity.corrections import BETAS, Whitening, sweep
from heldout.analyses.similarity.measures import MEASURES
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

LABELS = balanced(60)
X = network(LABELS, {"easy": 4.0, "hard": 0.7}, seed=3)
OTHER = network(balanced(40, seed=1), {"easy": 4.0, "hard": 0.7}, seed=3)


def covariance(x: np.ndarray) -> np.ndarray:
    return np.cov(x.T, bias=True)


def r2(x: np.ndarray, name: str) -> float:
    coding = Coding.fit(LABELS)
    moments = moments_of(x, coding.encode(LABELS))
    return explained(fit_map(moments, coding.columns(name)), moments).pooled


def test_beta_0_only_centres_and_beta_1_makes_the_covariance_the_identity() -> None:
    whiten = Whitening.fit(X, shrinkage=0)
    np.testing.assert_array_equal(whiten(OTHER, 0), OTHER - X.mean(axis=0))
    np.testing.assert_allclose(covariance(whiten(X)), np.eye(12), atol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_a_direction_of_variance_v_comes_to_have_v_to_the_power_one_minus_beta(beta: float) -> None:
    values, vectors = np.linalg.eigh(covariance(X))
    after = covariance(Whitening.fit(X, shrinkage=0)(X, beta))
    np.testing.assert_allclose(after, (vectors * values ** (1 - beta)) @ vectors.T, atol=1e-11)


def test_halves_of_whitening_compose() -> None:
    matrix = Whitening.fit(X).matrix
    np.testing.assert_allclose(matrix(0.5) @ matrix(0.5), matrix(1.0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(matrix(0.25) @ matrix(0.5), matrix(0.75), rtol=1e-9, atol=1e-12)


def test_shrinkage_is_that_of_scikit_learn() -> None:
    reference = LedoitWolf().fit(X[:30])
    whiten = Whitening.fit(X[:30])
    assert whiten.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-12)
    precision = whiten.matrix(1.0) @ whiten.matrix(1.0)
    np.testing.assert_allclose(precision, reference.precision_, rtol=1e-8, atol=1e-10)


def test_up_to_a_rotation_it_is_the_whitening_of_scikit_learn() -> None:
    ours = Whitening.fit(X, shrinkage=0)(OTHER)
    theirs = PCA(whiten=True).fit(X).transform(OTHER)
    n = len(X)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T * n / (n - 1), rtol=1e-9, atol=1e-9)


def test_what_a_line_decodes_without_error_explains_one_over_the_rank() -> None:
    """Loud and quiet alike, though their raw shares differ by a factor of twenty; two dead units, one doubled."""
    clean = network(LABELS, {"easy": 4.0, "hard": 0.9}, noise=0.0, seed=2)
    rng = np.random.default_rng(0)
    other = rng.normal(size=(len(clean), 5))
    design = np.column_stack([np.ones(len(clean)), LABELS["easy"], LABELS["hard"]])
    other -= design @ np.linalg.lstsq(design, other, rcond=None)[0]  # nothing of the labels
    x = np.column_stack([clean, other, other[:, :1], np.full((len(clean), 2), 3.0)])
    whiten = Whitening.fit(x, shrinkage=0)
    assert whiten.rank == 2 + 5
    assert r2(x, "easy") / r2(x, "hard") == pytest.approx((4 / 0.9) ** 2, rel=1e-9)
    for name in LABELS:
        assert r2(whiten(x), name) == pytest.approx(1 / 7, rel=1e-9)


def test_variance_explained_after_it_is_that_of_the_band_of_invariance() -> None:
    coding = Coding.fit(LABELS)
    test_labels = balanced(40, seed=1)
    fit, test = moments_of(X, coding.encode(LABELS)), moments_of(OTHER, coding.encode(test_labels))
    for rho in (0.0, 0.2):
        whiten = Whitening.fit(X, shrinkage=rho)
        a, b = moments_of(whiten(X), coding.encode(LABELS)), moments_of(whiten(OTHER), coding.encode(test_labels))
        for name, found in bands(fit, test, coding, seed=0, draws=1, shrinkage=rho).items():
            assert explained(fit_map(a, coding.columns(name)), b).pooled == pytest.approx(found.whitened, rel=1e-9)


def test_more_units_than_stimuli_and_units_that_do_not_vary() -> None:
    x = np.column_stack([network(balanced(4), {"easy": 1.0}, width=30, seed=1), np.full(16, 7.0)])
    whiten = Whitening.fit(x, shrinkage=0)
    assert whiten.rank == 15
    gram = whiten(x) @ whiten(x).T  # all that 16 stimuli in 15 directions can then be: the corners of a simplex
    np.testing.assert_allclose(gram, 16 * (np.eye(16) - 1 / 16), atol=1e-8)
    shrunk = Whitening.fit(x)
    assert shrunk.rank == 31
    assert np.isfinite(shrunk(x + 100)).all()


def test_the_sweep_scores_the_test_split_by_maps_of_the_fit_split() -> None:
    y_fit, y = network(LABELS, {"easy": 1.0, "hard": 2.0}, seed=9), network(balanced(40, seed=1), {"easy": 1.0}, seed=9)
    found = sweep(X, y_fit, OTHER, y, betas=(0, 0.3, 1), measure="rsa-euclidean")
    assert found["beta"].tolist() == [0, 0.3, 1]
    for beta, value in zip(found["beta"], found["similarity"], strict=True):
        expected = MEASURES["rsa-euclidean"].of(Whitening.fit(X)(OTHER, beta), Whitening.fit(y_fit)(y, beta))
        assert value == pytest.approx(expected, rel=1e-12)
    assert found["similarity"][0] == pytest.approx(MEASURES["rsa-euclidean"].of(OTHER, y), rel=1e-9)  # centring alone
    moved = sweep(X * [10, *np.ones(11)], y_fit, OTHER, y, betas=(1,), measure="rsa-euclidean")
    assert moved["similarity"][0] != pytest.approx(found["similarity"][2], rel=1e-3)
    assert (found[["rank_x", "rank_y"]] == 12).all(axis=None)


def test_a_function_may_be_the_measure_and_test_stimuli_do_not_change_the_map() -> None:
    seen: list[np.ndarray] = []

    def first_row(x: np.ndarray, _: np.ndarray) -> float:
        seen.append(x[0])
        return 0.0

    sweep(X, X, OTHER, OTHER, betas=(1,), measure=first_row)
    sweep(X, X, OTHER[:5] + np.arange(5)[:, None], OTHER[:5], betas=(1,), measure=first_row)
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-12)


def test_what_cannot_be_whitened_is_refused() -> None:
    whiten = Whitening.fit(X)
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="beta lies between 0"):
            whiten(X, beta)
    with pytest.raises(ConfigError, match="shrinkage lies between 0 and 1"):
        Whitening.fit(X, shrinkage=1.5)
    with pytest.raises(StatisticsError, match="fitted to 12 units and cannot be applied to 5"):
        whiten(X[:, :5])
    with pytest.raises(StatisticsError, match="nothing varies"):
        Whitening.fit(np.full((9, 3), 0.1))
    with pytest.raises(StatisticsError, match="1 stimuli"):
        Whitening.fit(X[:1])
    with pytest.raises(NonFiniteError, match="row 3"):
        Whitening.fit(np.where(np.arange(len(X))[:, None] == 3, np.nan, X))
    with pytest.raises(StatisticsError, match="the same stimulus"):
        sweep(X, X, X, X[:-1])
    with pytest.raises(ConfigError, match="no betas"):
        sweep(X, X, X, X, betas=())
    with pytest.raises(ConfigError, match="measure of similarity 'ckaa'"):
        sweep(X, X, X, X, measure="ckaa")
