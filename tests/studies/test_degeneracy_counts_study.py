"""Degeneracy planted and counted as the degeneracy study does it, and counted over a short training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from heldout.runs.steps import StepContext
from heldout.studies.degeneracy_counts import (
    FOUND,
    PLANTS,
    WIDTHS,
    count_over_training,
    in_general_position,
    plant,
    shift,
)
from heldout.training.seeds import generator

DIGITS: dict[str, Any] = {
    "seed": 100,
    "items": 60,
    "hidden": 4,
    "moments": [5],
    "steps": 20,
    "batch": 64,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "relative": [1e-12, 1e-6, 1e-2],
}


def run(tmp_path: Path, function: Any, settings: dict[str, Any]) -> Any:
    out = tmp_path / "step" / "out"
    out.mkdir(parents=True)
    function(StepContext("step", settings, {}, out=out, device="cpu"))
    return json.loads((out / FOUND).read_text())


@pytest.mark.parametrize("seed", [100, 107])
def test_what_is_planted_is_counted_and_moves_components_alone(tmp_path: Path, seed: int) -> None:
    found = run(tmp_path, plant, {"seed": seed})
    assert found["null"] == WIDTHS[1]
    for kind in PLANTS:
        assert found[kind]["counted"] == found[kind]["expected"] > 0
        assert found[kind]["unexplained"] == 0
        assert found[kind]["change"] < 1e-12
        assert found[kind]["interaction"] < 1e-9
        assert found[kind]["components"] > 1e-3


def test_another_network_is_seen_to_be_another() -> None:
    inputs = torch.from_numpy(generator(100, "data").normal(size=(150, WIDTHS[0])))
    one, other = in_general_position(inputs, 100), in_general_position(inputs, 101)
    assert shift(one, one, inputs, "lib") < 1e-12
    assert shift(one, other, inputs, "lib") > 0.01


def test_counts_along_a_training_run(tmp_path: Path) -> None:
    rows = run(tmp_path, count_over_training, DIGITS)
    assert [row["step"] for row in rows] == [0, 5, 20]
    for row in rows:
        assert row["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
        assert row["n"] == 60
        shares = [row["share"][t] for t in ("1e-12", "1e-06", "0.01")]
        assert 0 < shares[0] <= shares[1] <= shares[2] < 1  # constant pixels are free from the start
