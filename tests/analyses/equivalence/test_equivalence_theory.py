"""The calculator against enumeration, closed forms, and every figure of the follow-up."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from heldout.analyses.equivalence.theory import (
    ENCODINGS,
    PREDICTIONS,
    Operand,
    accuracy,
    accuracy_of,
    first_right,
    limit,
    lower_bound,
    prediction,
)
from heldout.errors import ConfigError
from heldout.networks.positions import POSITIONS


def numbers(digits: int, base: int, law: str) -> range:
    return range(0 if law == "at_most" or digits == 1 else base ** (digits - 1), base**digits)


def by_enumeration(operation: str, p: int, n: int, la: int, lb: int, base: int, law: str) -> Fraction:
    right = total = 0
    for a, b in itertools.product(numbers(la, base, law), numbers(lb, base, law)):
        low_a, low_b = a % base**n, b % base**n
        difference = (a + b) - (low_a + low_b) if operation == "mod_add" else a * b - low_a * low_b
        right, total = right + (difference % p == 0), total + 1
    return Fraction(right, total)


@pytest.mark.parametrize("operation", ["mod_add", "mod_multiply"])
@pytest.mark.parametrize("law", ["exactly", "at_most"])
@pytest.mark.parametrize(
    ("base", "n", "la", "lb"), [(2, 1, 5, 4), (3, 1, 3, 3), (3, 2, 3, 1), (4, 1, 1, 1), (5, 1, 2, 3)]
)
def test_it_is_enumeration(operation: Any, law: Any, base: int, n: int, la: int, lb: int) -> None:
    for p in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 25):
        expected = by_enumeration(operation, p, n, la, lb, base, law)
        assert accuracy(operation, p, n, (la, lb), base=base, law=law) == expected, p


# n = 4, m = 5 to 9, per cent, as printed.
SUMS: dict[int, tuple[str, ...]] = {
    50: ("100",) * 5,
    100: ("100",) * 5,
    200: ("100",) * 5,
    51: ("0", "1.988", "1.960", "1.961", "1.961"),
    101: ("0", "1.012", ".990", ".990", ".990"),
    150: ("33.33",) * 5,
    151: ("0", ".593", ".662", ".662", ".662"),
    201: ("0", "0", ".492", ".497", ".498"),
}


@pytest.mark.parametrize("p", SUMS)
def test_the_figures_for_sums(p: int) -> None:
    for m, printed in zip(range(5, 10), SUMS[p], strict=True):
        predicted = 100 * accuracy("mod_add", p, 4, m)
        if printed in ("0", "100"):
            assert predicted == int(printed), m
        else:
            digits = len(printed.partition(".")[2])
            assert abs(predicted - Fraction(printed)) <= Fraction(1, 2 * 10**digits), (m, float(predicted))


def test_the_authors_own_counts() -> None:
    highs = Operand(range(1, 1000), range(10_000))  # m = 7, n = 4
    for p, printed in ((151, ".66012"), (201, ".49759")):
        exact = accuracy_of("mod_add", p, 10_000, highs, highs)
        assert abs(100 * exact - Fraction(printed)) <= Fraction(1, 200_000)
        assert exact >= lower_bound(p, 4, 7)
        pairs = sum((a + b) % p == 0 for a in range(1, 1000) for b in range(1, 1000))
        assert exact == Fraction(pairs, 999**2)


PRODUCTS = {51: ("2.398", "2.504", "2.534"), 101: (".990", ".990", "1.000")}  # n = 3, m = 4 to 6, per cent


@pytest.mark.parametrize("p", PRODUCTS)
def test_the_figures_for_products(p: int) -> None:
    for m, printed in zip((4, 5, 6), PRODUCTS[p], strict=True):
        predicted = 100 * accuracy("mod_multiply", p, 3, m)
        assert abs(predicted - Fraction(printed)) <= Fraction(1, 2000), (m, float(predicted))


def test_the_exact_count_for_products() -> None:
    assert accuracy("mod_multiply", 51, 3, 4) == Fraction(1_942_585, 81_000_000)


def test_the_subsampled_figures_for_products() -> None:
    # Printed are .61, .61 and .64 from samples of unknown size; the last is .02 above the exact value.
    rng = np.random.default_rng(1)
    for m, printed in zip((4, 5, 6), (0.61, 0.61, 0.64), strict=True):
        exact = float(accuracy("mod_multiply", 201, 3, m))
        assert 100 * exact == pytest.approx(printed, abs=0.03)
        a, b = rng.integers(10 ** (m - 1), 10**m, size=(2, 1_000_000))
        right = np.mean(a * b % 201 == (a % 1000) * (b % 1000) % 201)
        assert right == pytest.approx(exact, abs=4 * math.sqrt(exact / 1e6))
    assert all(accuracy("mod_multiply", p, 3, m) == 1 for p in (50, 100, 200) for m in (4, 6, 9))


def test_long_operands_agree_with_a_sample() -> None:
    """Twelve digits: counts beyond int64, so exactness rests on the decomposition."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(10**11, 10**12, size=(2, 400_000))
    for p in (51, 150):
        exact = accuracy("mod_multiply", p, 3, 12)
        right = (a % p) * (b % p) % p == (a % 1000 % p) * (b % 1000 % p) % p
        assert right.mean() == pytest.approx(float(exact), abs=4 * math.sqrt(float(exact * (1 - exact)) / len(a)))


