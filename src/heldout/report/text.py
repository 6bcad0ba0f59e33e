"""How numbers and tables are written on a page and in the files it offers."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

NONE = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def cell(value: Any) -> str:
    """`value` as an entry of a table: counts with thousands separators, other numbers with four significant digits."""
    if value is None or value is pd.NA or (isinstance(value, Real) and math.isnan(value)):
        return NONE
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return minus(f"{int(value):,}")
    if isinstance(value, Real):
        return significant(float(value))
    return str(value)


def estimate(value: float) -> str:
    """`value` with three decimals; more where that would show nothing but zeros."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else significant(value)
    return minus(f"{value:.3f}") if value == 0 or abs(value) >= 0.001 else significant(value, 2)


def significant(value: float, digits: int = 4) -> str:
    """`value` with `digits` significant digits, in powers of ten where it is very large or small."""
    mantissa, _, power = f"{value:.{digits}g}".partition("e")
    if not power:
        return minus(mantissa.replace("inf", "∞"))
    raised = f"10{str(int(power)).translate(SUPERSCRIPT)}"
    return raised if mantissa == "1" else minus(f"{mantissa} × ") + raised


def interval(low: float, high: float) -> str:
    """An interval in brackets, or a dash where there is none."""
    return NONE if math.isnan(low) or math.isnan(high) else f"[{estimate(low)}, {estimate(high)}]"


def p_value(p: float | None) -> str:
    """A p-value as journals print it."""
    if p is None or math.isnan(p):
        return NONE
    return "<\N{NO-BREAK SPACE}.001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}".removeprefix("0")


def minus(text: str) -> str:
    """`text` with true minus signs."""
    return text.replace("-", "\N{MINUS SIGN}")


def slug(text: str) -> str:
    """`text` as part of a file name: lower-case ASCII letters, digits and hyphens, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "data"


def csv_uri(data: pd.DataFrame) -> str:
    """`data` as a CSV file in a ``data:`` address: full precision, so that reading it gives the same numbers."""
    text = data.to_csv(index=False, lineterminator="\n")
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, text) for every leaf of nested mappings, in order; lists are written as JSON."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, ensure_ascii=False, default=str)
