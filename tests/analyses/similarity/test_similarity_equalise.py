"""Rescaling of features: the variance that each then explains, in closed form and as measured by `features.variance`."""

from __future__ import annotations

import numpy as np
import pytest
from planted_networks import balanced, directions, network

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.variance import explained, fit_map
from heldout.analyses.similarity.cka import cka
from heldout.analyses.similarity.equalise import equalise, match
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, StatisticsError

LABELS = balanced(100)
SIZES = {"easy": 4.0, "hard": 0.8}
X = network(LABELS, SIZES, seed=1)


def r2(x: np.ndarray, labels: dict, name: str) -> float:
    coding = Coding.fit(labels)
    moments = moments_of(x, coding.encode(labels))
    return explained(fit_map(moments, coding.columns(name)), moments).pooled


def correlated(n: int = 400) -> tuple[np.ndarray, dict]:
    """Two labels that agree in 80% of rows, a category, and directions that are not orthogonal."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, n)
    labels = {"a": a, "b": np.where(rng.random(n) < 0.8, a, 1 - a), "kind": rng.integers(0, 3, n)}
    u = directions(9, 0)
    x = 3 * np.outer(a, u[0]) + 1.0 * np.outer(labels["b"], 0.6 * u[0] + 0.8 * u[1]) + 0.7 * u[2:5][labels["kind"]]
    return x + 0.4 * rng.normal(size=(n, 9)), labels


def test_equalised_features_explain_the_same_and_the_total_stays() -> None:
    for x, labels in ((X, LABELS), correlated()):
        rescale = equalise(Subspaces.fit(x, labels))
        after = rescale(x)
        shares = [r2(after, labels, name) for name in labels]
        np.testing.assert_allclose(shares, shares[0], rtol=1e-8)
        assert list(rescale.reached.values()) == pytest.approx(shares, rel=1e-8)
        assert np.trace(np.cov(after.T)) == pytest.approx(np.trace(np.cov(x.T)), rel=1e-8)
        np.testing.assert_allclose(after.mean(axis=0), x.mean(axis=0), atol=1e-10)
        assert rescale.absent == ()


def test_targets_are_reached() -> None:
    x, labels = correlated()
    for targets in ({"a": 0.3, "b": 0.3, "kind": 0.2}, {"a": 0.05}, {"kind": 0.1, "b": 0.2}):
        rescale = match(Subspaces.fit(x, labels), targets)
        for name, target in targets.items():
            assert r2(rescale(x), labels, name) == pytest.approx(target, rel=1e-8)
            assert rescale.reached[name] == pytest.approx(target, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_strongly_correlated_labels_are_equalised_too(seed: int) -> None:
    """A chain of labels, each agreeing with the one before in up to 95% of rows; some hardly louder than the noise."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2, 300)
    labels = {"0": a}
    for i in range(1, 4):
        labels[str(i)] = np.where(rng.random(300) < rng.uniform(0.5, 0.95), labels[str(i - 1)], rng.integers(0, 2, 300))
    x = sum(10 ** rng.uniform(-1, 1) * np.outer(v, rng.normal(size=20)) for v in labels.values())
    x = np.maximum(x + 0.1 * rng.normal(size=(300, 20)), 0)
    rescale = equalise(Subspaces.fit(x, labels))
    shares = [r2(rescale(x), labels, name) for name in rescale.gains]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-7)


def test_its_own_variances_as_targets_change_nothing() -> None:
    x, labels = correlated()
    space = Subspaces.fit(x, labels)
    rescale = match(space, {name: space.variance_explained(name) for name in labels})
    np.testing.assert_allclose(rescale(x), x, rtol=1e-7)
    assert list(rescale.gains.values()) == pytest.approx([1.0] * 3, rel=1e-8)


def test_gains_of_planted_features_in_closed_form() -> None:
    """Without noise inside the subspaces, variance explained is a^2 / 4 over the total: gains are ratios of square roots."""
    clean = network(LABELS, SIZES, noise=0.0, width=4, seed=2)
    design = np.column_stack([np.ones(400), *LABELS.values()])
    rest = np.random.default_rng(0).normal(size=(400, 3))
    rest -= design @ np.linalg.lstsq(design, rest, rcond=None)[0]
    x = np.column_stack([clean, rest])
    outside, own = rest.var(axis=0).sum(), {name: a**2 / 4 for name, a in SIZES.items()}
    level = sum(own.values()) / 2
    rescale = equalise(Subspaces.fit(x, LABELS))
    for name, gain in rescale.gains.items():
        assert gain == pytest.approx(np.sqrt(level / own[name]), rel=1e-8)
    targets = {"easy": 0.2, "hard": 0.5}
    total = outside / (1 - 0.7)
    for name, gain in match(Subspaces.fit(x, LABELS), targets).gains.items():
        assert gain == pytest.approx(np.sqrt(targets[name] * total / own[name]), rel=1e-8)


