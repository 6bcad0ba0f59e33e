"""The rules that discovery chooses from: read both operands, combine them, read the result.

A hypothesis is data. Its `predict` is the definition, in exact digits and one hypothesis at a time;
`heldout.analyses.equivalence.evaluation` computes many at once and is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.equivalence.readings import KINDS, WHOLE, Numbers, Reading, after, readings
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Digits, Signed

Op = Literal["add", "subtract", "multiply"]
Combine = Literal["add", "subtract", "multiply", "a", "b", "constant"]
SIGN = {"add": "+", "subtract": "-", "multiply": "×"}

CROSSED = 64  # up to this many readings, every pair of them is in the grammar; beyond, the core's pairs
CORE = ("whole", "low", "leading", "reverse")


@dataclass(frozen=True)
class Carries:
    """Which carries (in subtraction, borrows) are passed on: all, the first `j` only, or all but that out of digit j+1."""

    kind: Literal["all", "first", "but"] = "all"
    j: int = 0

    def kept(self, i: int) -> bool:
        """Whether what digit i+1 carries reaches the next one."""
        return {"all": True, "first": i < self.j, "but": i != self.j}[self.kind]

    def words(self, carry: str) -> str:
        if self.kind == "first":
            if self.j == 0:
                return f" without any {carry}"
            return f" with only the {carry} out of digit 1" + (f" to {self.j}" if self.j > 1 else "")
        return "" if self.kind == "all" else f" without the {carry} out of digit {self.j + 1}"


ALL = Carries()
LOSSES: tuple[Literal["first", "but"], ...] = ("first", "but")


@dataclass(frozen=True)
class Hypothesis:
    """One rule: `post` of (`left` of a) combined with (`right` of b), mod `modulus` where there is one.

    ``a`` and ``b`` copy one operand; ``constant`` is `constant` whatever the operands.
    """

    combine: Combine
    left: Reading = WHOLE
    right: Reading = WHOLE
    carries: Carries = ALL
    modulus: int | None = None
    post: Reading = WHOLE
    constant: int = 0

    def name(self, base: int = 10) -> str:
        """The rule in words."""
        if self.combine == "constant":
            return f"always {self.constant}"
        left, right = self.left.of("a", base), self.right.of("b", base)
        if self.combine in ("a", "b"):
            text = left if self.combine == "a" else right
        else:
            text = f"{_group(left)} {SIGN[self.combine]} {_group(right)}"
            text += self.carries.words("borrow" if self.combine == "subtract" else "carry")
        if self.modulus is not None:
            text = f"{_group(text)} mod {self.modulus}"
        return self.post.of(text, base)

    def bits(self, width: int) -> float:
        """Description length in bits, operands of up to `width` digits; a rule that reads both alike pays once."""
        if self.combine == "constant":
            return 3 + (1 + math.log2(self.constant + 1) if self.constant else 0)
        cost = 2 + self.post.bits(2 * width) + (self.modulus is not None)
        if self.combine in ("a", "b"):
            return cost + (self.left if self.combine == "a" else self.right).bits(width)
        cost += 1 if self.carries == ALL else 2 + math.log2(2 * width)
        cost += self.left.bits(width) + 1
        return cost if self.left == self.right else cost + self.right.bits(width)

    def predict(self, a: Digits, b: Digits, base: int) -> Signed:
        """The rule's answers to (N, W) operands, exactly."""
        left, right = Numbers(a, base), Numbers(b, base)
        if self.combine == "constant":
            one = numerals.from_ints([self.constant], base)
            return Signed(np.zeros(len(a), dtype=bool), np.repeat(one, len(a), axis=0))
        if self.combine in ("a", "b"):
            digits = left.read(self.left) if self.combine == "a" else right.read(self.right)
            result = Signed(np.zeros(len(a), dtype=bool), digits)
        else:
            result = combined(left.read(self.left), right.read(self.right), self.combine, self.carries, base)
        if self.modulus is not None:
            rest = numerals.remainder(result.digits, self.modulus, base)
            rest = np.where(result.negative, -rest % self.modulus, rest)
            result = Signed(np.zeros(len(a), dtype=bool), numerals.from_ints(rest, base))
        digits = Numbers(result.digits, base).read(self.post)
        return Signed(result.negative & digits.any(axis=-1), digits)


