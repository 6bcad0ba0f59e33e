"""Principal components with their spectrum: scikit-learn, closed forms, invariance to rotation, the noise floor's level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, ortho_group
from sklearn.decomposition import PCA

from heldout.analyses.geometry.spectrum import noise_floor, principal
from heldout.errors import NonFiniteError, StatisticsError


@pytest.mark.parametrize("shape", [(40, 7), (9, 30)])
def test_agrees_with_scikit_learn(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 5
    ours, theirs = principal(rows), PCA().fit(rows)
    k = len(ours.variances)
    assert k == min(shape[0] - 1, shape[1])
    np.testing.assert_allclose(ours.share, theirs.explained_variance_ratio_[:k], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(ours.components * theirs.components_[:k], axis=1)), 1, atol=1e-8)
    np.testing.assert_allclose(ours.mean, rows.mean(axis=0))
    np.testing.assert_allclose(ours.mean + ours.scores @ ours.components, rows, atol=1e-10)
    np.testing.assert_allclose(ours.project(rows), ours.scores, atol=1e-10)
    assert ours.share.sum() == pytest.approx(1)


def test_participation_of_known_spectra() -> None:
    cross = np.concatenate([np.eye(4), -np.eye(4)])  # equal variance in each of 4 directions
    assert principal(cross).participation == pytest.approx(4)
    line = np.outer(np.arange(6.0), [3.0, 4.0])
    one = principal(line)
    assert one.participation == pytest.approx(1)
    assert len(one.variances) == 1
    assert one.variances[0] == pytest.approx(25 * np.arange(6).var())
    np.testing.assert_allclose(one.components[0], [-0.6, -0.8])  # both ends are as far out: the first row is positive


def test_a_rotation_of_the_width_changes_no_score() -> None:
    rows = np.random.default_rng(1).normal(size=(25, 6)) * [5, 3, 2, 1, 0.5, 0.1]
    turned = rows @ ortho_group.rvs(6, random_state=2) + 3.0
    one, other = principal(rows), principal(turned)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-10)
    np.testing.assert_allclose(one.share, other.share, rtol=1e-10)
    largest = np.abs(one.scores).argmax(axis=0)
    assert (one.scores[largest, np.arange(6)] > 0).all()
    np.testing.assert_allclose(principal(-rows).scores, one.scores, atol=1e-10)


def test_rows_from_scores() -> None:
    rows = np.random.default_rng(3).normal(size=(20, 5))
    pca = principal(rows)
    made = pca.rows(pca.scores[:, [2, 0]], [2, 0])
    np.testing.assert_allclose(pca.project(made)[:, [0, 2]], pca.scores[:, [0, 2]], atol=1e-12)
    np.testing.assert_allclose(pca.project(made)[:, [1, 3, 4]], 0, atol=1e-12)
    for scores, which in ((np.zeros((2, 2)), [0]), (np.zeros((2, 1)), [5]), (np.zeros((2, 1)), [-1])):
        with pytest.raises(StatisticsError, match="components"):
            pca.rows(scores, which)


def test_the_noise_floor_counts_planted_components() -> None:
    rng = np.random.default_rng(4)
    planted = rng.normal(size=(140, 3)) @ rng.normal(size=(3, 32)) + 0.5 * rng.normal(size=(140, 32))
    floor = noise_floor(planted, seed=0, draws=99)
    assert floor.above == 3
    assert floor.draws.shape == (99, 32)
    np.testing.assert_allclose(floor.draws.sum(axis=1), 1)
    again = noise_floor(planted, seed=0, draws=99)
    assert np.array_equal(floor.draws, again.draws)
    assert not np.array_equal(floor.draws, noise_floor(planted, seed=1, draws=99).draws)


def test_columns_that_are_permuted_keep_their_variance() -> None:
    rows = np.outer(np.arange(10.0), [1, 2])  # one direction: all of the variance, and half or more once permuted
    floor = noise_floor(rows, seed=0, draws=50)
    assert floor.share.tolist() == [1.0]
    assert (floor.draws <= 1).all()
    assert (floor.draws >= 0.8 - 1e-12).all()  # the larger column alone has 4/5 of the variance
    assert floor.above == 1


@pytest.mark.slow
def test_the_floor_keeps_its_level_on_columns_without_relation() -> None:
    trials = 200
    rng = np.random.default_rng(5)
    above = sum(noise_floor(rng.normal(size=(40, 12)), seed=i, draws=99).above > 0 for i in range(trials))
    assert binom.ppf(0.001, trials, 0.05) <= above <= binom.ppf(0.999, trials, 0.06)


def test_what_has_no_components_is_refused() -> None:
    with pytest.raises(StatisticsError, match="at least 3"):
        principal(np.eye(2))
    with pytest.raises(StatisticsError, match="nothing varies"):
        principal(np.ones((5, 2)))
    with pytest.raises(NonFiniteError, match="row 1"):
        principal([[0.0, 1.0], [np.nan, 0.0], [1.0, 1.0]])
    with pytest.raises(StatisticsError, match="width 2 cannot score rows of width 3"):
        principal([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]).project(np.ones((1, 3)))
    with pytest.raises(StatisticsError, match="at least 1 draw"):
        noise_floor(np.eye(4), seed=0, draws=0)
