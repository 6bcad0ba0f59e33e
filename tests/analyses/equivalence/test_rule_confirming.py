"""The tests behind a confirmed rule against SciPy's, the null against brute force, the race and EM against planted truth."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from heldout.analyses.equivalence import confirming, mixture
from heldout.analyses.equivalence.evaluation import Table, plan
from heldout.analyses.equivalence.race import Screen, fingerprints, matched, race, screen
from heldout.statistics.permutation import holm
from heldout.tasks.arithmetic import numerals


def test_p_values_are_the_binomial_tests() -> None:
    matches, n, threshold = np.array([40, 25, 0, 50]), 50, 0.4
    expected = holm([stats.binomtest(int(k), n, threshold, alternative="greater").pvalue for k in matches])
    assert confirming.exceedance(matches, n, threshold) == pytest.approx(expected)
    assert confirming.exceedance(matches, n, 1.02).tolist() == [1.0] * 4


@pytest.mark.parametrize("threshold", np.linspace(0.05, 0.95, 19))
def test_bounds_and_p_values_say_the_same(threshold: float) -> None:
    matches, n = np.array([48, 47, 30, 10, 0]), 50
    low, p = confirming.lower_bounds(matches, n), confirming.exceedance(matches, n, threshold)
    # In Holm's order a rule is confirmed while all before it are.
    assert (np.minimum.accumulate(low > threshold) == (p <= confirming.LEVEL)).all()
    exact = stats.binomtest(48, n).proportion_ci(1 - 2 * confirming.LEVEL / 5, method="exact").low
    assert low[0] == pytest.approx(exact)


def test_mcnemar_is_the_sign_test_on_discordant_pairs() -> None:
    rng = np.random.default_rng(0)
    best, others = rng.random(200) < 0.8, rng.random((6, 200)) < np.linspace(0.5, 0.9, 6)[:, None]
    found = confirming.mcnemar(best, others)
    for p, other in zip(found, others, strict=True):
        won, lost = int((best & ~other).sum()), int((other & ~best).sum())
        assert p == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert confirming.mcnemar(best, best[None]).tolist() == [1.0]
    worse = confirming.significantly_worse(best, others)
    assert worse[0]
    assert not worse[-1]


def test_the_null_is_the_best_over_all_shuffles() -> None:
    """Five pairs, two answer lengths: every shuffle within length listed, against a thousand drawn."""
    codes = np.array([[1, 2, 3, 10, 11], [3, 1, 2, 11, 10], [2, 2, 2, 10, 10], [9, 9, 9, 9, 9]])
    answers, length = np.array([1, 2, 2, 10, 11]), np.array([1, 1, 1, 2, 2])
    exact = [
        max((codes == np.concatenate([short, long])).sum(axis=1)) / 5
        for short in permutations(answers[:3])
        for long in permutations(answers[3:])
    ]
    drawn = confirming.shuffled_best(Screen(codes, answers, length), np.random.default_rng(0), 4000)
    assert set(drawn) == set(exact)
    assert drawn.mean() == pytest.approx(np.mean(exact), abs=0.01)
    assert confirming.percentile_of(np.array([0.1] * 95 + [0.9] * 5)) == 0.1
    assert confirming.percentile_of(np.array([0.1] * 94 + [0.9] * 6)) == 0.9


def test_unreadable_answers_match_nothing_in_the_null() -> None:
    missing = np.iinfo(np.int64).min
    drawn = confirming.shuffled_best(
        Screen(np.array([[5, 5, 5, 5]]), np.array([5, missing, missing, missing]), np.array([1, 0, 0, 0])),
        np.random.default_rng(0),
        50,
    )
    assert set(drawn) == {0.25}


def _table(n: int, noise: float) -> Table:
    rng = np.random.default_rng(2)
    a, b = rng.integers(1000, 10_000, size=(2, n))
    answers = np.where(rng.random(n) < noise, rng.integers(0, 2000, n), a % 1000 + b % 1000)
    digits = [numerals.from_ints(x) for x in (a, b, answers)]
    return Table(*digits, np.zeros(n, dtype=bool), np.ones(n, dtype=bool))


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_race_keeps_what_all_pairs_would_choose(noise: float) -> None:
    table = _table(3000, noise)
    whole = plan("add", 4, None)
    left = race(whole.hypotheses, screen(whole, table.take(np.arange(256)), None), table, None)
    _, hits = matched(whole.hypotheses, table, None)
    order = np.argsort(-hits.sum(axis=1), kind="stable")
    winners = [whole.hypotheses[i] for i in order if hits[i].sum() == hits[order[0]].sum()]
    assert set(winners) <= set(left)
    assert len(left) < len(whole.hypotheses) / 2


def test_fingerprints_add_up_and_tell_rows_apart() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**40, size=(50, 90)) * 2**20  # differences are multiples of a power of two
    parts = fingerprints(codes[:, :33]) + fingerprints(codes[:, 33:], start=33)
    assert np.array_equal(fingerprints(codes), parts)
    assert len(set(parts.tolist())) == 50
    assert fingerprints(codes[[3, 3]])[0] == fingerprints(codes)[3]


def test_em_recovers_planted_weights_and_leaves_the_rest_unexplained() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    strata = np.column_stack([np.full(n, 4), 4 + (np.arange(n) % 2)])
    said = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    said[strata[:, 1] == 4] = 0  # one stratum follows the first rule alone
    hits = np.stack([said == 0, (said == 1) | ((said == 0) & (rng.random(n) < 0.25))])  # a quarter of them agree
    found = mixture.fit(["one", "two"], hits, strata, np.log(10.0) * 5)
    assert found.components == ("one", "two", "unexplained")
    by = dict(zip(found.strata, found.by_stratum, strict=True))
    assert by[4, 4] == pytest.approx([1, 0, 0], abs=0.01)
    assert by[4, 5][2] == pytest.approx(0.1, abs=0.01)
    # The likelihood's maximum: pairs on which both agree are shared out by the weights of those on which they do not.
    only_one, only_two = (strata[:, 1] == 5) & hits[0] & ~hits[1], (strata[:, 1] == 5) & hits[1] & ~hits[0]
    share = only_one.sum() / (only_one.sum() + only_two.sum())
    assert by[4, 5][0] / by[4, 5][:2].sum() == pytest.approx(share, abs=0.002)
    assert found.responsibilities[said == 2, 2] == pytest.approx(1)
    assert found.weights.sum() == pytest.approx(1)


def test_nothing_but_noise_is_all_unexplained() -> None:
    found = mixture.fit([], np.zeros((0, 30), dtype=bool), np.ones((30, 2), dtype=np.int64), 5.0)
    assert found.weights.tolist() == [1.0]
    assert found.unexplained == 1.0
