"""The grammar: its definition against Python's whole numbers, the fast codes against the definition, and golden figures."""

from __future__ import annotations

import numpy as np
import pytest

from heldout.analyses.equivalence.evaluation import PRIME, Plan, Table, plan
from heldout.analyses.equivalence.grammar import Carries, Hypothesis, grammar
from heldout.analyses.equivalence.readings import Reading, readings
from heldout.tasks.arithmetic import numerals

LOW3 = Reading("low", k=3)
CLAIMED = Hypothesis("add", LOW3, LOW3)  # what nano adders answer out of distribution


def table(rng: np.random.Generator, n: int, width: int, base: int) -> Table:
    lengths = rng.integers(1, width + 1, size=(2, n))
    lengths[:, 0] = width
    a, b = ([int(rng.integers(base, size=k) @ base ** np.arange(k).astype(object)) for k in row] for row in lengths)
    blank = np.zeros(n, dtype=bool)
    return Table(numerals.from_ints(a, base), numerals.from_ints(b, base), numerals.zeros((n,), 1), blank, ~blank, base)


def said(rule: Hypothesis, a: list[int], b: list[int], base: int = 10) -> list[int]:
    digits = rule.predict(numerals.from_ints(a, base), numerals.from_ints(b, base), base)
    values = numerals.to_ints(digits.digits, base)
    return [-v if minus else v for v, minus in zip(values, digits.negative.tolist(), strict=True)]


A, B = [7654, 908, 30, 5], [2345, 9997, 4, 0]


@pytest.mark.parametrize(
    ("reading", "name", "expected"),
    [
        (Reading(), "a", [7654, 908, 30, 5]),
        (LOW3, "a mod 1000", [654, 908, 30, 5]),
        (Reading("leading", k=2), "first 2 digits of a", [76, 90, 30, 5]),
        (Reading("window", k=2, j=1), "digits 2 to 3 of a, in place", [650, 900, 30, 0]),
        (Reading("up", j=2), "a × 100", [765400, 90800, 3000, 500]),
        (Reading("down", j=2), "floor(a / 100)", [76, 9, 0, 0]),
        (Reading("zero", j=1), "a with digit 2 set to 0", [7604, 908, 0, 5]),
        (Reading("drop", j=1), "a without digit 2", [764, 98, 0, 5]),
        (Reading("clamp", k=3), "min(a, 1000 - 1)", [999, 908, 30, 5]),
        (Reading("reverse"), "a reversed", [4567, 809, 3, 5]),
    ],
)
def test_readings(reading: Reading, name: str, expected: list[int]) -> None:
    rule = Hypothesis("a", reading)
    assert rule.name() == name
    assert said(rule, A, B) == expected
    assert all(v < 10 ** reading.digits(4) for v in expected)


@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        (CLAIMED, "(a mod 1000) + (b mod 1000)", [654 + 345, 908 + 997, 34, 5]),
        (Hypothesis("add", post=LOW3), "(a + b) mod 1000", [999, 905, 34, 5]),
        (Hypothesis("add", carries=Carries("first", 0)), "a + b without any carry", [9999, 9895, 34, 5]),
        (Hypothesis("add", carries=Carries("but", 1)), "a + b without the carry out of digit 2", [9999, 10805, 34, 5]),
        (
            Hypothesis("add", carries=Carries("first", 2)),
            "a + b with only the carry out of digit 1 to 2",
            [9999, 9905, 34, 5],
        ),
        (Hypothesis("add", modulus=150), "(a + b) mod 150", [9999 % 150, 10905 % 150, 34, 5]),
        (Hypothesis("subtract"), "a - b", [5309, -9089, 26, 5]),
        (Hypothesis("subtract", carries=Carries("first", 0)), "a - b without any borrow", [5319, -9099, 36, 5]),
        (Hypothesis("subtract", modulus=7), "(a - b) mod 7", [5309 % 7, -9089 % 7, 26 % 7, 5]),
        (Hypothesis("multiply"), "a × b", [7654 * 2345, 908 * 9997, 120, 0]),
        (
            Hypothesis("multiply", LOW3, Reading("leading", k=1)),
            "(a mod 1000) × (first digit of b)",
            [1308, 8172, 120, 0],
        ),
        (Hypothesis("multiply", carries=Carries("first", 0)), "a × b without any carry", None),
        (Hypothesis("b", right=LOW3), "b mod 1000", [345, 997, 4, 0]),
        (Hypothesis("constant", constant=12), "always 12", [12] * 4),
    ],
)
def test_rules(rule: Hypothesis, name: str, expected: list[int] | None) -> None:
    assert rule.name() == name
    if expected is not None:
        assert said(rule, A, B) == expected


