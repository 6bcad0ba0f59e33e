"""Partial correlations: two regressions, the inverse correlation matrix, planted terms, and the level of the nulls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, spearmanr
from token_networks import TokenNet, split_of

from heldout.analyses.geometry.kept import fit_rows
from heldout.analyses.geometry.library import library
from heldout.analyses.geometry.partial_null import Exchange, partial_null
from heldout.analyses.geometry.passes import rows_at
from heldout.analyses.geometry.terms import beside, component_features, correlations
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

Floats = np.ndarray


def collinear(n: int = 300, seed: int = 0) -> dict[str, Floats]:
    a = np.linspace(20, 250, n)
    rng = np.random.default_rng(seed)
    return {"volume": a, "surface": a ** (2 / 3), "pairing": rng.choice([-1.0, 0, 1], n), "other": rng.normal(size=n)}


def by_regression(y: Floats, x: Floats, others: Floats) -> float:
    """The definition: correlate what a regression on the others leaves of each."""
    design = np.column_stack([np.ones(len(y)), others])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (y, x)]
    return float(np.corrcoef(*left)[0, 1])


def test_partial_correlations_are_their_definition() -> None:
    terms = collinear()
    made, rng = library(terms), np.random.default_rng(1)
    y = (
        rng.normal(size=(300, 3))
        + np.outer(terms["volume"], [0.02, 0.0, -0.01])
        + np.outer(terms["pairing"], [0, 1, 2])
    )
    found = correlations(y, made)
    values = made.values
    for t in range(4):
        others = np.delete(values, t, axis=1)
        for k in range(3):
            assert found.partial[k, t] == pytest.approx(by_regression(y[:, k], values[:, t], others), abs=1e-10)
            assert found.pearson[k, t] == pytest.approx(np.corrcoef(y[:, k], values[:, t])[0, 1], abs=1e-12)
            assert found.spearman[k, t] == pytest.approx(spearmanr(y[:, k], values[:, t])[0], abs=1e-12)
        precision = np.linalg.inv(np.corrcoef(np.column_stack([y[:, 0], values]).T))
        wanted = -precision[0, t + 1] / np.sqrt(precision[0, 0] * precision[t + 1, t + 1])
        assert found.partial[0, t] == pytest.approx(wanted, abs=1e-8)


def test_tolerance_is_the_inverse_of_the_inflation() -> None:
    made = library(collinear())
    inverse = np.diagonal(np.linalg.inv(np.corrcoef(made.values.T)))
    np.testing.assert_allclose(made.inflation, inverse, rtol=1e-6)
    assert made.tolerance[0] < 0.02  # volume and surface
    assert made.tolerance[2] > 0.9
    assert library({"one": np.arange(5.0)}).tolerance[0] == pytest.approx(1)


def test_a_component_that_is_one_of_two_collinear_terms() -> None:
    """Plain correlations cannot tell which; partial ones can."""
    terms = collinear()
    y = np.column_stack([terms["surface"] + 0.05 * terms["other"], terms["pairing"]])
    found = correlations(y, library(terms))
    assert np.abs(found.pearson[0, :2]).min() > 0.99
    np.testing.assert_allclose(found.partial[0], [0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found.partial[1], [0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.strongest, [0, 1, 1, 1], atol=1e-6)


def test_scale_shift_and_sign_of_a_component() -> None:
    y = np.random.default_rng(2).normal(size=(300, 2))
    made = library(collinear())
    one, other = correlations(y, made), correlations(y * [-1e9, 1e-7] + [1, -5], made)
    np.testing.assert_allclose(other.partial, one.partial * [[-1], [1]], atol=1e-9)
    np.testing.assert_allclose(other.pearson, one.pearson * [[-1], [1]], atol=1e-9)


GROUPS = np.repeat(np.arange(30), 10)


@pytest.mark.parametrize("exchange", ["flips", "rotations", "rows"])
def test_planted_terms_are_found_and_the_others_are_not(exchange: Exchange) -> None:
    terms, rng = collinear(), np.random.default_rng(3)
    y = rng.normal(size=(300, 4)) + np.outer(terms["pairing"], [0, 1, 0, 0]) + np.outer(terms["volume"], [1, 0, 0, 0])
    groups = None if exchange == "rows" else GROUPS
    null = partial_null(y, library(terms), exchange=exchange, groups=groups, seed=0, draws=199)
    assert null.draws.shape == (199, 4, 4)
    assert null.p[1, 2] == null.by_term[2] == null.alone[1, 2] == 1 / 200
    assert null.by_term[3] > 0.05
    assert null.p[2:].min() > 0.05
    assert (null.p >= null.alone).all()
    np.testing.assert_allclose(null.observed, correlations(y, library(terms)).partial)
    assert ((np.abs(null.observed) > null.threshold) == (null.p < 0.05)).all()
    again = partial_null(y, library(terms), exchange=exchange, groups=groups, seed=0, draws=199)
    assert np.array_equal(null.draws, again.draws)


def test_another_terms_effect_does_not_count_against_this_one() -> None:
    """Freedman-Lane: however strongly the others drive a component, the null of this term is the same."""
    terms, rng = collinear(), np.random.default_rng(4)
    noise = rng.normal(size=(300, 1))
    weak, strong = (
        partial_null(noise + w * terms["other"][:, None], library(terms), exchange="rows", seed=0, draws=50)
        for w in (0.0, 100.0)
    )
    np.testing.assert_allclose(weak.draws[:, 0, :3], strong.draws[:, 0, :3], atol=1e-8)
    assert strong.p[0, 3] == 1 / 51


def test_the_grid_is_corrected_by_each_pairs_own_null() -> None:
    terms, rng = collinear(), np.random.default_rng(10)
    null = partial_null(rng.normal(size=(300, 3)), library(terms), exchange="rows", seed=0, draws=99)
    ratio = np.abs(null.observed) / np.sqrt((null.draws**2).mean(axis=0))
    largest = (null.draws / np.sqrt((null.draws**2).mean(axis=0))).reshape(99, -1).max(axis=1)
    assert null.p[2, 1] == pytest.approx((1 + (largest >= ratio[2, 1]).sum()) / 100)
    np.testing.assert_allclose(null.scale, 1 / np.sqrt(300 - 5), rtol=0.35)  # one over the residual degrees of freedom


def test_a_relation_that_lies_between_groups_is_not_found_by_rotations() -> None:
    rng = np.random.default_rng(11)
    level = np.repeat(rng.normal(size=30), 10)
    y = (level + 0.1 * rng.normal(size=300))[:, None]
    made = library({"level": level, "other": rng.normal(size=300)})
    found = {
        e: partial_null(y, made, exchange=e, groups=GROUPS, seed=0, draws=99).p[0, 0] for e in ("flips", "rotations")
    }
    assert found["flips"] == 0.01
    assert found["rotations"] > 0.05


def test_flips_by_hand() -> None:
    """One term, ten groups: the statistic is the correlation of sign-flipped centred values."""
    rng = np.random.default_rng(5)
    x, y, groups = rng.normal(size=40), rng.normal(size=40), np.repeat(np.arange(10), 4)
    null = partial_null(y[:, None], library({"x": x}), exchange="flips", groups=groups, seed=6, draws=3)
    signs = np.random.default_rng(6)
    for draw in null.draws[:, 0, 0]:
        flipped = (1 - 2 * signs.integers(0, 2, size=10))[groups] * (y - y.mean())
        assert draw == pytest.approx(abs(np.corrcoef(flipped, x)[0, 1]), abs=1e-12)


def test_beside_untrained_networks() -> None:
    terms, rng = collinear(), np.random.default_rng(7)
    made = library(terms)
    untrained = [correlations(rng.normal(size=(300, 3)), made) for _ in range(9)]
    trained = correlations(rng.normal(size=(300, 3)) + 2 * terms["pairing"][:, None], made)
    found = beside(trained, untrained)
    assert found.p[2] == 0.1
    assert found.p_grid == 0.1
    assert found.excess[2] > 0.5
    assert found.others.shape == (9, 4)
    with pytest.raises(StatisticsError, match="no other network"):
        beside(trained, [])
    with pytest.raises(StatisticsError, match="same terms and number"):
        beside(trained, [correlations(rng.normal(size=(300, 2)), made)])


def test_features_behind_a_linear_readout_are_scores() -> None:
    network = TokenNet((9, 11), 16)
    train = split_of(network, (9, 11), 200, 1, role="fit", name="train")
    pca = fit_rows(network, train, "readout:input")
    features = component_features(network, train, "readout:input", pca, 3)
    assert pca.components_ is not None
    assert pca.mean_ is not None
    rows = torch.from_numpy(rows_at(network, train, "readout:input"))
    scores = ((rows - pca.mean_) @ pca.components_[:3].T).numpy()
    weights = (network.readout.weight.double() @ pca.components_[:3].T).detach().numpy()[0]
    at_mean = float(network.readout(pca.mean_.float()).detach())
    np.testing.assert_allclose(features, at_mean + scores * weights, atol=1e-5)
    with pytest.raises(ConfigError, match="choose 1 or more"):
        component_features(network, train, "readout:input", pca, 0)


def dependent(rng: np.random.Generator, groups: Floats) -> Floats:
    """Four series, each a random walk within each group, unrelated to anything."""
    size = len(groups) // (int(groups.max()) + 1)
    walks = rng.normal(size=(int(groups.max()) + 1, size, 4)).cumsum(axis=1)
    return walks.reshape(-1, 4)


@pytest.mark.slow
def test_flips_keep_their_level_where_rows_do_not() -> None:
    trials, hits = 150, {"flips": 0, "rows": 0}
    groups = np.repeat(np.arange(40), 6)
    for i in range(trials):
        rng = np.random.default_rng([8, i])
        series = dependent(rng, groups)
        made = library({"a": series[:, 0], "b": series[:, 0] + series[:, 1]})
        flips = partial_null(series[:, 2:], made, exchange="flips", groups=groups, seed=i, draws=59)
        rows = partial_null(series[:, 2:], made, exchange="rows", seed=i, draws=59)
        hits["flips"] += flips.p.min() <= 0.05
        hits["rows"] += rows.p.min() <= 0.05
    assert binom.ppf(0.0005, trials, 0.03) <= hits["flips"] <= binom.ppf(0.9995, trials, 0.06)
    assert hits["rows"] > 0.25 * trials


def test_what_is_not_a_library_is_refused() -> None:
    ramp, n = np.arange(20.0), 20
    noise = np.random.default_rng(9).normal(size=n)
    with pytest.raises(StatisticsError, match=r"a, b, c are linear functions"):
        library({"a": ramp, "b": noise, "c": 2 * ramp - noise + 3})
    with pytest.raises(StatisticsError, match="'flat' is the same"):
        library({"a": ramp, "flat": np.full(n, 3.0)})
    with pytest.raises(StatisticsError, match="at least 5 are needed"):
        library({"a": ramp[:4], "b": noise[:4]})
    with pytest.raises(NonFiniteError, match="item 0"):
        library({"a": np.array([np.nan, 1, 2, 3, 4])})
    with pytest.raises(StatisticsError, match="one number an item"):
        library({"a": ramp, "b": noise[:-1]})
    with pytest.raises(StatisticsError, match="at least one term"):
        library({})
    made = library({"a": ramp, "b": noise})
    with pytest.raises(StatisticsError, match="component 1 is the same"):
        correlations(np.column_stack([ramp, np.ones(n)]), made)
    with pytest.raises(StatisticsError, match="must be the same"):
        correlations(noise[:-1, None], made)
    y = noise[:, None] + 1
    with pytest.raises(ConfigError, match="give groups"):
        partial_null(y, made, exchange="flips", seed=0)
    with pytest.raises(ConfigError, match="rows are exchanged freely"):
        partial_null(y, made, exchange="rows", groups=np.arange(n), seed=0)
    with pytest.raises(StatisticsError, match="at least 10"):
        partial_null(y, made, exchange="flips", groups=np.arange(n) // 5, seed=0)
    with pytest.raises(ConfigError, match="unknown exchange"):
        partial_null(y, made, exchange="swaps", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="groups have shape"):
        partial_null(y, made, exchange="flips", groups=[1], seed=0)