@pytest.mark.parametrize("p", [2, 7, 51, 101])
def test_products_of_uniform_residues_have_a_closed_form(p: int) -> None:
    """Uniform residues: an operand's (x, v) is (0, 0) with chance 1 / p^2 for prime p, and then everything is right; else a
    linear equation that one in p solves. For p = q r, coprime, the shares multiply."""

    def of_prime(q: int) -> Fraction:
        return Fraction(1, q * q) + (1 - Fraction(1, q * q)) / q

    primes = [q for q in range(2, p + 1) if p % q == 0 and all(q % r for r in range(2, q))]
    unit = 10 if math.gcd(10, p) == 1 else 11
    operand = Operand(range(3 * p), range(7, 7 + 2 * p))
    assert accuracy_of("mod_multiply", p, unit, operand, operand) == math.prod(of_prime(q) for q in primes)


def test_sums_of_uniform_residues_are_right_one_time_in_p_prime() -> None:
    for p in (51, 101, 150, 12):
        reduced = p // math.gcd(p, 100)
        operand = Operand(range(5, 5 + 4 * reduced), range(100))
        assert accuracy_of("mod_add", p, 100, operand, operand) == Fraction(1, reduced) == limit(p, 2)


def test_operands_that_training_covers_are_always_right() -> None:
    for operation in ("mod_add", "mod_multiply"):
        for m in (1, 2, 3):
            assert accuracy(operation, 51, 3, m) == 1  # type: ignore[arg-type]
            assert accuracy(operation, 51, 3, (m, m), law="at_most") == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [51, 101, 150, 151, 201, 7, 997])
def test_the_bound_holds_and_the_first_length_is_the_first(p: int) -> None:
    n = 4
    first = first_right(p, n)
    for m in range(n + 1, n + 6):
        highs = Operand(range(1, 10 ** (m - n)), range(10**n))
        exact = accuracy_of("mod_add", p, 10**n, highs, highs)
        assert exact >= lower_bound(p, n, m)
        assert (exact > 0) == (m >= first)
    p_prime = 1 / float(limit(p, n))
    assert first == max(n + 1, math.ceil(n + math.log10(p_prime / 2 + 1)))


def test_the_accuracy_tends_to_its_limit() -> None:
    for p in (51, 101, 150, 201):
        assert float(accuracy("mod_add", p, 4, 16)) == pytest.approx(float(limit(p, 4)), abs=1e-9)


def test_another_base_has_other_moduli() -> None:
    for m in (4, 7):
        assert accuracy("mod_multiply", 9, 2, m, base=3) == 1  # 9 divides 3^2
        assert accuracy("mod_add", 10, 2, m, base=3) < 0.2
        assert accuracy("mod_add", 6, 2, m, base=3) == pytest.approx(0.5, abs=0.01)  # p' = 2


def test_the_matrix_is_the_papers() -> None:
    table = {(p.task, p.encoding, p.direction): p.right for p in PREDICTIONS}
    assert len(table) == len(PREDICTIONS) == 16
    assert all(right for (_, _, direction), right in table.items() if direction == "shorter")
    longer = {
        (task, encoding) for (task, encoding, direction), right in table.items() if right and direction == "longer"
    }
    fits = "modular, p | base^n"
    assert longer == {("add", "relative"), (fits, "absolute"), (fits, "relative")}

    def right(*given: Any, **more: Any) -> bool:
        found = prediction(*given, "longer", n=3, **more)
        assert found is not None
        return found.right

    assert right("mod_add", "learned", modulus=100)
    assert not right("mod_add", "rotary", modulus=101)
    assert right("mod_multiply", "abacus", modulus=8, base=2)
    assert not right("mod_multiply", "abacus", modulus=16, base=2)
    assert right("add", "alibi")
    assert not right("add", "sinusoidal")
    assert not right("multiply", "rotary")
    assert prediction("add", "none", "longer", n=3) is None
    assert prediction("subtract", "learned", "longer", n=3) is None
    assert set(ENCODINGS) == set(POSITIONS) - {"none"}


def test_a_sum_is_predicted_right_on_longer_operands_exactly_where_the_accuracy_is_one() -> None:
    for p in range(2, 60):
        found = prediction("mod_add", "learned", "longer", n=2, modulus=p)
        assert found is not None
        assert found.right == (accuracy("mod_add", p, 2, 5) == 1)
        assert found.right == (accuracy("mod_multiply", p, 2, 5) == 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("add", 51, 3, 4), "unknown modular operation 'add'"),
        (("mod_add", 0, 3, 4), "modulus must be from 1 to 1000, got 0"),
        (("mod_add", 5, 0, 4), "must be at least 1"),
        (("mod_add", 5, 3, (4, 0)), "must be at least 1"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        accuracy(*given)
    with pytest.raises(ConfigError, match="unknown law of operand lengths 'around'"):
        accuracy("mod_add", 5, 3, 4, law="around")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a modulus"):
        prediction("mod_add", "learned", "longer", n=3)
