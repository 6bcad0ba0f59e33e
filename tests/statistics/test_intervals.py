from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heldout.errors import StatisticsError
from heldout.statistics.intervals import proportion_interval, rule_of_three, t_interval, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 7), (3, 7), (7, 7), (412, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(k: int, n: int, level: float) -> None:
    reference = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level=level) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_knows_its_ends_and_broadcasts() -> None:
    low, high = wilson([0, 5, 9], 9)
    assert low[0] == 0
    assert high[2] == 1
    assert (low < high).all()
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("n", [1, 20, 5000])
def test_rule_of_three_is_the_exact_one_sided_bound(n: int) -> None:
    reference = stats.binomtest(0, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert rule_of_three(n) == pytest.approx(reference, rel=1e-12)
    assert proportion_interval(0, n) == (0, rule_of_three(n))
    assert proportion_interval(n, n) == (1 - rule_of_three(n), 1)


def test_rule_of_three_is_about_three_over_n_and_one_where_nothing_was_tried() -> None:
    assert rule_of_three(10_000) == pytest.approx(3e-4, rel=0.01)
    assert rule_of_three(0) == 1
    assert proportion_interval(0, 0) == (0, 1)


def test_proportion_interval_is_wilsons_between_the_ends() -> None:
    assert proportion_interval(3, 10) == wilson(3, 10)


def test_t_interval_is_scipys() -> None:
    x = np.random.default_rng(0).normal(size=6)
    reference = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert t_interval(x, level=0.9) == pytest.approx((reference.low, reference.high))


def test_refusals() -> None:
    with pytest.raises(StatisticsError, match="0 <= successes <= n"):
        wilson(5, 4)
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        wilson(1, 4, level=95)
    with pytest.raises(StatisticsError, match="at least 2"):
        t_interval([1.0])
