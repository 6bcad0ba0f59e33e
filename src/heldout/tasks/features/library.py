"""Boolean features, from a single bit to the exclusive or of exclusive ors, each as its whole truth table.

A feature is written ``kind`` or ``kind:number,...``:

====================  ========  =======  ==============================================================
written               inputs    classes  value
====================  ========  =======  ==============================================================
``bit``               1         2        the input itself
``or:k``, ``and:k``   k         2        any of k, all of k
``majority:k``        k, odd    2        more than half of k
``threshold:k,t``     k         2        at least t of k
``parity:k``          k         2        an odd number of k
``xor_of_xors``       4         2        parity on two levels, whose halves are sub-features
``match:k``           2k        2        the first k inputs equal the last k
``lookup:k``          k         2        a random truth table, half ones; ``lookup:k,n`` is table number n
``mod_sum:m,k``       k         m        the sum of k inputs modulo m
``word:j``            j         2^j      the number that j inputs spell
``xor_word:j``        2j        2^j      the number that the exclusive ors of j pairs spell
====================  ========  =======  ==============================================================

As functions of their inputs ``parity:4`` and ``xor_of_xors`` are one; they differ in the sub-features that are named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from heldout.errors import ConfigError, unknown

MOST_INPUTS = 16  # of one feature: its truth table has 2 to this many rows

Rows = np.ndarray  # (N, inputs) uint8 of 0 and 1
Values = np.ndarray  # (N,) int64, a class each


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature of `inputs` bits.

    - `table`: (2^inputs,) int64, the class (0 to `classes` - 1) of each pattern; input j is bit j of the pattern.
    - `parts`: named sub-features as tables of the same kind, binary each: every input (``x0``, ...), ``and`` and ``or``
      of all inputs, and the intermediate values of the feature's own circuit.
    """

    name: str
    inputs: int
    classes: int
    table: Values
    parts: Mapping[str, Values] = field(repr=False)

    def of(self, rows: Rows) -> Values:
        """(N,) int64, the class of each row of (N, inputs) bits."""
        return np.asarray(self.table[codes(rows)])

    def parts_of(self, rows: Rows) -> dict[str, Values]:
        """Name -> (N,) int64 of 0 and 1: the sub-features of each row."""
        at = codes(rows)
        return {name: np.asarray(table[at]) for name, table in self.parts.items()}


def codes(rows: Rows) -> np.ndarray:
    """(N,) int64, the pattern of each row: input j is bit j."""
    return rows.astype(np.int64) @ (1 << np.arange(rows.shape[1], dtype=np.int64))


def patterns(inputs: int) -> Rows:
    """(2^inputs, inputs) uint8, every pattern in order: row c has the bits of c."""
    return ((np.arange(1 << inputs)[:, None] >> np.arange(inputs)) & 1).astype(np.uint8)


@lru_cache(maxsize=256)
def feature(written: str) -> Feature:
    """The feature that `written` names (see the module); a `ConfigError` that says what would be accepted otherwise."""
    match = re.fullmatch(r"([a-z_]+)(?::(\d+(?:,\d+)*))?", written)
    if match is None:
        raise ConfigError(f"features: {written!r} is not of the form kind or kind:number,..., as in 'parity:2'")
    if match[1] not in KINDS:
        raise ConfigError(f"features: {unknown('feature', match[1], KINDS)}")
    kind = KINDS[match[1]]
    numbers = tuple(int(n) for n in match[2].split(",")) if match[2] else ()
    if len(numbers) not in kind.counts or not kind.accepts(*numbers):
        raise ConfigError(f"features: {written!r} is not accepted; {match[1]} is written {kind.rule}")
    inputs, classes = kind.inputs(*numbers), kind.classes(*numbers)
    if inputs > MOST_INPUTS:
        raise ConfigError(f"features: {written!r} has {inputs} inputs; at most {MOST_INPUTS} are accepted")
    rows = patterns(inputs)
    parts = {f"x{j}": rows[:, j].astype(np.int64) for j in range(inputs)}
    if inputs > 1:
        parts |= {"and": rows.min(1).astype(np.int64), "or": rows.max(1).astype(np.int64)}
    parts |= {name: np.asarray(values, dtype=np.int64) for name, values in kind.parts(rows).items()}
    return Feature(written, inputs, classes, np.asarray(kind.value(rows, *numbers), dtype=np.int64), parts)


