"""Exact arithmetic on arrays of numbers too long for int64: whole numbers as digits in a base of 2 to 36.

A numeral array is uint8 of shape (..., W): W digits, *units first* (digit i is worth base^i), zero-padded. Leading axes
are free and broadcast, so that N numbers are (N, W) and R readings of them (R, N, W). Results are laid out digit by digit
in memory (the last axis is the slowest), because every operation here walks over digits and is vectorised over numbers.
A number that may be negative is a sign beside its magnitude (`Signed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heldout.errors import ConfigError

Digits = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"
LARGEST_MODULUS = 10**6
_ROOM = 2**62  # what one int64 holds while digits are gathered


class Signed(NamedTuple):
    """Whole numbers of either sign: `negative` (...,) bool (False for 0) and `digits` (..., W), the magnitude."""

    negative: Bools
    digits: Digits


# -- from and to numbers and text -------------------------------------------------------------------------------------


def from_ints(values: Iterable[int] | NDArray[Any], base: int = 10, *, width: int | None = None) -> Digits:
    """(N, W) digits of whole numbers that are not negative: Python ints of any size, or an integer array.

    `width` is W, by default that of the longest number (at least 1). Raises `ConfigError` at the first negative number
    and where a number needs more digits than `width`.
    """
    check_base(base)
    array = _as_integers(values)
    if len(array) and (smallest := array.min()) < 0:
        row = int(np.argmax(array < 0))
        raise ConfigError(f"numerals are not negative; number {row} is {array[row]} (the smallest is {smallest})")
    needed = length_of(int(array.max()), base) if len(array) else 1
    size = needed if width is None else width
    if needed > size:
        raise ConfigError(
            f"number {int(np.argmax(array))} has {needed} digits in base {base}; there is room for {size}"
        )
    digits = zeros((len(array),), size)
    at, limb = 0, limb_digits(base)
    while at < needed:
        # Python ints are cut into pieces that int64 holds; the digits of a piece are then taken by vectors.
        piece = array if array.dtype != object and needed <= limb else array % base**limb
        rest = piece.astype(np.int64)
        for i in range(at, min(at + limb, needed)):
            rest, digits[:, i] = np.divmod(rest, base)
        array = array // base**limb if needed > at + limb else array
        at += limb
    return digits


def to_ints(digits: Digits, base: int = 10) -> list[int]:
    """Python ints of (N, W) digits."""
    limb, scale = limb_digits(base), 1
    total: Any = np.zeros(len(digits), dtype=object)
    for at in range(0, digits.shape[-1], limb):
        total = total + to_int64(digits[:, at : at + limb], base).astype(object) * scale
        scale *= base**limb
    return [int(x) for x in total]


def to_int64(digits: Digits, base: int = 10) -> Ints:
    """(...,) int64 of (..., W) digits; raises `ConfigError` where W digits may exceed int64."""
    if base ** digits.shape[-1] > 2**63:
        raise ConfigError(f"{digits.shape[-1]} digits in base {base} do not fit into int64; use to_ints")
    total = np.zeros(digits.shape[:-1], dtype=np.int64)
    for i in reversed(range(digits.shape[-1])):
        total *= base
        total += digits[..., i]
    return total


def from_text(texts: Sequence[str], base: int = 10, *, width: int | None = None) -> Digits:
    """(N, W) digits of numerals written in `SYMBOLS` (most significant first, either case, leading zeros allowed)."""
    check_base(base)
    table = np.full(256, 255, dtype=np.uint8)
    for value, symbol in enumerate(SYMBOLS[:base]):
        table[[ord(symbol), ord(symbol.upper())]] = value
    for row, text in enumerate(texts):
        if not text or not text.isascii():
            raise ConfigError(f"numeral {row} is {text!r}; digits {SYMBOLS[:base]} would be accepted")
    longest = max((len(t) for t in texts), default=1)
    padded = "".join(t.rjust(longest, "0") for t in texts).encode("ascii")
    digits = table[np.frombuffer(padded, dtype=np.uint8).reshape(len(texts), longest)[:, ::-1]]
    if (digits == 255).any():
        row = int(np.argmax((digits == 255).any(axis=1)))
        raise ConfigError(f"numeral {row} is {texts[row]!r}; digits {SYMBOLS[:base]} would be accepted")
    needed = int(lengths(digits).max(initial=1))
    return resize(digits, needed if width is None else width)


def to_text(digits: Digits, base: int = 10) -> list[str]:
    """Numerals of (N, W) digits, most significant first, without leading zeros."""
    symbols = np.frombuffer(SYMBOLS[:base].encode(), dtype=np.uint8)
    rows = np.ascontiguousarray(symbols[digits][:, ::-1])
    return [row.tobytes().decode("ascii").lstrip("0") or "0" for row in rows]


# -- arithmetic -------------------------------------------------------------------------------------------------------


def add(a: Digits, b: Digits, base: int = 10) -> Digits:
    """a + b, shape (..., W + 1) with W the wider of both."""
    wide, narrow = (a, b) if a.shape[-1] >= b.shape[-1] else (b, a)
    width = wide.shape[-1]
    out = zeros(_leading(a, b), width + 1)
    carry: Digits | Bools = np.zeros(out.shape[:-1], dtype=np.uint8)
    for i in range(width):
        column = wide[..., i] + carry
        if i < narrow.shape[-1]:
            column = column + narrow[..., i]
        carry = column >= base
        np.subtract(column, carry * np.uint8(base), out=out[..., i])
    out[..., width] = carry
    return out


def subtract(a: Digits, b: Digits, base: int = 10) -> Signed:
    """a - b: its sign, and its magnitude of W digits with W the wider of both."""
    width = max(a.shape[-1], b.shape[-1])
    negative = compare(a, b) < 0
    a, b = resize(a, width), resize(b, width)
    swap = negative[..., None]
    large, small = np.where(swap, b, a), np.where(swap, a, b)
    out = zeros(negative.shape, width)
    borrow: Digits | Bools = np.zeros(negative.shape, dtype=np.uint8)
    for i in range(width):
        taken = small[..., i] + borrow
        borrow = large[..., i] < taken
        np.subtract(large[..., i] + borrow * np.uint8(base), taken, out=out[..., i])
    return Signed(negative, out)


def multiply(a: Digits, b: Digits, base: int = 10) -> Digits:
    """a * b, shape (..., Wa + Wb); at most 10^6 digits each."""
    total = np.zeros((a.shape[-1] + b.shape[-1], *_leading(a, b)), dtype=np.int32)
    columns = np.moveaxis(b, -1, 0).astype(np.int32)
    for i in range(a.shape[-1]):
        total[i : i + b.shape[-1]] += a[..., i] * columns
    out = zeros(total.shape[1:], len(total))
    carry = np.zeros(total.shape[1:], dtype=np.int32)
    for i, column in enumerate(total):
        column += carry
        carry = column // base
        out[..., i] = column - carry * base
    return out


def remainder(a: Digits, modulus: int, base: int = 10) -> Ints:
    """(...,) int64, a mod `modulus`, which lies between 1 and 10^6."""
    if not 1 <= modulus <= LARGEST_MODULUS:
        raise ConfigError(f"the modulus must lie between 1 and {LARGEST_MODULUS}, got {modulus}")
    at_once = 1
    while modulus * base ** (at_once + 1) < _ROOM:
        at_once += 1
    total = np.zeros(a.shape[:-1], dtype=np.int64)
    for at in reversed(range(0, a.shape[-1], at_once)):
        piece = a[..., at : at + at_once]
        total = (total * base ** piece.shape[-1] + to_int64(piece, base)) % modulus
    return total


def low(a: Digits, k: int) -> Digits:
    """a mod base^k, of at most k digits (a view): the lowest k, which are at least 1."""
    return a[..., : _at_least(k, 1, "the number of digits kept")]


def shift(a: Digits, j: int) -> Digits:
    """a * base^j for j >= 0, with W + j digits; floor(a / base^-j) for j < 0, with at least one digit."""
    if j >= 0:
        out = zeros(a.shape[:-1], a.shape[-1] + j)
        out[..., j:] = a
        return out
    return a[..., -j:] if -j < a.shape[-1] else zeros(a.shape[:-1], 1)


def compare(a: Digits, b: Digits) -> NDArray[np.int8]:
    """(...,) int8: -1 where a < b, 0 where they are equal, 1 where a > b."""
    out = np.zeros(_leading(a, b), dtype=np.int8)
    width = max(a.shape[-1], b.shape[-1])
    a, b = resize(a, width), resize(b, width)
    for i in range(width):  # a higher digit overrules all lower ones
        out[a[..., i] > b[..., i]] = 1
        out[a[..., i] < b[..., i]] = -1
    return out


def equal(a: Digits, b: Digits) -> Bools:
    """(...,) bool: whether the numbers are equal, whatever their widths."""
    shared = min(a.shape[-1], b.shape[-1])
    same = np.ones(_leading(a, b), dtype=bool)
    for i in range(shared):
        same &= a[..., i] == b[..., i]
    for rest in (a[..., shared:], b[..., shared:]):
        for i in range(rest.shape[-1]):
            same &= rest[..., i] == 0
    return same


# -- shapes -----------------------------------------------------------------------------------------------------------


def lengths(a: Digits) -> Ints:
    """(...,) int64 number of digits without leading zeros; 0 has one."""
    out = np.ones(a.shape[:-1], dtype=np.int64)
    for i in range(1, a.shape[-1]):
        out[a[..., i] != 0] = i + 1
    return out


def resize(a: Digits, width: int) -> Digits:
    """The same numbers in `width` digits; raises `ConfigError` where one needs more."""
    have = a.shape[-1]
    if width == have:
        return a
    if width > have:
        out = zeros(a.shape[:-1], width)
        out[..., :have] = a
        return out
    if a[..., width:].any():
        raise ConfigError(f"a number has {int(lengths(a).max())} digits; there is room for {width}")
    return a[..., :width]


def zeros(shape: tuple[int, ...], width: int) -> Digits:
    """(*shape, width) digits 0, laid out digit by digit."""
    return np.moveaxis(np.zeros((width, *shape), dtype=np.uint8), 0, -1)


def length_of(value: int, base: int = 10) -> int:
    """Number of digits of one whole number; 0 has one."""
    n = 1
    while value >= base:
        value //= base
        n += 1
    return n


def limb_digits(base: int) -> int:
    """How many digits one int64 holds with room to spare: 18 in base 10."""
    n = 1
    while base ** (n + 1) < _ROOM:
        n += 1
    return n


def check_base(base: int) -> None:
    if not 2 <= base <= len(SYMBOLS):
        raise ConfigError(f"the base must lie between 2 and {len(SYMBOLS)}, got {base}")


def _as_integers(values: Iterable[int] | NDArray[Any]) -> NDArray[Any]:
    """(N,) int64 where all values fit, otherwise Python ints."""
    if isinstance(values, np.ndarray):
        array = values
    else:
        try:
            listed = list(map(index, values))
        except TypeError as error:
            raise ConfigError(f"numerals are made of whole numbers: {error}") from None
        try:
            array = np.array(listed, dtype=np.int64)
        except OverflowError:
            array = np.array(listed, dtype=object)
    if array.ndim != 1 or not (array.dtype == object or np.issubdtype(array.dtype, np.integer)):
        raise ConfigError(f"numerals are made of one row of whole numbers; got {array.dtype} of shape {array.shape}")
    return array


def _leading(a: Digits, b: Digits) -> tuple[int, ...]:
    return np.broadcast_shapes(a.shape[:-1], b.shape[:-1])


def _at_least(value: int, least: int, what: str) -> int:
    if value < least:
        raise ConfigError(f"{what} must be at least {least}, got {value}")
    return value
