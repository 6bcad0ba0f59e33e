"""What the follow-up's theory predicts: how often the learned map is right, and which tasks extend to longer operands.

The *learned map* of a network trained on operands of at most n digits is f(pi_n a, pi_n b) with pi_n x = x mod base^n: high
digits are ignored. Write a = A base^n + a0, b = B base^n + b0 and g = base^n. It is right

- for (a + b) mod p exactly where g (A + B) = 0 mod p, that is where A + B = 0 mod p' with p' = p / gcd(p, g);
- for (a * b) mod p exactly where a b = a0 b0 mod p. With x = a mod p, v = g A mod p, v' = g B mod p and u' = b0 mod p, that
  is x v' + v u' = 0 mod p: linear in the second operand.

Where p divides g, v = v' = 0 and it is always right. High and low part of a uniform operand are independent and uniform on
ranges of whole numbers, so only residues are counted, and every accuracy is an exact fraction.

None of this looks at a network. That a network's truth accuracy equals the prediction does not show that it computes the
learned map (an accuracy near 1 / p' is also chance); its equivalence exact match does. And the theory assumes a perfect fit
on the training support: a network that has not learnt its task says nothing about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heldout.errors import ConfigError, unknown

Modular = Literal["mod_add", "mod_multiply"]
MODULAR: tuple[Modular, ...] = ("mod_add", "mod_multiply")
Law = Literal["exactly", "at_most"]
LAWS: tuple[Law, ...] = ("exactly", "at_most")
LARGEST_MODULUS = 1000  # counting products takes modulus * (modulus / gcd)^2 steps: seconds for a prime near 1000

Ints = NDArray[np.int64]


class Operand(NamedTuple):
    """An operand high * base^n + low, high and low uniform on two ranges and independent."""

    high: range
    low: range

    @staticmethod
    def of(digits: int, n: int, base: int = 10, law: Law = "exactly") -> Operand:
        """Uniform on the numbers of exactly, or at most, `digits` digits; 0 has one."""
        first = 0 if law == "at_most" or digits == 1 else base ** (digits - 1)
        end = base**digits
        if digits <= n:
            return Operand(range(1), range(first, end))
        return Operand(range(first // base**n, end // base**n), range(base**n))


def accuracy(
    operation: Modular, modulus: int, n: int, digits: int | tuple[int, int], *, base: int = 10, law: Law = "exactly"
) -> Fraction:
    """The share of operand pairs for which the learned map is right: from 0 to 1, exact.

    `n`: the longest trained operand. `digits`: those of both operands, or of each; `law`: exactly so many or at most.
    Operands are uniform and independent. Raises `ConfigError`.

    >>> accuracy("mod_add", 150, n=4, digits=7)
    Fraction(1, 3)
    """
    la, lb = (digits, digits) if isinstance(digits, int) else digits
    if law not in LAWS:
        raise ConfigError(unknown("law of operand lengths", str(law), LAWS))
    if min(n, la, lb) < 1 or base < 2:
        raise ConfigError(f"n and digits must be at least 1 and base 2, got n {n}, digits {la} and {lb}, base {base}")
    operands = Operand.of(la, n, base, law), Operand.of(lb, n, base, law)
    return accuracy_of(operation, modulus, base**n, *operands)


def accuracy_of(operation: Modular, modulus: int, unit: int, a: Operand, b: Operand) -> Fraction:
    """`accuracy` for operands high * `unit` + low of any ranges."""
    if operation not in MODULAR:
        raise ConfigError(unknown("modular operation", str(operation), MODULAR))
    if not 1 <= modulus <= LARGEST_MODULUS:
        raise ConfigError(f"the modulus must be from 1 to {LARGEST_MODULUS}, got {modulus}")
    if not all(len(part) for part in (*a, *b)):
        raise ConfigError("operands must have at least one value of their high and of their low part")
    if operation == "mod_add":
        right, total = _right_sums(modulus, unit, a, b), len(a.high) * len(b.high)
    else:
        right = _right_products(modulus, unit, a, b)
        total = len(a.high) * len(b.high) * len(a.low) * len(b.low)
    return Fraction(right, total)


def _right_sums(modulus: int, unit: int, a: Operand, b: Operand) -> int:
    """Pairs of high parts with A + B = 0 mod p'."""
    reduced = modulus // math.gcd(modulus, unit)
    first, second = Residues.of(a.high, reduced), Residues.of(b.high, reduced)
    return sum(first[r] * second[-r % reduced] for r in range(reduced))


def _right_products(modulus: int, unit: int, a: Operand, b: Operand) -> int:
    """Pairs of operands with x v' + v u' = 0 mod p; see the module.

    The number of values with residue r is every + extra[r] (`Residues`), so the count is a polynomial in the four `every`,
    whose sixteen coefficients are small enough for int64 however long the operands are.
    """
    p, reduced = modulus, modulus // math.gcd(modulus, unit)
    high_a, high_b = Residues.of(a.high, reduced), Residues.of(b.high, reduced)
    low_a, low_b = Residues.of(a.low, p), Residues.of(b.low, p)
    multiples = np.arange(reduced, dtype=np.int64) * (unit % p) % p  # v of each residue of a high part
    every = np.arange(p, dtype=np.int64)
    minus_xv = -np.outer(every, multiples) % p  # (x, v'): what v u' must be
    coefficients = np.zeros((2, 2, 2, 2), dtype=np.int64)  # high and low part of a, low and high part of b
    for weight, v in zip(high_a.terms.T, multiples, strict=True):
        hits = np.zeros((p, 2), dtype=np.int64)  # how many u' have v u' = t, by both terms
        np.add.at(hits, every * v % p, low_b.terms.T)
        partners = hits.T[:, minus_xv] @ high_b.terms.T  # (low of b, x, high of b)
        of_low = low_a.terms[:, (every - v) % p]  # (low of a, x)
        coefficients += np.einsum("h,lx,mxk->hlmk", weight, of_low, partners)
    sizes = [(part.every, 1) for part in (high_a, low_a, low_b, high_b)]
    return sum(
        int(coefficients[i]) * math.prod(size[k] for size, k in zip(sizes, i, strict=True))
        for i in np.ndindex(coefficients.shape)
    )


