"""What the task is made of, as data; the papers' settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from heldout.errors import ConfigError, unknown
from heldout.tasks.arithmetic import layout as layouts
from heldout.tasks.arithmetic import numerals, operations
from heldout.tasks.arithmetic.laws import LONGEST, Law
from heldout.tasks.arithmetic.layout import Layout
from heldout.tasks.arithmetic.operations import Operation

Carry = Literal["any", "none", "out", "cascade"]
CARRIES: tuple[Carry, ...] = ("any", "none", "out", "cascade")
LowParts = Literal["new", "any"]
LOW_PARTS: tuple[LowParts, ...] = ("new", "any")


@dataclass(frozen=True)
class Cell:
    """A test split: operands of exactly `la` and `lb` digits, uniform among those that meet the rest.

    - `carry`: what adding the lowest n digits does (n: the longest trained): ``none`` carries nowhere, ``out`` into digit
      n + 1, ``cascade`` through a digit sum of base - 1 at least once.
    - `leading`: the most significant digit of both operands.
    """

    la: int
    lb: int
    carry: Carry = "any"
    leading: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """``len_4_3``, ``len_4_4_carry_out``, ``len_4_4_leading_9_1``."""
        carry = "" if self.carry == "any" else f"_carry_{self.carry}"
        leading = "" if self.leading is None else "_leading_{}_{}".format(*self.leading)
        return f"len_{self.la}_{self.lb}{carry}{leading}"


# Shorter, mixed, and up to two digits longer than trained, as they were measured for three digits.
LENGTHS = ((1, 1), (2, 2), (3, 4), (4, 3), (4, 4), (3, 5), (5, 3), (5, 5))


@dataclass(frozen=True)
class ArithmeticSettings:
    """Settings of the task.

    - `operation` in `base` (2 to 36), with a `modulus` for the modular ones; `law` of operand lengths in training, see
      `Law.parse`.
    - `layout`: see `heldout.tasks.arithmetic.layout`. `width`: the most digits of an operand; `answer_width`: of an
      answer, by default as many as there can be.
    - `train`, `select`, `held_out`: ordered pairs in ``train``, ``id_select``, ``id``. `tests`: the other splits, of
      `per_test` pairs each, or of all that there are.
    - `train_share`: the share of unordered pairs that training may draw from; of the others a fifth is for choosing.
    - `low_parts`: whether test pairs longer than trained have low parts that training could not draw (``new``), or
      ``any``, as in the paper.
    """

    operation: Operation = "add"
    law: str = "at_most 3"
    base: int = 10
    modulus: int | None = None
    layout: layouts.Kind = "padded"
    width: int = 5
    answer_width: int | None = None
    reversed_answer: bool = True
    reversed_operands: bool = False
    train: int = 10_000
    select: int = 2_000
    held_out: int = 2_000
    tests: tuple[Cell, ...] = tuple(Cell(*pair) for pair in LENGTHS)
    per_test: int = 2_000
    train_share: float = 0.5
    low_parts: LowParts = "new"

    def __post_init__(self) -> None:
        numerals.check_base(self.base)
        if self.operation not in operations.OPERATIONS:
            raise ConfigError(f"arithmetic: {unknown('operation', str(self.operation), operations.OPERATIONS)}")
        if self.low_parts not in LOW_PARTS:
            raise ConfigError(f"arithmetic: {unknown('low_parts', str(self.low_parts), LOW_PARTS)}")
        modular = self.operation.startswith("mod_")
        if modular != (self.modulus is not None):
            raise ConfigError(
                f"arithmetic: {self.operation} takes {'a' if modular else 'no'} modulus, got {self.modulus}"
            )
        if self.modulus is not None and not 2 <= self.modulus <= numerals.LARGEST_MODULUS:
            raise ConfigError(
                f"arithmetic: the modulus must be from 2 to {numerals.LARGEST_MODULUS}, got {self.modulus}"
            )
        for name in ("train", "select", "held_out", "per_test"):
            if getattr(self, name) < 1:
                raise ConfigError(f"arithmetic: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.train_share < 1:
            raise ConfigError(f"arithmetic: train_share must lie between 0 and 1, got {self.train_share}")
        if not self.digits <= self.width <= LONGEST:
            raise ConfigError(
                f"arithmetic: width must be from the longest trained operand ({self.digits}) to {LONGEST}, got {self.width}"
            )
        least = operations.answer_digits(self.operation, self.width, base=self.base, modulus=self.modulus)
        if self.answer_width is not None and self.answer_width < least:
            raise ConfigError(f"arithmetic: answers have up to {least} digits, but answer_width is {self.answer_width}")
        self.make_layout()  # refuses an unknown kind
        for cell in self.tests:
            self._check(cell)
        names = [cell.name for cell in self.tests]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"arithmetic: test split {twice} is given twice")

    def _check(self, cell: Cell) -> None:
        if not all(1 <= n <= self.width for n in (cell.la, cell.lb)):
            raise ConfigError(
                f"arithmetic: test split {cell.name} needs operand lengths from 1 to the width ({self.width})"
            )
        if cell.carry not in CARRIES:
            raise ConfigError(f"arithmetic: {unknown('carry', str(cell.carry), CARRIES)}")
        if cell.carry != "any" and self.operation not in ("add", "mod_add"):
            raise ConfigError(f"arithmetic: test split {cell.name} is about carries, but {self.operation} does not add")
        for digits, leading in zip((cell.la, cell.lb), cell.leading or (1, 1), strict=True):
            if not (digits > 1) <= leading < self.base:
                raise ConfigError(
                    f"arithmetic: test split {cell.name}: the leading digit of {digits} digits must be from "
                    f"{int(digits > 1)} to {self.base - 1}, got {leading}"
                )

    @cached_property
    def parsed_law(self) -> Law:
        return Law.parse(self.law)

    @property
    def digits(self) -> int:
        """The longest operand of training: n."""
        return self.parsed_law.digits

    def make_layout(self) -> Layout:
        least = operations.answer_digits(self.operation, self.width, base=self.base, modulus=self.modulus)
        return Layout(
            self.layout,
            self.operation,
            self.base,
            self.width,
            least if self.answer_width is None else self.answer_width,
            self.reversed_answer,
            self.reversed_operands,
        )


def _modular(operation: Operation, modulus: int, digits: int, law: str, train: int) -> ArithmeticSettings:
    """One modular task of the follow-up: operands of 20 digits, answers of 21, tests of equal lengths from 1 to 9."""
    return ArithmeticSettings(
        operation=operation,
        modulus=modulus,
        law=law,
        layout="separated",
        width=20,
        answer_width=21,
        train=train,
        tests=tuple(Cell(m, m) for m in range(1, 10)),
        per_test=10_000,
    )


# What the sources state (paper 1) or what stands in for what they do not (the follow-up's sizes for p other than 150).
PRESETS: Mapping[str, ArithmeticSettings] = MappingProxyType(
    {
        "paper_addition": ArithmeticSettings(per_test=10_000, held_out=10_000),
        "paper_addition_exactly": ArithmeticSettings(law="exactly 3", per_test=10_000, held_out=10_000),
        "paper_multiplication": ArithmeticSettings(operation="multiply", train=50_000, held_out=5_000, per_test=1_000),
        **{
            f"mod_add_{p}": _modular("mod_add", p, 4, "either 4", 100_000)
            for p in (50, 51, 100, 101, 150, 151, 200, 201)
        },
        **{
            f"mod_multiply_{p}": _modular("mod_multiply", p, 3, "either 3", 500_000)
            for p in (50, 51, 100, 101, 150, 151, 200, 201)
        },
    }
)
BATCH = 64  # ordered pairs in a training batch, in both papers
