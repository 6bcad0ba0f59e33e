from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from heldout.errors import StatisticsError
from heldout.statistics import bootstrap
from heldout.statistics.bootstrap import bootstrap_totals, bootstrap_variance, distinct_rows


def column(totals: np.ndarray) -> np.ndarray:
    return totals[:, 0]


def counts(n: int, seeds: int = 3) -> np.ndarray:
    return (np.random.default_rng(5).random((n, seeds)) < 0.7).astype(float)


def test_distinct_rows_rebuild_the_table() -> None:
    table = counts(500)
    first, multiplicity = distinct_rows(table, limit=8)
    rebuilt = np.repeat(table[first], multiplicity, axis=0)
    assert len(first) == 8
    assert sorted(map(tuple, rebuilt)) == sorted(map(tuple, table))
    assert distinct_rows(table, limit=7) is None


@pytest.mark.parametrize("grouped", [True, False])
def test_variance_of_a_mean_is_the_analytic_one(grouped: bool) -> None:
    n = 400
    x = counts(n, 1) if grouped else np.random.default_rng(1).normal(size=(n, 1))
    assert (distinct_rows(x, limit=n // bootstrap.BINOMIAL_COST) is not None) == grouped
    draws = 20_000
    v = bootstrap_variance(x, lambda t: t[:, 0] / n, draws=draws, rng=np.random.default_rng(2))
    assert v == pytest.approx(x.var() / n, rel=4 * np.sqrt(2 / draws))


def test_covariance_over_seeds_is_that_of_shared_items() -> None:
    x = counts(300) + np.array([[0.0, 1.0, 2.0]]) * counts(300, 1)
    totals = bootstrap_totals(x, draws=20_000, rng=np.random.default_rng(3))
    assert np.cov(totals.T) == pytest.approx(300 * np.cov(x.T, bias=True), abs=0.04 * 300 * x.var(axis=0).max())


def test_grouped_and_ungrouped_draws_have_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    x = counts(64, 2)
    grouped = bootstrap_totals(x, draws=4000, rng=np.random.default_rng(4))
    monkeypatch.setattr(bootstrap, "BINOMIAL_COST", 10**9)
    plain = bootstrap_totals(x, draws=4000, rng=np.random.default_rng(4))
    assert not np.array_equal(grouped, plain)
    for statistic in (column, lambda t: t[:, 0] - t[:, 1]):
        binned = [np.bincount((statistic(t) + 64).astype(int), minlength=129) for t in (grouped, plain)]
        table = np.array(binned)[:, np.sum(binned, axis=0) >= 10]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_where_all_rows_differ_units_are_drawn_plainly() -> None:
    x = np.arange(30.0)[:, None]
    totals = bootstrap_totals(x, draws=5, rng=np.random.default_rng(6))
    (stream,) = np.random.default_rng(6).spawn(1)
    assert totals[:, 0].tolist() == [stream.integers(0, 30, size=30).sum() for _ in range(5)]


@pytest.mark.parametrize("integers", [True, False])
def test_memory_does_not_change_the_draws(integers: bool) -> None:
    rng = np.random.default_rng(7)
    x = np.concatenate(
        [counts(500), rng.integers(0, 10**6, (500, 1)) if integers else rng.normal(size=(500, 1))], axis=1
    )
    strata = np.arange(500) % 3
    whole = bootstrap_totals(x, draws=50, rng=np.random.default_rng(8), strata=strata)
    cut = bootstrap_totals(x, draws=50, rng=np.random.default_rng(8), strata=strata, memory=1)
    if integers:
        assert np.array_equal(whole, cut)
    assert whole == pytest.approx(cut, rel=1e-12, abs=1e-12)


def test_memory_does_not_change_grouped_draws() -> None:
    whole, cut = (bootstrap_totals(counts(500), draws=50, rng=np.random.default_rng(8), memory=m) for m in (2**23, 200))
    assert np.array_equal(whole, cut)


def test_memory_is_bounded() -> None:
    x = np.random.default_rng(9).normal(size=(20_000, 2))
    tracemalloc.start()
    bootstrap_variance(x, column, draws=100, rng=np.random.default_rng(9), memory=2**20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20 + 12 * x.nbytes / 2  # all draws at once would hold 16 MB


def test_strata_keep_their_sizes() -> None:
    strata = np.repeat(["a", "b", "c"], [100, 40, 17])
    x = np.stack([strata == s for s in "abc"], axis=1).astype(float)
    totals = bootstrap_totals(x, draws=20, rng=np.random.default_rng(0), strata=strata)
    assert (totals == [100, 40, 17]).all()
    assert bootstrap_totals(x, draws=20, rng=np.random.default_rng(0)).std(axis=0).min() > 1


@pytest.mark.parametrize(
    ("strata", "pooled"), [([0, 1, 2, 3, 3, 3], [0, 1, 2]), ([0, 1, 1, 3, 3, 3], [0, 1, 2]), ([0, 1], [0, 1])]
)
def test_single_units_are_resampled_together(strata: list[int], pooled: list[int]) -> None:
    x = np.eye(len(strata))
    totals = bootstrap_totals(x, draws=200, rng=np.random.default_rng(0), strata=strata)
    assert (totals[:, pooled].sum(axis=1) == len(pooled)).all()
    assert (totals.std(axis=0) > 0).all()


def test_a_constant_estimand_has_exactly_no_variance() -> None:
    x = np.repeat(counts(90, 1), 2, axis=1)
    assert bootstrap_variance(x, lambda t: 0.1 * t[:, 0] / t[:, 1], rng=np.random.default_rng(0), draws=99) < 1e-30
    assert bootstrap_variance(np.ones((9, 1)), column, rng=np.random.default_rng(0)) == 0


def test_few_undefined_draws_are_left_out_and_many_are_an_error() -> None:
    def rate(k: int) -> float:
        x = np.concatenate([np.zeros((40, 2)), np.ones((k, 2))])
        with np.errstate(invalid="ignore"):
            return bootstrap_variance(x, lambda t: t[:, 0] / t[:, 1], rng=np.random.default_rng(0))

    assert rate(8) == 0
    with pytest.raises(StatisticsError, match=r"undefined in 3\d% of 2000 resamples"):
        rate(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sums": np.ones(3)}, r"shape \(units, columns\)"),
        ({"sums": np.ones((0, 3))}, "neither empty"),
        ({"sums": [[1.0], [np.nan]]}, "1 units are not, the first in row 1"),
        ({"draws": 1}, "at least 2 draws"),
        ({"strata": [1, 2, 3]}, "one label for each of 2 units"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    arguments = {"sums": np.ones((2, 1)), "draws": 5, "rng": np.random.default_rng(0)} | change
    with pytest.raises(StatisticsError, match=message):
        bootstrap_totals(arguments.pop("sums"), **arguments)


def test_an_estimand_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(StatisticsError, match="it gave"):
        bootstrap_variance(np.ones((5, 2)), lambda t: t, rng=np.random.default_rng(0))