@dataclass(frozen=True, eq=False)
class Residues:
    """How many values of a range have each residue r: ``every + extra[r]``, extra 0 or 1."""

    every: int
    extra: Ints

    @staticmethod
    def of(values: range, modulus: int) -> Residues:
        every, left = divmod(len(values), modulus)
        extra = np.zeros(modulus, dtype=np.int64)
        extra[(values.start % modulus + np.arange(left)) % modulus] = 1
        return Residues(every, extra)

    def __getitem__(self, residue: int) -> int:
        return self.every + int(self.extra[residue])

    @property
    def terms(self) -> Ints:
        """(2, modulus): what multiplies `every`, and what is added."""
        return np.stack([np.ones_like(self.extra), self.extra])


# -- closed forms, for sums -------------------------------------------------------------------------------------------


def limit(modulus: int, n: int, *, base: int = 10) -> Fraction:
    """What the accuracy of (a + b) mod p tends to as operands grow: 1 / p'."""
    return Fraction(math.gcd(modulus, base**n), modulus)


def lower_bound(modulus: int, n: int, m: int, *, base: int = 10) -> Fraction:
    """The authors' bound below the accuracy of (a + b) mod p for high parts uniform on 1 to M = base^(m - n) - 1, m > n:
    1 / p' - frac(M / p') / M."""
    largest, share = base ** (m - n) - 1, limit(modulus, n, base=base)
    missing: Fraction = (largest * share - math.floor(largest * share)) / largest
    return share - missing


def first_right(modulus: int, n: int, *, base: int = 10) -> int:
    """The fewest digits m > n at which (a + b) mod p can be right with both high parts positive: 2 (base^(m - n) - 1)
    reaches p', that is m >= n + log_base(p' / 2 + 1)."""
    reduced, m = 1 / limit(modulus, n, base=base), n + 1
    while 2 * (base ** (m - n) - 1) < reduced:
        m += 1
    return m


# -- which tasks extend -----------------------------------------------------------------------------------------------

Encoding = Literal["absolute", "relative"]
Direction = Literal["shorter", "longer"]
ENCODINGS: dict[str, Encoding] = {  # those of `heldout.networks.positions`; without positions nothing is predicted
    "learned": "absolute",
    "sinusoidal": "absolute",
    "rotary": "relative",
    "alibi": "relative",
    "abacus": "relative",
}


class Prediction(NamedTuple):
    """Whether a network trained on at most n digits is right on shorter or longer operands, and under which condition."""

    task: str
    encoding: Encoding
    direction: Direction
    right: bool
    condition: str


_COVERED = "the law of training covers shorter operands"
_SHIFT = "digit i follows from digits i and a carry by one rule for all i: f(base a, base b) = base f(a, b)"
_LEARNED = "the answer is that of the learned map"
_MIXES = "digit i of a product mixes all pairs of lower digits; the answer is that of the learned map"
_FITS = "p divides base^n, so that the answer depends on the lowest n digits alone"
_MISFITS = "p does not divide base^n; accuracy is that of `accuracy`"

_LONGER: tuple[Prediction, ...] = (
    Prediction("add", "absolute", "longer", False, _LEARNED),
    Prediction("add", "relative", "longer", True, _SHIFT),
    Prediction("multiply", "absolute", "longer", False, _MIXES),
    Prediction("multiply", "relative", "longer", False, _MIXES),
    Prediction("modular, p | base^n", "absolute", "longer", True, _FITS),
    Prediction("modular, p | base^n", "relative", "longer", True, _FITS),
    Prediction("modular, other p", "absolute", "longer", False, _MISFITS),
    Prediction("modular, other p", "relative", "longer", False, _MISFITS),
)
PREDICTIONS = (*(p._replace(direction="shorter", right=True, condition=_COVERED) for p in _LONGER), *_LONGER)


def prediction(
    operation: str, positions: str, direction: Direction, *, n: int, modulus: int | None = None, base: int = 10
) -> Prediction | None:
    """The theory's entry for a task and a network's kind of positions; None where it has none (subtraction, no positions).

    The authors tested relative positions with Abacus embeddings only; for rotary and ALiBi it is the theory's word alone.
    """
    task = operation
    if operation in MODULAR:
        if modulus is None:
            raise ConfigError(f"{operation} needs a modulus")
        task = "modular, p | base^n" if base**n % modulus == 0 else "modular, other p"
    encoding = ENCODINGS.get(positions)
    return next((p for p in PREDICTIONS if (p.task, p.encoding, p.direction) == (task, encoding, direction)), None)
