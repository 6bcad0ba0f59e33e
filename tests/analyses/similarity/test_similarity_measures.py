"""Measures of similarity: identities, invariances, closed forms, what chance scores, what is refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from heldout.analyses.similarity.checks import Floats, centred
from heldout.analyses.similarity.cka import chance, cka, cross_square, hsics
from heldout.analyses.similarity.measures import MEASURES, similarity
from heldout.analyses.similarity.predictivity import fold_rows, predictivity
from heldout.analyses.similarity.procrustes import angular_distance, procrustes
from heldout.analyses.similarity.streaming import CKAStream
from heldout.errors import ConfigError, HeldoutError, NonFiniteError, StatisticsError

SYMMETRIC = [name for name, measure in MEASURES.items() if measure.symmetric]


def rotation(d: int, rng: np.random.Generator) -> Floats:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def related(n: int, rng: np.random.Generator, dx: int = 6, dy: int = 9) -> tuple[Floats, Floats]:
    x = rng.normal(size=(n, dx))
    return x, x @ rng.normal(size=(dx, dy)) + 2 * rng.normal(size=(n, dy))


@pytest.mark.parametrize("name", MEASURES)
def test_a_representation_is_like_itself(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 5))
    assert similarity(x, x, name) == pytest.approx(1, abs=1e-9)
    assert similarity(torch.tensor(x), x.tolist(), name) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", [n for n in MEASURES if n not in ("rsa", "rsa-spearman", "rsa-kendall")])
def test_rotation_scale_and_shift_change_nothing(name: str) -> None:
    rng = np.random.default_rng(1)
    x, y = related(30, rng)
    moved = 0.2 * x @ rotation(6, rng) + rng.normal(size=6)
    assert similarity(moved, y, name) == pytest.approx(similarity(x, y, name), abs=1e-9)
    assert similarity(y, moved, name) == pytest.approx(similarity(y, x, name), abs=1e-9)
    loud = x * [30, 1, 1, 1, 1, 1]
    assert abs(similarity(loud, y, name) - similarity(x, y, name)) > 1e-6  # single units do count


@pytest.mark.parametrize("name", SYMMETRIC)
def test_sides_may_change_places(name: str) -> None:
    x, y = related(25, np.random.default_rng(2))
    assert similarity(x, y, name) == pytest.approx(similarity(y, x, name), abs=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_stimuli_is_of_no_account(name: str) -> None:
    rng = np.random.default_rng(3)
    x, y = related(40, rng)
    order = rng.permutation(40)
    if name.startswith("predict"):  # folds are drawn by row number: only about the same
        assert similarity(x[order], y[order], name) == pytest.approx(similarity(x, y, name), abs=0.1)
    else:
        assert similarity(x[order], y[order], name) == pytest.approx(similarity(x, y, name), abs=1e-12)


def song(k: Floats, l: Floats) -> float:  # noqa: E741
    """Equation 5 of Song et al. (2012) as it stands."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    parts = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ l @ one
    return float(parts / (n * (n - 3)))


@pytest.mark.parametrize(("n", "dx", "dy"), [(4, 3, 2), (30, 5, 50), (50, 200, 300), (200, 20, 10)])
def test_debiased_cka_is_songs_estimator(n: int, dx: int, dy: int) -> None:
    rng = np.random.default_rng(n)
    x, y = related(n, rng, dx, dy)
    x, y = x + 10, y - 3  # Song's sums do not need centred rows
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert cka(x, y) == pytest.approx(song(k, l) / np.sqrt(song(k, k) * song(l, l)), abs=1e-10)
    h = np.eye(n) - 1 / n
    biased = np.trace(k @ h @ l @ h) / np.sqrt(np.trace(k @ h @ k @ h) * np.trace(l @ h @ l @ h))
    assert cka(x, y, debiased=False) == pytest.approx(biased, abs=1e-10)


@pytest.mark.parametrize(("n", "dy"), [(10, 4), (60, 200)])
def test_pytorch_cka_agrees(n: int, dy: int) -> None:
    other = pytest.importorskip("cka", reason="pytorch-cka is not installed")
    x, y = related(n, np.random.default_rng(n + dy), 12, dy)
    assert cka(x, y) == pytest.approx(float(other.cka_from_features(torch.tensor(x), torch.tensor(y))), abs=1e-10)


def test_units_and_stimuli_give_the_same_cka() -> None:
    """A unit that never varies adds nothing but tips the scales from one route to the other."""
    rng = np.random.default_rng(5)
    x, y = related(40, rng, 7, 9)
    padded_x, padded_y = (np.pad(v, ((0, 0), (0, 500))) for v in (x, y))
    for debiased in (True, False):
        narrow, wide = (hsics(centred(u), centred(v), debiased=debiased) for u, v in ((x, y), (padded_x, padded_y)))
        np.testing.assert_allclose(narrow, wide, rtol=1e-10)
        assert cka(x, y, debiased=debiased) == pytest.approx(cka(padded_x, padded_y, debiased=debiased), abs=1e-10)
    assert cross_square(x, y) == pytest.approx(np.linalg.norm(x.T @ y) ** 2, rel=1e-12)