def test_scaling_one_feature_moves_no_other_class_means_and_nothing_outside() -> None:
    x, labels = correlated()
    space = Subspaces.fit(x, labels)
    rescale = match(space, {"a": 0.2, "b": 0.2})
    coding, weights = space.coding, fit_map(space.moments, space.coding.columns("a", "b")).weights
    np.testing.assert_allclose(weights @ rescale.matrix, np.diag(list(rescale.gains.values())) @ weights, atol=1e-9)
    other = np.random.default_rng(3).normal(size=(5, 9))
    other -= other @ np.linalg.pinv(weights) @ weights
    np.testing.assert_allclose(other @ rescale.matrix, other, atol=1e-9)
    after = moments_of(rescale(x), coding.encode(labels))
    moved = fit_map(after, coding.columns("a", "b")).weights
    np.testing.assert_allclose(moved[1], weights[1] * rescale.gains["b"], atol=1e-9)


@pytest.mark.parametrize("noise", [0.3, 0.1])
def test_it_undoes_a_change_of_loudness_but_for_the_noise_that_it_scales(noise: float) -> None:
    """Two networks of one content and opposite loudness, their noise independent, on stimuli that were not fitted.

    With own variance c of both features and c (1 + noise / own) of their directions, CKA is 2 c^2 over the squares.
    """
    test, quiet = balanced(150, seed=4), {"easy": 0.8, "hard": 4.0}
    x_fit, y_fit = network(LABELS, SIZES, noise=noise, seed=1), network(LABELS, quiet, noise=noise, seed=2)
    x, y = network(test, SIZES, noise=noise, seed=1), network(test, quiet, noise=noise, seed=2)
    own, v = np.array([4.0**2 / 4, 0.8**2 / 4]), noise**2
    raw = 2 * own.prod() / (((own + v) ** 2).sum() + 10 * v**2)
    assert cka(x, y) == pytest.approx(raw, abs=0.03)
    c = (own + v).sum() / (1 + v / own).sum()
    after = 2 * c**2 / (((c * (1 + v / own)) ** 2).sum() + 10 * v**2)
    rescale = equalise(Subspaces.fit(x_fit, LABELS)), equalise(Subspaces.fit(y_fit, LABELS))
    assert cka(rescale[0](x), rescale[1](y)) == pytest.approx(after, abs=0.03)
    assert after > 5 * raw


def test_a_feature_that_is_not_there_is_left_alone_and_named() -> None:
    alone = network(LABELS, {"easy": 4.0}, seed=6)
    rescale = equalise(Subspaces.fit(alone, LABELS))
    assert rescale.absent == ("hard",)
    np.testing.assert_allclose(rescale(alone), alone, rtol=1e-12)
    partly = match(Subspaces.fit(alone, LABELS), {"easy": 0.3, "hard": 0.3})
    assert partly.absent == ("hard",)
    assert r2(partly(alone), LABELS, "easy") == pytest.approx(0.3, rel=1e-9)
    assert match(Subspaces.fit(alone, LABELS), {"hard": 0.3}).gains == {}


def test_what_no_scaling_reaches_is_refused_with_the_most_that_it_could() -> None:
    noisy = network(LABELS, {"easy": 1.0, "hard": 1.0}, noise=0.5, seed=1)
    space = Subspaces.fit(noisy, LABELS)
    with pytest.raises(StatisticsError, match=r"no scaling reaches the targets .*'easy' at most 0\.[45]"):
        match(space, {"easy": 0.7})
    with pytest.raises(StatisticsError, match="no scaling"):
        match(space, {"easy": 0.45, "hard": 0.45})
    assert match(space, {"easy": 0.4}).reached["easy"] == pytest.approx(0.4)


def test_bad_input_is_refused() -> None:
    space = Subspaces.fit(X, LABELS)
    for target in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match="strictly between 0 and 1"):
            match(space, {"easy": target})
    with pytest.raises(ConfigError, match="no targets"):
        match(space, {})
    with pytest.raises(ConfigError, match="label"):
        equalise(space, "loud")
    with pytest.raises(StatisticsError, match="fitted to 12 units"):
        equalise(space)(X[:, :3])
    one_line = np.outer(LABELS["easy"] + 2 * LABELS["hard"], np.ones(3)) + 0.1 * np.random.default_rng(0).normal(
        size=(400, 3)
    )
    narrow = one_line[:, :1]
    with pytest.raises(StatisticsError, match="overlap"):
        equalise(Subspaces.fit(narrow, LABELS))
