"""Intervals, nulls and ceilings: against samples formed one by one, all pairings, and their own coverage."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.distance import squareform
from scipy.special import stdtrit
from scipy.stats import kstest

from heldout.analyses.similarity.cautions import effective_dimension
from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import COMPARATORS, Comparator, compare
from heldout.analyses.similarity.dual import Variances, combined, dual_bootstrap, variances
from heldout.analyses.similarity.inference import Settings, assess, between, within
from heldout.analyses.similarity.jackknife import network_variances, pooled, stimulus_jackknife
from heldout.analyses.similarity.measures import MEASURES, similarity
from heldout.analyses.similarity.noise import noise_ceiling
from heldout.analyses.similarity.permutation import null_between, null_within, pairings, scorer
from heldout.analyses.similarity.rdm import rdm
from heldout.analyses.similarity.resampling import draw_counts, resampled
from heldout.errors import StatisticsError
from heldout.evidence import Estimate
from heldout.statistics.permutation import null_p

QUICK = Settings(draws=200, permutations=99)


def subjects(n: int, s: int, rng: np.random.Generator, noise: float = 1.0) -> tuple[Floats, list[Floats]]:
    """A model's activations (n, 5) and those of s networks that are linear in it, plus noise."""
    x, common = rng.normal(size=(n, 5)), rng.normal(size=(5, 8))
    return x, [x @ (common + 0.5 * rng.normal(size=(5, 8))) + noise * rng.normal(size=(n, 8)) for _ in range(s)]


def sample(condensed: Floats, counts: Floats) -> Floats:
    """The distances of one bootstrap sample, formed: pairs of copies of one stimulus are left out."""
    drawn = np.repeat(np.arange(len(counts)), counts.astype(int))
    i, j = np.triu_indices(len(drawn), 1)
    different = drawn[i] != drawn[j]
    return squareform(condensed)[drawn[i][different], drawn[j][different]]


@pytest.mark.parametrize("by", COMPARATORS)
def test_weights_do_what_samples_would(by: Comparator) -> None:
    rng = np.random.default_rng(0)
    x, ys = subjects(15, 2, rng)
    a = np.stack([rdm(x), np.round(rdm(x), 1)])  # the second has ties
    b = np.stack([rdm(y) for y in ys])
    counts = draw_counts(15, 6, rng)
    found = resampled(a, b, counts, by)
    for r, w in enumerate(counts):
        for i in range(2):
            for j in range(2):
                assert found[r, i, j] == pytest.approx(compare(sample(a[i], w), sample(b[j], w), by), abs=1e-12)
    np.testing.assert_allclose(resampled(b, b, counts, by)[:, 0, 1], resampled(b[:1], b[1:], counts, by)[:, 0, 0])


def test_a_sample_of_one_stimulus_has_no_similarity() -> None:
    x = np.random.default_rng(1).normal(size=(4, 3))
    distances = rdm(x)[None]
    for by in ("pearson", "cosine", "spearman"):
        assert np.isnan(resampled(distances, distances, np.array([[4.0, 0, 0, 0]]), by)).all()
    bad = np.full((100, 3), 0.5)
    bad[:2] = np.nan
    with pytest.raises(StatisticsError, match="undefined in 2% of 100 resamples"):
        variances(bad)


def test_dual_variance_by_hand() -> None:
    assert combined(Variances(0.6, 0.2, 0.3), subjects=1, stimuli=11) == pytest.approx(0.33)
    # 5/4 * .2 + 11/10 * .3 - 5/4 * 11/10 * (.6 - .5) = .4425
    assert combined(Variances(0.6, 0.2, 0.3), subjects=5, stimuli=11) == pytest.approx(0.4425)
    assert combined(Variances(0.9, 0.2, 0.3), subjects=5, stimuli=11) == pytest.approx(0.33)  # not below one factor
    assert combined(Variances(0.3, 0.2, 0.3), subjects=5, stimuli=11) == pytest.approx(0.3)  # not above both


def test_one_factor_of_the_dual_bootstrap_is_that_factor() -> None:
    """Resampling subjects alone: the variance of a mean of S numbers, (S - 1) / S of the textbook's."""
    rng = np.random.default_rng(2)
    x, ys = subjects(20, 6, rng)
    a, b = rdm(x)[None], np.stack([rdm(y) for y in ys])
    each = np.array([compare(a[0], r) for r in b])
    draws = dual_bootstrap(a, b, draws=20_000, rng=rng, ceilings=True)
    assert draws.values[:, 1].mean() == pytest.approx(each.mean(), abs=4 * each.std() / np.sqrt(6 * 20_000))
    assert draws.values[:, 1].var() == pytest.approx(each.var() / 6, rel=0.05)
    assert np.nanmean(draws.upper - draws.lower) > 0


