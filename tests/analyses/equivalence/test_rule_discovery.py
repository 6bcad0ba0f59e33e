"""Discovery on answers whose rule is known, on answers without one, and on too few."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import heldout
from heldout.analyses.equivalence.grammar import Hypothesis
from heldout.analyses.equivalence.intake import read_table
from heldout.analyses.equivalence.readings import Reading
from heldout.analyses.equivalence.splitting import halves
from heldout.errors import ConfigError
from heldout.tasks.arithmetic import numerals

LOW3 = Reading("low", k=3)
CLAIMED = Hypothesis("add", LOW3, LOW3)


def pairs(n: int, seed: int = 0, low: int = 1000, high: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).integers(low, high, size=(2, n))
    return a, b


def test_the_claimed_map_is_found_and_the_wrapped_sum_rejected() -> None:
    """T6: mod 10^3 an operand, not (a + b) mod 10^3."""
    a, b = pairs(2000)
    found = heldout.discover_rule(a, b, a % 1000 + b % 1000)
    assert found.found
    assert found.rule == CLAIMED
    assert found.names[0] == "(a mod 1000) + (b mod 1000)"
    assert "(a + b) mod 1000" not in found.names
    assert found.best.heldout[0] == found.best.heldout[1]
    assert found.best.low > found.threshold
    assert found.truth == 0
    assert found.mixture.unexplained < 1e-6
    assert "(a mod 1000) + (b mod 1000)" in str(found)


def test_the_degenerate_grid_leaves_rules_that_random_pairs_tell_apart() -> None:
    side = np.arange(0, 10_001, 100)
    a, b = (x.ravel() for x in np.meshgrid(side, side))
    on_grid = heldout.discover_rule(a, b, a % 1000 + b % 1000)
    hundreds = Reading("window", k=1, j=2)
    assert {CLAIMED, Hypothesis("add", hundreds, hundreds)} <= set(on_grid.rules)
    probes = on_grid.probes(20)
    assert probes.least_disagreement > 0
    names = [CLAIMED.name(), Hypothesis("add", hundreds, hundreds).name()]
    assert probes.agreement.loc[names[0], names[1]] < 1
    # Asked the probes, a model that follows the claimed map leaves fewer rules.
    x, y = (probes.pairs[c].astype(int).to_numpy() for c in "ab")
    together = heldout.discover_rule(
        np.concatenate([a, x]), np.concatenate([b, y]), np.concatenate([a % 1000 + b % 1000, x % 1000 + y % 1000])
    )
    assert CLAIMED in together.rules
    assert len(together.best.rules) < len(on_grid.best.rules)


def test_no_relation_in_shuffled_random_and_constant_answers() -> None:
    a, b = pairs(1500)
    rng = np.random.default_rng(1)
    for answers, reason in [
        (rng.permutation(a % 1000 + b % 1000), "held-out answers"),
        (rng.integers(0, 20_000, 1500), "held-out answers"),
        ([None] * 1500, "none of the answers is a number"),
        (np.full(1500, 7), "one answer is given to 100.0% of the pairs"),
    ]:
        found = heldout.discover_rule(a, b, answers)
        assert not found.found
        assert found.rules == ()
        assert reason in found.reason
        assert found.mixture.unexplained == pytest.approx(1)
        assert "no relation" in str(found)


def test_too_few_pairs_are_an_answer() -> None:
    assert "too few pairs" in heldout.discover_rule([1, 2], [3, 4], [4, 6]).reason
    a, b = pairs(6)
    found = heldout.discover_rule(a, b, a % 1000 + b % 1000)
    assert not found.found
    assert "too few pairs" in found.reason
    a, b = pairs(60, low=0, high=10)
    found = heldout.discover_rule(a, b, a + b)
    assert len(found.names) >= 4  # one digit reversed is itself
    assert Hypothesis("add") in found.rules


def test_answers_that_are_no_numbers_are_wrong() -> None:
    a, b = pairs(400)
    answers: list[object] = (a + b).tolist()
    for i, bad in zip(range(0, 40, 5), [None, float("nan"), "", "12?", -5, "1e3", 2.5, 10**70], strict=True):
        answers[i] = bad
    found = heldout.discover_rule(a, b, answers)
    assert found.unparsable == 7  # -5 is a number, and wrong
    frame = found.answers()
    assert frame["answer"].isna().sum() == 7
    assert frame["follows_rule"].sum() == 392
    assert found.rule == Hypothesis("add")
    assert found.mixture.weights[-1] == pytest.approx(8 / 400, abs=1e-3)


@pytest.mark.parametrize(
    ("operation", "modulus", "answer"),
    [
        ("subtract", None, lambda a, b: a % 1000 - b % 1000),
        ("multiply", None, lambda a, b: (a % 100) * (b % 100)),
        ("mod_add", 150, lambda a, b: (a % 1000 + b % 1000) % 150),
        ("mod_multiply", 51, lambda a, b: (a % 1000) * (b % 1000) % 51),
    ],
)
def test_other_operations(operation: str, modulus: int | None, answer: object) -> None:
    a, b = pairs(800)
    found = heldout.discover_rule(a, b, answer(a, b), operation=operation, modulus=modulus)  # type: ignore[operator]
    k = 2 if operation == "multiply" else 3
    assert f"a mod {10**k}" in found.names[0]
    assert f"b mod {10**k}" in found.names[0]
    held = {"subtract": 0.1, "multiply": 0.0, "mod_add": 1 / 3, "mod_multiply": 0.024}  # by theory, four digits
    assert found.truth == pytest.approx(held[operation], abs=0.06)


def test_operands_of_thirty_digits_and_other_bases() -> None:
    rng = np.random.default_rng(3)
    for base, k in ((10, 25), (2, 12)):
        a, b = ([int(x) * base**15 + int(y) for x, y in rng.integers(0, base**15, size=(160, 2))] for _ in range(2))
        answers = [x % base**k + y % base**k for x, y in zip(a, b, strict=True)]
        found = heldout.discover_rule(a, b, answers, base=base)
        low = Reading("low", k=k)
        assert found.rule == Hypothesis("add", low, low)
        assert f"{base}^{k}" in found.names[0]


def test_a_mixture_is_taken_apart() -> None:
    """Two extra digits: the rule, a lost carry flag, a slip by one, and noise; shares by stratum."""
    rng = np.random.default_rng(5)
    n = 6000
    a, b = rng.integers(1000, 10_000, n), rng.integers(1000, 100_000, n)
    rule = a % 1000 + b % 1000
    long = b >= 10_000
    flag = long & (rng.random(n) < 0.2) & (rule >= 1000)
    slip = ~flag & (rng.random(n) < 0.05)
    noise = ~flag & ~slip & (rng.random(n) < 0.1)
    answers = np.where(flag, rule - 1000, np.where(slip, rule + 1, rule))
    answers = np.where(noise, rng.integers(0, 100_000, n), answers)
    found = heldout.discover_rule(a, b, answers)
    assert found.rule == CLAIMED
    weights = dict(zip(found.mixture.components, found.mixture.weights, strict=True))
    lost = next(name for name in weights if name in ("(a + b) mod 1000", f"{CLAIMED.name()}, - 1000"))
    # As a rule of its own it also answers where the flag makes no difference.
    assert weights[lost] == pytest.approx(0.2 * long.mean(), abs=0.02)
    assert weights[f"{CLAIMED.name()}, + 1"] == pytest.approx(slip.mean(), abs=0.01)
    assert found.mixture.unexplained == pytest.approx(noise.mean(), abs=0.01)
    assert np.allclose(found.mixture.responsibilities.sum(axis=1), 1)
    table = found.mixture.table().set_index("component")
    assert table.loc[lost, "4+5 digits"] > table.loc[lost, "4+4 digits"]
    frame = found.answers()
    said = frame["component"].to_numpy()
    assert (said[slip] == f"{CLAIMED.name()}, + 1").all()
    assert (frame["a"].astype(int).to_numpy() == a).all()
    strata = {s.lengths: s for s in found.strata}
    assert strata[4, 5].rule is not None
    assert strata[4, 5].low < (answers == rule)[long].mean() < strata[4, 5].high


def test_halves_never_split_a_pair_from_its_mirror_image() -> None:
    a, b = pairs(300, low=0, high=60)
    table = read_table(np.concatenate([a, b]), np.concatenate([b, a]), np.zeros(600, dtype=int), 10)
    order, half, _ = halves(table, 3)
    assert sorted(order.tolist()) == list(range(600))
    x, y = np.concatenate([a, b])[order], np.concatenate([b, a])[order]
    units = [frozenset((int(p), int(q))) for p, q in zip(x, y, strict=True)]
    assert not set(units[:half]) & set(units[half:])
    assert 250 < half < 350
    assert not np.array_equal(order, halves(table, 4)[0])


def test_same_seed_same_result_and_order_does_not_matter() -> None:
    a, b = pairs(500)
    answers = np.where(np.random.default_rng(0).random(500) < 0.3, 0, a % 1000 + b % 1000)
    one, two = (heldout.discover_rule(a, b, answers, seed=4) for _ in range(2))
    assert json.dumps(one.record()) == json.dumps(two.record())
    turn = np.random.default_rng(9).permutation(500)
    other = heldout.discover_rule(a[turn], b[turn], answers[turn], seed=4)
    assert other.best.heldout == one.best.heldout
    assert set(other.names) == set(one.names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operation": "ad"}, "unknown operation 'ad'"),
        ({"modulus": 5}, "add takes no modulus"),
        ({"operation": "mod_add"}, "mod_add needs a modulus"),
        ({"operation": "mod_add", "modulus": 10**7}, "between 2 and 1000000"),
        ({"base": 1}, "between 2 and 36"),
        ({"a": [1, 2, -3, 4]}, "a: .*number 2 is -3"),
        ({"a": [1, 2, 3]}, "equally many; got 3 a, 4 b"),
        ({"b": [10**30, 1, 1, 1]}, "b: number 0 has 31 digits"),
        ({"b": [1.5, 1, 1, 1]}, "b: .*whole numbers"),
        ({"a": [1], "b": [2], "answers": [3]}, "1 pairs; at least 2"),
        ({"a": [1] * 4, "b": [2] * 4}, "cannot be halved"),
        ({"answers": 5}, "sequences; got int"),
        ({"a": np.full((4, 2), 12)}, "digits .* from 0 to 9"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8], "answers": [6, 8, 10, 12]}
    with pytest.raises(ConfigError, match=message):
        heldout.discover_rule(**(given | arguments))  # type: ignore[arg-type]


def test_digits_are_taken_as_they_are() -> None:
    a, b = pairs(300)
    digits = [numerals.from_ints(x) for x in (a, b, a % 1000 + b % 1000)]
    one, two = heldout.discover_rule(*digits), heldout.discover_rule(a, b, a % 1000 + b % 1000)
    assert json.dumps(one.record()) == json.dumps(two.record())


def test_discovery_needs_no_torch() -> None:
    code = (
        "import heldout, sys; heldout.discover_rule(range(9), range(9), range(0, 18, 2)); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
