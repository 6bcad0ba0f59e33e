"""Digit arrays against Python's own whole numbers, in every base, up to 30 digits (products up to 60)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heldout.errors import ConfigError
from heldout.tasks.arithmetic import numerals as nm

BASES = st.integers(2, 36)


@st.composite
def pairs(draw: Any) -> tuple[int, list[int], list[int]]:
    base = draw(BASES)
    number = st.one_of(st.integers(0, base**30 - 1), st.integers(0, base**3), st.just(0), st.just(base**30 - 1))
    rows = draw(st.lists(st.tuples(number, number), min_size=1, max_size=8))
    return base, [a for a, _ in rows], [b for _, b in rows]


@settings(max_examples=150)
@given(pairs())
def test_arithmetic_is_pythons(case: tuple[int, list[int], list[int]]) -> None:
    base, xs, ys = case
    a, b = nm.from_ints(xs, base), nm.from_ints(ys, base)
    assert nm.to_ints(a, base) == xs
    assert nm.to_ints(nm.add(a, b, base), base) == [x + y for x, y in zip(xs, ys, strict=True)]
    assert nm.to_ints(nm.multiply(a, b, base), base) == [x * y for x, y in zip(xs, ys, strict=True)]
    negative, magnitude = nm.subtract(a, b, base)
    signed = [-m if n else m for n, m in zip(negative, nm.to_ints(magnitude, base), strict=True)]
    assert signed == [x - y for x, y in zip(xs, ys, strict=True)]
    assert nm.compare(a, b).tolist() == [(x > y) - (x < y) for x, y in zip(xs, ys, strict=True)]
    assert nm.equal(a, b).tolist() == [x == y for x, y in zip(xs, ys, strict=True)]
    assert nm.equal(a, nm.resize(a, a.shape[1] + 3)).all()


@settings(max_examples=150)
@given(pairs(), st.integers(1, 35), st.integers(1, nm.LARGEST_MODULUS))
def test_digits_and_remainders_are_pythons(case: tuple[int, list[int], list[int]], k: int, modulus: int) -> None:
    base, xs, _ = case
    a = nm.from_ints(xs, base)
    assert nm.to_ints(nm.low(a, k), base) == [x % base**k for x in xs]
    assert nm.to_ints(nm.shift(a, k), base) == [x * base**k for x in xs]
    assert nm.to_ints(nm.shift(a, -k), base) == [x // base**k for x in xs]
    assert nm.remainder(a, modulus, base).tolist() == [x % modulus for x in xs]
    text = nm.to_text(a, base)
    assert [int(t, base) for t in text] == xs
    assert nm.lengths(a).tolist() == [len(t) for t in text]
    assert np.array_equal(nm.from_text([t.upper().rjust(k, "0") for t in text], base, width=a.shape[1]), a)


def test_leading_axes_broadcast() -> None:
    a = nm.from_ints([999, 1], 10)[:, None, :]
    b = nm.from_ints([1, 25, 999999], 10)[None, :, :]
    for operation, expected in ((nm.add, np.add), (nm.multiply, np.multiply)):
        found = nm.to_int64(operation(a, b, 10), 10)
        assert np.array_equal(found, expected(np.array([[999], [1]]), np.array([[1, 25, 999999]])))


def test_int64_arrays_and_python_ints_are_read_alike() -> None:
    values = [0, 2**63 - 1, 10**18, 10**17 - 1, 12]
    assert np.array_equal(nm.from_ints(np.array(values)), nm.from_ints(values))
    assert np.array_equal(nm.from_ints(np.array(values, dtype=object)), nm.from_ints(values))
    assert nm.from_ints([]).shape == (0, 1)
    assert nm.from_ints(np.array([7], dtype=np.uint64)).tolist() == [[7]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nm.from_ints([3, -4]), "number 1 is -4"),
        (lambda: nm.from_ints([3, 1234], width=3), "number 1 has 4 digits in base 10; there is room for 3"),
        (lambda: nm.from_ints([0.5]), "whole numbers"),  # type: ignore[list-item]
        (lambda: nm.from_ints([3], 37), "between 2 and 36, got 37"),
        (lambda: nm.from_text(["12", "1x"]), "numeral 1 is '1x'"),
        (lambda: nm.from_text([""]), "numeral 0 is ''"),
        (lambda: nm.from_text(["2"], 2), "digits 01 would be accepted"),
        (lambda: nm.resize(nm.from_ints([123]), 2), "3 digits; there is room for 2"),
        (lambda: nm.remainder(nm.from_ints([1]), 10**6 + 1), "between 1 and 1000000"),
        (lambda: nm.to_int64(nm.zeros((1,), 20)), "do not fit into int64"),
        (lambda: nm.low(nm.from_ints([1]), 0), "at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