def test_a_product_without_carries_is_a_product_of_polynomials() -> None:
    rule = Hypothesis("multiply", carries=Carries("first", 0))
    x, y = [4, 5, 6, 7], [5, 4, 3, 2]  # units first
    columns = np.convolve(x, y) % 10
    assert said(rule, [7654], [2345]) == [int(columns @ 10 ** np.arange(len(columns)))]


@pytest.mark.parametrize(
    ("op", "width", "base", "modulus", "fits"),
    [
        ("add", 4, 10, None, True),
        ("add", 3, 16, 150, True),
        ("subtract", 4, 7, 11, True),
        ("multiply", 3, 10, 51, True),
        ("add", 9, 2, None, True),
        ("add", 24, 10, 150, False),
        ("subtract", 20, 36, None, False),
        ("multiply", 11, 10, None, False),
    ],
)
def test_codes_are_what_the_definition_says(op: str, width: int, base: int, modulus: int | None, fits: bool) -> None:
    rng = np.random.default_rng(7)
    pairs = table(rng, 24, width, base)
    whole = plan(op, width, modulus)  # type: ignore[arg-type]
    ring = pairs.ring(op)  # type: ignore[arg-type]
    assert (ring is None) == fits
    chosen = rng.permutation(len(whole.hypotheses))[:250]
    rules = [whole.hypotheses[i] for i in chosen] + [Hypothesis("constant", constant=base**3)]
    codes = Plan(rules).codes(pairs, ring)
    a, b = numerals.to_ints(pairs.a, base), numerals.to_ints(pairs.b, base)
    for rule, found in zip(rules, codes.tolist(), strict=True):
        expected = said(rule, a, b, base)
        assert found == (expected if ring is None else [v % PRIME for v in expected]), rule.name(base)
    assert np.array_equal(whole.codes(pairs, ring)[chosen], codes[:-1])


@pytest.mark.parametrize(("op", "width"), [("add", 4), ("subtract", 5), ("multiply", 5), ("add", 30)])
def test_the_grammar_lists_each_rule_once(op: str, width: int) -> None:
    rules = grammar(op, width)  # type: ignore[arg-type]
    assert len(set(rules)) == len(rules) == len({r.name() for r in rules})
    assert 1000 <= len(rules) <= 10_000
    assert min(rules, key=lambda r: r.bits(width)).combine == "constant"
    assert Hypothesis(op) in rules  # type: ignore[arg-type]
    sides = {r for rule in rules for r in (rule.left, rule.right)}
    assert sides == set(readings(width))


def test_figures_of_the_degenerate_grid() -> None:
    """Multiples of 100 cannot tell the claimed map from two others; random four-digit pairs can."""
    hundreds = Reading("window", k=1, j=2)
    rivals = {
        "hundreds": Hypothesis("add", hundreds, hundreds),
        "dropped": Hypothesis("add", LOW3, LOW3, carries=Carries("but", 1)),
        "wrapped": Hypothesis("add", post=LOW3),
    }
    side = np.arange(0, 10_001, 100)
    grid = [x.ravel() for x in np.meshgrid(side, side)]
    rng = np.random.default_rng(0)
    random = list(rng.integers(1000, 10_000, size=(2, 200_000)))

    def agreement(pairs: list[np.ndarray]) -> dict[str, float]:
        a, b = (numerals.from_ints(x) for x in pairs)
        claimed = CLAIMED.predict(a, b, 10).digits
        return {k: float(numerals.equal(claimed, r.predict(a, b, 10).digits).mean()) for k, r in rivals.items()}

    on_grid, at_random = agreement(grid), agreement(random)
    assert len(grid[0]) == 10_201
    assert on_grid["hundreds"] == on_grid["dropped"] == 1.0
    assert round(on_grid["wrapped"], 2) == 0.56
    # Exactly: both low halves 00 (1e-4); two-digit sums below 100 (.505); three-digit sums below 1000 (.5005).
    assert at_random["hundreds"] == pytest.approx(1e-4, abs=1e-4)
    assert at_random["dropped"] == pytest.approx(0.505, abs=0.005)
    assert at_random["wrapped"] == pytest.approx(0.5005, abs=0.005)
