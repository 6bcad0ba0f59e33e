"""Sums by one label at a time against the same sums taken from the table of every combination."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small

from heldout.analyses.estimates import Column, Scores
from heldout.analyses.marginals import CATEGORY, Categories, Marginals
from heldout.analyses.tables import Memory
from heldout.errors import EvidenceError

CATEGORIES = Categories({"colour": ("red", "green"), "size": ("small", "middle", "large")})
CELL = small.cell()


def rows(n: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = {"unit": rng.integers(0, 5, n) * 10**12, "colour": rng.integers(0, 2, n), "size": rng.integers(0, 3, n)}
    return labels | {"margin_bin": rng.integers(0, 4, n), "n": np.ones(n), "same": rng.integers(0, 2, n).astype(float)}


def passed(*parts: dict[str, np.ndarray]) -> Scores:
    memory = Memory()
    with Marginals(memory, CATEGORIES) as sink:
        for part in parts:
            sink.add(CELL, part)
    return Scores.from_memory(memory)


def sums(scores: Scores, metric: str, stratum: str | None = None, value: int | None = None) -> dict[int, float]:
    units, values = scores.sums(Column("net", 0, "id", "svd", "here", metric, stratum, value))
    return dict(zip(units.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("axis", "name", "number"), [("colour", "green", 1), ("size", "small", 0), ("size", "large", 2)]
)
def test_each_category_is_the_sum_over_the_others(axis: str, name: str, number: int) -> None:
    table = rows()
    found = sums(passed(table), "same", CATEGORY, CATEGORIES.code(axis, name))
    for unit in np.unique(table["unit"]):
        here = (table["unit"] == unit) & (table[axis] == number)
        assert found[int(unit)] == table["same"][here].sum()


def test_margin_bins_and_whole_ratios_stay_what_they_are() -> None:
    table = rows()
    scores = passed(table)
    for b in range(4):
        assert sum(sums(scores, "n", "margin_bin", b).values()) == (table["margin_bin"] == b).sum()
    whole = sum(sums(scores, "same").values()) / sum(sums(scores, "n").values())
    assert whole == pytest.approx(table["same"].mean())
    assert sum(sums(scores, "n").values()) == 3 * 200  # each prediction once an axis, and once by margin


def test_batches_of_a_split_become_one_row_a_unit_and_category() -> None:
    first, second = rows(), rows(seed=1)
    together = {k: np.concatenate([first[k], second[k]]) for k in first}
    a, b = passed(first, second), passed(together)
    assert sums(a, "same") == sums(b, "same")
    memory = Memory()
    with Marginals(memory, CATEGORIES) as sink:
        sink.add(CELL, first)
        sink.add(CELL, second)
    ((_, (columns,)),) = memory.parts.values()
    assert len(columns["n"]) <= 5 * (5 + 4)


def test_an_axis_that_a_cell_lacks_is_left_out() -> None:
    table = rows()
    del table["size"]
    scores = passed(table)
    assert sum(sums(scores, "n").values()) == 2 * 200
    assert sum(sums(scores, "n", CATEGORY, CATEGORIES.code("size", "large")).values()) == 0


def test_categories_are_numbered_without_overlap() -> None:
    assert [code for _, _, code in CATEGORIES.listed()] == [0, 1, 2, 3, 4]
    assert CATEGORIES.code("size", 2) == CATEGORIES.code("size", "large") == 4
    with pytest.raises(EvidenceError, match="labels 0 to 1"):
        CATEGORIES.code("colour", 2)


def test_two_edits_under_one_name_are_refused() -> None:
    other = replace(CELL, edit=replace(CELL.edit, fit_split="elsewhere"))
    sink = Marginals(Memory(), CATEGORIES)
    sink.add(CELL, rows())
    with pytest.raises(EvidenceError, match="two edits"):
        sink.add(other, rows())
