"""Which operands occur: laws of operand length, and mixtures of them.

Operands are digit arrays (N, W), units first (see `heldout.tasks.arithmetic.numerals`). Of one digit are 0 to base - 1;
of k > 1 digits, base^(k-1) to base^k - 1.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from heldout.errors import ConfigError, unknown
from heldout.tasks.arithmetic.numerals import Digits, Ints, zeros

Kind = Literal["at_most", "exactly", "either"]
KINDS: tuple[Kind, ...] = ("at_most", "exactly", "either")
FORM = "for example 'at_most 3', 'exactly 3', 'either 4' or '0.5 either 4 + 0.5 either 5'"
LONGEST = 30  # digits of an operand


class Pairs(NamedTuple):
    """N ordered pairs of operands, digits (N, W) each."""

    a: Digits
    b: Digits

    def take(self, index: np.ndarray) -> Pairs:
        return Pairs(self.a[index], self.b[index])


@dataclass(frozen=True)
class Part:
    """One law and its weight in a mixture.

    ``at_most``: both operands uniform on 0 to base^digits - 1. ``exactly``: both uniform on the numbers of just so many
    digits (the follow-up's D_ab). ``either``: one of them, by a fair coin, uniform on the numbers of just so many digits,
    the other on 0 to base^digits - 1 (the follow-up's D).
    """

    kind: Kind
    digits: int
    weight: float = 1.0

    def draw(self, n: int, base: int, width: int, rng: np.random.Generator) -> Pairs:
        """n ordered pairs of `width` digits."""
        most = np.full(n, self.digits)
        if self.kind == "at_most":
            return Pairs(uniform(most, base, width, rng), uniform(most, base, width, rng))
        exact, other = of_length(most, base, width, rng), uniform(most, base, width, rng)
        if self.kind == "exactly":
            return Pairs(exact, of_length(most, base, width, rng))
        first = (rng.random(n) < 0.5)[:, None]
        return Pairs(np.where(first, exact, other), np.where(first, other, exact))


@dataclass(frozen=True)
class Law:
    """A mixture of laws; each pair comes from one of `parts`, with probability its share of the weights."""

    parts: tuple[Part, ...]

    @staticmethod
    def parse(text: str) -> Law:
        """``at_most 3``, or parts with weights, joined by ``+``; raises `ConfigError`."""
        parts = []
        for piece in text.split("+"):
            found = re.fullmatch(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)\s+)?([a-z_]+)\s+(\d+)\s*", piece)
            if not found:
                raise ConfigError(f"arithmetic: {piece.strip()!r} is no law of operand lengths; {FORM}")
            weight, kind, digits = float(found[1] or 1), found[2], int(found[3])
            if kind not in KINDS:
                raise ConfigError(f"arithmetic: {unknown('law of operand lengths', kind, KINDS)}")
            if not 1 <= digits <= LONGEST or not 0 < weight < math.inf:
                raise ConfigError(
                    f"arithmetic: in the law {piece.strip()!r} the number of digits must be from 1 to {LONGEST} and the "
                    "weight positive"
                )
            parts.append(Part(kind, digits, weight))
        return Law(tuple(parts))

    @property
    def digits(self) -> int:
        """The largest operand length that it trains on: n."""
        return max(part.digits for part in self.parts)

    def draw(self, n: int, base: int, width: int, rng: np.random.Generator) -> Pairs:
        """n ordered pairs of `width` digits."""
        weights = np.array([part.weight for part in self.parts])
        which = rng.choice(len(self.parts), size=n, p=weights / weights.sum())
        a, b = zeros((n,), width), zeros((n,), width)
        for i, part in enumerate(self.parts):
            at = np.flatnonzero(which == i)
            a[at], b[at] = part.draw(len(at), base, width, rng)
        return Pairs(a, b)


def uniform(digits: Ints, base: int, width: int, rng: np.random.Generator) -> Digits:
    """(N, width) numbers uniform on 0 to base^digits - 1, `digits` (N,)."""
    drawn = rng.integers(base, size=(len(digits), width), dtype=np.uint8)
    drawn[np.arange(width) >= digits[:, None]] = 0
    return drawn


def of_length(digits: Ints, base: int, width: int, rng: np.random.Generator) -> Digits:
    """(N, width) numbers uniform on those of exactly `digits` (N,) digits."""
    drawn = uniform(digits, base, width, rng)
    long = np.flatnonzero(digits > 1)
    drawn[long, digits[long] - 1] = rng.integers(1, base, size=len(long), dtype=np.uint8)
    return drawn
