"""Simulated coverage of the rule's 95% interval, where theta is known.

Model: y_si = theta + seed_s + item_i + noise_si, all normal, S seeds crossed with n items. v is the analytic bootstrap
variance of a mean (variance of item means over n, by n), which `test_bootstrap` ties to `bootstrap_variance`; one test
here draws the bootstrap itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from heldout.statistics.bootstrap import bootstrap_variance
from heldout.statistics.rule import MeanTest, mean_test

THETA = 0.3
# Standard deviation over seeds, as a multiple of the standard error that items give the mean; noise, of the items' own.
MODELS = {
    "items dominate": (0.5, 0.5),
    "noise dominates": (0.5, 2.0),
    "balanced": (2.0, 0.5),
    "worst": (4.0, 0.5),
    "seeds dominate": (16.0, 0.5),
}
# Where seeds vary a few times more than items, Satterthwaite's df are estimated too high when few seeds happen to lie
# close: from 5 seeds on (fewer are not judged) that costs at most 1%, with 3 it costs nearly 3%.
LEAST = {3: 0.92, 5: 0.94, 10: 0.94}
MOST = 0.98
MONTE_CARLO = 0.005  # two standard errors of a simulated coverage


def experiments(s: int, n: int, model: str, repeats: int) -> Iterator[np.ndarray]:
    """Tables y of shape (n, S)."""
    seed_sd, noise = MODELS[model]
    rng = np.random.default_rng([s, n, list(MODELS).index(model)])
    for _ in range(repeats):
        yield (
            THETA
            + seed_sd / np.sqrt(n) * rng.standard_normal(s)
            + rng.standard_normal((n, 1))
            + noise * rng.standard_normal((n, s))
        )


def by_formula(y: np.ndarray) -> MeanTest:
    n = len(y)
    return mean_test(y.mean(axis=0), unit_variance=y.mean(axis=1).var() / n, n_clusters=n, delta=THETA)


def by_bootstrap(y: np.ndarray) -> MeanTest:
    n = len(y)
    v = bootstrap_variance(
        y, lambda t: t.mean(axis=1) / n, draws=500, rng=np.random.default_rng(int(1e6 * y[0, 0] ** 2))
    )
    return mean_test(y.mean(axis=0), unit_variance=v, n_clusters=n, delta=THETA)


def covers(test: MeanTest) -> bool:
    return test.low <= THETA <= test.high


def percentile_covers(y: np.ndarray, rng: np.random.Generator) -> bool:
    """The interval that judges nothing here: percentiles of means over resampled seeds."""
    theta = y.mean(axis=0)
    means = theta[rng.integers(0, len(theta), size=(1000, len(theta)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return bool(low <= THETA <= high)


def test_coverage_in_one_small_model() -> None:
    coverage = np.mean([covers(by_formula(y)) for y in experiments(5, 200, "balanced", 1500)])
    assert 0.935 <= coverage <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", [200, 2000])
@pytest.mark.parametrize("s", [3, 5, 10])
def test_coverage(s: int, n: int, model: str) -> None:
    tests = [by_formula(y) for y in experiments(s, n, model, 8000)]
    coverage = np.mean([covers(t) for t in tests])
    wrong = np.mean([t.p_plus <= 0.025 for t in tests])
    print(f"S={s:2d} n={n:4d} {model:>15}: coverage {coverage:.4f}, wrongly supported {wrong:.4f}")
    assert LEAST[s] - MONTE_CARLO <= coverage <= MOST + MONTE_CARLO
    assert wrong <= (1 - LEAST[s]) / 2 + MONTE_CARLO


@pytest.mark.slow
def test_coverage_with_the_bootstrap_itself() -> None:
    coverage = np.mean([covers(by_bootstrap(y)) for y in experiments(5, 200, "balanced", 1500)])
    print(f"S= 5 n= 200        balanced: coverage {coverage:.4f}, v by bootstrap")
    assert LEAST[5] - MONTE_CARLO <= coverage <= MOST + MONTE_CARLO


@pytest.mark.slow
@pytest.mark.parametrize("s", [3, 4, 5])
def test_percentiles_over_few_seeds_cover_too_little(s: int) -> None:
    rng = np.random.default_rng(s)
    hits = [percentile_covers(y, rng) for y in experiments(s, 200, "seeds dominate", 3000)]
    print(f"S={s:2d} percentile bootstrap over seeds: coverage {np.mean(hits):.4f}")
    assert 0.70 <= np.mean(hits) <= 0.88
    assert stats.binomtest(sum(hits), len(hits), 0.95).pvalue < 1e-6
