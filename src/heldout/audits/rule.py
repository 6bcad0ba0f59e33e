"""The rule behind a network's answers to arithmetic: asked for batch by batch by a function of the user's.

B items of a batch: the function gives one operand a, one operand b and one answer for each.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heldout.analyses.equivalence.discovery import discover_rule
from heldout.analyses.equivalence.found import Relation
from heldout.analyses.equivalence.intake import number_in
from heldout.analyses.faithfulness import Subject
from heldout.audits.parts import Rule
from heldout.errors import ConfigError, HeldoutError
from heldout.networks.load import import_function, importable
from heldout.tasks.base import Batch, Split

FIELD = "rule.function"
PARTS = ("a", "b", "answers")
EXAMPLES = 8  # answers kept for the page, of each kind


def discovered(
    subject: Subject,
    split: Split,
    spec: Rule,
    folder: Path,
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[float, float, str], None] | None = None,
) -> Relation:
    """The relation in the answers to every item of `split`, in its order.

    Raises `ConfigError` where the function fails, or does not return one operand a, one b and one answer for each item.
    """
    function = import_function(spec.function, folder, field=FIELD)
    columns: dict[str, list[Any]] = {part: [None] * len(split) for part in PARTS}
    done = 0
    for batch in split.batches(batch_size):
        given = _asked(function, subject, batch.to(subject.device), folder)
        for part, values in _checked(given, batch, spec).items():
            for item, value in zip(batch.index.tolist(), values, strict=True):
                columns[part][item] = value
        done += len(batch)
        if progress is not None:
            progress(done, len(split), f"answers on {split.name}")
    return discover_rule(*columns.values(), operation=spec.operation, modulus=spec.modulus, base=spec.base, seed=seed)


def record(found: Relation) -> dict[str, Any]:
    """`Relation.record`, with some answers that follow the rule and some that do not (some of all where there is none)."""
    frame = found.answers()
    frame = frame.astype(object).where(frame.notna(), None)
    follows = frame["follows_rule"].astype(bool)
    return {
        **found.record(),
        "follow": frame[follows].head(EXAMPLES).to_dict("records"),
        "differ": frame[~follows].head(EXAMPLES).to_dict("records"),
        "differing": int((~follows).sum()),
    }


def _asked(function: Callable[..., Any], subject: Subject, batch: Batch, folder: Path) -> Any:
    try:
        with torch.no_grad(), importable(folder):
            return function(subject.network, batch)
    except HeldoutError:
        raise
    except Exception as error:
        raise ConfigError(f"{FIELD}: the function failed {_items(batch)}: {type(error).__name__}: {error}") from error


def _checked(given: Any, batch: Batch, spec: Rule) -> dict[str, list[Any]]:
    """The three columns of one batch, operands as whole numbers."""
    if not isinstance(given, tuple | list) or len(given) != len(PARTS):
        what = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        raise ConfigError(f"{FIELD} returned {what} {_items(batch)}; (a, b, answers) is needed")
    columns = {part: _column(part, values, batch) for part, values in zip(PARTS, given, strict=True)}
    sizes = {part: len(values) for part, values in columns.items()}
    if set(sizes.values()) != {len(batch)}:
        found = ", ".join(f"{n} {part}" for part, n in sizes.items())
        raise ConfigError(f"{FIELD} returned {found} for {len(batch)} items; one of each for each item is needed")
    for part in ("a", "b"):
        columns[part] = [_operand(v, part, int(i), spec.base) for v, i in zip(columns[part], batch.index, strict=True)]
    for item, answer in zip(batch.index.tolist(), columns["answers"], strict=True):
        if answer is not None and not isinstance(answer, str) and not _whole(answer):
            raise ConfigError(
                f"{FIELD}: the answer to item {item} is {answer!r}; a whole number, text, or None (no answer) is needed"
            )
    return columns


def _column(part: str, values: Any, batch: Batch) -> list[Any]:
    """A sequence, array or tensor as a list; arrays must be one-dimensional."""
    if isinstance(values, Tensor | np.ndarray):
        if values.ndim != 1:
            raise ConfigError(
                f"{FIELD} returned {part} of shape {tuple(values.shape)} {_items(batch)}; one number for each item, "
                f"({len(batch)},), is needed"
            )
        return list(values.tolist())
    if isinstance(values, str | dict) or not isinstance(values, Iterable):
        raise ConfigError(
            f"{FIELD} returned a {type(values).__name__} as {part} {_items(batch)}; a sequence with one entry for each "
            "item is needed"
        )
    return list(values)


def _operand(value: Any, part: str, item: int, base: int) -> int:
    number = number_in(value, base) if isinstance(value, str) or _whole(value) else None
    if number is None or number < 0:
        raise ConfigError(
            f"{FIELD}: {part} of item {item} is {value!r}; a whole number from 0, or one as text in base {base}, is needed"
        )
    return number


def _whole(value: Any) -> bool:
    """Whether a value is a whole number and no truth value: Python's, NumPy's, or a tensor of one."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _items(batch: Batch) -> str:
    return f"for {len(batch)} items (numbers {int(batch.index.min())} to {int(batch.index.max())})"
