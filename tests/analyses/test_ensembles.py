from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from heldout.analyses.ensembles import Forecast, gaussian_nll, uncertainty, variance_factor
from heldout.errors import StatisticsError

DRAW = np.random.default_rng(0)


def honest(n: int, *, wrong: float = 1.0, seed: int = 1, networks: int = 200) -> Forecast:
    """Members spread around a mean with standard deviations that differ by item; truths around it `wrong` times as far."""
    draw = np.random.default_rng(seed)
    sd = draw.uniform(0.5, 4, n)
    members = draw.normal(size=(networks, n)) * sd
    return Forecast.of(members, wrong * sd * draw.normal(size=n), groups=(sd > 2).astype(int))


def test_density_is_scipys() -> None:
    y, m, v = DRAW.normal(size=(3, 50))
    v = np.exp(v)
    np.testing.assert_allclose(gaussian_nll(y, m, v), -stats.norm.logpdf(y, m, np.sqrt(v)), rtol=1e-12)


def test_mean_and_variance_are_those_of_the_mixture() -> None:
    """The law of total variance, against draws from the mixture of the members' distributions."""
    members, sd = np.array([[0.0, 1.0], [4.0, 1.0], [2.0, -5.0]]), np.array([0.5, 2.0])
    one = Forecast.of(members, [0.0, 0.0], uncertainty=sd)
    np.testing.assert_allclose(one.mean, [2.0, -1.0])
    np.testing.assert_allclose(one.variance, [8 / 3 + 0.25, 8.0 + 4.0])
    drawn = members[DRAW.integers(0, 3, 400_000)] + sd * DRAW.normal(size=(400_000, 2))
    np.testing.assert_allclose(drawn.var(0), one.variance, rtol=0.01)


def test_an_ensemble_is_never_worse_than_its_members_are_on_average() -> None:
    """Mean square error of the mean = mean over members - spread between them, an identity."""
    members, y = DRAW.normal(size=(7, 90)), DRAW.normal(size=90)
    one = Forecast.of(members, y)
    between = members.var(0).mean()
    assert one.rms**2 == pytest.approx(((members - y) ** 2).mean() - between, rel=1e-12)
    assert one.rms <= one.rms_of_one
    assert one.rms_of_one == pytest.approx(np.mean([np.sqrt(np.mean((m - y) ** 2)) for m in members]))


def test_the_factor_is_where_the_likelihood_is_highest() -> None:
    y, m, v = DRAW.normal(size=40) * 3, np.zeros(40), np.exp(DRAW.normal(size=40))
    best = variance_factor(y, m, v)
    at = [gaussian_nll(y, m, f * v).mean() for f in (best * 0.99, best, best * 1.01)]
    assert at[1] < min(at[0], at[2])


def test_the_true_spread_scores_better_than_one_too_small_or_too_large() -> None:
    sd = np.exp(DRAW.normal(size=5000))
    y = DRAW.normal(size=5000) * sd
    scores = {f: gaussian_nll(y, 0.0, f * sd**2).mean() for f in (0.25, 1.0, 4.0)}
    assert scores[1.0] < min(scores[0.25], scores[4.0])
    assert scores[1.0] < gaussian_nll(y, 0.0, np.mean(sd**2)).mean()


def test_an_honest_ensemble_is_found_honest_and_a_confident_one_mended() -> None:
    good = uncertainty({"select": honest(3000, seed=1), "test": honest(3000, seed=2)})[1]
    assert good.gaussian.rate == pytest.approx(0.9, abs=0.02)
    assert good.correlation > 0.3
    assert good.following.width < good.constant.width
    forecasts = {"select": honest(3000, wrong=3, seed=1), "test": honest(3000, wrong=3, seed=2)}
    here, bad = uncertainty(forecasts)
    assert here.calibrated_here
    assert not bad.calibrated_here
    assert bad.gaussian.rate < 0.5
    assert bad.nll_scaled < bad.nll
    for found in (bad.gaussian_scaled, bad.constant, bad.following, bad.grouped):
        assert found is not None
        assert found.rate == pytest.approx(0.9, abs=0.02)
    row = bad.row()
    assert row["constant_rate"] == bad.constant.rate
    assert row["split"] == "test"
    assert "grouped_width" in row


def test_what_was_calibrated_in_distribution_is_measured_out_of_it() -> None:
    rows = uncertainty(
        {"select": honest(2000, seed=1), "in": honest(2000, seed=2), "out": honest(2000, wrong=4, seed=3)}
    )
    _, within, outside = rows
    assert within.constant.rate == pytest.approx(0.9, abs=0.025)
    assert outside.constant.rate < 0.6
    assert outside.constant.width == within.constant.width


def test_only_the_calibration_split_is_calibrated_on() -> None:
    base = honest(500, seed=1)
    a = uncertainty({"select": base, "test": honest(400, seed=2)})[0]
    b = uncertainty({"select": base, "test": honest(400, wrong=9, seed=5)})[0]
    assert a == b


def test_what_is_no_ensemble() -> None:
    with pytest.raises(StatisticsError, match=r"at least 2 networks.*\(1, 3\) and \(3,\)"):
        Forecast.of(np.zeros((1, 3)), np.zeros(3))
    with pytest.raises(StatisticsError, match="must be finite"):
        Forecast.of([[0.0, math.nan], [0, 0]], [0, 0])
    with pytest.raises(StatisticsError, match="one for each of 2 items"):
        Forecast.of(np.zeros((2, 2)), [0, 0], uncertainty=[1.0])
    with pytest.raises(StatisticsError, match="a label for each of 2 items"):
        Forecast.of(np.zeros((2, 2)), [0, 0], groups=["a"])
    with pytest.raises(StatisticsError, match="1 are not"):
        gaussian_nll([0.0, 0.0], 0.0, [1.0, 0.0])
    with pytest.raises(StatisticsError, match="unknown split to calibrate on 'selct'"):
        uncertainty({"select": honest(20)}, calibrate_on="selct")
    with pytest.raises(StatisticsError, match="positive variance"):
        uncertainty({"select": Forecast.of(np.zeros((2, 3)), np.ones(3))})
