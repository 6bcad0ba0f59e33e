"""How numbers are written, and where marks stand on a strip."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from heldout.report import text
from heldout.report.strip import EDGE, WIDTH, forest_strip


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1234567, "1,234,567"),
        (-3, "−3"),
        (0.123456, "0.1235"),
        (-0.5, "−0.5"),
        (1e-5, "10⁻⁵"),
        (2.4e-7, "2.4 × 10⁻⁷"),
        (-3e12, "−3 × 10¹²"),
        (math.nan, "–"),
        (None, "–"),
        (pd.NA, "–"),
        (-math.inf, "−∞"),
        (True, "yes"),
        (np.False_, "no"),
        (np.float64(0.25), "0.25"),
        (np.int64(1000), "1,000"),
        ("a-b", "a-b"),
    ],
)
def test_entries_of_tables(value: object, written: str) -> None:
    assert text.cell(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.1, "0.100"), (0.0, "0.000"), (-0.0123, "−0.012"), (0.00042, "0.00042"), (1e-9, "10⁻⁹"), (math.inf, "∞")],
)
def test_estimates(value: float, written: str) -> None:
    assert text.estimate(value) == written


@pytest.mark.parametrize(
    ("p", "written"),
    [(0.0004, "<\N{NO-BREAK SPACE}.001"), (0.04, ".040"), (1.0, "1"), (0.9999, "1"), (math.nan, "–"), (None, "–")],
)
def test_p_values(p: float | None, written: str) -> None:
    assert text.p_value(p) == written


def test_intervals_slugs_and_flat_settings() -> None:
    assert text.interval(-1, 0.5) == "[−1.000, 0.500]"
    assert text.interval(math.nan, 0.5) == "–"
    assert text.slug("</Gap> of Things!") == "gap-of-things"
    assert text.slug("中") == "data"
    settings = {"a": {"b": [1, 2], "c": {}}, "d": "text", "e": None}
    assert list(text.flat(settings)) == [("a.b", "[1, 2]"), ("a.c", "{}"), ("d", "text"), ("e", "null")]


def places(svg: str, kind: str, attribute: str) -> list[float]:
    return [float(v) for v in re.findall(rf'class="{kind}"[^>]*? {attribute}="([\d.-]+)"', svg)]


def test_a_strip_is_linear_between_its_ends() -> None:
    svg = forest_strip(0.5, 0.25, 1.0, delta=0.1)
    inside = WIDTH - 2 * EDGE
    assert places(svg, "zero", "x1") == [EDGE]
    assert places(svg, "delta", "x1") == pytest.approx([EDGE + 0.1 * inside], abs=0.06)
    assert places(svg, "estimate", "cx") == pytest.approx([EDGE + 0.5 * inside], abs=0.06)
    assert places(svg, "interval", "x1") == pytest.approx([EDGE + 0.25 * inside], abs=0.06)
    assert places(svg, "interval", "x2") == [WIDTH - EDGE]


def test_a_strip_without_interval_or_estimate_and_with_endless_ends() -> None:
    assert forest_strip(math.nan, 0, 1, delta=0.1) == ""
    assert 'class="interval"' not in forest_strip(0.1, math.nan, math.nan, delta=0.1)
    endless = forest_strip(0.1, -math.inf, math.inf, delta=0.0)
    assert places(endless, "interval", "x1") + places(endless, "interval", "x2") == [0, WIDTH]
    assert 'class="delta"' not in endless  # at zero, where the zero line is
    assert len(places(forest_strip(0.0, -1, 1, delta=0.5, both_sides=True), "delta", "x1")) == 2
