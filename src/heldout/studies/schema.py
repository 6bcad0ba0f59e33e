"""What every setting that a user writes has to be: plain data, and the kind of thing that the field is.

Text that is written as a number is taken for it (``--set learning_rate=.5``, and ``1e-3`` in YAML, are text to their
readers), a whole number may have a decimal point (``2e3``). What would change on the way in is refused: a truth value is no
number, NaN and infinity are none, and a whole number has to be one that a float64 holds as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from heldout.errors import ConfigError

LARGEST = 2**53  # up to here a float64 holds every whole number
DEEPEST, MOST = 40, 100_000  # levels, and values in all, that no settings need
LONGEST = 200  # characters of what was given, in a message

Seeds = Annotated[int, Field(gt=0, le=1_000)]
FirstSeed = Annotated[int, Field(ge=0, le=1_000_000_000)]  # of numpy, torch and scikit-learn, the last takes 32 bits


class Schema(BaseModel):
    """Base of settings: frozen, unknown fields are errors, numbers are finite and never truth values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value(cls, given: Any) -> Any:
        for name, field in cls.model_fields.items():
            for key in {name, field.alias or name} if isinstance(given, Mapping) else ():
                if (
                    key in given
                    and not _takes_truth_values(cls, name)
                    and any(type(v) is bool for v in _leaves(given[key]))
                ):
                    raise ValueError(f"{key}: true and false are not accepted here, got {short(given[key])}")
        return given

    @field_validator("*", mode="after")
    @classmethod
    def _no_vast_number(cls, value: Any) -> Any:
        if vast := [v for v in _leaves(value) if isinstance(v, int) and abs(v) > LARGEST]:
            raise ValueError(f"whole numbers are at most 2^53, got one of {vast[0].bit_length()} bits")
        return value


def check_plain(value: Any, where: str) -> None:
    """Raise `ConfigError` unless `value` is made of text, finite numbers, true, false, null, lists, and mappings with text
    for keys, which are what is kept of settings; `where` names it."""
    count = 0

    def visit(value: Any, where: str, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > DEEPEST or count > MOST:
            limit = f"deeper than {DEEPEST} levels" if depth > DEEPEST else f"more than {MOST} values"
            raise ConfigError(f"{where[:LONGEST]} is {limit}; does something in it refer to itself?")
        if isinstance(value, list | tuple):
            for number, item in enumerate(value):
                visit(item, f"{where}.{number}", depth + 1)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ConfigError(f"{where}: the key {short(key)} is no text; write it in quotes")
                visit(key, where, depth + 1)
                visit(item, f"{where}.{key}", depth + 1)
        elif isinstance(value, str):
            if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
                raise ConfigError(f"{where}: {short(value)} has a character that can stand in no file; leave it out")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ConfigError(f"{where}: a finite number is needed, got {value}")
        elif isinstance(value, int):
            if abs(value) > LARGEST:
                raise ConfigError(f"{where}: whole numbers are at most 2^53, got one of {value.bit_length()} bits")
        elif value is not None and not isinstance(value, BaseModel):
            raise ConfigError(
                f"{where} is a {type(value).__name__}; accepted are text, numbers, true, false, null, lists and mappings. "
                "Text that is read as something else is written in quotes"
            )

    visit(value, where, 0)


def short(value: Any) -> str:
    """`value` as code would write it, for a message: the beginning of what is long."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a whole number of {value.bit_length()} bits"
    written = repr(value)
    return written if len(written) <= LONGEST else f"{written[:LONGEST]} ..."


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    else:
        yield value


@cache
def _takes_truth_values(model: type[BaseModel], field: str) -> bool:
    """Whether the field may hold them somewhere; parts that are models look for themselves."""

    def mentions(annotation: Any) -> bool:
        if annotation in (bool, Any) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return True
        return any(mentions(a) for a in get_args(annotation))

    return mentions(model.model_fields[field].annotation)
