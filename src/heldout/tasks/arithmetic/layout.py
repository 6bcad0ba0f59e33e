"""How a problem and its answer are written as tokens, and how an answer is read back.

==============  ===================================================  =======================
layout          345 + 705 = 1050, width 5, answer reversed           tokens
==============  ===================================================  =======================
``padded``      ``0034500705050100``                                 digits only (paper 1)
``separated``   ``00345+00705=050100;``                              digits and ``+ = ;``
``unpadded``    ``345+705=0501;``                                    digits and ``+ = ;``
==============  ===================================================  =======================

A plain answer is written most significant digit first. The answer to a subtraction has a sign at its most significant
end: ``-``, or in the padded layouts 0 where it is not negative. Token ids: a digit is its value, symbols follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from heldout.errors import ConfigError, unknown
from heldout.tasks.arithmetic import numerals, operations
from heldout.tasks.arithmetic.numerals import Bools, Digits, Ints, Signed
from heldout.tasks.arithmetic.operations import Operation

Kind = Literal["padded", "separated", "unpadded"]
KINDS: tuple[Kind, ...] = ("padded", "separated", "unpadded")
_Field = tuple[np.ndarray, np.ndarray]  # tokens (N, F) and which of them are written (N, F)


class Written(NamedTuple):
    """N sequences end to end: `tokens` (total,) uint8, `offsets` (N + 1,), and how many tokens ask (N,), not answer."""

    tokens: np.ndarray
    offsets: Ints
    prompts: Ints


class Parsed(NamedTuple):
    """N answers read: digits (N, A) units first, sign, and whether it is a number at all; if not, its digits are 0."""

    digits: Digits
    negative: Bools
    parsable: Bools


@dataclass(frozen=True)
class Layout:
    """A layout; see the module. `width` and `answer_width` are the most digits of an operand and of an answer."""

    kind: Kind
    operation: Operation
    base: int
    width: int
    answer_width: int
    reversed_answer: bool = True
    reversed_operands: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"arithmetic: {unknown('layout', str(self.kind), KINDS)}")

    @property
    def separated(self) -> bool:
        """Whether numbers are parted by symbols, and answers end with one."""
        return self.kind != "padded"

    @property
    def signed(self) -> bool:
        return self.operation == "subtract"

    @cached_property
    def symbols(self) -> str:
        """The character of each token id."""
        more = "-" if self.signed else ""
        if self.separated:
            more = "".join(dict.fromkeys(operations.SYMBOLS[self.operation] + more + "=;"))
        return numerals.SYMBOLS[: self.base] + more

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.symbols)

    @property
    def stop(self) -> int | None:
        """The token that ends an answer; None where its length does."""
        return self.token(";") if self.separated else None

    @property
    def steps(self) -> int:
        """The most tokens of an answer, sign and stop included."""
        return self.answer_width + self.signed + self.separated

    @property
    def longest(self) -> int:
        """The most tokens of problem and answer; a network is fed at most one fewer."""
        return 2 * self.width + 2 * self.separated + self.steps

    def token(self, symbol: str) -> int:
        return self.symbols.index(symbol)

    def text(self, tokens: Iterable[int]) -> str:
        """Tokens to read."""
        return "".join(self.symbols[t] for t in tokens)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, a: Digits, b: Digits, answer: Signed | None = None) -> Written:
        """Problems, with their answers where given, as tokens. Raises `ConfigError` where an operand is too long."""
        fields = [self._number(a, self.width, self.reversed_operands)]
        if self.separated:
            fields.append(self._symbol(operations.SYMBOLS[self.operation], len(a)))
        fields.append(self._number(b, self.width, self.reversed_operands))
        if self.separated:
            fields.append(self._symbol("=", len(a)))
        prompts = np.sum([kept.sum(axis=1) for _, kept in fields], axis=0)
        if answer is not None:
            number = self._number(answer.digits, self.answer_width, self.reversed_answer)
            sign = [self._sign(answer.negative)] if self.signed else []
            fields += [number, *sign] if self.reversed_answer else [*sign, number]
            if self.separated:
                fields.append(self._symbol(";", len(a)))
        tokens = np.concatenate([tokens for tokens, _ in fields], axis=1)
        kept = np.concatenate([kept for _, kept in fields], axis=1)
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
        return Written(tokens[kept], offsets, prompts.astype(np.int64))

    def prompts(self, a: Digits, b: Digits) -> tuple[np.ndarray, Ints]:
        """Problems for decoding: tokens (N, T) int64, padded on the right with 0, and their lengths (N,)."""
        written = self.write(a, b)
        inside = np.arange(written.prompts.max(initial=1)) < written.prompts[:, None]
        tokens = np.zeros(inside.shape, dtype=np.int64)
        tokens[inside] = written.tokens
        return tokens, written.prompts

    def _number(self, digits: Digits, width: int, units_first: bool) -> _Field:
        digits = numerals.resize(digits, width)
        kept = np.ones(digits.shape, dtype=bool)
        if self.kind == "unpadded":
            kept = np.arange(width) < numerals.lengths(digits)[:, None]
        return (digits, kept) if units_first else (digits[:, ::-1], kept[:, ::-1])

    def _symbol(self, symbol: str, n: int) -> _Field:
        return np.full((n, 1), self.token(symbol), dtype=np.uint8), np.ones((n, 1), dtype=bool)

    def _sign(self, negative: Bools) -> _Field:
        kept = negative if self.kind == "unpadded" else np.ones_like(negative)
        return np.where(negative, self.token("-"), 0).astype(np.uint8)[:, None], kept[:, None]

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, tokens: np.ndarray) -> Parsed:
        """Answers (N, `steps`) as numbers. Leading zeros are accepted.

        Not parsable is what does not end, holds other symbols than digits (but for a sign in its place), has no digit or
        more than any answer.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.ndim != 2 or tokens.shape[1] != self.steps:
            raise ConfigError(f"arithmetic: answers are (N, {self.steps}) tokens in this layout, got {tokens.shape}")
        ends = tokens == self.stop if self.separated else np.zeros_like(tokens, dtype=bool)
        ended = ends.any(axis=1) | (not self.separated)
        length = np.where(ends.any(axis=1), ends.argmax(axis=1), tokens.shape[1])
        if not self.reversed_answer:  # units first, what stands after the end still behind it
            at = np.where(
                np.arange(tokens.shape[1]) < length[:, None], length[:, None] - 1 - np.arange(tokens.shape[1]), 0
            )
            tokens = np.take_along_axis(tokens, at, axis=1)
        negative = np.zeros(len(tokens), dtype=bool)
        if self.signed:
            last = np.take_along_axis(tokens, np.maximum(length - 1, 0)[:, None], axis=1)[:, 0]
            negative = (last == self.token("-")) & (length > 0)
            length = length - negative
        inside = np.arange(tokens.shape[1]) < length[:, None]
        digits = np.where(inside, tokens, 0)
        is_number = ended & (length > 0) & (digits < self.base).all(axis=1)
        is_number &= (digits[:, self.answer_width :] == 0).all(axis=1)
        digits = np.where(is_number[:, None], digits[:, : self.answer_width], 0).astype(np.uint8)
        return Parsed(digits, negative & is_number & digits.any(axis=1), is_number)
