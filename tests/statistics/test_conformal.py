from __future__ import annotations

import itertools
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.errors import StatisticsError
from heldout.statistics.conformal import Calibrated, calibrate, conformal_rank, coverage


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(9, 0.9, 9), (8, 0.9, 9), (19, 0.95, 19), (18, 0.95, 19), (99, 0.7, 70), (1, 0.5, 1), (10, 0.9, 10), (0, 0.9, 1)],
)
def test_the_rank_is_that_of_the_written_level(n: int, level: float, rank: int) -> None:
    assert conformal_rank(n, level) == rank


def test_floating_point_would_get_the_rank_wrong() -> None:
    """What the exact arithmetic is for: 0.07 * 100 is 7.000000000000001 in floats."""
    assert ceil(100 * 0.07) == 8
    assert conformal_rank(99, 0.07) == 7


@given(st.integers(1, 60), st.integers(1, 99))
def test_each_of_exchangeable_scores_left_out_in_turn_is_covered_at_the_rate_of_theory(n: int, percent: int) -> None:
    """Exact, without simulation: among n + 1 distinct scores, k are at or below the margin of the n others."""
    level = percent / 100
    scores = np.random.default_rng(n).permutation(n + 1) + 0.5
    covered = 0
    for i in range(n + 1):
        margins = calibrate(np.delete(scores, i), level=level)
        covered += coverage(scores[i : i + 1], margins).covered
    assert covered == min(conformal_rank(n, level), n + 1)
    assert level - 1e-12 <= covered / (n + 1) <= level + 1 / (n + 1) + 1e-12


def test_mean_coverage_of_simulated_data_lies_in_its_bounds_and_spreads_as_a_beta() -> None:
    """A predictor that is wrong by design, errors of unequal size: only exchangeability is used."""
    draw, n, level, rates = np.random.default_rng(0), 39, 0.8, []
    for _ in range(4000):
        x = draw.uniform(1, 3, n + 400)
        errors = np.abs(draw.standard_exponential(n + 400) * x + 0.3 * x**2)
        rates.append(coverage(errors[n:], calibrate(errors[:n], level=level)).rate)
    k = conformal_rank(n, level)
    assert k == 32
    se = np.std(rates) / np.sqrt(len(rates))
    assert level - 3 * se <= np.mean(rates) <= level + 1 / (n + 1) + 3 * se
    assert abs(np.mean(rates) - k / (n + 1)) < 3 * se
    beta = k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))
    mean = k / (n + 1)
    binomial = mean * (1 - mean) / 400 * (1 - 1 / (n + 2))  # of the 400 test items around their own coverage
    assert np.var(rates) == pytest.approx(beta + binomial, rel=0.1)


def test_coverage_fails_where_data_are_not_exchangeable() -> None:
    draw = np.random.default_rng(1)
    margins = calibrate(np.abs(draw.normal(size=999)), level=0.9)
    assert coverage(np.abs(draw.normal(size=4000)), margins).rate == pytest.approx(0.9, abs=0.02)
    assert coverage(np.abs(3 * draw.normal(size=4000)), margins).rate < 0.5


def test_groups_are_covered_each_only_where_calibrated_each() -> None:
    draw = np.random.default_rng(2)

    def data(n: int) -> tuple[np.ndarray, np.ndarray]:
        groups = draw.integers(0, 2, n)
        return np.abs(draw.normal(size=n)) * np.where(groups == 1, 5.0, 1.0), groups

    errors, groups = data(4000)
    new, where = data(4000)
    pooled, own = calibrate(errors), calibrate(errors, groups=groups)
    assert own.n == {0: int((groups == 0).sum()), 1: int((groups == 1).sum())}
    rates = [[coverage(new[where == g], pooled).rate for g in (0, 1)]]
    rates += [[coverage(new[where == g], own, groups=where[where == g]).rate for g in (0, 1)]]
    assert rates[0][0] > 0.98
    assert rates[0][1] < 0.85
    np.testing.assert_allclose(rates[1], 0.9, atol=0.025)


def test_a_scale_makes_widths_follow_it() -> None:
    draw = np.random.default_rng(3)
    scale = draw.uniform(0.5, 5, 3000)
    errors = np.abs(draw.normal(size=3000)) * scale
    plain, scaled = calibrate(errors), calibrate(errors, scale=scale)
    assert scaled.margins[None] == pytest.approx(1.645, abs=0.06)
    a, b = coverage(errors, plain), coverage(errors, scaled, scale=scale)
    assert b.width < a.width
    narrow = scale < 1
    assert coverage(errors[narrow], plain).rate > 0.99
    assert coverage(errors[narrow], scaled, scale=scale[narrow]).rate == pytest.approx(0.9, abs=0.03)
    low, high = scaled.interval([10.0, 20.0], scale=[1.0, 2.0])
    np.testing.assert_allclose(np.asarray(high) - np.asarray(low), 2 * scaled.margins[None] * np.array([1, 2]))
    np.testing.assert_allclose((np.asarray(high) + np.asarray(low)) / 2, [10, 20])


def test_coverage_and_interval_are_one_statement() -> None:
    draw = np.random.default_rng(4)
    y, predicted = draw.normal(size=(2, 500))
    margins = calibrate(np.abs(y - predicted)[:250], level=0.8)
    low, high = margins.interval(predicted[250:])
    found = coverage(np.abs(y - predicted)[250:], margins)
    assert found.covered == int(((low <= y[250:]) & (y[250:] <= high)).sum())
    assert found.width == pytest.approx(float(np.mean(np.asarray(high) - np.asarray(low))))


def test_too_few_scores_and_unknown_groups_say_nothing() -> None:
    few = calibrate(np.arange(8.0), level=0.9)
    assert few.margins == {None: np.inf}
    found = coverage([1e9], few)
    assert (found.covered, found.unbounded, found.rate) == (1, 1, 1.0)
    assert np.isnan(found.width)
    assert calibrate(np.arange(9.0), level=0.9).margins == {None: 8.0}
    own = calibrate(np.arange(20.0), groups=np.repeat(["a", "b"], 10))
    found = coverage([0.0, 100.0], own, groups=["a", "c"])
    assert (found.covered, found.unbounded, found.width) == (2, 1, 2 * own.margins["a"])


def test_ties_only_cover_more() -> None:
    for scores in itertools.product([0.0, 1.0], repeat=5):
        rate = np.mean([coverage([scores[i]], calibrate(np.delete(scores, i), level=0.6)).rate for i in range(5)])
        assert rate >= 0.6


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_outside_its_range(level: float) -> None:
    with pytest.raises(StatisticsError, match="strictly between 0 and 1"):
        calibrate([1.0], level=level)


def test_what_is_no_error_scale_or_group() -> None:
    with pytest.raises(StatisticsError, match="at least one calibration error"):
        calibrate([])
    with pytest.raises(StatisticsError, match="finite absolute values"):
        calibrate([1.0, -1.0])
    with pytest.raises(StatisticsError, match="positive and finite, one or 2"):
        calibrate([1.0, 1.0], scale=[1.0, 0.0])
    with pytest.raises(StatisticsError, match="a label for each of 2 items"):
        calibrate([1.0, 1.0], groups=["a"])
    with pytest.raises(StatisticsError, match="leave `groups` out"):
        coverage([1.0], calibrate([1.0]), groups=["a"])
    with pytest.raises(StatisticsError, match="give the group of each item"):
        coverage([1.0], Calibrated(0.9, {"a": 1.0}, {"a": 9}))
    with pytest.raises(StatisticsError, match="at least one item"):
        coverage([], calibrate([1.0]))