@dataclass(frozen=True)
class Kind:
    """How a family of features is written and computed; every function takes the numbers after the colon."""

    rule: str
    counts: tuple[int, ...]
    accepts: Callable[..., bool]
    inputs: Callable[..., int]
    value: Callable[..., np.ndarray]  # rows first
    classes: Callable[..., int] = lambda *_: 2
    parts: Callable[[Rows], dict[str, np.ndarray]] = lambda _: {}


def _parity(rows: Rows, *_: int) -> np.ndarray:
    return np.asarray(rows.sum(1) % 2)


def _minterms(rows: Rows) -> dict[str, np.ndarray]:
    """Of two inputs: the two cases in which their exclusive or is 1."""
    return {"only_x0": rows[:, 0] > rows[:, 1], "only_x1": rows[:, 1] > rows[:, 0]} if rows.shape[1] == 2 else {}


def _halves(rows: Rows) -> dict[str, np.ndarray]:
    return {"left": rows[:, 0] ^ rows[:, 1], "right": rows[:, 2] ^ rows[:, 3]}


def _match(rows: Rows, k: int) -> np.ndarray:
    return np.asarray((rows[:, :k] == rows[:, k:]).all(1))


def _equal(rows: Rows) -> dict[str, np.ndarray]:
    k = rows.shape[1] // 2
    return {f"equal{j}": rows[:, j] == rows[:, k + j] for j in range(k)}


def _lookup(rows: Rows, k: int, number: int = 0) -> np.ndarray:
    half = np.arange(len(rows)) % 2
    return np.asarray(np.random.default_rng((k, number)).permutation(half))


def _xors(rows: Rows) -> np.ndarray:
    return np.asarray(rows[:, 0::2] ^ rows[:, 1::2])


def _xor_parts(rows: Rows) -> dict[str, np.ndarray]:
    return {f"xor{j}": column for j, column in enumerate(_xors(rows).T)}


KINDS: dict[str, Kind] = {
    "bit": Kind("bit", (0,), lambda: True, lambda: 1, lambda rows: rows[:, 0]),
    "or": Kind("or:k with k from 2", (1,), lambda k: k >= 2, lambda k: k, lambda rows, _: rows.any(1)),
    "and": Kind("and:k with k from 2", (1,), lambda k: k >= 2, lambda k: k, lambda rows, _: rows.all(1)),
    "majority": Kind(
        "majority:k with k odd, from 3",
        (1,),
        lambda k: k >= 3 and k % 2 == 1,
        lambda k: k,
        lambda rows, k: rows.sum(1) > k // 2,
    ),
    "threshold": Kind(
        "threshold:k,t with t from 1 to k",
        (2,),
        lambda k, t: 1 <= t <= k,
        lambda k, _: k,
        lambda rows, _, t: rows.sum(1) >= t,
    ),
    "parity": Kind("parity:k with k from 2", (1,), lambda k: k >= 2, lambda k: k, _parity, parts=_minterms),
    "xor_of_xors": Kind("xor_of_xors", (0,), lambda: True, lambda: 4, _parity, parts=_halves),
    "match": Kind("match:k with k from 1", (1,), lambda k: k >= 1, lambda k: 2 * k, _match, parts=_equal),
    "lookup": Kind("lookup:k or lookup:k,n with k from 2", (1, 2), lambda k, _=0: k >= 2, lambda k, _=0: k, _lookup),
    "mod_sum": Kind(
        "mod_sum:m,k with m from 2 to k + 1",
        (2,),
        lambda m, k: 2 <= m <= k + 1,
        lambda _, k: k,
        lambda rows, m, _: rows.sum(1) % m,
        lambda m, _: m,
    ),
    "word": Kind(
        "word:j with j from 1", (1,), lambda j: j >= 1, lambda j: j, lambda rows, _: codes(rows), lambda j: 2**j
    ),
    "xor_word": Kind(
        "xor_word:j with j from 1",
        (1,),
        lambda j: j >= 1,
        lambda j: 2 * j,
        lambda rows, _: codes(_xors(rows)),
        lambda j: 2**j,
        _xor_parts,
    ),
}
