"""The size between two of the grid, and draws of one edit as one row: on edits whose agreement is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.analyses.audit import Choice, Plan, refine
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.tables import Memory
from heldout.tasks.base import Rectangular, Split

N = 100


def keeps(parameter: int) -> Edit:
    """Keeps the predictions of the first `parameter` of N items and changes the others."""

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        return torch.where(rows[:, 2:] > -10 - parameter, rows, rows[:, [1, 0, 2]])

    return Edit.function("0", function, name="first", parameter=parameter)


def data(role: Any = "select") -> Split:
    logits = torch.tensor([1.0, 0.0, 0.0]).repeat(N, 1)
    logits[:, 2] = -10.0 - torch.arange(N)
    return Split("id_select", role, Rectangular(logits))


def subject() -> Subject:
    return Subject(nn.Sequential(nn.Identity()))


@pytest.mark.parametrize(
    ("grid", "start", "wanted", "built"),
    [((64, 128), 128, 95, 6), ((94, 95), 95, 95, 0), ((96, 128), 96, 96, 0), ((1, 100), 100, 95, 7)],
)
def test_the_smallest_size_that_reaches_the_threshold(grid: Any, start: int, wanted: int, built: int) -> None:
    calls = []

    def build(subject: Subject, split: Split, oracle: bool, among: Any) -> list[Edit]:
        ((site, name, parameter),) = among
        assert (site, name, split.role, oracle) == ("0", "first", "fit", False)
        calls.append(parameter)
        return [keeps(parameter)]

    edits = [keeps(p) for p in grid]
    pick = Choice(edits[grid.index(start)], min(start, N) / N, reached=start >= 95)
    splits = {"fit": data("fit"), "id_select": data()}
    found = refine(subject(), splits, Plan(reference="id", tests=()), pick, edits, build)
    assert found.edit.origin.parameter == wanted
    assert found.agreement == min(wanted, N) / N
    assert found.reached
    assert len(calls) <= built


def test_what_reaches_nothing_stays() -> None:
    pick = Choice(keeps(90), 0.9, reached=False)

    def build(subject: Subject, split: Split, oracle: bool, among: Any) -> list[Edit]:
        raise AssertionError("nothing is fitted")

    splits = {"fit": data("fit"), "id_select": data()}
    assert refine(subject(), splits, Plan(reference="id", tests=()), pick, [keeps(64), pick.edit], build) is pick


def test_draws_of_one_origin_are_one_row_a_unit() -> None:
    memory = Memory()
    draws = [keeps(p) for p in (40, 60)]
    draws = [Edit(d.functions, draws[0].origin) for d in draws]
    outcome = faithfulness(subject(), [data()], draws, memory)
    ((_, parts),) = memory.parts.values()
    rows = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    assert sorted(rows["unit"].tolist()) == list(range(N))
    assert set(rows["n"].tolist()) == {2.0}
    assert rows["same"].sum() == 100
    assert [a["id_select"] for a in outcome.agreement] == [0.4, 0.6]
