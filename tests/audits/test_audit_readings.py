"""Readings of every kind do what they say, and get gap, interval, null and their largest disagreements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import base, write
from safetensors.torch import save_file
from torch import Tensor

from heldout.audits.readings import edits_of
from heldout.audits.running import run_audit
from heldout.audits.spec import parse_spec
from heldout.audits.steps import SUMMARY
from heldout.evidence import read_estimates

ROWS = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
MEAN = torch.arange(8.0)


def applied(reading: dict[str, Any], folder: Path, rows: Tensor = ROWS, **tensors: Tensor) -> list[Tensor]:
    write(folder, base())
    save_file({"v": torch.eye(8)[2]}, folder / "v.safetensors")
    parsed = parse_spec(base(readings=[reading]), "test").readings[0]
    given = {"mean:1": MEAN, "rows:1": ROWS.reshape(-1, 8) + 10} | tensors
    return [e.functions["1"](rows, None) for e in edits_of(parsed, given, folder, fit_split="fit", device="cpu")]


def test_a_circuit_keeps_some_neurons_and_the_rest_is_the_baseline(tmp_path: Path) -> None:
    circuit = {"kind": "circuit", "name": "c", "keep": {"1": [0, 5]}}
    (new,) = applied(circuit, tmp_path)
    assert torch.equal(new[..., [0, 5]], ROWS[..., [0, 5]])
    rest = [1, 2, 3, 4, 6, 7]
    assert torch.equal(new[..., rest], MEAN[rest].expand(5, 3, 6))
    (zero,) = applied({**circuit, "baseline": "zero"}, tmp_path)
    assert zero[..., rest].abs().max() == 0


def test_heads_are_blocks_of_the_width(tmp_path: Path) -> None:
    (new,) = applied({"kind": "circuit", "name": "c", "keep": {"1": [1]}, "heads": 4}, tmp_path)
    assert torch.equal(new[..., 2:4], ROWS[..., 2:4])
    assert torch.equal(new[..., 4:], MEAN[4:].expand(5, 3, 4))


def test_a_resampled_baseline_is_rows_of_the_fit_split_and_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    circuit = {"kind": "circuit", "name": "c", "keep": {"1": []}, "baseline": "resample"}
    (new,) = applied(circuit, tmp_path)
    known = {tuple(r) for r in (ROWS.reshape(-1, 8) + 10).tolist()}
    drawn = {tuple(r) for r in new.reshape(-1, 8).tolist()}
    assert drawn <= known
    assert len(drawn) > 5  # not one for all
    (alone,) = applied(circuit, tmp_path, ROWS[3:4, 1:2])
    assert torch.equal(alone, new[3:4, 1:2])


def test_rounding_does_not_change_what_is_drawn(tmp_path: Path) -> None:
    """Another batch or thread count moves activations by rounding; the baseline must hardly notice."""
    circuit = {"kind": "circuit", "name": "c", "keep": {"1": []}, "baseline": "resample"}
    rows = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1))
    first, second = applied(circuit, tmp_path, rows)[0], applied(circuit, tmp_path, rows * (1 + 1e-7) + 1e-7)[0]
    assert float((first == second).all(dim=1).float().mean()) > 0.995
    assert len({tuple(r) for r in first.tolist()}) == 15  # every row of the sample is drawn


def test_a_probes_direction_is_removed_or_alone_kept(tmp_path: Path) -> None:
    probe = {"kind": "probe", "name": "p", "site": "1", "direction": {"file": "v.safetensors"}}
    (removed,) = applied(probe, tmp_path)
    others = [i for i in range(8) if i != 2]
    torch.testing.assert_close(removed[..., 2], MEAN[2].expand(5, 3))
    assert torch.equal(removed[..., others], ROWS[..., others])
    (kept,) = applied({**probe, "action": "keep"}, tmp_path)
    torch.testing.assert_close(kept[..., 2], ROWS[..., 2])
    torch.testing.assert_close(kept[..., others], MEAN[others].expand(5, 3, 7))


def test_steering_adds_alpha_times_the_vector(tmp_path: Path) -> None:
    steering = {"kind": "steering", "name": "s", "site": "1", "vector": {"file": "v.safetensors"}, "alpha": [-1, 0.5]}
    back, half = applied(steering, tmp_path)
    assert torch.equal(back[..., 2], ROWS[..., 2] - 1)
    assert torch.equal(half[..., 2], ROWS[..., 2] + 0.5)


def test_functions_with_and_without_arguments(tmp_path: Path) -> None:
    function = {"kind": "function", "name": "f", "site": "1", "function": "mine:halve"}
    assert torch.equal(applied(function, tmp_path)[0], ROWS / 2)
    assert torch.equal(applied({**function, "function": "mine:scaled", "arguments": {"by": 3}}, tmp_path)[0], ROWS * 3)


def test_an_autoencoder_with_its_weights(tmp_path: Path) -> None:
    double = torch.cat([torch.eye(8), torch.eye(8)])
    save_file({"weight": double, "bias": torch.zeros(16)}, tmp_path / "e.safetensors")
    save_file({"weight": 0.5 * double.T.contiguous(), "bias": torch.ones(8)}, tmp_path / "d.safetensors")
    reading = {
        "kind": "autoencoder",
        "name": "sae",
        "site": "1",
        "encoder": {"from": "mine:encoder", "weights": "e.safetensors"},
        "decoder": {"from": "mine:decoder", "weights": "d.safetensors"},
    }
    (new,) = applied(reading, tmp_path)
    torch.testing.assert_close(new, ROWS + 1)


def test_all_of_them_are_audited(tmp_path: Path) -> None:
    save_file({"v": torch.ones(8)}, tmp_path / "v.safetensors")
    readings = [
        {"kind": "circuit", "name": "half", "keep": {"1": [0, 1, 2, 3]}, "baseline": "resample"},
        {"kind": "circuit", "name": "all", "keep": {"1": list(range(8)), "0": list(range(8))}},
        {"kind": "probe", "name": "label", "site": "1", "classes": [0, 1]},
        {"kind": "steering", "name": "push", "site": "1", "vector": {"file": "v.safetensors"}, "alpha": [0, 1]},
        {
            "kind": "autoencoder",
            "name": "sae",
            "site": "1",
            "encoder": {"from": "mine:encoder"},
            "decoder": {"from": "mine:decoder"},
        },
        {"kind": "function", "name": "half as much", "site": "1", "function": "mine:halve"},
    ]
    spec = base(sites=None, families=None, readings=readings, decode={"function": "mine:letter"})
    run = run_audit(write(tmp_path, spec), runs=tmp_path / "runs", progress=None)
    found = read_estimates(run.output(SUMMARY) / "estimates.parquet")
    gaps = found[found["quantity"] == "gap"]
    assert sorted(gaps["edit"]) == sorted(["half", "all", "label", "push", "push", "sae", "half as much"])
    assert gaps[["value", "low", "high", "null"]].notna().all(axis=None)
    same = found[(found["quantity"] == "same_prediction") & (found["split"] == "id")].set_index(["edit", "parameter"])[
        "value"
    ]
    assert same["all"].item() == 1.0
    assert same["push", 0.0] == 1.0
    assert same["sae"].item() < 1.0
    worst = json.loads((run.output(SUMMARY) / "worst.json").read_text())
    assert {row["answer"] for row in worst} <= set("abc")
    assert {(row["edit"], row["split"]) for row in worst} == {
        (e, s) for e in ("half", "all", "label", "push-0", "push-1", "sae", "half as much") for s in ("id", "far")
    }
    from heldout.report.of_run import render_run

    page, written = render_run(run.path)
    assert "half as much" in written.read_text()
    assert page.identity[0].passed


@pytest.mark.parametrize("kind", ["regression", "embedding"])
def test_numbers_and_embeddings_have_gaps_too(kind: str, tmp_path: Path) -> None:
    splits = {
        n: {"role": "fit" if n == "fit" else "test", "function": "mine:numbers", "arguments": {"seed": s}}
        for s, n in enumerate(("fit", "id", "far"))
    }
    if kind == "embedding":
        splits = {n: {**s, "function": "mine:points"} for n, s in splits.items()}
    spec = base(
        network={"from": "mine:mlp", "arguments": {"outputs": 2}}, splits=splits, scoring={"kind": kind, "neighbours": 3},
    )  # fmt: skip
    run = run_audit(write(tmp_path, spec), runs=tmp_path / "runs", progress=None)
    found = read_estimates(run.output(SUMMARY) / "estimates.parquet").set_index(["quantity", "parameter", "split"])[
        "value"
    ]
    exact = {"regression": ("r_squared", 1.0), "embedding": ("neighbour_agreement", 1.0)}[kind]
    assert found[exact[0], 8.0, "id"].item() == pytest.approx(exact[1])
    assert found[exact[0], 2.0, "id"].item() < 1
    assert found["same_prediction", 8.0, "far"].item() == 1.0
    assert abs(found["gap", 2.0, "far"].item()) <= 1
    from heldout.report.of_run import render_run

    render_run(run.path)
