"""Repair: data by method, outcomes on hand-made answers, and the estimand of C6."""

from __future__ import annotations

import numpy as np
import pytest
from handmade_adders import LOW, TRUE, Adder, digits, greedy, operands

from heldout.analyses.equivalence.answers import Answers, add_scores
from heldout.analyses.equivalence.repair import (
    METHODS,
    K,
    examples,
    fewer_examples,
    first_reaching,
    repair_label,
    repair_values,
    steps_saved,
)
from heldout.analyses.estimates import Scores, estimate
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Cell, Origin


def test_long_examples_are_nested_and_the_same_for_all_methods() -> None:
    drawn = {(m, k): examples(m, k, short=1000, long=2000, seed=7) for m in METHODS for k in K}
    for method in METHODS:
        assert [len(drawn[method, k].long) for k in K] == list(K)
        assert np.array_equal(drawn[method, 50].long[:10], drawn[method, 10].long)
        assert np.array_equal(drawn[method, 500].long[:50], drawn[method, 50].long)
        assert np.array_equal(drawn[method, 500].long, drawn["priming", 500].long)
        assert len(np.unique(drawn[method, 500].long)) == 500
        assert drawn[method, 10].fresh == (method in ("priming", "from_scratch"))
        assert len(drawn[method, 10].short) == (1000 if method in ("priming", "fine_tuning_replay") else 0)
        assert drawn[method, 10].weights.sum() == pytest.approx(1)
    assert not np.array_equal(examples("priming", 10, short=9, long=2000, seed=8).long, drawn["priming", 10].long)


def test_shares_are_what_each_method_says() -> None:
    assert examples("priming", 10, short=990, long=50, seed=0).weights == pytest.approx(np.full(1000, 1e-3))
    replay = examples("fine_tuning_replay", 10, short=990, long=50, seed=0)
    assert replay.weights[:990] == pytest.approx(np.full(990, 0.5 / 990))
    assert replay.weights[990:] == pytest.approx(np.full(10, 0.05))
    assert examples("priming", 10, short=990, long=50, seed=0, share=0.25).weights[990:].sum() == pytest.approx(0.25)
    for method in ("fine_tuning", "from_scratch"):
        assert examples(method, 10, short=990, long=50, seed=0).weights == pytest.approx(np.full(10, 0.1))


def test_batches_follow_the_weights_and_depend_on_seed_and_step_alone() -> None:
    replay = examples("fine_tuning_replay", 5, short=20, long=50, seed=0)
    draw = replay.batches(1000, seed=3)
    places = np.concatenate([draw(step) for step in range(40)])
    assert np.bincount(places, minlength=25) / 40_000 == pytest.approx(replay.weights, abs=0.006)
    assert np.array_equal(draw(7), replay.batches(1000, seed=3)(7))
    assert not np.array_equal(draw(7), draw(8))
    assert not np.array_equal(draw(7), replay.batches(1000, seed=4)(7))
    assert set(examples("from_scratch", 1, short=0, long=1, seed=0).batches(8, seed=0)(0)) == {0}


def test_the_outcome_says_which_relation_the_answers_follow() -> None:
    a, b = operands(300, low=10_000, high=100_000)  # two digits more than 3
    truth, old, new = (digits(a % m + b % m, 6) for m in (TRUE, LOW, 10 * LOW))
    for modulus, name in ((LOW, "kept"), (10 * LOW, "moved"), (TRUE, "truth")):
        answers = Answers(greedy(Adder(modulus), a, b), np.ones(300, bool))
        values = repair_values(answers, truth, old, new)
        told_apart = (old != new).any(1) & (new != truth).any(1) & (old != truth).any(1)
        assert told_apart.mean() > 0.8
        for column in ("kept", "moved", "truth", "neither"):
            expected = column == name
            assert (values[column][told_apart] == expected).all(), (modulus, column)
    wrong = repair_values(Answers(np.full((300, 6), 9), np.ones(300, bool)), truth, old, new)
    assert wrong["neither"].all()
    unreadable = repair_values(Answers(truth, np.zeros(300, bool)), truth, old, new)
    assert unreadable["neither"].all()


def test_with_one_digit_more_the_new_rule_is_the_truth() -> None:
    a, b = operands(200, low=1000, high=10_000)
    answers = Answers(greedy(Adder(TRUE), a, b), np.ones(200, bool))
    truth, old, new = (digits(a % m + b % m, 6) for m in (TRUE, LOW, 10 * LOW))
    values = repair_values(answers, truth, old, new)
    assert (values["truth"] == values["equivalence_n1"]).all()
    assert values["moved"].all()


def test_fewest_examples_with_ties_and_never() -> None:
    curve = np.array([[0.1, 0.95, 0.1, 0.9, 0.92], [0.5, 0.2, 0.2, 0.95, 0.3], [0.95, 0.99, 0.3, 1.0, 0.99]])
    assert first_reaching(curve).tolist() == [2, 0, 3, 0, 0]
    assert first_reaching(curve, threshold=0.5).tolist() == [1, 0, 3, 0, 0]
    never = np.zeros((3, 5))
    assert steps_saved(curve, never).tolist() == [1, 3, 0, 3, 3]  # both never: no advantage was seen
    assert steps_saved(never, curve).tolist() == [-1, -3, 0, -3, -3]
    assert steps_saved(curve, curve).tolist() == [0] * 5
    unknown = curve.copy()
    unknown[1, 0] = np.nan
    assert np.isnan(steps_saved(curve, unknown)).tolist() == [True, False, False, False, False]
    with pytest.raises(StatisticsError, match="same k"):
        steps_saved(curve, curve[:2])
    with pytest.raises(StatisticsError, match=r"\(G, R\)"):
        first_reaching(np.zeros(3))


@pytest.mark.parametrize(("faster", "value"), [(True, 2.0), (False, 0.0)])
def test_the_estimand_is_judged_from_scores(faster: bool, value: float) -> None:
    memory = Memory()
    unit = np.arange(100)
    for seed in range(5):
        for method in ("priming", "from_scratch"):
            for i, k in enumerate(K):
                right = (2 if method == "from_scratch" or not faster else 0) <= i
                origin = Origin(method, ".", parameter=k)
                assert origin.label == repair_label(method, k)
                truth = (unit < (99 if right else 30)).astype(float)
                add_scores(memory, Cell("arithmetic", "nano", seed, "long", origin), {"unit": unit}, {"truth": truth})
    scores = Scores.from_memory(memory)
    test = estimate(
        scores,
        [("nano", s) for s in range(5)],
        fewer_examples("priming", split="long"),
        rng=np.random.default_rng(0),
    )
    assert test.value == value
    assert (test.p_plus < 0.05) == faster


def test_bad_repairs_are_named() -> None:
    with pytest.raises(ConfigError, match="priming"):
        examples("prime", 10, short=5, long=20, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 to 20"):
        examples("priming", 21, short=5, long=20, seed=0)
    with pytest.raises(ConfigError, match="there are none"):
        examples("priming", 10, short=0, long=20, seed=0)
    with pytest.raises(ConfigError, match="share"):
        examples("from_scratch", 10, short=5, long=20, seed=0, share=0.5)
    with pytest.raises(ConfigError, match="share"):
        examples("priming", 10, short=5, long=20, seed=0, share=1.0)
