"""Closed forms and identities of variance explained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_features import both, planted, rotation
from sklearn.linear_model import LinearRegression

from heldout.analyses.features.factorial import RESIDUAL, cell_moments, factorial
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, chunks, moments_of
from heldout.analyses.features.strength import score
from heldout.analyses.features.variance import (
    ALL,
    commonality,
    explained,
    fit_map,
    parts,
    standard_maps,
    subsets,
)
from heldout.errors import StatisticsError

SIZES = {"loud": 3.0, "quiet": 0.8, "absent": 0.0}
FIT, TEST = planted(3000, SIZES, seed=1), planted(2500, SIZES, seed=2)


def in_sample(x: np.ndarray, table: dict, name: str, **more) -> float:
    coding = Coding.fit(table, **more)
    moments = moments_of(x, coding.encode(table))
    return explained(fit_map(moments, coding.columns(name)), moments).pooled


def test_a_binary_feature_explains_p_q_delta_squared_over_trace() -> None:
    for seed, rate in enumerate((0.5, 0.2, 0.03)):
        data = planted(700, SIZES, rate=rate, seed=seed)
        f, x = data.table["loud"], data.x
        delta = x[f == 1].mean(axis=0) - x[f == 0].mean(axis=0)
        p = f.mean()
        closed = p * (1 - p) * (delta @ delta) / np.trace(np.cov(x.T, bias=True))
        assert in_sample(x, data.table, "loud") == pytest.approx(closed, rel=1e-12)


def test_held_out_it_is_what_scikit_learn_predicts() -> None:
    coding, fit, test = both(FIT, TEST)
    for names in (["loud"], ["loud", "quiet"], ["loud", "quiet", "absent"]):
        columns = coding.columns(*names)
        b, c = coding.encode(FIT.table)[:, columns], coding.encode(TEST.table)[:, columns]
        error = TEST.x - LinearRegression().fit(b, FIT.x).predict(c)
        about_mean = TEST.x - FIT.x.mean(axis=0)
        found = explained(fit_map(fit, columns), test)
        assert found.pooled == pytest.approx(1 - (error**2).sum() / (about_mean**2).sum(), rel=1e-10)
        np.testing.assert_allclose(found.by_unit, 1 - (error**2).sum(0) / (about_mean**2).sum(0), rtol=1e-9)
        np.testing.assert_allclose(found.error, (error**2).mean(axis=0), rtol=1e-9)


def test_planted_features_are_recovered_to_a_hundredth() -> None:
    fit, test = planted(20_000, SIZES, seed=1), planted(20_000, SIZES, seed=2)
    coding, a, b = both(fit, test)
    for name, found in parts(a, b, coding).items():
        assert found.alone == pytest.approx(fit.share[name], abs=0.01)
        assert found.unique == pytest.approx(fit.share[name], abs=0.01)
        assert found.shared == pytest.approx(0, abs=0.005)


def test_a_feature_that_is_absent_is_about_zero_and_is_not_clipped() -> None:
    values = []
    for seed in range(40):
        coding, fit, test = both(planted(200, SIZES, seed=2 * seed), planted(200, SIZES, seed=2 * seed + 1))
        values.append(parts(fit, test, coding)["absent"].alone)
    assert min(values) < 0
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)) + 1 / 200


def test_in_sample_inflation_is_q_over_n() -> None:
    """E[R^2] in sample is R^2 + (1 - R^2) q / (n - 1): for noise alone, q / (n - 1)."""
    rng, n = np.random.default_rng(0), 40
    values = [
        in_sample(rng.normal(size=(n, 6)), {"f": rng.permutation(np.repeat([0, 1, 2], [14, 13, 13]))}, "f")
        for _ in range(400)
    ]
    assert np.mean(values) == pytest.approx(2 / (n - 1), abs=4 * np.std(values) / 20)


def test_the_coding_of_classes_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    k = rng.integers(0, 4, size=600)
    x = rng.normal(size=(4, 5))[k] + rng.normal(size=(600, 5)) + 20
    reference = in_sample(x, {"f": k}, "f")
    assert in_sample(x, {"f": np.array(list("dbca"))[k]}, "f") == pytest.approx(reference, rel=1e-12)  # another dropped
    f = (k > 1).astype(int)
    zero_one = in_sample(x, {"f": f}, "f")
    for other in (2 * f - 1, 1 - f, f - f.mean(), f * 7.5 + 100, f.astype(bool)):
        assert in_sample(x, {"f": other}, "f", kinds={"f": "binary"}) == pytest.approx(zero_one, rel=1e-12)
        if other.dtype != bool:
            assert in_sample(x, {"f": other}, "f", kinds={"f": "continuous"}) == pytest.approx(zero_one, rel=1e-10)
    # What uncentred 0/1 codes without an intercept would give is another number.
    centred = x - x.mean(axis=0)
    w = f @ centred / (f @ f)
    naive = 1 - ((centred - np.outer(f, w)) ** 2).sum() / (centred**2).sum()
    assert naive < 0.6 * zero_one


def test_rotations_and_a_global_scale_change_nothing_but_a_units_scale_does() -> None:
    coding, fit, test = both(FIT, TEST)
    columns = coding.columns("loud")
    reference = explained(fit_map(fit, columns), test).pooled

    def after(a: np.ndarray) -> float:
        there = [moments_of(d.x @ a, coding.encode(d.table)) for d in (FIT, TEST)]
        return explained(fit_map(there[0], columns), there[1]).pooled

    assert after(rotation(12)) == pytest.approx(reference, rel=1e-11)
    assert after(-7e3 * np.eye(12)) == pytest.approx(reference, rel=1e-11)
    assert abs(after(np.diag(np.arange(1.0, 13))) - reference) > 0.01


def test_variance_weighted_units_average_to_the_pooled_figure() -> None:
    coding, fit, _ = both(FIT, TEST)
    found = explained(fit_map(fit, coding.columns("loud")), fit)
    r2 = np.array([np.corrcoef(FIT.table["loud"], u)[0, 1] ** 2 for u in FIT.x.T])
    np.testing.assert_allclose(found.by_unit, r2, rtol=1e-9)
    assert found.pooled == pytest.approx(fit.variances @ r2 / fit.variances.sum(), rel=1e-12)


def test_parts_in_common_add_up() -> None:
    rng = np.random.default_rng(8)
    a = rng.integers(0, 2, size=800)
    b = np.where(rng.random(800) < 0.8, a, 1 - a)
    c = rng.integers(0, 3, size=800)
    x = np.outer(a, [2, 0, 1.0]) + np.outer(b, [0, 2, 1.0]) + np.outer(c, [0, 0, 0.5]) + rng.normal(size=(800, 3))
    coding = Coding.fit({"a": a, "b": b, "c": c})
    design = coding.encode({"a": a, "b": b, "c": c})
    fit, test = moments_of(x[:400], design[:400]), moments_of(x[400:], design[400:])
    r2 = subsets(fit, test, coding)
    common, part = commonality(r2), parts(fit, test, coding)
    assert sum(common.values()) == pytest.approx(r2["a", "b", "c"])  # the empty set's R^2 is not quite 0, and not in it
    for name in "abc":
        assert common[name,] == pytest.approx(part[name].unique, rel=1e-12)
        everywhere = sum(v for chosen, v in common.items() if name in chosen)
        assert everywhere == pytest.approx(part[name].alone, abs=0.01)
    assert common["a", "b"] > 0.1  # correlated, and represented alike
    assert common["a", "b"] + common["a", "b", "c"] + common["a", "c"] == pytest.approx(part["a"].shared, abs=0.01)


def test_factorial_effects_add_to_one_with_what_is_left_within_cells() -> None:
    rng = np.random.default_rng(4)
    names = ("a", "b", "c")
    codes = np.repeat(np.arange(8), [30, 50, 20, 44, 30, 30, 60, 31])  # unbalanced: cells are weighed alike
    bits = (codes[:, None] >> np.array([2, 1, 0])) & 1
    x = rng.normal(size=(len(codes), 6)) + np.outer(bits[:, 0], np.ones(6)) + np.outer(bits[:, 1] ^ bits[:, 2], [2] * 6)
    table = dict(zip(names, bits.T, strict=True))
    coding = Coding.fit(table)
    cells, levels = coding.cells(table, *names)
    assert levels[5] == (1, 0, 1)
    assert np.array_equal(cells, codes)
    moments = cell_moments(x, cells, 8)
    found = factorial(moments, moments, names)
    assert len(found) == 8
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert all(v >= 0 for v in found.values())
    assert found["b", "c"] > 5 * max(found["b",], found["c",], found["a", "b"])
    weights = (1 / np.bincount(cells))[cells]
    within = sum(((x[cells == c] - x[cells == c].mean(0)) ** 2).sum() / (cells == c).sum() for c in range(8))
    centre = np.mean([x[cells == c].mean(0) for c in range(8)], axis=0)
    assert found[RESIDUAL] == pytest.approx(within / (weights @ ((x - centre) ** 2).sum(1)), rel=1e-12)


def test_a_main_effect_of_a_balanced_design_is_the_features_own_figure() -> None:
    table = {"a": np.tile([0, 0, 1, 1], 50), "b": np.tile([0, 1], 100)}
    x = np.random.default_rng(0).normal(size=(200, 4)) + np.outer(table["a"] * table["b"], [3, 1, 0, 0])
    coding = Coding.fit(table)
    moments = cell_moments(x, coding.cells(table, "a", "b")[0], 4)
    found = factorial(moments, moments, ("a", "b"))
    for name in table:
        assert found[name,] == pytest.approx(in_sample(x, table, name), rel=1e-12)
    fit, test = (cell_moments(x[s], coding.cells(table, "a", "b")[0][s], 4) for s in (slice(100), slice(100, 200)))
    held_out = factorial(fit, test, ("a", "b"))
    assert sum(held_out.values()) == pytest.approx(1, abs=1e-12)
    saturated = Coding.fit({"cell": table["a"] * 2 + table["b"]})
    design = saturated.encode({"cell": table["a"] * 2 + table["b"]})
    r2 = explained(fit_map(moments_of(x[:100], design[:100]), np.arange(3)), moments_of(x[100:], design[100:])).pooled
    assert 1 - held_out[RESIDUAL] == pytest.approx(r2, abs=1e-12)


def test_a_cell_without_rows_is_named() -> None:
    centroids = cell_moments(np.ones((4, 2)), np.array([0, 1, 3, 3]), 4)
    with pytest.raises(StatisticsError, match="fit split have a=1 b=0"):
        factorial(centroids, centroids, ("a", "b"))


@pytest.mark.parametrize("size", [1, 7, 4000])
def test_chunks_shards_and_weights_give_what_one_product_gives(size: int) -> None:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 1e4
    design = np.random.default_rng(0).random((60, 2))
    streams = [JointMoments(2), JointMoments(2)]
    for i, (rows, part) in enumerate(chunks(x, design, size)):
        streams[i % 2].update(rows, part)
    if streams[1].n:
        streams[0].merge(streams[1])
    z = np.column_stack([design, x.double().numpy()])
    whole = np.cov(z.T, bias=True)
    np.testing.assert_allclose(streams[0].xx, whole[2:, 2:], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(streams[0].bx, whole[:2, 2:], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(streams[0].bb, whole[:2, :2], rtol=1e-10)


def test_whole_weights_are_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    x, design, times = rng.normal(size=(50, 4)), rng.normal(size=(50, 2)), rng.integers(0, 4, size=50)
    weighted = moments_of(x, design, times)
    repeated = moments_of(np.repeat(x, times, axis=0), np.repeat(design, times, axis=0))
    for block in ("bb", "bx", "xx", "variances"):
        np.testing.assert_allclose(getattr(weighted, block), getattr(repeated, block), rtol=1e-10, atol=1e-14)
    with pytest.raises(StatisticsError, match="no count of rows"):
        weighted.activations()


def test_rows_add_up_to_the_moments() -> None:
    coding, fit, test = both(FIT, TEST)
    errors = score(fit, TEST.x, coding.encode(TEST.table), coding)
    for name, fitted in standard_maps(fit, coding).items():
        found = explained(fitted, test)
        assert errors.error(name).mean() == pytest.approx(found.error.sum(), rel=1e-10)
        assert errors.total.mean() == pytest.approx(found.whole, rel=1e-10)
    assert ALL in errors.maps


def test_labels_that_depend_on_each_other_do_no_harm() -> None:
    table = FIT.table | {"again": FIT.table["loud"], "either": FIT.table["loud"] | FIT.table["quiet"]}
    coding = Coding.fit(table)
    moments = moments_of(FIT.x, coding.encode(table))
    alone = in_sample(FIT.x, FIT.table, "loud")
    both_ = explained(fit_map(moments, coding.columns("loud", "again")), moments).pooled
    assert both_ == pytest.approx(alone, rel=1e-10)
    assert parts(moments, moments, coding)["again"].unique == pytest.approx(0, abs=1e-12)


def test_more_columns_than_rows_and_activations_that_do_not_vary_are_refused() -> None:
    coding, fit, _ = both(FIT, TEST)
    few = moments_of(FIT.x[:3], coding.encode(FIT.table)[:3])
    with pytest.raises(StatisticsError, match="3 label columns cannot be fitted to 3 rows"):
        fit_map(few, coding.columns(*coding.names))
    flat = moments_of(np.ones((10, 3)), coding.encode(FIT.table)[:10])
    with pytest.raises(StatisticsError, match="do not vary"):
        _ = explained(fit_map(flat, coding.columns("loud")), flat).pooled
    assert fit.n == 3000
