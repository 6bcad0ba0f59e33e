from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from heldout.errors import StatisticsError
from heldout.statistics.bootstrap import bootstrap_totals
from heldout.statistics.ratios import error_consistency, ratio, why_undefined
from heldout.statistics.reweight import standardised_ratio


def test_ratio_is_nan_without_weight() -> None:
    np.testing.assert_array_equal(ratio([1, 3], [[2, 0]]), [[0.5, np.nan]])


def test_kappa_is_scikit_learns_and_passes_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    net = rng.random(200) < 0.8
    proxy = np.where(rng.random(200) < 0.6, net, rng.random(200) < 0.5)
    sums = np.stack([np.ones(200), net, proxy, net & proxy], axis=1)
    assert error_consistency(*sums.sum(axis=0)) == pytest.approx(cohen_kappa_score(net, proxy))
    draws = error_consistency(*bootstrap_totals(sums, draws=500, rng=rng).T)
    assert draws.shape == (500,)
    assert draws.mean() == pytest.approx(cohen_kappa_score(net, proxy), abs=0.03)


def test_kappa_at_its_marks() -> None:
    assert error_consistency(100, 80, 80, 80) == 1
    assert error_consistency(100, 80, 50, 40) == 0
    assert error_consistency(100, 50, 50, 0) == -1
    assert error_consistency(100, 100, 50, 50) == 0


@pytest.mark.parametrize(
    ("totals", "reason"),
    [((0, 0, 0, 0), "no items"), ((9, 9, 9, 9), "right on all 9"), ((9, 0, 0, 0), "wrong on all 9")],
)
def test_kappa_has_no_value_where_there_is_nothing_to_compare(totals: tuple[int, ...], reason: str) -> None:
    assert np.isnan(error_consistency(*totals))
    assert reason in why_undefined(*totals[:3])
    assert why_undefined(9, 9, 8) == ""


def test_standardising_to_itself_changes_nothing() -> None:
    num, den = np.array([3.0, 1.0, 8.0]), np.array([4.0, 5.0, 9.0])
    value, support = standardised_ratio(num, den, 7 * den)
    assert value == pytest.approx(num.sum() / den.sum())
    assert support == 1


def test_a_gap_that_is_all_composition_vanishes() -> None:
    rates, reference = np.array([0.9, 0.5]), np.array([80.0, 20.0])
    split = np.array([20.0, 80.0])
    assert standardised_ratio(rates * split, split, reference).ratio == pytest.approx((rates * reference).sum() / 100)


def test_bins_without_support_are_left_out_and_said() -> None:
    value, support = standardised_ratio([1.0, 0.0, 2.0], [2.0, 0.0, 8.0], [30.0, 50.0, 20.0])
    assert value == pytest.approx((30 * 0.5 + 20 * 0.25) / 50)
    assert support == 0.5


def test_standardisation_runs_over_leading_axes() -> None:
    rng = np.random.default_rng(0)
    num, den, ref = rng.random((6, 2, 4)), rng.random((6, 2, 4)), rng.random((6, 1, 4))
    den[0, 0] = 0
    value, support = standardised_ratio(num, den, ref)
    assert np.isnan(value[0, 0])
    assert support[0, 0] == 0
    assert value[3, 1] == pytest.approx(standardised_ratio(num[3, 1], den[3, 1], ref[3, 0]).ratio)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(StatisticsError, match="weights >= 0"):
        standardised_ratio([1.0], [-1.0], [1.0])
