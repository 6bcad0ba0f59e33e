from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heldout.errors import StatisticsError
from heldout.statistics.permutation import holm, null_p, sign_flip_test, two_sample_test


def means(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return x.mean(axis=axis) - y.mean(axis=axis)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_exact_tests_are_scipys(alternative: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.6, 1, 8), rng.normal(0, 1, 5)
    flips = stats.permutation_test((x,), np.mean, permutation_type="samples", alternative=alternative)
    assert sign_flip_test(x, alternative=alternative) == pytest.approx(flips.pvalue, abs=1e-12)
    labels = stats.permutation_test((x, y), means, vectorized=True, alternative=alternative)
    assert two_sample_test(x, y, alternative=alternative) == pytest.approx(labels.pvalue, abs=1e-12)


def test_the_smallest_p_values() -> None:
    assert sign_flip_test(np.arange(1.0, 10.0)) == 2**-8
    assert two_sample_test([4.0, 5, 6], [1.0, 2, 3], alternative="greater") == 1 / 20
    assert sign_flip_test(np.zeros(9)) == 1


def test_sampled_p_values_approach_the_exact_ones_and_are_never_zero() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0.35, 1, 30)
    assert sign_flip_test(x, rng=rng) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.02)
    y = x - 0.8
    assert two_sample_test(x, y, rng=rng) == pytest.approx(stats.ttest_ind(x, y).pvalue, abs=0.01)
    assert sign_flip_test(x + 99, rng=rng, draws=99, alternative="greater") == 0.01
    with pytest.raises(StatisticsError, match="pass rng="):
        sign_flip_test(x)


def test_null_p_counts_the_observed_one_and_ties() -> None:
    assert null_p(5.0, [1, 2, 3, 4]) == 1 / 5
    assert null_p(3.0, [1, 2, 3, 4]) == 3 / 5
    assert null_p(0.3, [0.1 + 0.2] * 4, alternative="less") == 1
    assert null_p(1.0, [1, 2, 3, 4], alternative="less") == 2 / 5


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("bad", [[0.5, 1.2], [np.nan]])
def test_holm_refuses_what_is_no_p_value(bad: list[float]) -> None:
    with pytest.raises(StatisticsError, match=r"in \[0, 1\]"):
        holm(bad)


def test_refusals() -> None:
    with pytest.raises(StatisticsError, match="finite values"):
        sign_flip_test([np.nan])
    with pytest.raises(StatisticsError, match="null draws"):
        null_p(1.0, [])
    with pytest.raises(StatisticsError, match="alternative"):
        sign_flip_test([1.0], alternative="bigger")