def combined(a: Digits, b: Digits, op: Combine, carries: Carries, base: int) -> Signed:
    """a op b with only some carries; leading axes broadcast. Of a - b the smaller is taken from the larger."""
    plain = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]), dtype=bool)
    if op == "subtract":
        full = numerals.subtract(a, b, base)
        if carries == ALL:
            return full
        swap = full.negative[..., None]
        width = full.digits.shape[-1]
        wide = numerals.resize(a, width), numerals.resize(b, width)
        digits = _propagated(
            np.where(swap, wide[1], wide[0]).astype(np.int32) - np.where(swap, wide[0], wide[1]), carries, base
        )
        return Signed(full.negative & digits.any(axis=-1), digits)
    if carries == ALL:
        return Signed(plain, numerals.add(a, b, base) if op == "add" else numerals.multiply(a, b, base))
    return Signed(plain, _propagated(_columns(a, b, op), carries, base))


def _columns(a: Digits, b: Digits, op: Combine) -> NDArray[np.int32]:
    """Per digit of the result, what stands there before anything is carried."""
    wa, wb = a.shape[-1], b.shape[-1]
    shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    width = max(wa, wb) + 1 if op == "add" else wa + wb
    out = np.moveaxis(np.zeros((width, *shape), dtype=np.int32), 0, -1)
    if op == "add":
        out[..., :wa] += a
        out[..., :wb] += b
    else:
        for i in range(wa):
            out[..., i : i + wb] += a[..., i : i + 1].astype(np.int32) * b
    return out


def _propagated(columns: NDArray[np.int32], carries: Carries, base: int) -> Digits:
    out = numerals.zeros(columns.shape[:-1], columns.shape[-1])
    carry: NDArray[np.int32] | int = 0
    for i in range(columns.shape[-1]):
        column = columns[..., i] + carry
        quotient = column // base
        np.subtract(column, quotient * base, out=out[..., i], casting="unsafe")
        carry = quotient if carries.kept(i) else 0
    return out


def grammar(op: Op, width: int, *, modulus: int | None = None, constants: Iterable[int] = (0,)) -> list[Hypothesis]:
    """Every hypothesis for operands of up to `width` digits.

    - every pair of readings (from 8 digits on: of the core readings, and every reading against itself and against the
      whole number) under the true operation;
    - readings that are the same for both operands, with some carries lost, or with the result read in part;
    - copies of an operand, and `constants`.

    With a `modulus` all of it stands there with the modulus and without, but lost carries and partly read results.
    """
    every = readings(width)
    crossed = len(every) <= CROSSED
    core = every if crossed else tuple(r for r in every if r.kind in CORE)
    pairs = [(x, y) for x in core for y in core]
    if not crossed:
        rest = [r for r in every if r.kind not in CORE]
        pairs += [p for r in rest for p in ((r, r), (r, WHOLE), (WHOLE, r))]
    moduli = (None,) if modulus is None else (modulus, None)
    kinds = tuple(k for k in KINDS if k != "up") if crossed else ("whole", "low")
    found = [Hypothesis(op, x, y, modulus=m) for m in moduli for x, y in pairs]
    for r in every:
        if r.kind in kinds:
            # Carries and digits beyond the result's are not there to be lost.
            digits = r.digits(width) * 2 if op == "multiply" else r.digits(width) + (op == "add")
            lost = [Carries(kind, j) for kind in LOSSES for j in range(digits - 1)]
            found += [Hypothesis(op, r, r, carries=c) for c in lost]
            found += [Hypothesis(op, r, r, post=p) for p in after(digits)]
    for m in moduli:
        found += [Hypothesis("a", r, modulus=m) for r in every] + [Hypothesis("b", right=r, modulus=m) for r in every]
    return found + [Hypothesis("constant", constant=c) for c in sorted(set(constants))]


def _group(text: str) -> str:
    return text if text in ("a", "b") else f"({text})"
