"""The primer of the nuclear study: a small cell trained and measured, and the claim's theta on tables made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heldout.analyses.geometry.algorithms import LABELS
from heldout.runs.steps import StepContext
from heldout.studies.nuclear_primer import (
    CIRCLES,
    KNOWN,
    KNOWN_RIGHT,
    MEASURED,
    both_shares,
    class_table,
    every_pair,
    measure_cell,
    name_known,
    network_of,
    networks_of,
    primer_gates,
    primer_networks,
    primer_theta,
    task_of,
    train_cell,
    trained_pairs,
    weights_name,
)
from heldout.training.checkpoints import load_weights

SMALL: dict[str, Any] = {
    "modulus": 5,
    "pooling": "concat",
    "width": 4,
    "hidden": 32,
    "weight_decay": 0.1,
    "shares": [0.5, 1.0],
    "seeds": [100, 101],
    "steps": 200,
    "learning_rate": 3e-2,
}


def test_the_pairs_trained_on_are_the_task_s_and_differ_by_seed() -> None:
    half = trained_pairs(SMALL, 0.5, 100)
    inputs = np.asarray(task_of(SMALL, 100, 0.5).splits["train"].items.take(np.arange(half.sum())).inputs)
    assert half[inputs[:, 0], inputs[:, 1]].all()
    assert (half == half.T).all()
    assert (half != trained_pairs(SMALL, 0.5, 101)).any()
    assert trained_pairs(SMALL, 1.0, 100).all()


def test_every_pair_is_there_with_its_sum() -> None:
    batch = every_pair(5)
    assert len({tuple(pair) for pair in batch.inputs.tolist()}) == 25
    assert batch.targets is not None
    assert torch.equal(batch.inputs.sum(1) % 5, batch.targets)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("weights", "measured", "known")}
    train_cell(StepContext("train", SMALL, {}, out=folders["weights"], device="cpu"))
    inputs = {"weights": folders["weights"]}
    measure_cell(StepContext("measure", SMALL, inputs, out=folders["measured"], device="cpu"))
    name_known(StepContext("known", {"modulus": 11}, {}, out=folders["known"], device="cpu"))
    return folders


def test_a_cell_is_trained_and_measured_throughout(cell: dict[str, Path]) -> None:
    rows = pd.read_parquet(cell["measured"] / MEASURED)
    assert [tuple(r) for r in rows[["share", "seed"]].to_numpy()] == networks_of(SMALL)
    assert (rows["train_accuracy"] == 1).all()
    # No loss falls on what is held out, and the network fits the rest in its own way.
    full, half = rows[rows["all_pairs"]], rows[~rows["all_pairs"]]
    assert list(full["share"]) == [1.0, 1.0]
    assert (full["accuracy"] == 1).all()
    assert (half["accuracy"] < 1).all()
    circles = pd.read_parquet(cell["measured"] / CIRCLES)
    assert len(circles) == len(rows) * 2
    assert circles.groupby(["share", "seed"])["power"].sum().to_numpy() == pytest.approx(1)
    for share, seed in networks_of(SMALL):
        network = network_of(SMALL, seed)
        record = load_weights(network, cell["weights"] / weights_name(share, seed))
        assert (record["share"], record["seed"]) == (share, seed)


def test_closed_form_networks_are_named_right(cell: dict[str, Path]) -> None:
    known, answered = primer_gates([cell["measured"]], cell["known"])
    assert (known.name, known.passed, known.value) == (KNOWN_RIGHT, True, "all 8")
    assert not answered.passed
    assert {n["right"] for n in json.loads((cell["known"] / KNOWN).read_text()).values()} == set(LABELS)


def test_a_wrong_name_fails_the_gate(cell: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / KNOWN).write_text(json.dumps({"clock": {"label": "pizza", "right": "clock"}}))
    known, _ = primer_gates([cell["measured"]], tmp_path)
    assert (known.passed, known.value) == (False, "clock called pizza")


def written(folder: Path, networks: list[dict[str, Any]]) -> list[Path]:
    """One folder for each pooling, as `measure_cell` would leave it."""
    default = {"modulus": 11, "width": 4, "weight_decay": 1.0, "share": 0.8, "all_pairs": False, "accuracy": 1.0}
    counts = {
        "pizza": {"pizzas": 2},
        "clock": {"clocks": 1},
        "both": {"pizzas": 1, "clocks": 2},
        "mixed": {"mixed": 3},
        "unclear": {},
    }
    table = pd.DataFrame(
        [
            {**default, "one_circle": False, "pizzas": 0, "clocks": 0, "mixed": 0, "pooling": "concat"}
            | counts[n["label"]]
            | n
            for n in networks
        ]
    )
    folders = []
    for pooling, rows in table.groupby("pooling"):
        folders.append(folder / str(pooling))
        folders[-1].mkdir()
        rows.to_parquet(folders[-1] / MEASURED, index=False)
    return folders


def nets(seed: int, pooling: str = "concat", **labels: int) -> list[dict[str, Any]]:
    return [{"seed": seed, "label": label, "pooling": pooling} for label, count in labels.items() for _ in range(count)]


def test_theta_is_the_share_of_the_rarer_algorithm(tmp_path: Path) -> None:
    networks = [
        *nets(0, pizza=3, clock=6, both=1, unclear=20),
        *nets(1, clock=8),
        *nets(2, mixed=8),
        *nets(3, both=5),
        *nets(4, pizza=2, clock=2, unclear=9),
        *nets(1, "mean", pizza=8),
    ]
    folders = written(tmp_path, networks)
    found = {t.seed: t for t in primer_theta(folders)}
    assert found[0].value == pytest.approx(0.4)
    assert found[0].networks == 10
    assert (found[1].value, found[2].value, found[3].value) == (0, 0, 1)
    assert np.isnan(found[4].value)
    assert found[4].reason == "4 of 13 networks are named; 5 are needed"
    assert {t.seed: t.value for t in primer_theta(folders, poolings=["mean", "concat"])}[1] == 0.5
    shares = both_shares(folders).set_index(["seed", "pooling"])
    assert shares.loc[(0, "concat"), "both"] == pytest.approx(0.1)
    assert tuple(shares.loc[(2, "concat"), ["both", "mixed"]]) == (0, 1)
    assert shares.loc[(1, "mean"), "networks"] == 8


def test_classes_are_counted_by_cell(tmp_path: Path) -> None:
    networks = [*nets(0, pizza=2, unclear=1), *nets(0, "mean", unclear=1)]
    networks[2]["accuracy"] = 0.3
    found = class_table(written(tmp_path, networks)).set_index("pooling")
    assert tuple(found.loc["concat", ["networks", "answer", "pizza", "unclear"]]) == (3, 2, 2, 1)
    assert tuple(found.loc["mean", ["networks", "answer", "pizza", "unclear"]]) == (1, 1, 0, 1)


def test_the_gate_counts_networks_that_answer_unseen_pairs(tmp_path: Path, cell: dict[str, Path]) -> None:
    networks = [*nets(0, pizza=2, unclear=1), *nets(1, clock=1)]
    networks[0]["accuracy"] = 0.5
    networks[1]["all_pairs"] = True
    folders = written(tmp_path, networks)
    assert len(primer_networks(folders)) == 4
    _, answered = primer_gates(folders, cell["known"])
    assert answered.passed
    assert answered.value.startswith("at least 1 networks")
    networks[3]["accuracy"] = 0.9
    again = tmp_path / "again"
    again.mkdir()
    assert not primer_gates(written(again, networks), cell["known"])[1].passed
