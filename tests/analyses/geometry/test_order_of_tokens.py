"""Period split and orderedness: closed forms, planted structure, invariance, and the level of their nulls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, ortho_group

from heldout.analyses.geometry.order import orderedness, orderedness_test, period_split, period_split_test
from heldout.errors import ConfigError, StatisticsError


def by_hand(rows: np.ndarray, tokens: np.ndarray) -> float:
    """The parity split from its definition, pair by pair."""
    same: dict[int, list[float]] = {0: [], 1: []}
    cross = []
    for i, j in combinations(range(len(rows)), 2):
        distance = float(np.linalg.norm(rows[i] - rows[j]))
        if (tokens[i] - tokens[j]) % 2:
            cross.append(distance)
        else:
            same[int(tokens[i] % 2)].append(distance)
    return float(2 * np.mean(cross) / (np.mean(same[0]) + np.mean(same[1])))


def test_the_parity_split_is_its_definition_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    rows, tokens = rng.normal(size=(15, 6)), rng.permutation(np.arange(4, 19))
    assert period_split(rows, tokens) == pytest.approx(by_hand(rows, tokens), rel=1e-12)
    gaps = np.array([1, 2, 4, 9, 12, 21, 22, 31, 32, 33, 35, 40, 41, 44, 50])
    assert period_split(rows, gaps) == pytest.approx(by_hand(rows, gaps), rel=1e-12)


def test_known_values() -> None:
    square = np.array([[0.0, 0], [0, 3], [4, 0], [4, 3]])  # tokens 0, 1, 2, 3: even and odd are two sides of length 4
    assert period_split(square, np.arange(4)) == pytest.approx((3 + 5 + 5 + 3) / 4 / 4)
    corners = np.repeat(np.eye(3), 2, axis=0) * np.sqrt(2)
    tokens = np.array([0, 3, 1, 4, 2, 5])
    apart = corners + 0.5 * np.tile([[1, 1, 1], [-1, -1, -1]], (3, 1)) / np.sqrt(3)
    within, across = 1.0, (2 + np.sqrt(4 + 1)) / 2
    assert period_split(apart, tokens, 3) == pytest.approx(across / within)


def test_no_turn_shift_scale_or_reordering_changes_it() -> None:
    rng = np.random.default_rng(1)
    rows, tokens = rng.normal(size=(20, 5)), np.arange(20)
    turned = 7 * rows @ ortho_group.rvs(5, random_state=1) + 2
    order = rng.permutation(20)
    for period in (2, 3, 5):
        value = period_split(rows, tokens, period)
        assert period_split(turned, tokens, period) == pytest.approx(value, rel=1e-10)
        assert period_split(rows[order], tokens[order], period) == pytest.approx(value, rel=1e-10)
    one, other = (orderedness_test(r, tokens, seed=3, draws=50) for r in (rows, turned))
    assert one.observed == other.observed
    assert one.p == other.p


def test_planted_parity_is_found_on_a_smooth_table_and_smoothness_alone_is_not() -> None:
    rng = np.random.default_rng(2)
    t = np.arange(80)
    smooth = np.column_stack([t / 10, np.cos(t / 9), np.sin(t / 9), np.cos(t / 15)]) @ rng.normal(size=(4, 12))
    smooth += 0.2 * rng.normal(size=smooth.shape)
    parity = smooth + np.outer(t % 2, rng.normal(size=12))
    assert period_split_test(parity, t, seed=0, draws=199).p == 1 / 200
    assert period_split_test(parity, t, seed=0, exchange="all", draws=199).p < 0.05
    assert period_split_test(smooth, t, seed=0, draws=199).p > 0.05
    assert period_split_test(smooth, t, seed=0, exchange="all", draws=199).p > 0.05
    assert period_split(smooth, t) < 1 < period_split(parity, t)


def test_the_local_null_sees_what_free_permutation_cannot() -> None:
    """On a long line a small parity is lost among all orders, but not among those that keep the line."""
    rng = np.random.default_rng(6)
    t = np.arange(60)
    line = np.column_stack([t, 0.8 * (t % 2) + 0.2 * rng.normal(size=60)])
    assert period_split_test(line, t, seed=0, exchange="all", draws=199).p > 0.05
    assert period_split_test(line, t, seed=0, draws=199).p == 1 / 200


def test_a_straight_line_is_its_own_null() -> None:
    line = np.outer(np.arange(12.0), [1.0, 2.0])
    found = period_split_test(line, np.arange(12), seed=0, draws=20)
    np.testing.assert_allclose(found.draws, found.observed, rtol=1e-12)
    assert found.p == 1
    by_three = period_split_test(line, np.arange(12), 3, seed=0, draws=20)
    np.testing.assert_allclose(by_three.draws, by_three.observed, rtol=1e-12)


def test_a_period_of_three_is_found() -> None:
    rng = np.random.default_rng(7)
    t = np.arange(5, 65)
    three = np.outer(t / 20, rng.normal(size=6)) + rng.normal(size=(3, 6))[t % 3] + 0.3 * rng.normal(size=(60, 6))
    assert period_split_test(three, t, 3, seed=0, draws=99).p == 0.01
    assert period_split_test(three, t, 2, seed=0, draws=99).p > 0.05


def test_orderedness_by_hand() -> None:
    assert orderedness(np.arange(10.0), np.arange(10)) == 1
    assert orderedness(-np.arange(10.0), np.arange(10)) == 1
    zigzag = np.arange(10.0) + 3 * (np.arange(10) % 2)
    assert orderedness(zigzag, np.arange(10)) == 1
    assert orderedness(zigzag, np.arange(10), period=1) == pytest.approx(5 / 9)
    swapped = np.array([0.0, 1, 4, 3, 2, 5, 6, 7])  # evens 0 4 2 6, odds in order: 5 of 6
    assert orderedness(swapped, np.arange(8)) == pytest.approx(5 / 6)
    order = np.random.default_rng(0).permutation(8)
    assert orderedness(swapped[order], order) == pytest.approx(5 / 6)
    assert orderedness(np.zeros(8), np.arange(8)) == 0


def test_an_ordered_table_against_its_null() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(60)
    ordered = np.outer(t, rng.normal(size=8)) + rng.normal(size=(60, 8))
    found = orderedness_test(ordered, t, seed=0, draws=199)
    assert found.observed > 0.9
    assert found.p == 1 / 200
    assert 0.5 < found.threshold < 0.75
    noise = orderedness_test(rng.normal(size=(60, 8)), t, seed=0, draws=199)
    assert noise.p > 0.05


def line(rng: np.random.Generator) -> np.ndarray:
    return np.outer(np.arange(40) / 40, np.ones(10)) + 0.1 * rng.normal(size=(40, 10))


def bend(rng: np.random.Generator) -> np.ndarray:
    t = np.arange(40)
    wave = np.column_stack([np.cos(t / 12), np.sin(t / 12), t / 20]) @ rng.normal(size=(3, 10))
    return wave + 0.2 * rng.normal(size=(40, 10))


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(40, 10))


@pytest.mark.slow
@pytest.mark.parametrize("make", [line, bend, noise])
def test_the_local_null_keeps_its_level_on_tables_that_drift(make: Callable[[np.random.Generator], np.ndarray]) -> None:
    """Exchanging whole tokens within runs would reject a quarter of such lines."""
    trials, t = 300, np.arange(40)
    rng = np.random.default_rng(4)
    found = sum(period_split_test(make(rng), t, seed=i, draws=39).p <= 0.05 for i in range(trials))
    assert binom.ppf(0.0005, trials, 0.03) <= found <= binom.ppf(0.9995, trials, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["all", "order"])
def test_the_free_nulls_keep_their_level(what: str) -> None:
    trials, t, found = 400, np.arange(40), 0
    rng = np.random.default_rng(5)
    for i in range(trials):
        if what == "order":
            found += orderedness_test(noise(rng), t, seed=i, draws=59).p <= 0.05
        else:
            found += period_split_test(noise(rng), t, seed=i, exchange="all", draws=59).p <= 0.05
    low = (
        0 if what == "order" else binom.ppf(0.0005, trials, 0.05)
    )  # a share of few values has ties, and so a level below
    assert low <= found <= binom.ppf(0.9995, trials, 0.05)


def test_what_has_no_order_is_refused() -> None:
    rows = np.random.default_rng(5).normal(size=(6, 3))
    with pytest.raises(StatisticsError, match="two or more tokens in each"):
        period_split(rows, [0, 2, 4, 6, 8, 1])
    with pytest.raises(StatisticsError, match="two or more tokens in each"):
        period_split(rows, np.arange(6), 1)
    with pytest.raises(StatisticsError, match="different whole numbers"):
        period_split(rows, [0, 1, 2, 3, 4, 4])
    with pytest.raises(StatisticsError, match="different whole numbers"):
        period_split(rows, np.arange(6.0))
    with pytest.raises(StatisticsError, match="nothing varies"):
        period_split(np.ones((6, 2)), np.arange(6))
    with pytest.raises(StatisticsError, match="classes"):
        period_split(np.repeat([[0.0], [1.0]], 2, axis=0), [0, 2, 1, 3])
    with pytest.raises(ConfigError, match="unknown exchange"):
        period_split_test(rows, np.arange(6), seed=0, exchange="none")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1 draw"):
        orderedness_test(rows, np.arange(6), seed=0, draws=0)
    with pytest.raises(StatisticsError, match="finite"):
        orderedness([0.0, np.nan, 1.0], [0, 1, 2])
    with pytest.raises(StatisticsError, match="no neighbours"):
        orderedness([0.0, 1.0, 2.0], [0, 1, 2])
