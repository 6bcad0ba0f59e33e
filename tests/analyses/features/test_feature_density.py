"""Density and its nulls; principal components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_features import both, planted, rotation

from heldout.analyses.features.decisions import above_zero
from heldout.analyses.features.density import (
    density,
    direction_r2,
    live_units,
    participation,
    permuted_r2,
    selectivity,
    unit_r2,
)
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.principal import (
    component_r2,
    components,
    effective_dimension,
    survival,
    top_components,
)
from heldout.analyses.features.variance import explained, fit_map
from heldout.errors import ConfigError, StatisticsError


def one(x: np.ndarray, f: np.ndarray, **more):
    coding = Coding.fit({"f": f})
    return density(moments_of(x, coding.encode({"f": f})), coding, "f", seed=0, **more)


def carried_by(units: int, width: int = 20, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(units)
    f = rng.integers(0, 2, size=n)
    x = rng.normal(size=(n, width))
    x[:, :units] += 2 * f[:, None]
    return x, f


@pytest.mark.parametrize("units", [1, 5, 20])
def test_density_is_the_share_of_units_that_carry_a_feature_alike(units: int) -> None:
    x, f = carried_by(units)
    found = one(x, f)
    assert found.value == pytest.approx(units / 20, rel=0.03)
    assert found.fraction[0.25] == units / 20
    assert units / 20 <= found.discoveries <= units / 20 + 0.1
    assert found.p == pytest.approx(1 / 1000)
    assert found.pooled == pytest.approx(found.r2 @ x.var(axis=0) / x.var(axis=0).sum(), rel=1e-10)


def test_an_absent_feature_has_no_density_though_chance_alone_scores_a_third() -> None:
    rng = np.random.default_rng(1)
    x, f = rng.normal(size=(2000, 400)), rng.integers(0, 2, size=2000)
    found = one(x, f)
    assert np.isnan(found.value)
    assert "does not exceed its permutation null" in found.reason
    assert participation(found.r2, 0, 2000) == pytest.approx(1 / 3, abs=0.05)  # without debiasing
    assert found.random_direction == pytest.approx(1 / 3, abs=0.05)
    assert found.permuted < 0.25  # E[max(0, z^2 - 1)]^2 / E[max(0, z^2 - 1)^2]
    assert found.fraction[0.05] == 0
    assert found.discoveries < 0.02


def test_the_null_from_moments_is_that_of_permuted_rows() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + rng.exponential(size=(500, 6))
    f = (rng.random(500) < 0.3).astype(float)
    sigma = np.cov(x.T, bias=True)
    ours = permuted_r2(sigma, 1, 500, 4000, rng)
    centred = (x - x.mean(0)) / x.std(0)
    z = (f - f.mean()) / f.std()
    real = np.array([(rng.permutation(z) @ centred / 500) ** 2 for _ in range(4000)])
    np.testing.assert_allclose(ours.mean(axis=0), real.mean(axis=0), rtol=0.1)
    weights = np.diagonal(sigma) / np.trace(sigma)
    np.testing.assert_allclose(
        np.quantile(ours @ weights, [0.5, 0.95]), np.quantile(real @ weights, [0.5, 0.95]), rtol=0.12
    )
    np.testing.assert_allclose(np.corrcoef(ours.T), np.corrcoef(real.T), atol=0.12)


def test_random_directions_are_correlations_with_projections() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
    found = direction_r2(np.cov(x.T, bias=True), 1, np.random.default_rng(7))[0]
    along = x @ np.random.default_rng(7).normal(size=4)
    np.testing.assert_allclose(found, [np.corrcoef(u, along)[0, 1] ** 2 for u in x.T], rtol=1e-9)


def test_dead_units_are_counted_and_left_out() -> None:
    x, f = carried_by(4)
    x = np.column_stack([x[:, :8], np.ones((len(x), 3)), 1e-5 * x[:, :1]])
    found = one(x, f)
    assert (found.live, found.units) == (8, 12)
    assert np.isnan(found.r2[8:]).all()
    assert found.value == pytest.approx(0.5, rel=0.03)
    with pytest.raises(StatisticsError, match="all units are dead"):
        live_units(moments_of(np.ones((5, 2)), np.arange(5)[:, None]))


def test_classes_are_debiased_by_their_columns_and_clusters_by_their_number() -> None:
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(300, 200)), rng.integers(0, 6, size=300)
    coding = Coding.fit({"k": k})
    moments = moments_of(x, coding.encode({"k": k}))
    assert unit_r2(moments, coding.columns("k")).mean() == pytest.approx(5 / 299, rel=0.15)
    found = density(moments, coding, "k", seed=0)
    assert found.null > 5 / 299
    fewer = density(moments, coding, "k", seed=0, n=30)
    assert fewer.null > 5 * found.null
    with pytest.raises(StatisticsError, match="more than 7 independent rows"):
        density(moments, coding, "k", seed=0, n=7)


def test_selectivity_tells_which_label_a_unit_carries() -> None:
    found = selectivity(np.array([0.5, 0.0, 0.2, 0.0, np.nan]), np.array([0.0, 0.5, 0.2, 0.0, np.nan]))
    np.testing.assert_array_equal(found, [1, -1, 0, np.nan, np.nan])


SIZES = {"loud": 3.0, "quiet": 0.8}


def test_variance_weighted_components_average_to_the_pooled_figure() -> None:
    coding, fit, test = both(planted(2000, SIZES, seed=1), planted(2000, SIZES, seed=2))
    pca = components(fit)
    for moments in (fit, test):  # any complete rotation will do
        for name in SIZES:
            columns = coding.columns(name)
            spread, r2 = component_r2(pca, moments, columns)
            here = explained(fit_map(moments, columns), moments).pooled
            assert spread @ r2 / spread.sum() == pytest.approx(here, rel=1e-10)
    assert r2.argmax() == 1  # the quiet one has the second component
    spread, r2 = component_r2(pca, fit, coding.columns("loud"))
    assert r2.argmax() == 0
    np.testing.assert_allclose(spread, pca.spectrum_.numpy(), rtol=1e-9)
    assert effective_dimension(spread) == pytest.approx(fit.variances.sum() ** 2 / np.square(fit.xx).sum(), rel=1e-9)
    assert effective_dimension([2, 2, 2, 0]) == 3


def test_a_component_that_does_not_vary_is_nan() -> None:
    data = planted(300, {"f": 1.0}, seed=1)
    x = np.column_stack([data.x, data.x[:, 0]])
    coding = Coding.fit(data.table)
    fit = moments_of(x, coding.encode(data.table))
    _, r2 = component_r2(components(fit), fit, coding.columns("f"))
    assert np.isnan(r2[-1])
    assert np.isfinite(r2[:-1]).all()


def test_a_loud_feature_survives_on_fewer_components() -> None:
    fit, test = planted(2000, SIZES, noise=0.1, seed=1), planted(1000, SIZES, noise=0.1, seed=2)
    coding, moments, _ = both(fit, test)
    difference = torch.from_numpy(fit_map(moments, coding.columns("loud", "quiet")).weights)
    middle = torch.from_numpy(moments.mean()[1]) + ((0.5 - torch.from_numpy(moments.mean()[0])) @ difference)
    decide = above_zero(lambda rows: (rows - middle) @ difference.T)
    labels = np.stack([test.table[n] for n in SIZES], axis=1)
    found = survival(decide, torch.from_numpy(test.x), labels, list(SIZES), components(moments), [1, 2, 3, 12])
    assert found.full.min() > 0.99
    assert found.k95("loud") == 1
    assert found.k95("quiet") == 2
    np.testing.assert_allclose(found.accuracy[-1], found.full)
    assert abs(found.accuracy[0, 1] - 0.5) < 0.06
    with pytest.raises(ConfigError, match="no feature 'soft'"):
        found.k95("soft")
    with pytest.raises(ConfigError, match="ranks must increase"):
        survival(decide, torch.from_numpy(test.x), labels, list(SIZES), components(moments), [3, 2])


def test_the_edit_is_the_reconstruction() -> None:
    coding, fit, _ = both(planted(500, SIZES, seed=1), planted(500, SIZES, seed=2))
    pca = components(fit)
    edit = top_components("hidden.0.act", pca, 2, fit_split="train")
    x = torch.from_numpy(planted(30, SIZES, seed=3).x).reshape(5, 6, 12)
    mean, top = torch.from_numpy(fit.mean()[1]), torch.from_numpy(np.linalg.eigh(fit.xx)[1][:, -2:])
    expected = mean + (x - mean) @ top @ top.T
    assert torch.allclose(edit.functions["hidden.0.act"](x, None), expected)
    assert (edit.origin.label, edit.origin.fit_split) == ("pca-2", "train")
    assert coding.width == 2


def test_survival_does_not_depend_on_the_basis() -> None:
    a = rotation(12)
    data = planted(400, SIZES, seed=1)
    coding = Coding.fit(data.table)
    labels = np.stack([data.table[n] for n in SIZES], axis=1)
    w = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 2)))
    found = []
    for q in (np.eye(12), a):
        fit = moments_of(data.x @ q, coding.encode(data.table))
        decide = above_zero(lambda rows, q=q: (rows - torch.from_numpy(fit.mean()[1])) @ torch.from_numpy(q.T) @ w)  # noqa: B023
        found.append(survival(decide, torch.from_numpy(data.x @ q), labels, list(SIZES), components(fit), [1, 3]))
    np.testing.assert_allclose(found[0].accuracy, found[1].accuracy, atol=0.01)
