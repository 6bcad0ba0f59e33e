"""What is computed, and the carries of adding."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from heldout.errors import ConfigError, unknown
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.laws import Pairs
from heldout.tasks.arithmetic.numerals import Digits, Ints, Signed

Operation = Literal["add", "subtract", "multiply", "mod_add", "mod_multiply"]
OPERATIONS: tuple[Operation, ...] = ("add", "subtract", "multiply", "mod_add", "mod_multiply")
SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "mod_add": "+", "mod_multiply": "*"}


def compute(operation: Operation, a: Digits, b: Digits, *, base: int, modulus: int | None = None) -> Signed:
    """a + b, a - b, a * b, (a + b) mod p or (a * b) mod p of digits (N, W); only a - b can be negative."""
    if operation == "subtract":
        return numerals.subtract(a, b, base)
    if operation == "add":
        found = numerals.add(a, b, base)
    elif operation == "multiply":
        found = numerals.multiply(a, b, base)
    elif operation in ("mod_add", "mod_multiply"):
        if modulus is None:
            raise ConfigError(f"arithmetic: {operation} needs a modulus")
        left, right = (numerals.remainder(x, modulus, base) for x in (a, b))
        value = (left + right if operation == "mod_add" else left * right) % modulus
        found = numerals.from_ints(value, base, width=numerals.length_of(modulus - 1, base))
    else:
        raise ConfigError(f"arithmetic: {unknown('operation', str(operation), OPERATIONS)}")
    return Signed(np.zeros(len(found), dtype=bool), found)


def answer_digits(operation: Operation, width: int, *, base: int, modulus: int | None = None) -> int:
    """The most digits of an answer to operands of `width` digits."""
    if modulus is not None:
        return numerals.length_of(modulus - 1, base)
    return {"add": width + 1, "subtract": width, "multiply": 2 * width}[operation]


class Carries(NamedTuple):
    """Of adding the lowest n digits of N pairs, (N,) each: how many digits carry; whether the last of them does, into
    digit n + 1; and the longest cascade, a run of digits that add up to base - 1 and pass a carry on."""

    carried: Ints
    out: Ints
    cascade: Ints


def carries(pairs: Pairs, digits: int, *, base: int) -> Carries:
    """The `Carries` of the lowest `digits` digits."""
    size = len(pairs.a)
    carry, count, run, longest = (np.zeros(size, dtype=np.int64) for _ in range(4))
    for i in range(min(digits, pairs.a.shape[1])):
        column = pairs.a[:, i].astype(np.int64) + pairs.b[:, i]
        passed = (column == base - 1) & (carry == 1)
        run = np.where(passed, run + 1, 0)
        longest = np.maximum(longest, run)
        carry = (column + carry >= base).astype(np.int64)
        count += carry
    return Carries(count, carry, longest)
