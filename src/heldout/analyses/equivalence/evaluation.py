"""What many hypotheses answer to the same pairs, as int64 codes.

A code is the answer itself where every answer of the grammar fits into int64, and otherwise its residue modulo a prime:
sums, differences and products of residues are residues, so most hypotheses cost one vector operation. Equal answers have
equal codes; the reverse is certain only for answers that fit. What is reported is therefore computed by `exact`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.equivalence.grammar import ALL, Carries, Combine, Hypothesis, Op, combined, grammar
from heldout.analyses.equivalence.readings import LARGEST_SHIFT, WHOLE, Numbers, Reading
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Digits

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PRIME = 2**31 - 1  # products of two residues fit into int64
NONE = np.iinfo(np.int64).min  # the code of what is no answer


@dataclass(frozen=True, eq=False)
class Table:
    """N pairs with answers: `a`, `b` and `answers` (N, W) digits, `negative` and `parsable` (N,) bool.

    What is not parsable is wrong under every rule; its digits mean nothing.
    """

    a: Digits
    b: Digits
    answers: Digits
    negative: Bools
    parsable: Bools
    base: int = 10

    def __len__(self) -> int:
        return len(self.a)

    @property
    def width(self) -> int:
        return int(max(self.a.shape[-1], self.b.shape[-1]))

    @cached_property
    def left(self) -> Numbers:
        return Numbers(self.a, self.base)

    @cached_property
    def right(self) -> Numbers:
        return Numbers(self.b, self.base)

    @cached_property
    def length(self) -> Ints:
        """(N,) digits of the answer, 0 where there is none."""
        return np.where(self.parsable, numerals.lengths(self.answers), 0)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Some of the pairs, in the order given."""
        return Table(
            _rows(self.a, rows),
            _rows(self.b, rows),
            _rows(self.answers, rows),
            self.negative[rows],
            self.parsable[rows],
            self.base,
        )

    def ring(self, op: Op) -> int | None:
        """The modulus of the codes; None where every answer of the grammar, and every given one, fits."""
        width = 2 * (self.width + LARGEST_SHIFT) if op == "multiply" else self.width + LARGEST_SHIFT + 1
        return None if self.base ** max(width, self.answers.shape[-1]) < 2**62 else PRIME

    def codes(self, ring: int | None) -> Ints:
        """(N,) the codes of the answers given; `NONE` where there is none."""
        value = Numbers(self.answers, self.base).values((WHOLE,), ring)[0]
        value = np.where(self.negative, -value if ring is None else -value % ring, value)
        return np.where(self.parsable, value, NONE)

    def exact(self, hypothesis: Hypothesis) -> Bools:
        """(N,) whether the hypothesis gives the answer, digit by digit."""
        found = hypothesis.predict(self.a, self.b, self.base)
        same: Bools = numerals.equal(found.digits, self.answers) & (found.negative == self.negative) & self.parsable
        return same


def _rows(digits: Digits, rows: NDArray[np.int64]) -> Digits:
    """Rows of digits, laid out digit by digit."""
    return np.moveaxis(np.take(np.moveaxis(digits, -1, 0), rows, axis=1), 0, -1)


@lru_cache(maxsize=32)
def plan(op: Op, width: int, modulus: int | None) -> Plan:
    """The grammar without constants, sorted by what can be computed together."""
    return Plan(grammar(op, width, modulus=modulus, constants=()))


