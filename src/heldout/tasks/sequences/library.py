"""Binary features of a short stretch of tokens, each as the value of every stretch there is.

A feature is written ``kind`` or ``kind:number``. Its stretch has n tokens of an alphabet of its own, 0 to a - 1:

============  ========================================================================================
written       value 1 where
============  ========================================================================================
``contains``  token 0 occurs
``phrase``    token 0 is directly followed by token 1 somewhere
``ends``      the first token equals the last
``count:t``   token 0 occurs at least t times (default 2)
``parity``    token 0 occurs an odd number of times
``before``    the first token 0 stands before the first token 1; only stretches that hold both are drawn
============  ========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from heldout.errors import ConfigError, unknown

MOST_STRETCHES = 1 << 20  # they are listed
NEVER = -1  # the value of a stretch that is not drawn

Stretches = np.ndarray  # (M, n) int64 tokens
Values = np.ndarray  # (M,) int64: 0, 1 or NEVER


@dataclass(frozen=True, eq=False)
class SequenceFeature:
    """One feature of stretches of `length` tokens below `alphabet`: `values` (alphabet^length,), its value on each stretch;
    the stretch of number c has the digits of c in base `alphabet`, the first token the least."""

    name: str
    length: int
    alphabet: int
    values: Values

    def of(self, stretches: Stretches) -> Values:
        """(N,) int64, its value on each of (N, length) stretches."""
        return np.asarray(self.values[self.codes(stretches)])

    def codes(self, stretches: Stretches) -> np.ndarray:
        """(N,) int64, the number of each stretch."""
        return np.asarray(stretches, dtype=np.int64) @ (self.alphabet ** np.arange(self.length, dtype=np.int64))

    def draw(self, values: np.ndarray, draw: np.random.Generator) -> Stretches:
        """(N, length) int64: stretch i is uniform among those whose value is ``values[i]`` (0 or 1)."""
        found = np.empty((len(values), self.length), dtype=np.int64)
        for value in (0, 1):
            rows = values == value
            numbers = draw.choice(np.flatnonzero(self.values == value), size=int(rows.sum()))
            found[rows] = _stretches(numbers, self.length, self.alphabet)
        return found


@lru_cache(maxsize=64)
def sequence_feature(written: str, length: int, alphabet: int) -> SequenceFeature:
    """The feature that `written` names (see the module); a `ConfigError` that says what would be accepted otherwise."""
    match = re.fullmatch(r"([a-z]+)(?::(\d+))?", written)
    if match is None:
        raise ConfigError(
            f"sequences: a feature is written kind or kind:number, for example 'count:2'; got {written!r}"
        )
    kind, number = match[1], match[2]
    if kind not in KINDS:
        raise ConfigError(f"sequences: {unknown('feature', kind, KINDS)}")
    if number is not None and kind != "count":
        raise ConfigError(f"sequences: {kind} takes no number; got {written!r}")
    times = 2 if number is None else int(number)
    if kind == "count" and not 1 <= times <= length:
        raise ConfigError(f"sequences: count needs a number from 1 to the stretch's {length} tokens; got {written!r}")
    if length < 2 or alphabet < 2 or alphabet**length > MOST_STRETCHES:
        raise ConfigError(
            f"sequences: a stretch needs 2 tokens or more, an alphabet too, and alphabet^stretch at most {MOST_STRETCHES}; "
            f"got {alphabet}^{length}"
        )
    stretches = _stretches(np.arange(alphabet**length), length, alphabet)
    values = KINDS[kind](stretches, times)
    missing = [v for v in (0, 1) if not (values == v).any()]
    if missing:
        raise ConfigError(
            f"sequences: no stretch of {length} tokens below {alphabet} has {written} = {missing[0]}; give longer ones"
        )
    return SequenceFeature(written, length, alphabet, values)


def _stretches(numbers: np.ndarray, length: int, alphabet: int) -> Stretches:
    return np.asarray(numbers[:, None] // alphabet ** np.arange(length, dtype=np.int64) % alphabet)


def _before(stretches: Stretches, _: int) -> Values:
    first, second = ((stretches == token) for token in (0, 1))
    both = first.any(1) & second.any(1)
    return np.where(both, first.argmax(1) < second.argmax(1), NEVER).astype(np.int64)


def _phrase(stretches: Stretches, _: int) -> Values:
    return np.asarray(((stretches[:, :-1] == 0) & (stretches[:, 1:] == 1)).any(1).astype(np.int64))


KINDS: dict[str, Callable[[Stretches, int], Values]] = {
    "contains": lambda s, _: (s == 0).any(1).astype(np.int64),
    "phrase": _phrase,
    "ends": lambda s, _: (s[:, 0] == s[:, -1]).astype(np.int64),
    "count": lambda s, times: ((s == 0).sum(1) >= times).astype(np.int64),
    "parity": lambda s, _: (s == 0).sum(1) % 2,
    "before": _before,
}
