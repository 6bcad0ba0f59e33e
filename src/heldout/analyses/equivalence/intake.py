"""What a user gives as operands and answers, made into a `Table`."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from heldout.analyses.equivalence.evaluation import Bools, Table
from heldout.errors import ConfigError
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Digits

LONGEST = 30  # digits of an operand
LONGEST_ANSWER = 2 * LONGEST
LONGEST_TEXT = 1000  # characters of an answer, leading zeros and all


def read_table(a: Any, b: Any, answers: Any, base: int) -> Table:
    """A `Table` of N pairs; raises `ConfigError` where operands are no whole numbers of up to 30 digits."""
    numerals.check_base(base)
    left, right = _operands(a, "a", base), _operands(b, "b", base)
    digits, negative, parsable = _answers(answers, base)
    sizes = {"a": len(left), "b": len(right), "answers": len(digits)}
    if len(set(sizes.values())) > 1:
        raise ConfigError(
            "discover_rule: a, b and answers must be equally many; got "
            + ", ".join(f"{n} {k}" for k, n in sizes.items())
        )
    return Table(left, right, digits, negative, parsable, base)


def _operands(values: Any, name: str, base: int) -> Digits:
    if _digits(values):
        _check_digits(values, name, base)
        digits = np.asarray(values, dtype=np.uint8)
        digits = numerals.resize(digits, int(numerals.lengths(digits).max(initial=1)))
    else:
        try:
            digits = numerals.from_ints(_whole(values), base)
        except ConfigError as error:
            raise ConfigError(f"discover_rule: {name}: {error}") from None
    if digits.shape[1] > LONGEST:
        row = int(numerals.lengths(digits).argmax())
        raise ConfigError(
            f"discover_rule: {name}: number {row} has {digits.shape[1]} digits in base {base}; at most {LONGEST} are read"
        )
    return digits


def _answers(values: Any, base: int) -> tuple[Digits, Bools, Bools]:
    """(N, W) digits, (N,) negative, (N,) parsable. An answer too long to be anybody's is as wrong as one that is none."""
    if _digits(values):
        _check_digits(values, "answers", base)
        digits = np.asarray(values, dtype=np.uint8)
        return digits, np.zeros(len(digits), dtype=bool), np.ones(len(digits), dtype=bool)
    if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.integer) and values.ndim == 1:
        negative = values < 0
        magnitude = np.where(negative, 0 - values, values) if negative.any() else values
        if not (magnitude < 0).any():  # -2^63 has no int64 magnitude
            return numerals.from_ints(magnitude, base), negative, np.ones(len(values), dtype=bool)
    bound = base**LONGEST_ANSWER
    read = [number_in(v, base) for v in _listed(values)]
    known = [None if v is None or abs(v) >= bound else v for v in read]
    parsable = np.array([v is not None for v in known], dtype=bool)
    negative = np.array([v is not None and v < 0 for v in known], dtype=bool)
    return numerals.from_ints([abs(v or 0) for v in known], base), negative, parsable


def number_in(value: Any, base: int) -> int | None:
    """The whole number that a cell holds; None where it holds none."""
    if isinstance(value, str):
        text = value.strip()
        body = text[1:] if text[:1] in ("-", "+") else text
        symbols = numerals.SYMBOLS[:base]
        # Python refuses to read thousands of digits, and no answer has them.
        readable = 0 < len(body) <= LONGEST_TEXT and all(c in symbols for c in body.lower())
        return int(text, base) if readable else None
    if isinstance(value, float | np.floating):
        x = float(value)
        return int(x) if math.isfinite(x) and x == int(x) and abs(x) < 2**53 else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _whole(values: Any) -> Any:
    return values if isinstance(values, np.ndarray) else _listed(values)


def _listed(values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"discover_rule: operands and answers are sequences; got {type(values).__name__}")
    return list(values)


def _digits(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 2


def _check_digits(values: np.ndarray, name: str, base: int) -> None:
    if not np.issubdtype(values.dtype, np.integer) or (len(values) and (values.min() < 0 or values.max() >= base)):
        raise ConfigError(f"discover_rule: {name}: digits (N, W) are whole numbers from 0 to {base - 1}")
