"""Strength with intervals, balanced labels, the permutation null and the invariance battery."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_features import both, planted, rotation
from sklearn.covariance import OAS
from torch import nn

from heldout.analyses.features.invariance import band, oas_shrinkage, shrunk
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.nulls import permutation_null, strata_of
from heldout.analyses.features.strength import (
    balancing_weights,
    carried_over,
    refitted,
    score,
    strength,
    strength_estimates,
)
from heldout.analyses.features.trajectory import trajectory
from heldout.analyses.features.variance import Explained, explained, fit_map, parts
from heldout.errors import ConfigError, StatisticsError

SIZES = {"loud": 3.0, "quiet": 0.8}
FIT, TEST = planted(2000, SIZES, seed=1), planted(2000, SIZES, seed=2)


def test_the_four_figures_agree_with_the_moments() -> None:
    coding, fit, test = both(FIT, TEST)
    errors = score(fit, TEST.x, coding.encode(TEST.table), coding)
    for name, part in parts(fit, test, coding).items():
        found = strength(errors, name)
        assert found["variance_explained"].value == pytest.approx(part.alone, rel=1e-10)
        assert found["variance_unique"].value == pytest.approx(part.unique, rel=1e-10)
        assert found["variance_shared"].value == pytest.approx(part.shared, abs=1e-12)
        share = 1 - errors.error(name) / errors.total
        assert found["variance_per_example"].value == pytest.approx(share.mean(), rel=1e-12)
    rows = strength_estimates(errors, coding, split="test")
    assert [r.quantity for r in rows[:2]] == ["variance_explained:loud", "variance_per_example:loud"]
    assert all(r.low < r.value < r.high and r.n == 2000 and r.split == "test" for r in rows)


def test_an_example_at_the_mean_is_left_out_of_the_mean_of_ratios() -> None:
    table = {"f": np.array([0, 1] * 10)}
    x = np.outer(2 * table["f"] - 1, [1.0, 1.0]) + 0.1 * np.random.default_rng(0).normal(size=(20, 2))
    coding = Coding.fit(table)
    fit = moments_of(x, coding.encode(table))
    there = x.copy()
    there[3] = fit.mean()[1]
    found = strength(score(fit, there, coding.encode(table), coding), "f")["variance_per_example"]
    others = np.delete(np.arange(20), 3)
    errors = score(fit, there[others], coding.encode(table)[others], coding)
    assert found.value == pytest.approx((1 - errors.error("f") / errors.total).mean(), rel=1e-12)


def test_rows_that_repeat_within_clusters_do_not_narrow_the_interval() -> None:
    coding, fit, _ = both(FIT, TEST)
    design = coding.encode(TEST.table)
    once = strength(score(fit, TEST.x, design, coding), "loud")["variance_explained"]
    thrice = score(fit, np.repeat(TEST.x, 3, axis=0), np.repeat(design, 3, axis=0), coding)
    clustered = strength(thrice, "loud", groups=np.repeat(np.arange(2000), 3))["variance_explained"]
    assert clustered.n == 2000
    assert clustered[:4] == pytest.approx(once[:4], rel=1e-9)
    assert strength(thrice, "loud")["variance_explained"].se < 0.6 * once.se


def test_balanced_labels_make_splits_of_other_base_rates_comparable() -> None:
    """The same population at P(f = 1) = .5 and .1: the figure falls with p (1 - p), the balanced ones do not."""
    rare = planted(30_000, SIZES, rate=0.1, seed=3, mean=3.0)
    # The same class means: planted() centres at the rate, which is undone here.
    rare.x[:] = rare.x - 0.4 * sum(
        SIZES[f] * np.linalg.qr(np.random.default_rng(99).normal(size=(12, 12)))[0][i] for i, f in enumerate(SIZES)
    )
    fit_data = planted(30_000, SIZES, seed=4)
    coding, fit, _ = both(fit_data, rare)
    design = coding.encode(rare.table)
    errors = score(fit, rare.x, design, coding)
    cells, levels = coding.cells(rare.table, "loud", "quiet")
    own = moments_of(rare.x, design)
    unbalanced = explained(fit_map(own, coding.columns("loud")), own).pooled
    carried = carried_over(errors, "loud", cells, len(levels))["variance_explained"].value
    again = refitted(rare.x, design, coding, "loud", cells, len(levels), seed=0)["variance_explained"]
    assert unbalanced == pytest.approx(rare.share["loud"], abs=0.01)
    assert unbalanced < fit_data.share["loud"] - 0.1
    assert carried == pytest.approx(fit_data.share["loud"], abs=0.01)
    assert again.value == pytest.approx(fit_data.share["loud"], abs=0.01)
    assert again.n == 15_000


def test_carried_over_sees_a_map_that_moved_and_refitted_does_not() -> None:
    data = planted(6000, SIZES, seed=6)
    coding, fit, _ = both(planted(6000, SIZES, seed=5), data)
    moved = data.x @ rotation(12)
    design = coding.encode(data.table)
    cells, levels = coding.cells(data.table, "loud")
    carried = carried_over(score(fit, moved, design, coding), "loud", cells, 2)["variance_explained"]
    again = refitted(moved, design, coding, "loud", cells, len(levels), seed=0)["variance_explained"]
    assert carried.high < 0.3
    assert again.value == pytest.approx(data.share["loud"], abs=0.02)
    grouped = refitted(moved, design, coding, "loud", cells, 2, seed=0, groups=np.arange(6000) // 4)
    assert grouped["variance_explained"].n == 750


def test_an_empty_cell_cannot_be_balanced() -> None:
    weights = balancing_weights(np.array([0, 0, 0, 1]), 2)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    with pytest.raises(StatisticsError, match="1 of 3 combinations of levels have no rows \\(the first is number 2\\)"):
        balancing_weights(np.array([0, 1]), 3)


def _null(data, strata=None, groups=None, draws=300, seed=0):
    half = len(data.x) // 2
    f = next(iter(data.table.values()))[:, None].astype(float)
    sides = [(data.x[s], f[s]) for s in (slice(half), slice(half, None))]
    cut = None if strata is None else (strata[:half], strata[half:])
    grouped = None if groups is None else (groups[:half], groups[half:])
    return permutation_null(*sides, seed=seed, strata=cut, groups=grouped, draws=draws)


def test_the_null_is_the_same_computation_on_permuted_labels() -> None:
    found = _null(planted(400, {"f": 1.0}, seed=3))
    data = planted(400, {"f": 1.0}, seed=3)
    table = {"f": data.table["f"]}
    coding = Coding.fit({"f": table["f"][:200]})
    fit, test = (moments_of(data.x[s], coding.encode({"f": table["f"][s]})) for s in (slice(200), slice(200, 400)))
    assert found.observed == pytest.approx(explained(fit_map(fit, np.array([0])), test).pooled, rel=1e-9)
    assert found.p == pytest.approx(1 / 301)
    assert abs(found.draws.mean()) < 0.01
    assert found.movable == 1


def test_p_values_of_an_absent_feature_are_uniform() -> None:
    p = [_null(planted(120, {"f": 0.0, "g": 2.0}, seed=s), draws=99).p for s in range(100, 220)]
    assert abs(np.mean(p) - 0.5) < 4 * np.sqrt(1 / 12 / len(p))
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 3 * np.sqrt(0.09 / len(p))


def test_a_feature_that_only_goes_with_another_is_within_the_null_of_its_strata() -> None:
    rng = np.random.default_rng(0)
    g = rng.integers(0, 2, size=1000)
    f = np.where(rng.random(1000) < 0.85, g, 1 - g)
    x = np.outer(g, np.ones(5)) + rng.normal(size=(1000, 5))
    table = {"f": f, "g": g}
    coding = Coding.fit(table)
    strata = strata_of(coding, table, "f")
    np.testing.assert_array_equal(strata, g)
    sides = [(x[s], f[s, None]) for s in (slice(500), slice(500, None))]
    alone = permutation_null(*sides, seed=1, draws=400)
    within = permutation_null(*sides, seed=1, draws=400, strata=(strata[:500], strata[500:]))
    assert alone.p < 0.01
    assert within.p > 0.05
    assert within.threshold > 5 * abs(alone.threshold)
    fixed = permutation_null(*sides, seed=1, strata=(f[:500], f[500:]))
    assert np.isnan(fixed.p)
    assert "tests nothing" in fixed.reason


def test_labels_of_whole_groups_move_together() -> None:
    """Rows of a group are alike and share a label that means nothing: only the permutation of groups has its level."""
    p_rows, p_groups = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 10)
        data = planted(400, {"f": 0.0}, seed=seed)
        data.x[:] = rng.normal(size=(40, 12))[groups] + 0.2 * rng.normal(size=(400, 12))
        data.table["f"] = np.tile([0, 1], 20)[groups]
        p_rows.append(_null(data, draws=99).p)
        p_groups.append(_null(data, groups=groups, draws=99).p)
    assert np.mean(np.array(p_groups) <= 0.1) < 0.3
    assert abs(np.mean(p_groups) - 0.5) < 0.2
    assert np.mean(p_rows) > 0.8  # held out, differences between groups of the fit split only hurt
    varying = np.tile([0, 1], 200)
    data.table["f"] = varying
    assert _null(data, groups=groups, draws=20).movable == 1
    data.table["f"] = np.tile([0, 1], 20)[groups]
    with pytest.raises(StatisticsError, match="strata vary within"):
        _null(data, strata=varying, groups=groups)


def test_the_band_follows_transformed_activations() -> None:
    coding, fit, test = both(FIT, TEST)
    columns = coding.columns("loud")
    found = band(fit, test, coding, "loud", seed=0, shrinkage=0.1)

    def after(a: np.ndarray) -> float:
        there = [moments_of(d.x @ a, coding.encode(d.table)) for d in (FIT, TEST)]
        return explained(fit_map(there[0], columns), there[1]).pooled

    values, vectors = np.linalg.eigh(shrunk(np.cov(FIT.x.T, bias=True), 0.1))
    assert found.whitened == pytest.approx(after(vectors / np.sqrt(values)), rel=1e-8)
    assert found.zscored == pytest.approx(after(np.diag(1 / FIT.x.std(axis=0))), rel=1e-8)
    scale = np.exp(np.random.default_rng(0).normal(size=(100, 12)))
    assert found.gauge[17] == pytest.approx(after(np.diag(scale[17])), rel=1e-8)
    assert found.low <= found.raw <= found.high
    assert found.high - found.low > 0.1
    other = band(fit, test, coding, "loud", seed=0, shrinkage=0.1, elsewhere={"before": (test, fit)})
    assert other.elsewhere["before"] == pytest.approx(explained(fit_map(test, columns), fit).pooled)


def test_the_gauge_changes_activations_and_not_the_function() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 8).double(), nn.Linear(8, 3).double()
    x = torch.randn(50, 6, dtype=torch.float64)
    scale = torch.randn(8, dtype=torch.float64).exp()
    hidden = torch.relu(x @ (first.weight * scale[:, None]).T + first.bias * scale)
    assert torch.allclose(hidden, torch.relu(first(x)) * scale)
    assert torch.allclose(hidden @ (second.weight / scale).T + second.bias, second(torch.relu(first(x))))


@pytest.mark.parametrize("width", [4, 9])
def test_whitened_a_decodable_feature_explains_one_over_the_rank_loud_or_quiet(width: int) -> None:
    data = planted(5000, {"loud": 5.0, "quiet": 0.05}, width=width, noise=0.3, seed=0)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    # Noise is taken off the two directions, so that each is read without error; a further unit repeats another.
    data.x[:] -= (data.x - data.x.mean(0)) @ basis[:2].T @ basis[:2]
    data.x[:] += 5 * np.outer(data.table["loud"], basis[0]) + 0.05 * np.outer(data.table["quiet"], basis[1])
    x = np.column_stack([data.x, data.x[:, 0]])
    coding = Coding.fit(data.table)
    moments = moments_of(x, coding.encode(data.table))
    raw = {}
    for name in data.table:
        found = band(moments, moments, coding, name, seed=0, shrinkage=0)
        raw[name] = found.raw
        assert found.whitened == pytest.approx(1 / width, rel=1e-6)
    assert raw["loud"] > 100 * raw["quiet"]


def test_shrinkage_is_that_of_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(40, 12)) * np.arange(1, 13)
    assert oas_shrinkage(np.cov(x.T, bias=True), 40) == pytest.approx(OAS().fit(x).shrinkage_, rel=1e-10)
    np.testing.assert_allclose(
        shrunk(np.cov(x.T, bias=True), OAS().fit(x).shrinkage_), OAS().fit(x).covariance_, rtol=1e-10
    )
    assert oas_shrinkage(np.eye(5), 10) == 1
    with pytest.raises(StatisticsError, match="do not vary"):
        oas_shrinkage(np.zeros((3, 3)), 10)


def test_a_trajectory_is_on_the_final_scale_and_marks_mastery() -> None:
    totals, gains = [1.0, 4.0, 10.0, 20.0], [0.9, 2.0, 6.0, 12.0]
    points = [Explained(np.array([t]), np.array([t - g]), 10) for t, g in zip(totals, gains, strict=True)]
    found = trajectory("f", [0, 10, 20, 40], points, [0.96, 0.5, 0.97, 0.99])
    np.testing.assert_allclose(found.explained, np.array(gains) / 20)
    np.testing.assert_allclose(found.share, [0.9, 0.5, 0.6, 0.6])  # falls, while the variance grows
    assert found.mastered == 20  # not step 0, which did not last
    assert found.growth_after_mastery().value == pytest.approx(6 / 20)
    never = trajectory("f", [0, 10], points[:2], [0.2, 0.3])
    assert never.mastered is None
    assert "not mastered" in never.growth_after_mastery().reason
    with pytest.raises(ConfigError, match="increasing steps"):
        trajectory("f", [10, 0], points[:2], [0.2, 0.3])
