"""Steering, subspace ablation, and the dissociation of importance from variance."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from planted_features import Planted, planted

from heldout.analyses.features.decisions import above_zero, as_labels, decided
from heldout.analyses.features.dissociation import dissociation, dissociation_over_units
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.steering import class_difference, push, steer
from heldout.analyses.features.subspace import Removal, ablation_cost, subspace_removal
from heldout.analyses.features.variance import fit_map
from heldout.errors import ConfigError, StatisticsError

SIZES = {"loud": 3.0, "quiet": 0.8}
NAMES = list(SIZES)
BASIS = np.linalg.qr(np.random.default_rng(99).normal(size=(12, 12)))[0]


def material(noise: float = 0.05) -> tuple[Planted, Planted, object]:
    """Two splits, and a head that reads each feature along its own direction, thresholds half way."""
    fit, test = planted(3000, SIZES, noise=noise, seed=1), planted(1000, SIZES, noise=noise, seed=2)
    directions = torch.from_numpy(BASIS[:2].copy())
    decide = above_zero(lambda rows: (rows - 3.0) @ directions.T)
    return fit, test, decide


def moments(data: Planted):
    coding = Coding.fit(data.table)
    return coding, moments_of(data.x, coding.encode(data.table))


def test_half_flip_where_the_push_crosses_the_middle() -> None:
    fit, test, decide = material()
    coding, here = moments(fit)
    x = torch.from_numpy(test.x)
    for name, size in SIZES.items():
        direction = class_difference(here, coding.feature(name).columns.start)
        f = fit.table[name]
        np.testing.assert_allclose(direction.difference, fit.x[f == 1].mean(0) - fit.x[f == 0].mean(0), atol=1e-10)
        assert direction.length == pytest.approx(size, rel=0.01)
        assert direction.spread == pytest.approx(np.std(fit.x @ direction.difference / direction.length), rel=1e-10)
        found = steer(decide, x, NAMES, name, direction)
        assert found.half.value == pytest.approx(0.5, abs=0.03)  # in units of the difference alike for both
        assert found.half.low <= found.half.value <= found.half.high
        assert found.half_length == pytest.approx(size / 2, rel=0.06)  # as a length the quiet one needs less
        assert found.half_deviations == pytest.approx(found.half_length / direction.spread)
        assert max(found.off_target(1.0).values()) < 0.02
        at = NAMES.index(name)
        assert found.flips[0].max() == 0
        assert found.flips[-1, at] == 1


def test_every_flip_is_that_of_its_own_row() -> None:
    """Against a loop over rows that pushes each by hand."""
    fit, test, decide = material(noise=0.4)
    coding, here = moments(fit)
    direction = class_difference(here, coding.feature("quiet").columns.start)
    x = torch.from_numpy(test.x[:80])
    found = steer(decide, x, NAMES, "quiet", direction, alphas=[0.3, 0.7])
    for i, alpha in enumerate([0.3, 0.7]):
        flipped = []
        for row in x:
            before = decided(decide, row[None], NAMES)[0]
            sign = -1 if before[1] else 1
            after = decided(decide, row[None] + sign * alpha * torch.from_numpy(direction.difference), NAMES)[0]
            flipped.append(before != after)
        np.testing.assert_allclose(found.flips[i], np.mean(flipped, axis=0))
    with pytest.raises(ConfigError, match=r"not on the grid; choose from 0\.3, 0\.7"):
        found.off_target(0.5)


def test_a_push_that_flips_too_few_says_so() -> None:
    fit, test, _ = material()
    coding, here = moments(fit)
    deaf = above_zero(lambda rows: torch.ones(len(rows), 2))
    found = steer(deaf, torch.from_numpy(test.x), NAMES, "loud", class_difference(here, 0))
    assert np.isnan(found.half.value)
    assert "at most 0% of rows flip up to alpha 2" in found.half.estimate("alpha_50").reason
    with pytest.raises(ConfigError, match="unknown feature 'lod'"):
        steer(deaf, torch.from_numpy(test.x), NAMES, "lod", class_difference(here, 0))
    assert coding.width == 2


def test_a_push_as_an_edit() -> None:
    _, here = moments(planted(200, SIZES, seed=0))
    direction = class_difference(here, 0)
    edit = push("readout.in", direction, -0.5)
    x = torch.randn(2, 3, 12)
    moved = edit.functions[next(iter(edit.functions))](x, None)
    assert torch.allclose(moved - x, torch.from_numpy(-0.5 * direction.difference).float().expand_as(x), atol=1e-6)
    with pytest.raises(StatisticsError, match="class means coincide"):
        class_difference(moments_of(np.zeros((4, 2)), np.array([[0], [1], [0], [1.0]])), 0)


def test_removing_a_features_subspace_costs_that_feature() -> None:
    fit, test, decide = material()
    coding, here = moments(fit)
    labels = np.stack([test.table[n] for n in NAMES], axis=1)
    mean = here.mean()[1]
    for name in NAMES:
        basis = fit_map(here, coding.columns(name)).weights
        found = ablation_cost(decide, torch.from_numpy(test.x), labels, NAMES, basis, mean, seed=0)
        other = next(n for n in NAMES if n != name)
        assert found.rank == 1
        assert found.cost[name].value == pytest.approx(0.5, abs=0.06)
        assert found.cost[name].low > 0.4
        assert abs(found.cost[other].value) < 0.02
        assert found.random.shape == (20, 2)
        assert found.random.mean() < 0.1


def test_removal_is_a_projection_and_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    basis, mean = rng.normal(size=(2, 5)), rng.normal(size=5)
    remove = Removal(np.vstack([basis, basis[0] + basis[1]]), mean)
    x = torch.from_numpy(rng.normal(size=(30, 5)))
    once = remove.reconstruct(x)
    assert remove.rank == 2
    assert torch.allclose(remove.reconstruct(once), once)
    assert torch.allclose((once - torch.from_numpy(mean)) @ torch.from_numpy(basis.T), torch.zeros(30, 2).double())
    edit = subspace_removal("hidden.0.act", basis, mean, name="depth", fit_split="train")
    assert torch.allclose(edit.functions["hidden.0.act"](x.reshape(5, 6, 5), None), once.reshape(5, 6, 5))
    assert edit.origin.label == "depth-2"
    with pytest.raises(StatisticsError, match="basis is zero"):
        Removal(np.zeros((1, 5)), mean)
    with pytest.raises(ConfigError, match="a mean \\(D,\\)"):
        Removal(basis, mean[:3])


def test_decisions_and_labels_of_another_shape_are_named() -> None:
    with pytest.raises(ConfigError, match="\\(rows, 3\\) was expected"):
        decided(above_zero(lambda rows: rows[:, :2]), torch.zeros(4, 2), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="\\(4, 1\\) was expected"):
        as_labels(np.zeros(4), 4, ["a"])
    with pytest.raises(ConfigError, match="must be 0 or 1"):
        as_labels(np.full((4, 1), 2), 4, ["a"], binary=True)


def test_the_index_is_a_difference_of_ranks() -> None:
    found = dissociation([0.3, 0.5, 0.1], [0.6, 0.01, 0.2], ["a", "b", "c"])
    np.testing.assert_array_equal(found.index, [-1, 2, -1])
    np.testing.assert_allclose(found.p, [2 / 3, 1 / 3, 1])
    ties = dissociation([0.3, 0.3], [0.6, 0.1], ["a", "b"])
    np.testing.assert_array_equal(ties.index, [-0.5, 0.5])
    np.testing.assert_allclose(ties.p, [1, 1])


def test_p_is_that_of_all_ways_to_deal_importance_out() -> None:
    rng = np.random.default_rng(0)
    importance, variance = rng.integers(0, 4, size=(3, 4)).astype(float), rng.random((3, 4))
    found = dissociation(importance, variance, list("abcd"))
    from scipy.stats import rankdata

    ours, theirs = rankdata(importance, axis=1), rankdata(variance, axis=1)
    for f in range(4):
        dealt = [np.mean([ours[s, k] - theirs[s, f] for s, k in enumerate(p)]) for p in product(range(4), repeat=3)]
        assert found.p[f] == pytest.approx(np.mean(np.array(dealt) >= found.index[f] - 1e-12))
    always = dissociation(np.tile([0.1, 0.9], (5, 1)), np.tile([0.9, 0.1], (5, 1)), ["a", "b"])
    assert always.p[1] == pytest.approx(2**-5)


def test_quiet_features_are_those_whose_index_survives_resampling() -> None:
    rng = np.random.default_rng(0)
    n = 600
    lost = (rng.random((n, 3)) < [0.1, 0.5, 0.3]).astype(float)
    total = rng.random(n) + 1
    explained = total[:, None] * rng.random((n, 3)) * [0.6, 0.02, 0.2]
    found = dissociation_over_units(lost, explained, total, ["loud", "quiet", "middle"], seed=0)
    np.testing.assert_array_equal(found.index, [-2, 2, 0])
    assert found.quiet() == ["quiet"]
    same = rng.random((n, 1)) * np.ones((1, 3)) * [1.0, 1.001, 0.999]
    noisy = lost * 0 + (rng.random((n, 3)) < 0.3)
    unsure = dissociation_over_units(noisy, same, total, ["a", "b", "c"], seed=0, groups=np.arange(n) // 3)
    assert unsure.quiet() == []
    with pytest.raises(StatisticsError, match="ranks need finite values"):
        dissociation([0.1, np.nan], [0.2, 0.3], ["a", "b"])
    with pytest.raises(ConfigError, match="each of two features"):
        dissociation([0.1], [0.2], ["a"])
