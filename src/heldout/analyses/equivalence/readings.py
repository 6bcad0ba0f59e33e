"""What a rule may read of a number: all of it, its lowest or leading digits, a window, and so on.

A reading moves digits: digit i of what is read is a digit of the number, or 0, or the largest digit. Where it comes from
may depend on how long the number is, on nothing else. So one table of sources says it all, and both the digits of a
reading and its value (which is linear in the number's digits) are computed from that table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Digits

Kind = Literal["whole", "low", "leading", "window", "up", "down", "zero", "drop", "clamp", "reverse"]
KINDS: tuple[Kind, ...] = ("whole", "low", "leading", "window", "up", "down", "zero", "drop", "clamp", "reverse")
BY_LENGTH: frozenset[Kind] = frozenset({"leading", "clamp", "reverse"})

ZERO, TOP = -1, -2  # sources that are no digit of the number: 0, and the largest digit
LARGEST_SHIFT = 3  # digits by which a reading is multiplied by a power of the base


@dataclass(frozen=True)
class Reading:
    """One way to read a number x of base B; digit 1 is the units digit.

    ``whole`` x; ``low`` x mod B^k; ``leading`` its first k digits; ``window`` digits j+1 to j+k, where they stand; ``up``
    x B^j; ``down`` floor(x / B^j); ``zero`` x with digit j+1 set to 0; ``drop`` x without digit j+1 (higher digits move
    down); ``clamp`` min(x, B^k - 1); ``reverse`` its digits in reverse.
    """

    kind: Kind = "whole"
    k: int = 0
    j: int = 0

    def of(self, x: str, base: int) -> str:
        """The reading of the expression `x` in words."""
        bare = x if _simple(x) else f"({x})"
        k, j = self.k, self.j
        if self.kind == "whole":
            return x
        if self.kind == "window":
            return f"digit {j + 1} of {bare}, in place" if k == 1 else f"digits {j + 1} to {j + k} of {bare}, in place"
        if self.kind == "leading":
            return f"first digit of {bare}" if k == 1 else f"first {k} digits of {bare}"
        return {
            "low": f"{bare} mod {power(base, k)}",
            "up": f"{bare} × {power(base, j)}",
            "down": f"floor({bare} / {power(base, j)})",
            "zero": f"{bare} with digit {j + 1} set to 0",
            "drop": f"{bare} without digit {j + 1}",
            "clamp": f"min({x}, {power(base, k)} - 1)",
            "reverse": f"{bare} reversed",
        }[self.kind]

    def bits(self, width: int) -> float:
        """Description length: the i-th of `KINDS` has weight 1 / (i (i + 1)); each of its numbers is one of `width`."""
        i = KINDS.index(self.kind) + 1
        numbers = {"whole": 0, "reverse": 0, "window": 2}.get(self.kind, 1)
        return math.log2(i * (i + 1)) + numbers * math.log2(width)

    def digits(self, width: int) -> int:
        """The most digits that can be read of a number of `width` digits."""
        k, j = self.k, self.j
        most = {
            "low": k,
            "leading": k,
            "clamp": k,
            "window": j + k,
            "up": width + j,
            "down": width - j,
            "drop": width - 1,
            "zero": width - (j == width - 1),
        }
        return most.get(self.kind, width)

    def source(self, length: int, width: int) -> tuple[int, ...]:
        """Where each digit of the reading comes from, for a number of `length` digits, zero-padded to `width`."""
        k, j = self.k, self.j
        match self.kind:
            case "whole":
                return tuple(range(width))
            case "low":
                return tuple(range(min(k, width)))
            case "leading":
                return tuple(range(max(length - k, 0), length))
            case "window":
                return (ZERO,) * j + tuple(range(j, min(j + k, width)))
            case "up":
                return (ZERO,) * j + tuple(range(width))
            case "down":
                return tuple(range(j, width))
            case "zero":
                return tuple(ZERO if i == j else i for i in range(width))
            case "drop":
                return tuple(i for i in range(width) if i != j)
            case "clamp":
                return (TOP,) * k if length > k else tuple(range(length))
            case "reverse":
                return tuple(reversed(range(length)))


WHOLE = Reading()


@cache
def readings(width: int) -> tuple[Reading, ...]:
    """All readings of numbers of up to `width` digits, simplest first."""
    below = range(1, width)
    return (
        WHOLE,
        *(Reading("low", k=k) for k in below),
        *(Reading("leading", k=k) for k in below),
        Reading("reverse"),
        *(Reading("down", j=j) for j in below),
        *(Reading("up", j=j) for j in range(1, LARGEST_SHIFT + 1)),
        *(Reading("zero", j=j) for j in range(width)),
        *(Reading("drop", j=j) for j in range(width)),
        *(Reading("clamp", k=k) for k in below),
        *(Reading("window", k=k, j=j) for j in below for k in range(1, width - j)),
    )


def after(width: int) -> tuple[Reading, ...]:
    """Readings of a result of up to `width` digits: its lowest or leading digits, and shifts."""
    return tuple(r for r in readings(width) if r.kind in ("low", "leading", "up", "down"))


class Numbers:
    """N numbers, and what is read of them: `digits` (N, W), units first, and `base`."""

    def __init__(self, digits: Digits, base: int) -> None:
        self.digits, self.base = digits, base
        self.width = digits.shape[-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return numerals.lengths(self.digits)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """The lengths that occur, ascending."""
        return tuple(np.flatnonzero(np.bincount(self.lengths.ravel())).tolist()) or (1,)

    @cached_property
    def _of_length(self) -> list[NDArray[np.bool_]]:
        return [self.lengths == n for n in self.present]

    def read(self, reading: Reading) -> Digits:
        """(N, W') digits of one reading."""
        if reading.kind not in BY_LENGTH or len(self.present) == 1:
            return self._gather(self.digits, reading.source(self.present[0], self.width))
        parts = [reading.source(n, self.width) for n in self.present]
        out = numerals.zeros(self.digits.shape[:-1], max(map(len, parts)))
        for mask, source in zip(self._of_length, parts, strict=True):
            out[mask, : len(source)] = self._gather(self.digits[mask], source)
        return out

    def values(self, wanted: tuple[Reading, ...], modulus: int | None) -> NDArray[np.int64]:
        """(R, ...) int64 values of R readings, modulo `modulus` where one is given; without one they must fit."""
        out = np.empty((len(wanted), *self.digits.shape[:-1]), dtype=np.int64)
        fixed = [i for i, r in enumerate(wanted) if r.kind not in BY_LENGTH]
        varying = [i for i, r in enumerate(wanted) if r.kind in BY_LENGTH]
        if fixed:
            out[fixed] = self._weigh(tuple(wanted[i] for i in fixed), self.width, self.digits, modulus)
        for n, mask in zip(self.present, self._of_length, strict=True) if varying else ():
            found = self._weigh(tuple(wanted[i] for i in varying), n, self.digits[mask], modulus)
            for i, row in zip(varying, found, strict=True):
                out[i][mask] = row
        return out if modulus is None else out % modulus

    def _weigh(
        self, wanted: tuple[Reading, ...], length: int, digits: Digits, modulus: int | None
    ) -> NDArray[np.int64]:
        """(R, ...) values of numbers that all read like those of `length` digits."""
        weights, offset = _weights(wanted, length, self.width, self.base, modulus)
        out = np.empty((len(weights), *digits.shape[:-1]), dtype=np.int64)
        out[:] = offset.reshape(-1, *[1] * (digits.ndim - 1))
        for s in range(self.width):
            column = digits[..., s].astype(np.int64)
            for i in np.flatnonzero(weights[:, s]).tolist():
                out[i] += weights[i, s] * column
        return out

    def _gather(self, digits: Digits, source: tuple[int, ...]) -> Digits:
        """(..., W') the digits that `source` names; a view where they are the lowest ones."""
        if source == tuple(range(len(source))) and source:
            return digits[..., : len(source)]
        out = numerals.zeros(digits.shape[:-1], max(len(source), 1))
        for i, s in enumerate(source):
            if s != ZERO:
                out[..., i] = self.base - 1 if s == TOP else digits[..., s]
        return out


@lru_cache(maxsize=1024)
def _weights(
    wanted: tuple[Reading, ...], length: int, width: int, base: int, modulus: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(R, W) what each digit of the number is worth in each reading, and (R,) what is added."""
    weights, offset = np.zeros((len(wanted), width), dtype=np.int64), np.zeros(len(wanted), dtype=np.int64)
    for row, reading in enumerate(wanted):
        for i, s in enumerate(reading.source(length, width)):
            worth = base**i if modulus is None else pow(base, i, modulus)
            if s == TOP:
                offset[row] += (base - 1) * worth
            elif s != ZERO:
                weights[row, s] += worth
    return weights, offset


def power(base: int, k: int) -> str:
    """1000, or 10^12, or 2^5."""
    return str(base**k) if base == 10 and k <= 6 else f"{base}^{k}"


def _simple(x: str) -> bool:
    return x in ("a", "b")