def test_all_pairings_are_used_once_where_they_are_few() -> None:
    rng = np.random.default_rng(3)
    assert sorted(map(tuple, pairings(4, 23, rng))) == sorted(permutations(range(4)))[1:]
    assert len(list(pairings(4, 22, rng))) == 22
    x, y = rng.normal(size=(2, 5, 3))
    every = [similarity(x, y[list(p)], "rsa") for p in permutations(range(5))]
    found = assess(x, y, "rsa", seed=0)
    assert found.p == pytest.approx(np.mean(np.array(every) >= found.value - 1e-9))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "5 stimuli are too few for an interval" in found.cautions[0]


@pytest.mark.parametrize("name", MEASURES)
def test_the_null_scores_what_the_measure_would(name: str) -> None:
    """The shortcuts of the null give the measure of reordered stimuli."""
    rng = np.random.default_rng(4)
    x, ys = subjects(14, 2, rng)
    order = rng.permutation(14)
    direct = np.mean([MEASURES[name].of(v, y[order]) for v in (x, x[:, :3]) for y in ys])
    assert scorer([x, x[:, :3]], ys, MEASURES[name])(order) == pytest.approx(direct, abs=1e-12)


def test_within_a_condition_each_network_is_reordered_by_itself() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 4))
    null = null_within([x, x, x], MEASURES["cka"], draws=200, rng=rng)
    assert abs(null.mean()) < 5 * null.std() / np.sqrt(200)
    assert null.max() < 0.7
    again = null_between([x], [x], MEASURES["cka"], draws=200, rng=rng)
    assert null.std() < again.std()  # a mean of three pairs against one


def test_ceilings() -> None:
    rng = np.random.default_rng(6)
    x, ys = subjects(20, 5, rng)
    rdms = np.stack([rdm(y) for y in ys])
    for by in COMPARATORS:
        same = noise_ceiling(np.stack([rdms[0]] * 4), by)
        assert same == pytest.approx((1, 1))
        found = noise_ceiling(rdms, by)
        assert found.lower < found.upper < 1
    # By hand, and: no model beats the upper ceiling, which the mean of z-scored RDMs attains.
    z = (rdms - rdms.mean(1, keepdims=True)) / rdms.std(1, keepdims=True)
    lower, upper = noise_ceiling(rdms)
    assert upper == pytest.approx(np.mean([compare(z.mean(0), r) for r in rdms]), abs=1e-12)
    others = [np.delete(z, i, axis=0).mean(0) for i in range(5)]
    assert lower == pytest.approx(np.mean([compare(o, r) for o, r in zip(others, rdms, strict=True)]), abs=1e-12)
    for _ in range(100):
        model = z.mean(0) + rng.normal(size=z.shape[1]) * rng.uniform(0, 0.5)
        assert np.mean([compare(model, r) for r in rdms]) <= upper
    with pytest.raises(StatisticsError, match="2 subjects or more"):
        noise_ceiling(rdms[:1])
    assert between([x], ys, "rsa", seed=0, settings=QUICK).ceiling == noise_ceiling(rdms)
    assert assess(x, ys[0], "rsa", seed=0, settings=QUICK).ceiling is None


def test_leaving_out_single_values_is_the_variance_of_a_mean() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=25)
    variance, df = stimulus_jackknife(lambda kept: float(values[kept].mean()), 25, rng=rng)
    assert (variance, df) == (pytest.approx(values.var(ddof=1) / 25), 24)
    variance, df = stimulus_jackknife(lambda kept: float(values[kept].mean()), 25, rng=rng, groups=5)
    assert df == 4
    assert 0 < variance < 5 * values.var() / 25


def test_variance_over_networks() -> None:
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(4, 3))
    (a, df_a), (b, df_b) = network_variances(matrix, within=False)
    assert (a, df_a) == (pytest.approx(matrix.mean(1).var(ddof=1) / 4), 3)
    assert (b, df_b) == (pytest.approx(matrix.mean(0).var(ddof=1) / 3), 2)
    assert network_variances(matrix[:1, :1], within=False) == []
    # Additive effects u_i + u_j: the mean over pairs is twice the mean of u.
    u = rng.normal(size=6)
    ((v, df),) = network_variances(u[:, None] + u[None, :], within=True)
    assert (v, df) == (pytest.approx(4 * u.var(ddof=1) / 6), 5)
    assert pooled([(0.1, 4), (0.3, 9)]) == (pytest.approx(0.4), pytest.approx(0.16 / (0.01 / 4 + 0.09 / 9)))


@pytest.mark.parametrize("name", ["cka", "rsa", "rsa-spearman", "procrustes", "predict"])
def test_results_hold_together(name: str) -> None:
    rng = np.random.default_rng(9)
    x, ys = subjects(30, 3, rng)
    quick = Settings(draws=100, permutations=9)
    for found in (
        assess(x, ys[0], name, seed=1, settings=quick),
        between([x], ys, name, seed=1, settings=quick),
        within(ys, name, seed=1, settings=quick),
    ):
        assert found.low < found.value < found.high <= 1
        assert found.null < found.null_high < found.value
        assert found.p == 1 / 10
        estimate = found.estimate("similarity", split="id")
        assert isinstance(estimate, Estimate)
        assert (estimate.value, estimate.method, estimate.n) == (found.value, name, 30)
        assert f"{found.value:.3f} [{found.low:.3f}" in str(found)
    mean = np.mean([similarity(x, y, name) for y in ys])
    assert between([x], ys, name, seed=1, settings=quick).value == pytest.approx(mean)