def test_chance_is_the_mean_over_all_pairings() -> None:
    rng = np.random.default_rng(6)
    x, y = related(6, rng, 4, 3)
    orders = [list(p) for p in permutations(range(6))]
    assert np.mean([cka(x, y[p], debiased=False) for p in orders]) == pytest.approx(chance(x, y), abs=1e-12)
    assert np.mean([cka(x, y[p]) for p in orders]) == pytest.approx(0, abs=1e-12)


def test_unrelated_activations_score_high_only_where_cka_is_biased() -> None:
    rng = np.random.default_rng(7)
    debiased, biased, expected = [], [], []
    for _ in range(20):
        x, y = rng.normal(size=(2, 50, 1000))
        debiased.append(cka(x, y))
        biased.append(cka(x, y, debiased=False))
        expected.append(chance(x, y))
    assert abs(np.mean(debiased)) < 4 * 0.023 / np.sqrt(20)
    assert np.mean(biased) == pytest.approx(0.952, abs=0.003)
    assert np.mean(expected) == pytest.approx(1000 / 1050, abs=0.003)
    assert np.mean(biased) == pytest.approx(np.mean(expected), abs=0.001)


def test_debiased_cka_estimates_that_of_the_population() -> None:
    """y = x A + noise: |Sigma_xy| / sqrt(|Sigma_xx| |Sigma_yy|), squared Frobenius norms, whatever n is."""
    rng = np.random.default_rng(8)
    a = rng.normal(size=(5, 4))
    truth = (a**2).sum() / np.sqrt(5 * ((a.T @ a + 4 * np.eye(4)) ** 2).sum())
    found = []
    for _ in range(400):
        x = rng.normal(size=(30, 5))
        found.append(cka(x, x @ a + 2 * rng.normal(size=(30, 4))))
    assert np.mean(found) == pytest.approx(truth, abs=0.02 + 3 * np.std(found) / 20)
    assert abs(np.mean(found) - truth) < 0.03


@pytest.mark.parametrize("debiased", [True, False])
def test_chunks_and_shards_give_the_same_cka(debiased: bool) -> None:
    rng = np.random.default_rng(19)
    x, y = related(90, rng)
    x, y = x + 50, y - 80  # far from 0, where uncentred sums would lose digits
    whole, first, second = CKAStream(), CKAStream(origin=(x[0], y[0])), CKAStream(origin=(x[0], y[0]))
    for start in range(0, 90, 7):
        whole.update(x[start : start + 7], torch.tensor(y[start : start + 7]))
    first.update(x[:31], y[:31])
    second.update(x[31:], y[31:])
    first.merge(second)
    first.merge(CKAStream())
    for stream in (whole, first):
        assert stream.cka(debiased=debiased) == pytest.approx(cka(x, y, debiased=debiased), abs=1e-10)
    with pytest.raises(StatisticsError, match="different origins"):
        whole.merge(second)
    with pytest.raises(StatisticsError, match="cannot join those of 6 and 9"):
        whole.update(x, x)
    with pytest.raises(StatisticsError, match="CKA of 0 stimuli"):
        CKAStream().cka(debiased=debiased)


def test_procrustes_is_the_best_rotation() -> None:
    rng = np.random.default_rng(9)
    x, y = (centred(v) for v in related(15, rng, 4, 4))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    best = procrustes(x, y)
    u, _, vt = np.linalg.svd(x.T @ y)
    assert np.sum((x @ u @ vt) * y) == pytest.approx(best, abs=1e-12)
    assert all(np.sum((x @ rotation(4, rng)) * y) <= best for _ in range(200))
    assert angular_distance(x, y) == pytest.approx(np.arccos(best))
    assert angular_distance(x, x @ rotation(4, rng)) < 1e-6


def test_procrustes_through_fewer_stimuli_than_units() -> None:
    rng = np.random.default_rng(10)
    x, y = related(12, rng, 40, 30)
    direct = np.linalg.svd(centred(x).T @ centred(y), compute_uv=False).sum()
    assert procrustes(x, y) == pytest.approx(
        direct / np.linalg.norm(centred(x)) / np.linalg.norm(centred(y)), abs=1e-12
    )


def test_angles_are_a_metric() -> None:
    rng = np.random.default_rng(11)
    for _ in range(50):
        x, y, z = rng.normal(size=(3, 8, 3))
        assert angular_distance(x, z) <= angular_distance(x, y) + angular_distance(y, z) + 1e-9


