"""Arithmetic on numbers written as digits, in distribution and out of it.

The splits need torch and load when they are first used: numerals are also read where there is no network.
"""

from typing import TYPE_CHECKING, Any

from heldout.tasks.arithmetic.laws import Law, Pairs, Part
from heldout.tasks.arithmetic.layout import Layout, Parsed, Written
from heldout.tasks.arithmetic.operations import OPERATIONS, Carries, Operation, carries, compute
from heldout.tasks.arithmetic.settings import BATCH, PRESETS, ArithmeticSettings, Cell

if TYPE_CHECKING:
    from heldout.tasks.arithmetic.splits import Arithmetic, arithmetic

__all__ = [
    "BATCH",
    "OPERATIONS",
    "PRESETS",
    "Arithmetic",
    "ArithmeticSettings",
    "Carries",
    "Cell",
    "Law",
    "Layout",
    "Operation",
    "Pairs",
    "Parsed",
    "Part",
    "Written",
    "arithmetic",
    "carries",
    "compute",
]


def __getattr__(name: str) -> Any:
    if name not in ("Arithmetic", "arithmetic"):
        raise AttributeError(f"module 'heldout.tasks.arithmetic' has no attribute {name!r}")
    from heldout.tasks.arithmetic import splits

    return getattr(splits, name)