def test_the_same_seed_gives_the_same_result() -> None:
    x, ys = subjects(20, 3, np.random.default_rng(15))
    for name in ("cka", "rsa", "rsa-kendall"):
        first, again, other = (between([x], ys, name, seed=s, settings=Settings(20, 9)) for s in (1, 1, 2))
        assert first == again
        assert first.value == other.value
        assert first.null != other.null


def test_cautions() -> None:
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(2, 30, 300))
    found = assess(x, y, "cka-biased", seed=0, settings=QUICK)
    assert any("is biased: these activations score 0.9" in c for c in found.cautions)
    assert found.value > 0.85
    assert found.p > 0.05
    assert not any("biased" in c for c in assess(x, y, "cka", seed=0, settings=QUICK).cautions)
    loud = rng.normal(size=(100, 10)) * [30, *[1] * 9]
    even = rng.normal(size=(100, 10))
    told = " ".join(assess(loud, even, seed=0, settings=QUICK).cautions)
    assert "x varies along few directions (effective dimension 1.0 of 10)" in told
    assert "y fills its units" in told
    assert "superposition" in told
    _, ys = subjects(15, 3, rng)
    told = " ".join(within(ys, seed=0, settings=QUICK).cautions)
    assert "15 stimuli: the interval is rough" in told
    assert "3 networks a side" in told
    assert effective_dimension(np.vstack([np.eye(5), -np.eye(5)])) == pytest.approx(5)


def test_what_is_refused() -> None:
    rng = np.random.default_rng(11)
    x, ys = subjects(12, 3, rng)
    with pytest.raises(StatisticsError, match="3 networks or more; got 2"):
        within(ys[:2], seed=0)
    with pytest.raises(StatisticsError, match="one side is empty"):
        between([x], [], seed=0)
    with pytest.raises(StatisticsError, match="x has 12 stimuli and y has 11"):
        between([x], [ys[0], ys[1][1:]], seed=0)
    with pytest.raises(StatisticsError, match="level 2"):
        Settings(level=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cka", "rsa", "rsa-kendall", "procrustes", "predict"])
def test_p_values_of_unrelated_activations_are_uniform(name: str) -> None:
    rng, measure = np.random.default_rng(12), MEASURES[name]
    repeats, permutations = {"predict": (100, 19), "rsa-kendall": (100, 49)}.get(name, (200, 99))
    p = []
    for _ in range(repeats):
        x, y = rng.normal(size=(2, 12, 4))
        null = null_between([x], [y], measure, draws=permutations, rng=rng)
        p.append(null_p(measure.of(x, y), null))
    spread = np.array(p) - rng.uniform(0, 1 / (1 + permutations), repeats)  # p is discrete: over its steps
    assert kstest(spread, "uniform").pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("cka", 40), ("rsa", 40), ("rsa-euclidean", 40), ("cka", 120)])
def test_intervals_of_two_networks_cover(name: str, n: int) -> None:
    """Activations linear in the stimuli plus noise; the truth is the similarity on 3 000 stimuli, five times."""
    rng = np.random.default_rng(13)
    a, scale, settings = rng.normal(size=(5, 8)), np.array([2, 1.5, 1, 0.7, 0.5]), Settings(draws=300, permutations=1)

    def drawn(n: int) -> tuple[Floats, Floats]:
        x = rng.normal(size=(n, 5)) * scale
        return x, x @ a + 2 * rng.normal(size=(n, 8))

    truth = np.mean([MEASURES[name].of(*drawn(3000)) for _ in range(5)])
    covered = [
        f.low <= truth <= f.high for f in (assess(*drawn(n), name, seed=i, settings=settings) for i in range(300))
    ]
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsa", "cka"])
def test_intervals_over_stimuli_and_networks_cover(name: str) -> None:
    """Networks differ in their maps, stimuli are drawn anew; an interval from networks alone does not cover."""
    rng = np.random.default_rng(14)
    settings, common = Settings(draws=200, permutations=1), rng.normal(size=(5, 8))

    def drawn(n: int, s: int) -> tuple[Floats, list[Floats]]:
        x = rng.normal(size=(n, 5))
        return x, [x @ (common + 0.5 * rng.normal(size=(5, 8))) + rng.normal(size=(n, 8)) for _ in range(s)]

    truth = np.mean([MEASURES[name].of(x, y) for x, (y,) in (drawn(1000, 1) for _ in range(300))])
    covered, by_networks = [], []
    for i in range(200):
        x, ys = drawn(25, 6)
        found = between([x], ys, name, seed=i, settings=settings)
        covered.append(found.low <= truth <= found.high)
        each = np.array([MEASURES[name].of(x, y) for y in ys])
        by_networks.append(abs(each.mean() - truth) <= stdtrit(5, 0.975) * each.std(ddof=1) / np.sqrt(6))
    assert 0.92 <= np.mean(covered) <= 0.995
    assert np.mean(by_networks) < 0.85
