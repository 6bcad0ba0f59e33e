"""The splits: which pairs training may see, drawing the others, and items with answer positions marked."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from heldout.errors import SplitError
from heldout.tasks.arithmetic import numerals, operations
from heldout.tasks.arithmetic.laws import Pairs, of_length
from heldout.tasks.arithmetic.layout import Layout, Written
from heldout.tasks.arithmetic.numerals import Bools, Digits, Signed
from heldout.tasks.arithmetic.settings import ArithmeticSettings, Cell
from heldout.tasks.base import Items, Rectangular, Role, Split, check_disjoint
from heldout.tasks.ragged import Ragged

IGNORED = -100  # PyTorch's mark for a target without loss: where the problem, not the answer, stands
_CHUNK = 10_000
_PATIENCE = 40  # chunks in a row without a new pair, after which there are no more

Draw = Callable[[int, np.random.Generator], Pairs]
Accept = Callable[[Pairs], Bools]


class Arithmetic:
    """The task: `settings`, `layout`, and `splits` by name; `pairs` are their operands.

    ================  ======  ===========================================================================
    ``train``         fit     the law's pairs, from the share of pairs that training may draw
    ``id_select``     select  the same law, from pairs set aside for choosing
    ``id``            test    the same law, from the rest
    ``len_...``       test    one `Cell` each: operand lengths, carries, leading digits
    ================  ======  ===========================================================================

    The unit and key of an item is the unordered pair of the operands' lowest n digits (n: the longest trained), so that no
    test pair is, or has the low parts of, a pair that training could draw, in either order. A hash of that pair and the
    seed says where it may stand; nothing depends on the order of drawing. With ``low_parts="any"`` the unit of pairs
    longer than trained is the whole pair. Within a split no ordered pair occurs twice.

    Inputs are the tokens of problem and answer but the last, targets the next tokens; loss and score cover the answer (sign
    and stop included), everything else has the target `IGNORED`. Strata: ``la``, ``lb`` (digits of the operands) and, of
    adding the lowest n digits, ``carried``, ``carry_out``, ``cascade`` (see `operations.Carries`).
    """

    def __init__(self, settings: ArithmeticSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self.layout: Layout = settings.make_layout()
        self.pairs: dict[str, Pairs] = {}
        roles: dict[str, tuple[Role, str]] = {}

        def add(name: str, role: Role, n: int, draw: Draw, accept: Accept, note: str) -> None:
            self.pairs[name], roles[name] = self._draw(name, n, draw, accept, whole=name == "train"), (role, note)

        s = settings
        law: Draw = lambda n, rng: s.parsed_law.draw(n, s.base, s.width, rng)  # noqa: E731
        add("train", "fit", s.train, law, lambda p: self._pool(p) == 0, f"operands by the law {s.law!r}")
        fresh = f"the law {s.law!r}, unordered pairs that are not in train"
        add("id_select", "select", s.select, law, lambda p: self._pool(p) == 1, f"{fresh}; the part that chooses")
        add("id", "test", s.held_out, law, lambda p: self._pool(p) == 2, fresh)
        for cell in s.tests:
            add(cell.name, "test", s.per_test, self._of(cell), self._accepts(cell), self._note(cell))
        keys = {name: self._keys(pairs) for name, pairs in self.pairs.items()}
        units = np.unique(np.concatenate(list(keys.values())), return_inverse=True)[1].astype(np.int64)
        ends = np.cumsum([len(k) for k in keys.values()])[:-1]
        self.splits = {
            name: Split(name, roles[name][0], self._items(self.pairs[name]), roles[name][1], keys=keys[name], units=own)
            for name, own in zip(keys, np.split(units, ends), strict=True)
        }
        check_disjoint(list(self.splits.values()))

    def answers(self, a: Digits, b: Digits) -> Signed:
        """The true answers, digits (N, `layout.answer_width`)."""
        s = self.settings
        negative, digits = operations.compute(s.operation, a, b, base=s.base, modulus=s.modulus)
        return Signed(negative, numerals.resize(digits, self.layout.answer_width))

    def low_parts(self, pairs: Pairs) -> Pairs:
        """pi_n of both operands: their lowest n digits, n the longest trained; the same widths, zeros above."""
        low = [x.copy() for x in pairs]
        for x in low:
            x[:, self.settings.digits :] = 0
        return Pairs(*low)

    # -- drawing --------------------------------------------------------------------------------------------------

    def _of(self, cell: Cell) -> Draw:
        def draw(n: int, rng: np.random.Generator) -> Pairs:
            base, width = self.settings.base, self.settings.width
            a, b = (of_length(np.full(n, length), base, width, rng) for length in (cell.la, cell.lb))
            if cell.leading is not None:
                a[:, cell.la - 1], b[:, cell.lb - 1] = cell.leading
            return Pairs(a, b)

        return draw

    def _accepts(self, cell: Cell) -> Accept:
        def accept(pairs: Pairs) -> Bools:
            carried, out, cascade = operations.carries(pairs, self.settings.digits, base=self.settings.base)
            meets: Bools = {"any": carried >= 0, "none": carried == 0, "out": out == 1, "cascade": cascade > 0}[
                cell.carry
            ]
            return meets & (self._pool(pairs) == 2) if self._apart(cell) else meets

        return accept

    def _apart(self, cell: Cell) -> bool:
        """Whether its low parts are kept apart from training's; those of pairs no longer than trained always are."""
        return self.settings.low_parts == "new" or max(cell.la, cell.lb) <= self.settings.digits

    def _note(self, cell: Cell) -> str:
        n = self.settings.digits
        carry = {
            "any": "",
            "none": f"; no carry in the lowest {n} digits",
            "out": f"; a carry into digit {n + 1}",
            "cascade": f"; a cascade of carries in the lowest {n} digits",
        }[cell.carry]
        leading = "" if cell.leading is None else "; leading digits {} and {}".format(*cell.leading)
        low = ", low parts not in train" if self._apart(cell) else ""
        return f"operands of exactly {cell.la} and {cell.lb} digits{carry}{leading}{low}"

    def _draw(self, name: str, n: int, draw: Draw, accept: Accept, *, whole: bool) -> Pairs:
        """`n` different accepted ordered pairs, or all that there are; of ``train``, `n` or a `SplitError`."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, zlib.crc32(name.encode()))))
        width = self.settings.width
        rows = np.empty((0, 2 * width), dtype=np.uint8)
        idle = 0
        while len(rows) < n and idle < _PATIENCE:
            drawn = draw(max(_CHUNK, n), rng)
            new = np.concatenate(drawn, axis=1)[accept(drawn)]
            joined = np.concatenate([rows, new])
            first = np.sort(np.unique(_bytes(joined), return_index=True)[1])
            idle = 0 if len(first) > len(rows) else idle + 1
            rows = joined[first]
        if not len(rows) or (whole and len(rows) < n):
            raise SplitError(
                f"arithmetic: split {name!r} cannot be drawn: {n} different pairs are wanted and {len(rows)} were found. "
                "Ask for fewer, for longer operands, or change train_share (the share of pairs that training may draw)"
            )
        return Pairs(rows[:n, :width], rows[:n, width:])

    def _pool(self, pairs: Pairs) -> NDArray[np.int64]:
        """(N,) where a pair may stand by its low parts: 0 in ``train``, 1 in ``id_select``, 2 in tests."""
        share = self.settings.train_share
        uniform = _hash(*self._canonical(self.low_parts(pairs)), self.seed)
        return np.digitize(uniform, (share, share + (1 - share) / 5)).astype(np.int64)

    def _canonical(self, pairs: Pairs) -> Pairs:
        """The smaller operand first."""
        swap = (numerals.compare(*pairs) > 0)[:, None]
        return Pairs(np.where(swap, pairs.b, pairs.a), np.where(swap, pairs.a, pairs.b))

    def _keys(self, pairs: Pairs) -> NDArray[np.bytes_]:
        """(N,) unit and key: the unordered pair as text, ``b'00345&00705'``."""
        if self.settings.low_parts == "new":
            pairs = self.low_parts(pairs)
        a, b = (_SYMBOLS[x[:, ::-1]] for x in self._canonical(pairs))
        both = np.concatenate([a, np.full((len(a), 1), ord("&"), dtype=np.uint8), b], axis=1)
        return np.ascontiguousarray(both).view(f"S{both.shape[1]}")[:, 0]

    # -- items ----------------------------------------------------------------------------------------------------

    def _items(self, pairs: Pairs) -> Items:
        s = self.settings
        written = self.layout.write(*pairs, self.answers(*pairs))
        carried, out, cascade = operations.carries(pairs, s.digits, base=s.base)
        labels = {"la": numerals.lengths(pairs.a), "lb": numerals.lengths(pairs.b)}
        return as_items(written, {**labels, "carried": carried, "carry_out": out, "cascade": cascade})


def arithmetic(settings: ArithmeticSettings | None = None, seed: int = 0) -> Arithmetic:
    """The task; `seed` draws its pairs. Raises `SplitError` where there are not enough."""
    return Arithmetic(settings or ArithmeticSettings(), seed)


def as_items(written: Written, labels: dict[str, NDArray[np.int64]]) -> Items:
    """Sequences as items for next-token prediction of their answers, with labels (N,); a rectangle where all have one
    length."""
    lengths = np.diff(written.offsets)
    inputs = np.delete(written.tokens, written.offsets[1:] - 1)
    targets = np.delete(written.tokens, written.offsets[:-1]).astype(np.int64)
    offsets = written.offsets - np.arange(len(written.offsets))
    place = np.arange(len(inputs)) - np.repeat(offsets[:-1], lengths - 1)
    scored = place >= np.repeat(written.prompts, lengths - 1) - 1
    targets = np.where(scored, targets, IGNORED)
    if (lengths == lengths[0]).all():
        shape = (len(lengths), lengths[0] - 1)
        return Rectangular(
            torch.from_numpy(inputs.astype(np.int64).reshape(shape)),
            torch.from_numpy(targets.reshape(shape)),
            scored=torch.from_numpy(scored.reshape(shape)),
            strata={k: torch.from_numpy(v) for k, v in labels.items()},
        )
    strata = {k: np.repeat(v, lengths - 1) for k, v in labels.items()}
    return Ragged(inputs, targets, offsets=offsets, pad=0, scored=scored, strata=strata)


_SYMBOLS = np.frombuffer(numerals.SYMBOLS.encode(), dtype=np.uint8)


def _bytes(rows: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(N,) each row of digits as one value that sorts; shifted, because trailing zero bytes do not count."""
    return np.ascontiguousarray(rows + np.uint8(1)).view(f"S{rows.shape[1]}")[:, 0]


def _hash(a: Digits, b: Digits, seed: int) -> NDArray[np.float64]:
    """(N,) a number from 0 to below 1 for each pair and seed, as good as uniform: SplitMix64 over the digits."""
    state = np.full(len(a), seed, dtype=np.uint64)
    for column in np.concatenate([a, b], axis=1).T:
        state += np.uint64(0x9E3779B97F4A7C15) + column
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53