def test_a_linear_map_is_predicted_in_one_direction() -> None:
    rng = np.random.default_rng(12)
    x = rng.normal(size=(60, 8))
    y = x[:, :2] @ rng.normal(size=(2, 5)) + 7
    assert predictivity(x, y) == pytest.approx(1, abs=1e-9)
    assert similarity(x, y, "predict") == predictivity(x, y)
    assert similarity(x, y, "predicted") == predictivity(y, x)
    assert predictivity(y, x) < 0.5


def test_predictivity_of_noise_is_about_zero_and_not_clipped() -> None:
    rng = np.random.default_rng(13)
    found = [predictivity(*rng.normal(size=(2, 40, 20)), seed=i) for i in range(20)]
    assert min(found) < 0
    assert -0.2 < np.mean(found) < 0.02


def test_predictivity_is_ridge_regression_with_its_penalty_from_the_training_fold() -> None:
    rng = np.random.default_rng(14)
    x, y = related(50, rng, 6, 4)
    penalties = 10.0 ** np.arange(-3, 3)
    error = total = 0.0
    for held in fold_rows(50, 5, seed=3):
        kept = np.setdiff1d(np.arange(50), held)
        unit = np.mean(np.linalg.svd(centred(x[kept]), compute_uv=False) ** 2)
        alpha = RidgeCV(alphas=penalties * unit).fit(x[kept], y[kept]).alpha_
        model = Ridge(alpha=alpha).fit(x[kept], y[kept])
        error += ((model.predict(x[held]) - y[held]) ** 2).sum()
        total += ((y[kept].mean(0) - y[held]) ** 2).sum()
    assert predictivity(x, y, seed=3, penalties=penalties) == pytest.approx(1 - error / total, abs=1e-9)


def test_stimuli_that_belong_together_are_held_out_together() -> None:
    """Copies of a stimulus in training and test would let any wide representation predict noise."""
    rng = np.random.default_rng(15)
    x, y = rng.normal(size=(2, 30, 60))
    groups = np.repeat(np.arange(30), 2)
    twice_x, twice_y = x[groups], y[groups]
    assert predictivity(twice_x, twice_y) > 0.5
    assert predictivity(twice_x, twice_y, groups=groups) < 0.05
    folds = fold_rows(60, 5, 0, groups)
    assert sorted(np.concatenate(folds)) == list(range(60))
    assert all(len(np.unique(groups[f])) * 2 == len(f) for f in folds)
    with pytest.raises(ConfigError, match="between 2 and the number of groups, 3; got 5"):
        predictivity(x, y, groups=np.arange(30) % 3)


@pytest.mark.parametrize("name", MEASURES)
def test_a_hard_minimum_of_stimuli(name: str) -> None:
    measure, rng = MEASURES[name], np.random.default_rng(16)
    x, y = rng.normal(size=(2, measure.least, 3))
    assert similarity(x, y, name) <= 1
    with pytest.raises(StatisticsError, match=f"at least {measure.least} are needed"):
        similarity(x[1:], y[1:], name)


def test_what_is_refused() -> None:
    rng = np.random.default_rng(17)
    x, y = related(20, rng)
    with pytest.raises(ConfigError, match="unknown measure of similarity 'ckaa'; nearest: cka"):
        similarity(x, y, "ckaa")
    with pytest.raises(StatisticsError, match="x has 20 stimuli and y has 19"):
        similarity(x, y[1:])
    with pytest.raises(StatisticsError, match="y is the same for every stimulus"):
        similarity(x, np.full((20, 3), 0.1))
    with pytest.raises(StatisticsError, match="must be a table"):
        similarity(x[:, 0], y)
    bad = y.copy()
    bad[3] = np.inf
    with pytest.raises(NonFiniteError, match="y is NaN or infinite in 1 of 20 stimuli, the first is row 3"):
        similarity(x, bad)
    with pytest.raises(StatisticsError, match="equally far apart"):
        cka(np.eye(20), y)
    with pytest.raises(ConfigError, match="penalties"):
        predictivity(x, y, penalties=[0.0])


def test_repeated_stimuli_are_seen() -> None:
    rng = np.random.default_rng(18)
    x, y = rng.normal(size=(2, 20, 100))
    again = np.r_[np.arange(20), 3, 7]
    with pytest.raises(StatisticsError, match=r"2 of 22 stimuli .* rows 3 and 20"):
        similarity(x[again], y[again])
    assert similarity(x[again], y[again], repeated=True) > similarity(x, y) + 0.05  # what the guard is for
    assert similarity(x[again], np.r_[y, rng.normal(size=(2, 100))]) < 1  # merged by one network only


def test_every_measure_is_named_by_its_key() -> None:
    assert all(name == measure.name for name, measure in MEASURES.items())
    assert len({measure.label for measure in MEASURES.values()}) == len(MEASURES)
    assert issubclass(StatisticsError, HeldoutError)
