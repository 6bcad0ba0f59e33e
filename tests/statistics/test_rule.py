from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from heldout.errors import StatisticsError
from heldout.statistics.rule import MeanTest, Tails, conjunction, equivalence, existence, mean_test

THETA = np.array([0.11, 0.07, 0.15, 0.09, 0.12, 0.08])


@pytest.mark.parametrize("n_clusters", [None, 50])
def test_without_unit_variance_it_is_students_t_test(n_clusters: int | None) -> None:
    test = mean_test(THETA, unit_variance=0, n_clusters=n_clusters, delta=0.08)
    for p, alternative in [(test.p_plus, "greater"), (test.p_minus, "less")]:
        assert p == pytest.approx(stats.ttest_1samp(THETA, 0.08, alternative=alternative).pvalue, rel=1e-9)
    assert (test.low, test.high) == pytest.approx(tuple(stats.ttest_1samp(THETA, 0).confidence_interval()))
    assert test.df == pytest.approx(5)


def test_without_seed_variance_units_alone_count() -> None:
    test = mean_test([0.1] * 5, unit_variance=1e-4, n_clusters=30, delta=0.08)
    assert (test.value, test.se, test.df) == pytest.approx((0.1, 0.01, 29))
    assert test.p_plus == pytest.approx(stats.t(29).sf(2))


def test_both_variances_by_the_formula() -> None:
    a, v = THETA.var(ddof=1) / 6, 2e-4
    test = mean_test(THETA, unit_variance=v, n_clusters=41, delta=0.02, level=0.9)
    df = (a + v) ** 2 / (a**2 / 5 + v**2 / 40)
    assert (test.se, test.df) == pytest.approx((math.sqrt(a + v), df))
    assert test.high - test.low == pytest.approx(2 * stats.t(df).ppf(0.95) * math.sqrt(a + v))
    assert test.p_plus == pytest.approx(stats.t(df).sf((THETA.mean() - 0.02) / math.sqrt(a + v)))
    assert test.p_plus + test.p_minus == pytest.approx(1)


def test_degrees_are_those_of_welch_for_two_equal_sources() -> None:
    theta = [0.0, 1.0, 2.0, 3.0]
    a = np.var(theta, ddof=1) / 4
    assert mean_test(theta, unit_variance=a, n_clusters=4, delta=0).df == pytest.approx(6)


@pytest.mark.parametrize(("delta", "tails"), [(0.02, (0, 1)), (0.1, (0.5, 0.5)), (0.2, (1, 0))])
def test_without_any_variance_it_is_certain(delta: float, tails: tuple[float, float]) -> None:
    test = mean_test([0.1, 0.1, 0.1], unit_variance=0, n_clusters=50, delta=delta)
    assert (test.p_plus, test.p_minus) == tails
    assert (test.low, test.high, test.df) == (0.1, 0.1, math.inf)


def test_one_seed_has_a_value_and_nothing_else() -> None:
    test = mean_test([0.3], unit_variance=1e-4, n_clusters=50, delta=0.02)
    assert test.value == 0.3
    assert all(math.isnan(x) for x in (test.se, test.df, test.low, test.high, test.p_plus, test.p_minus))


def test_tiny_and_huge_scales_do_not_lose_the_degrees() -> None:
    for scale in (1e-120, 1e100):
        test = mean_test(THETA * scale, unit_variance=2e-4 * scale**2, n_clusters=41, delta=0)
        assert test.df == pytest.approx(mean_test(THETA, unit_variance=2e-4, n_clusters=41, delta=0).df)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta_by_seed": []}, "one finite value a seed"),
        ({"theta_by_seed": [0.1, np.nan]}, "one finite value a seed"),
        ({"unit_variance": -1.0}, "not negative"),
        ({"n_clusters": None}, "n_clusters of at least 2"),
        ({"n_clusters": 1}, "n_clusters of at least 2"),
        ({"level": 95}, "between 0 and 1"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    arguments = {"theta_by_seed": THETA, "unit_variance": 1e-4, "n_clusters": 50, "delta": 0.0} | change
    with pytest.raises(StatisticsError, match=message):
        mean_test(arguments.pop("theta_by_seed"), **arguments)


def part(p_plus: float) -> MeanTest:
    return MeanTest(0.0, 1.0, 9.0, 0.0, 0.0, p_plus, 1 - p_plus, delta=0.0, n_clusters=50, theta_by_seed=(0.0,) * 6)


@pytest.mark.parametrize(
    ("parts", "all_hold", "some_holds"),
    [
        ([0.01, 0.02], (0.02, 1), (0.02, 0.99)),
        ([0.01, 0.6], (0.6, 0.8), (0.02, 0.99)),
        ([0.001, 0.999], (0.999, 0.002), (0.002, 0.999)),
        ([0.98, 0.99, 0.97], (0.99, 0.03), (1, 0.03)),
        ([0.04], (0.04, 0.96), (0.04, 0.96)),
        ([math.nan, 0.01], (math.nan, math.nan), (math.nan, math.nan)),
    ],
)
def test_conjunction_and_existence(parts: list[float], all_hold: tuple, some_holds: tuple) -> None:
    assert conjunction([part(p) for p in parts]) == pytest.approx(all_hold, nan_ok=True)
    assert existence([part(p) for p in parts]) == pytest.approx(some_holds, nan_ok=True)


def test_a_combination_of_nothing_is_refused() -> None:
    for combine in (conjunction, existence):
        with pytest.raises(StatisticsError, match="at least one part"):
            combine([])


@pytest.mark.parametrize(("shift", "verdict"), [(0, "same"), (0.2, "different"), (-0.2, "different"), (0.05, "open")])
def test_equivalence(shift: float, verdict: str) -> None:
    tails = equivalence(mean_test(THETA - THETA.mean() + shift, unit_variance=1e-5, n_clusters=99, delta=0.05))
    found = "same" if tails.p_plus < 0.025 else "different" if tails.p_minus < 0.025 else "open"
    assert found == verdict


def test_equivalence_is_two_one_sided_tests() -> None:
    theta = THETA - 0.09
    tails = equivalence(mean_test(theta, unit_variance=0, n_clusters=None, delta=0.05))
    assert tails.p_plus == pytest.approx(
        max(
            stats.ttest_1samp(theta, -0.05, alternative="greater").pvalue,
            stats.ttest_1samp(theta, 0.05, alternative="less").pvalue,
        )
    )
    assert isinstance(tails, Tails)
