"""Labels in activations, through an audit: planted ones are found as loud and as important as they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from folders import base

from heldout.audits.running import run_audit
from heldout.audits.showing import describe_spec
from heldout.audits.spec import parse_spec
from heldout.audits.steps import SUMMARY
from heldout.audits.summary import FEATURES, LABELLED
from heldout.errors import ConfigError, HeldoutError, NonFiniteError, StatisticsError
from heldout.evidence import read_estimates
from heldout.report.of_run import render_run
from heldout.training.checkpoints import write_tensors

PLANTED = '''
import torch
from torch import nn


class Planted(nn.Module):
    """Carries bit a six times as loud as bit b, and answers b."""

    def __init__(self):
        super().__init__()
        self.carry, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 2)
        with torch.no_grad():
            self.carry.weight.copy_(torch.diag(torch.tensor([6.0, 1.0, 0.5])))
            self.out.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
            self.out.bias.copy_(torch.tensor([0.51, 0.0]))

    def forward(self, x):
        return self.out(self.carry(x))


def planted():
    return Planted()


def bits(seed, n=400, rate=0.5):
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=draw)
    x[:, 0], x[:, 1] = (x[:, 0] < rate).float(), (x[:, 1] < 0.5).float()
    x[:, 2] = torch.randn(n, generator=draw)
    return {"inputs": x, "targets": x[:, 1].long(), "strata": {"a": x[:, 0].long(), "b": x[:, 1].long()}}


def named(batch):
    return {"a": batch.inputs[:, 0], "word": ["yes" if b else "no" for b in batch.inputs[:, 1]], "z": batch.inputs[:, 2]}


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.mark = nn.Identity()

    def forward(self, x):
        return self.mark(torch.stack((x, 2 * x), -1).float())


def positions():
    return Positions()


def sequences(seed, n=60):
    return {"inputs": torch.randint(0, 2, (n, 20), generator=torch.Generator().manual_seed(seed)),
            "targets": torch.zeros(n, 20, dtype=torch.long)}


def inner(batch):
    return {"bit": batch.inputs.where(torch.arange(20) % 4 != 2, -100), "item": batch.inputs[:, 0]}
'''

SPLITS = {
    "fit": {"role": "fit", "function": "planted:bits", "arguments": {"seed": 1}},
    "id": {"role": "test", "function": "planted:bits", "arguments": {"seed": 2}},
    "rare": {"role": "test", "function": "planted:bits", "arguments": {"seed": 3, "rate": 0.1, "n": 2000}},
}


def spec(**changed: Any) -> dict[str, Any]:
    given = {"network": {"from": "planted:planted"}, "splits": SPLITS, "sites": None, "families": None}
    return base(**{**given, "features": {"sites": ["carry"], "labels": ["a", "b"], "draws": 99}, **changed})


def audited(folder: Path, given: dict[str, Any]) -> Any:
    (folder / "planted.py").write_text(PLANTED)
    (folder / "spec.yaml").write_text(yaml.safe_dump(given))
    return run_audit(folder / "spec.yaml", runs=folder / "runs", progress=None)


def figures(run: Any) -> dict[tuple[str, str], Any]:
    rows = read_estimates(run.output(SUMMARY) / FEATURES)
    return {(r["split"], r["quantity"]): r for r in rows.to_dict("records")}


def test_loud_and_important_are_told_apart(tmp_path: Path) -> None:
    run = audited(tmp_path, spec())
    found = figures(run)
    # 36/4, 1/4 and 1/4 are the variances of the three units.
    assert found["id", "variance_explained:a"]["value"] == pytest.approx(9 / 9.5, abs=0.01)
    assert found["id", "variance_explained:b"]["value"] == pytest.approx(0.25 / 9.5, abs=0.01)
    assert found["id", "permutation_p:b"]["value"] == pytest.approx(0.01)
    assert found["id", "changed:a"]["value"] == 0
    assert found["id", "changed:b"]["value"] == pytest.approx(0.5, abs=0.08)  # b becomes its mean: one class for all
    assert found["id", "dissociation:b"]["value"] == 1
    assert found["id", "dissociation:b"]["low"] > 0
    assert found["id", "dissociation:a"]["high"] < 0
    assert found["id", "decoded:b"]["value"] == 1
    # A rare label explains otherwise, and the same when its levels are made equally frequent.
    assert found["rare", "variance_balanced:a"]["value"] == pytest.approx(9 / 9.5, abs=0.02)
    assert found["rare", "variance_refitted:a"]["value"] == pytest.approx(9 / 9.5, abs=0.02)

    page, written = render_run(run.path)
    assert [s.id for s in page.sections] == ["features", "setting"]
    assert any("carry: a is the loudest label on id" in s and "computed but quiet: b" in s for s in page.summary)
    assert "Every label at carry" in written.read_text()
    kept = json.loads((run.output(SUMMARY) / LABELLED).read_text())
    assert {record["split"]: record["units"] for record in kept} == {"id": 400, "rare": 2000}


def test_labels_come_from_a_function_and_networks_stand_apart(tmp_path: Path) -> None:
    two = {"one": {"from": "planted:planted"}, "two": {"from": "planted:planted"}}
    given = spec(
        network=None,
        networks=two,
        features={"sites": ["carry"], "function": "planted:named", "draws": 19, "decode": False},
    )
    run = audited(tmp_path, given)
    rows = read_estimates(run.output(SUMMARY) / FEATURES)
    assert set(rows["network"]) == {"one", "two"}
    loud = rows[rows["quantity"] == "variance_explained:z"]
    np.testing.assert_allclose(loud[loud["split"] == "id"]["value"], 0.25 / 9.5, atol=0.01)
    assert "variance_balanced:word" in set(rows[rows["value"].notna()]["quantity"])
    gone = rows[rows["quantity"] == "variance_balanced:z"]
    assert gone["reason"].str.contains("continuous and has no levels to balance").all()


def test_training_runs_are_joined(tmp_path: Path) -> None:
    state = {"carry.weight": torch.diag(torch.tensor([6.0, 1.0, 0.5])), "out.bias": torch.tensor([0.51, 0.0])}
    state["out.weight"] = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for name, loud in {"one": 6.0, "two": 3.0}.items():
        own = state | {"carry.weight": torch.diag(torch.tensor([loud, 1.0, 0.5]))}
        write_tensors(tmp_path / f"{name}.safetensors", own, {})
    network = {"from": "planted:planted", "weights": ["one.safetensors", "two.safetensors"]}
    asked = {"sites": ["carry"], "labels": ["a", "b"], "draws": 19, "decode": False}
    run = audited(tmp_path, spec(network=network, features=asked))
    found = figures(run)
    loud = found["id", "variance_explained:a"]
    assert loud["value"] == pytest.approx((9 / 9.5 + 2.25 / 2.75) / 2, abs=0.01)
    assert loud["seeds"] == 2
    assert loud["low"] < 9 / 9.5 - 0.1  # two runs that differ: the interval is over runs too
    assert found["id", "dissociation:b"]["value"] == 1
    assert found["id", "permutation_p:b"]["value"] == pytest.approx(0.05)
    assert found["id", "variance_band:a"]["low"] <= loud["value"] <= found["id", "variance_band:a"]["high"]
    assert found["id", "density:a"]["low"] <= found["id", "density:a"]["value"] <= found["id", "density:a"]["high"]
    page, _ = render_run(run.path)
    assert not any("One training run" in w for w in page.warnings)
    assert any("a is the loudest label on id" in s for s in page.summary)


def test_positions_are_rows_and_items_their_clusters(tmp_path: Path) -> None:
    splits = {
        name: {"role": role, "function": "planted:sequences", "arguments": {"seed": seed}}
        for seed, (name, role) in enumerate({"fit": "fit", "id": "test"}.items())
    }
    asked = {"sites": ["mark"], "function": "planted:inner", "labels": ["bit"], "draws": 19, "decode": False}
    run = audited(tmp_path, spec(network={"from": "planted:positions"}, splits=splits, features=asked))
    found = figures(run)["id", "variance_explained:bit"]
    assert found["value"] == pytest.approx(1.0)
    assert found["n"] == 60  # items, and not their 15 labelled positions each
    kept = json.loads((run.output(SUMMARY) / LABELLED).read_text())[0]
    assert kept["rows"] == {"fit": 900, "id": 900}


def written_files(folder: Path, n: int = 300) -> dict[str, Any]:
    """Activations of two sites with their labels, as somebody has saved them."""
    splits = {}
    for seed, (name, role) in enumerate({"fit": "fit", "id": "test"}.items()):
        rng = np.random.default_rng(seed)
        kind, depth = rng.integers(3, size=n), rng.normal(size=n)
        x = np.stack([depth, kind == 1, kind == 2], axis=1) + 0.1 * rng.normal(size=(n, 3))
        np.savez(folder / f"{name}.npz", layer=x, other=rng.normal(size=(n, 4)).astype(np.float32))
        columns = {"kind": np.array(["x", "y", "z"])[kind], "depth": depth, "subject": np.arange(n) // 10}
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
        splits[name] = {"role": role, "activations": f"{name}.npz", "table": f"{name}.csv"}
    return splits


def of_files(folder: Path, **asked: Any) -> dict[str, Any]:
    wanted = {
        "sites": ["layer", "other"],
        "labels": ["kind", "depth"],
        "groups": "subject",
        "draws": 99,
        "decode": False,
        **asked,
    }
    return spec(network=None, splits=written_files(folder), features=wanted)


def test_activations_come_from_files(tmp_path: Path) -> None:
    run = audited(tmp_path, of_files(tmp_path))
    rows = read_estimates(run.output(SUMMARY) / FEATURES)
    at = {(r["site"], r["quantity"]): r for r in rows.to_dict("records")}
    total = 1 + 2 * 2 / 9 + 3 * 0.01
    assert at["layer", "variance_explained:depth"]["value"] == pytest.approx(1 / total, abs=0.05)
    assert at["layer", "variance_explained:kind"]["value"] == pytest.approx(4 / 9 / total, abs=0.05)
    assert at["layer", "variance_explained:kind"]["n"] == 30
    assert at["other", "permutation_p:depth"]["value"] > 0.05
    assert not rows["quantity"].str.startswith("changed").any()  # there is no network to ask
    page, _ = render_run(run.path)
    assert any("other: no label exceeds what its permutations explain on id" in s for s in page.summary)
    shown = describe_spec(tmp_path / "spec.yaml")
    assert "layer" in shown
    assert "(300, 3)" in shown
    assert "kind" in shown


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": ["kin"]}, "unknown column 'kin'; choose from kind, depth"),
        ({"sites": ["layr"]}, "unknown array 'layr'; choose from layer"),
        ({"groups": "subj"}, "unknown column 'subj'; choose from"),
        ({"kinds": {"kind": "binary"}}, "'kind' is to be binary and has 3 levels; call it categorical"),
        ({"groups": "depth"}, "300 of 300 groups have one row"),
    ],
)
def test_what_does_not_fit_the_files_is_named(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(HeldoutError, match=message.replace("(", r"\(")):
        audited(tmp_path, of_files(tmp_path, **asked))


def test_rows_that_cannot_be_measured_are_named(tmp_path: Path) -> None:
    given = of_files(tmp_path)
    table = pd.read_csv(tmp_path / "id.csv")
    table.head(299).to_csv(tmp_path / "id.csv", index=False)
    with pytest.raises(ConfigError, match=r"layer has shape \(300, 3\) and there are 299 rows of labels"):
        audited(tmp_path, given)
    table.to_csv(tmp_path / "id.csv", index=False)
    pd.read_csv(tmp_path / "fit.csv").assign(kind="x").to_csv(tmp_path / "fit.csv", index=False)
    with pytest.raises(StatisticsError, match="label 'kind' is constant"):
        audited(tmp_path, given)
    given = of_files(tmp_path)
    with np.load(tmp_path / "id.npz") as arrays:
        np.savez(
            tmp_path / "id.npz", layer=np.where(arrays["layer"] > 2, np.nan, arrays["layer"]), other=arrays["other"]
        )
    with pytest.raises(NonFiniteError, match="on split 'id'"):
        audited(tmp_path, given)


def test_duplicates_across_splits_are_warned_of(tmp_path: Path) -> None:
    given = of_files(tmp_path)
    given["splits"]["id"] = {**given["splits"]["fit"], "role": "test"}
    run = audited(tmp_path, given)
    kept = json.loads((run.output(SUMMARY) / LABELLED).read_text())[0]
    assert any("300 of 300 rows of the test split also occur in the fit split" in said for said in kept["warnings"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": {"sites": []}}, "features.sites: tuple should have at least 1 item"),
        ({"features": {"sites": ["carry"], "draws": 3}}, "features.draws: input should be greater than or equal to 19"),
        ({"features": {"sites": ["carry"], "label": ["a"]}}, "unknown field 'features.label'; nearest: labels"),
        ({"features": {"sites": ["carry"], "before": {"cary": "x"}}}, "'cary' is no site of features"),
        ({"splits": {"id": SPLITS["id"]}}, "none has role 'fit'"),
        ({"splits": {**SPLITS, "x": {"role": "test", "activations": "x.npz", "table": "x.csv"}}}, "has no activations"),
        ({"splits": {"x": {"role": "test", "activations": "x.npz"}}}, "belong together"),
    ],
)
def test_bad_specs_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(spec(**changed), "spec.yaml")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": ["c"]}, "unknown label 'c'; choose from a, b"),
        ({"function": "planted:inner"}, "failed"),
        ({"sites": ["carri"], "labels": ["a"]}, "unknown module 'carri'; choose from carry"),
    ],
)
def test_what_the_network_lacks_is_named(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(HeldoutError, match=message):
        audited(tmp_path, spec(features={"sites": ["carry"], "draws": 19, **asked}))