class Plan:
    """Hypotheses, sorted by what can be computed together; `codes` keeps their order."""

    def __init__(self, hypotheses: Sequence[Hypothesis]) -> None:
        self.hypotheses = tuple(hypotheses)
        self.left = tuple(dict.fromkeys(h.left for h in hypotheses))
        self.right = tuple(dict.fromkeys(h.right for h in hypotheses))
        of_left, of_right = {r: i for i, r in enumerate(self.left)}, {r: i for i, r in enumerate(self.right)}
        plain: dict[tuple[Combine, int | None], list[int]] = defaultdict(list)
        partial: dict[tuple[Combine, Carries], dict[tuple[Reading, Reading], list[int]]] = defaultdict(dict)
        self.constants: list[int] = []
        for i, h in enumerate(hypotheses):
            if h.combine == "constant":
                self.constants.append(i)
            elif h.carries == ALL and h.post == WHOLE:
                plain[h.combine, h.modulus].append(i)
            else:
                partial[h.combine, h.carries].setdefault((h.left, h.right), []).append(i)
        self.plain = [
            (
                *key,
                np.array(rows),
                np.array([of_left[hypotheses[i].left] for i in rows]),
                np.array([of_right[hypotheses[i].right] for i in rows]),
            )
            for key, rows in plain.items()
        ]
        self.partial = [(key, tuple(groups), list(groups.values())) for key, groups in partial.items()]

    def codes(self, table: Table, ring: int | None) -> Ints:
        """(H, N) codes of what each hypothesis answers."""
        out = np.empty((len(self.hypotheses), len(table)), dtype=np.int64)
        values: dict[int | None, tuple[Ints, Ints]] = {}
        for combine, modulus, rows, lefts, rights in self.plain:
            # A result mod p needs no more of the operands than their residues mod p.
            within = ring if modulus is None else modulus
            if within not in values:
                values[within] = table.left.values(self.left, within), table.right.values(self.right, within)
            a, b = values[within]
            out[rows] = _ring(combine, a[lefts], b[rights], within)
        operands = Operands(table)
        for (combine, carries), groups, members in self.partial:
            self._partial(out, operands, ring, combine, carries, groups, members)
        for i in self.constants:
            out[i] = self.hypotheses[i].constant if ring is None else self.hypotheses[i].constant % ring
        return out

    def _partial(
        self,
        out: Ints,
        operands: Operands,
        ring: int | None,
        combine: Combine,
        carries: Carries,
        groups: tuple[tuple[Reading, Reading], ...],
        members: list[list[int]],
    ) -> None:
        a, b = operands.stacked(groups)
        result = combined(a, b, combine, carries, operands.base)
        numbers = Numbers(result.digits, operands.base)
        posts = tuple(dict.fromkeys(self.hypotheses[i].post for rows in members for i in rows))
        values = numbers.values(posts, ring)
        if result.negative.any():
            values = np.where(result.negative, -values if ring is None else -values % ring, values)
        place = {post: p for p, post in enumerate(posts)}
        for g, rows in enumerate(members):
            for i in rows:
                out[i] = values[place[self.hypotheses[i].post], g]


def _ring(combine: Combine, a: Ints, b: Ints, modulus: int | None) -> Ints:
    if combine in ("a", "b"):
        return a if combine == "a" else b
    result = a + b if combine == "add" else a - b if combine == "subtract" else a * b
    return result if modulus is None else result % modulus


class Operands:
    """What is read of the operands of one table, each reading once."""

    def __init__(self, table: Table) -> None:
        self.base = table.base
        self._numbers = (table.left, table.right)
        self._read: dict[tuple[int, Reading], Digits] = {}
        self._stacks: dict[tuple[tuple[Reading, Reading], ...], tuple[Digits, Digits]] = {}

    def stacked(self, groups: tuple[tuple[Reading, Reading], ...]) -> tuple[Digits, Digits]:
        """(G, N, W) digits of G readings of a, and of b."""
        if groups not in self._stacks:
            self._stacks[groups] = (
                _stack([self._digits(0, left) for left, _ in groups]),
                _stack([self._digits(1, right) for _, right in groups]),
            )
        return self._stacks[groups]

    def _digits(self, side: int, reading: Reading) -> Digits:
        if (side, reading) not in self._read:
            self._read[side, reading] = self._numbers[side].read(reading)
        return self._read[side, reading]


def _stack(parts: list[Digits]) -> Digits:
    out = numerals.zeros((len(parts), len(parts[0])), max(p.shape[-1] for p in parts))
    for row, part in enumerate(parts):
        out[row, :, : part.shape[-1]] = part
    return out
