"""Answer measures at both extremes, and as additive scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade_adders import LOW, STEPS, TRUE, Adder, digits, greedy, items, operands, tokens
from scipy.stats import entropy

from heldout.analyses.equivalence.answers import (
    GREEDY,
    Answers,
    add_scores,
    answer_values,
    proportions,
    shuffled_null,
)
from heldout.analyses.equivalence.divergence import divergence
from heldout.analyses.equivalence.passes import Forced, Sequences, forced
from heldout.analyses.estimates import Scores, View, estimate
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, NetworkError, StatisticsError
from heldout.evidence import Cell


def answered(network: torch.nn.Module, a: np.ndarray, b: np.ndarray) -> Answers:
    return Answers(greedy(network, a, b), np.ones(len(a), dtype=bool))


def targets(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return digits(a + b, 6), digits(a % LOW + b % LOW, 6)


def test_the_rule_and_the_truth_are_told_apart() -> None:
    a, b = operands(200, low=1000)
    truth, rule = targets(a, b)
    for modulus, right in ((LOW, "equivalence"), (TRUE, "truth")):
        network = Adder(modulus)
        values = answer_values(answered(network, a, b), truth, rule, answered(network, a % LOW, b % LOW))
        assert values[right].all()
        assert not values["truth" if right == "equivalence" else "equivalence"].any()
        assert values["self"].all() == (right == "equivalence")
        assert values["self"].any() == (right == "equivalence")
        for i in range(3):  # the low digits are the same in both answers
            assert values[f"truth_digit_{i}"].all()
            assert values[f"equivalence_digit_{i}"].all()
        high = (a // LOW + b // LOW + (a % LOW + b % LOW) // LOW) % 10
        same = high == (a % LOW + b % LOW) // LOW
        assert (values["truth_digit_3" if right == "equivalence" else "equivalence_digit_3"] == same).all()


def test_what_cannot_be_read_is_wrong_and_agrees_with_nothing() -> None:
    right = np.array([[1, 0], [2, 0], [3, 1]])
    some = Answers(right, np.array([True, False, True]))
    assert some.matches(right).tolist() == [True, False, True]
    assert some.agrees(some).tolist() == [True, False, True]
    assert some.right(right)[1].tolist() == [False, False]
    assert Answers(right, np.ones(3, bool)).agrees(some).tolist() == [True, False, True]
    values = answer_values(some, right, right, some)
    assert {name: v.mean() for name, v in values.items() if name != "parsable"} == {
        name: pytest.approx(2 / 3) for name in values if name != "parsable"
    }
    assert some.lengths.tolist() == [1, -1, 2]


def test_lengths_count_digits_without_leading_zeros() -> None:
    numbers = np.array([0, 7, 10, 99, 100, 123456])
    assert Answers(digits(numbers, 6), np.ones(6, bool)).lengths.tolist() == [1, 1, 2, 2, 3, 6]


def test_scores_are_sums_by_unit_and_stratum_and_can_be_judged() -> None:
    a, b = operands(300, low=0, high=5000)
    a, b = np.concatenate([a, b]), np.concatenate([b, a])  # both orders of each pair: one unit
    truth, rule = targets(a, b)
    memory = Memory()
    labels = items(a, b).labels
    for seed in range(5):
        cell = Cell("arithmetic", "nano", seed, "ood", GREEDY)
        add_scores(memory, cell, labels, answer_values(answered(Adder(LOW), a, b), truth, rule))
    scores = Scores.from_memory(memory)

    def gap(view: View) -> np.ndarray:
        return np.subtract(*(view.ratio(m, split="ood", edit="greedy", site=".") for m in ("equivalence", "truth")))

    test = estimate(scores, [("nano", s) for s in range(5)], gap, rng=np.random.default_rng(0), delta=0.5)
    changed = ((a >= LOW) | (b >= LOW)).mean()
    assert test.value == pytest.approx(changed)
    assert test.n_clusters == len(np.unique(labels["unit"])) <= 300
    assert test.p_plus < 0.01


def test_the_shuffled_null_of_a_rule_is_low_and_that_of_a_constant_its_score() -> None:
    a, b = operands(400, low=1000)
    _, rule = targets(a, b)
    null = shuffled_null(answered(Adder(LOW), a, b), rule, draws=50, rng=np.random.default_rng(0))
    assert null.rates.shape == (50,)
    assert null.best == null.rates.max() == null.matches.mean() < 0.03
    constant = Answers(np.tile(digits(np.array([777]), 6), (400, 1)), np.ones(400, bool))
    rule[:40] = digits(np.array([777]), 6)
    same = shuffled_null(constant, rule, draws=5, rng=np.random.default_rng(0))
    assert same.best == constant.matches(rule).mean() >= 0.1
    assert (same.rates == same.best).all()


def test_answers_are_shuffled_within_their_length_only() -> None:
    numbers = np.array([5, 12, 345, 6789])  # each alone in its length: nothing can move
    answers = Answers(digits(numbers, 6), np.ones(4, bool))
    null = shuffled_null(answers, digits(numbers, 6), draws=20, rng=np.random.default_rng(0))
    assert (null.rates == 1).all()
    unreadable = Answers(answers.digits, np.array([True, True, False, False]))
    null = shuffled_null(unreadable, digits(numbers, 6), draws=20, rng=np.random.default_rng(0))
    assert (null.rates == 0.5).all()
    pair = Answers(digits(np.array([11, 22]), 6), np.ones(2, bool))
    null = shuffled_null(pair, pair.digits, draws=200, rng=np.random.default_rng(0))
    assert set(null.rates) == {0.0, 1.0}
    assert 0.35 < null.rates.mean() < 0.65


def test_proportions_know_the_rule_of_three_and_wilson() -> None:
    values = {"truth": np.zeros(100), "equivalence": np.r_[np.ones(50), np.zeros(50)]}
    rows = proportions(values, {"la": np.repeat([3, 4], 50)}, by=["la"], split="ood")
    found = {r.quantity: r for r in rows}
    assert set(found) == {f"{m}{c}" for m in values for c in ("", "[la=3]", "[la=4]")}
    assert found["truth"].high == pytest.approx(1 - 0.05 ** (1 / 100))
    assert "rule of three" in found["truth"].method
    assert found["truth"].split == "ood"
    # Wilson at 50 of 100, from the closed form
    z = 1.959963984540054
    half = z / (1 + z * z / 100) * np.sqrt(0.25 / 100 + z * z / 4e4)
    assert (found["equivalence"].low, found["equivalence"].high) == pytest.approx((0.5 - half, 0.5 + half))
    assert found["equivalence[la=3]"].value == 1
    assert found["equivalence[la=3]"].low == pytest.approx(0.05 ** (1 / 50))
    assert found["equivalence[la=4]"].n == 50
    with pytest.raises(ConfigError, match="lb"):
        proportions(values, {"la": np.repeat([3, 4], 50)}, by=["lb"])
    with pytest.raises(StatisticsError, match="0 or 1"):
        proportions({"kl": np.array([0.3, 0.2])})


def test_divergence_is_zero_for_the_rule_and_as_computed_for_the_truth() -> None:
    a, b = operands(60, low=1000)
    partner = tokens(a % LOW, b % LOW, a % LOW + b % LOW)
    values = divergence(Adder(LOW, sharp=3.0), items(a, b), partner, batch_size=17)
    assert all((values[f"kl_{i}"] == 0).all() for i in range(6))
    assert values["same"].all()
    # one-hot logits of height s: the largest has e^s / (e^s + 9)
    assert values["probability"] == pytest.approx(np.exp(3) / (np.exp(3) + 9))
    assert values["margin"] == pytest.approx(3.0)
    other = divergence(Adder(TRUE, sharp=3.0), items(a, b), partner)
    p, q = (np.where(np.arange(10) == k, np.exp(3), 1) / (np.exp(3) + 9) for k in (0, 1))
    differs = digits(a + b, 6) != digits(a % LOW + b % LOW, 6)
    for i in range(6):
        assert other[f"kl_{i}"] == pytest.approx(differs[:, i] * entropy(p, q))
    assert other["kl"] == pytest.approx(differs.mean(axis=1) * entropy(p, q))
    assert (other["margin"] == pytest.approx(-3.0)) == differs.any(axis=1).all()
    assert (other["partner_margin"] > 0).all()  # of the representative the network knows the forced answer


def test_the_margin_is_positive_exactly_where_greedy_decoding_gives_the_forced_answer() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Embedding(10, 10)).double()
    a, b = operands(300)
    own = greedy(network, a, b)
    own[::3, 2] = (own[::3, 2] + 1) % 10
    x = tokens(a, b, a)
    x[:, 10:] = torch.from_numpy(own)
    read = forced(network(x[:, :15]), x, STEPS)
    assert torch.equal(read.exact, (read.margin > 0).all(dim=1))
    assert torch.equal(read.exact, torch.from_numpy((greedy(network, a, b) == own).all(axis=1)))
    assert 0 < read.exact.sum() < 300


def test_kl_agrees_with_torch() -> None:
    p, q = (torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(s)).double().log_softmax(-1) for s in (0, 1))
    given = torch.zeros(4, 3, dtype=torch.int64)
    theirs = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(Forced(p, given).kl(Forced(q, given)), theirs)


def test_bad_input_is_named() -> None:
    a, b = operands(5)
    with pytest.raises(ConfigError, match="share the answer"):
        divergence(Adder(), items(a, b), tokens(a, b, a % LOW + b % LOW + 1))
    with pytest.raises(ConfigError, match="none is there"):
        Sequences(tokens(a, b, a), (9, 15))
    with pytest.raises(ConfigError, match="ascending"):
        Sequences(tokens(a, b, a), (10, 9))
    with pytest.raises(ConfigError, match="'unit'"):
        Sequences(tokens(a, b, a), STEPS, {"la": np.ones(5)})
    with pytest.raises(ConfigError, match="3 entries"):
        Sequences(tokens(a, b, a), STEPS, {"unit": np.ones(3)})
    with pytest.raises(ConfigError, match="shape"):
        items(a, b).partner(tokens(a[:3], b[:3], a[:3]))
    with pytest.raises(ConfigError, match="one width"):
        Answers(digits(a, 6), np.ones(5, bool)).matches(digits(a, 5))
    with pytest.raises(ConfigError, match="parsable"):
        Answers(digits(a, 6), np.ones(5))
    with pytest.raises(NetworkError, match="are needed to read"):
        forced(torch.zeros(5, 12, 10), tokens(a, b, a), STEPS)
    with pytest.raises(NetworkError, match="classes"):
        forced(torch.zeros(5, 15, 3), tokens(a, b, a * 0 + 999999), STEPS)
    with pytest.raises(StatisticsError, match="one draw"):
        shuffled_null(Answers(digits(a, 6), np.ones(5, bool)), digits(a, 6), draws=0, rng=np.random.default_rng(0))
