"""Similarity of networks, through an audit: a rotation is no difference, and networks that part on one split are seen to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from heldout.analyses.similarity.measures import MEASURES, similarity
from heldout.analyses.similarity.names import NAMES
from heldout.audits.running import run_audit
from heldout.audits.spec import parse_spec
from heldout.audits.steps import SUMMARY
from heldout.audits.summary import ALIKE
from heldout.errors import ConfigError, HeldoutError
from heldout.evidence import read_estimates
from heldout.report.of_run import render_run
from heldout.training.checkpoints import write_tensors

TURNING = '''
import torch
from torch import nn


class Turned(nn.Module):
    """Its hidden layer is the input turned; where the last input is 1 it is (with parts=True) something else."""

    def __init__(self, turn=0, parts=False):
        super().__init__()
        self.parts, self.hidden, self.wide = parts, nn.Linear(5, 5, bias=False), nn.Linear(5, 9, bias=False)
        draw = torch.Generator().manual_seed(turn)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.linalg.qr(torch.randn(5, 5, generator=draw))[0])
            self.wide.weight.copy_(torch.randn(9, 5, generator=draw))
        self.out = nn.Linear(9, 2)

    def forward(self, x):
        if self.parts:
            x = torch.where(x[:, -1:] > 0.5, torch.sin(40 * x.flip(1)) * 2, x)
        return self.out(self.wide(self.hidden(x)))


def turned(**given):
    return Turned(**given)


def points(seed, far=False, n=300):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    x[:, -1] = float(far)
    return {"inputs": x, "targets": (x[:, 0] > 0).long()}


def pairs(seed, n=200):
    """Two rows a unit, alike but for a whisper: half as many independent stimuli as rows."""
    given = points(seed, n=n)
    given["inputs"] = given["inputs"][torch.arange(n) // 2] + 1e-3 * torch.randn(n, 5, generator=torch.Generator().manual_seed(1))
    return given | {"units": torch.arange(n) // 2}


class Positions(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.mark = scale, nn.Identity()

    def forward(self, x):
        x = x.float()
        return self.mark(self.scale * torch.stack((x, x**2, x.cos()), -1))


def positions(scale=1.0):
    return Positions(scale)


def walks(seed, n=80):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(7) < torch.randint(2, 8, (n, 1), generator=draw)
    x = torch.randn(n, 7, generator=draw)
    return {"inputs": torch.where(mask, x, 99.0), "mask": mask, "targets": torch.zeros(n, 7).long()}
'''  # noqa: E501

SPLITS = {
    "id": {"role": "test", "function": "turning:points", "arguments": {"seed": 1}},
    "far": {"role": "test", "function": "turning:points", "arguments": {"seed": 2, "far": True}},
}
ASKED = {"sites": ["hidden"], "measures": ["cka", "rsa-euclidean", "procrustes"], "permutations": 19, "draws": 100}


def spec(**changed: Any) -> dict[str, Any]:
    given = {
        "name": "alike",
        "networks": {
            "one": {"from": "turning:turned", "arguments": {"turn": 0}},
            "two": {"from": "turning:turned", "arguments": {"turn": 1, "parts": True}},
        },
        "splits": SPLITS,
        "similarity": ASKED,
        "device": "cpu",
    }
    return {k: v for k, v in (given | changed).items() if v is not None}


def audited(folder: Path, given: dict[str, Any]) -> Any:
    (folder / "turning.py").write_text(TURNING)
    (folder / "spec.yaml").write_text(yaml.safe_dump(given))
    return run_audit(folder / "spec.yaml", runs=folder / "runs", progress=None)


def figures(run: Any) -> dict[tuple[str, str], Any]:
    rows = read_estimates(run.output(SUMMARY) / ALIKE)
    return {(r["split"], r["quantity"]): r for r in rows.to_dict("records")}


def test_a_rotation_is_no_difference_and_parting_on_a_split_is_one(tmp_path: Path) -> None:
    run = audited(tmp_path, spec())
    found = figures(run)
    for measure in ASKED["measures"]:
        assert found["id", f"similarity:{measure}"]["value"] == pytest.approx(1, abs=1e-9)
        assert found["id", f"similarity_p:{measure}"]["value"] == pytest.approx(1 / 20)
        far, fall = found["far", f"similarity:{measure}"], found["far", f"similarity_fall:{measure}"]
        assert far["value"] < 0.5
        assert fall["value"] == pytest.approx(1 - far["value"])
        assert fall["low"] > 0.3
        assert fall["reference"] == "id"
    assert found["far", "similarity:cka"]["low"] < found["far", "similarity:cka"]["null"] + 0.1
    page, written = render_run(run.path)
    assert [s.id for s in page.sections] == ["alike", "setting"]
    assert any("one | two at hidden" in s and "on far: less alike there" in s for s in page.summary)
    assert "Every similarity" in written.read_text()


def test_a_figure_is_that_of_the_same_rows_in_memory(tmp_path: Path) -> None:
    run = audited(tmp_path, spec())
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        import turning
    finally:
        sys.path.pop(0)
        sys.modules.pop("turning")
    inputs = turning.points(seed=2, far=True)["inputs"]
    with torch.no_grad():
        two = turning.turned(turn=1, parts=True)
        away = two.hidden(torch.sin(40 * inputs.flip(1)) * 2)
        direct = similarity(turning.turned(turn=0).hidden(inputs), away)
    assert figures(run)["far", "similarity:cka"]["value"] == pytest.approx(direct, abs=1e-6)


def test_two_sites_of_one_network_and_runs_of_another_are_compared(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    for run in range(3):
        state = {"hidden.weight": torch.linalg.qr(torch.randn(5, 5, generator=draw))[0]}
        state |= {
            "wide.weight": torch.randn(9, 5, generator=draw),
            "out.weight": torch.zeros(2, 9),
            "out.bias": torch.zeros(2),
        }
        write_tensors(tmp_path / f"{run}.safetensors", state, {})
    asked = ASKED | {"sites": [["hidden", "wide"], "hidden"], "measures": ["cka"]}
    network = {"from": "turning:turned", "weights": [f"{run}.safetensors" for run in range(3)]}
    run = audited(tmp_path, spec(networks=None, network=network, similarity=asked))
    rows = read_estimates(run.output(SUMMARY) / ALIKE)
    rows = rows[(rows["quantity"] == "similarity:cka") & (rows["split"] == "id")].set_index("network")
    assert set(rows.index) == {"network, run 0", "network, run 1", "network, run 2", "network | its own runs"}
    assert rows.loc["network | its own runs", "value"] == pytest.approx(1, abs=1e-9)
    assert rows.loc["network | its own runs", "seeds"] == 3
    assert (rows.loc[["network, run 0", "network, run 1"], "value"] < 0.999).all()
    assert set(rows["site"]) == {"hidden | wide", "hidden"}


def test_one_row_a_unit_and_one_position_an_item(tmp_path: Path) -> None:
    paired = {"id": SPLITS["id"] | {"function": "turning:pairs"}}
    assert figures(audited(tmp_path, spec(splits=paired)))["id", "similarity:cka"]["n"] == 100
    networks = {n: {"from": "turning:positions", "arguments": {"scale": s}} for n, s in {"a": 1.0, "b": 3.0}.items()}
    for which in ("one", "last", "mean"):
        splits = {"id": {"role": "test", "function": "turning:walks", "arguments": {"seed": 1}}}
        asked = ASKED | {"sites": ["mark"], "positions": which}
        found = figures(audited(tmp_path, spec(networks=networks, splits=splits, similarity=asked)))
        # Padding, 99 everywhere, would be repeated rows if it were taken.
        assert found["id", "similarity:procrustes"]["n"] == 80
        assert found["id", "similarity:procrustes"]["value"] == pytest.approx(1, abs=1e-9)


def test_arrays_of_files_are_compared_group_by_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("id", "far"):
        x = rng.normal(size=(200, 6))
        y = x @ rng.normal(size=(6, 4)) if name == "id" else rng.normal(size=(200, 4))
        np.savez(tmp_path / f"{name}.npz", mine=x, theirs=y)
        (tmp_path / f"{name}.csv").write_text("who\n" + "\n".join(str(i // 2) for i in range(200)))
    splits = {n: {"role": "test", "activations": f"{n}.npz", "table": f"{n}.csv"} for n in ("id", "far")}
    asked = ASKED | {"sites": [["mine", "theirs"]], "measures": ["predict", "cka"], "groups": "who"}
    found = figures(audited(tmp_path, spec(networks=None, splits=splits, similarity=asked)))
    assert found["id", "similarity:predict"]["value"] > 0.99
    assert found["id", "similarity:predict"]["n"] == 100
    assert abs(found["far", "similarity:cka"]["value"]) < 0.15
    assert found["far", "similarity_p:cka"]["value"] > 0.05


def test_rows_that_repeat_count_once_and_are_reported(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(tmp_path / "id.npz", a=np.concatenate([x, x[:20]]), b=np.concatenate([2 * x, 2 * x[:20]]))
    (tmp_path / "id.csv").write_text("who\n" + "\n".join(map(str, range(80))))
    splits = {"id": {"role": "test", "activations": "id.npz", "table": "id.csv"}}
    run = audited(tmp_path, spec(networks=None, splits=splits, similarity=ASKED | {"sites": [["a", "b"]]}))
    assert figures(run)["id", "similarity:cka"]["n"] == 60
    page, _ = render_run(run.path)
    assert any("20 of 80 rows repeat" in text for section in page.sections for text in section.text)


def test_the_measures_of_a_spec_are_those_there_are() -> None:
    assert set(NAMES) == set(MEASURES)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"similarity": ASKED | {"measures": ["ckaa"]}}, "nearest: cka"),
        ({"similarity": ASKED | {"sites": []}}, "at least 1 item"),
        ({"similarity": ASKED | {"rows": 3}}, "greater than or equal to 20"),
        ({"networks": None, "network": {"from": "turning:turned"}}, "there is one network, so nothing to compare"),
        ({"similarity": None}, "features, or similarity"),
    ],
)
def test_a_spec_that_asks_for_nothing_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_spec(spec(**changed), "spec.yaml")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"similarity": ASKED | {"sites": ["hiden"]}}, "hidden"),
        ({"splits": {"id": SPLITS["id"] | {"arguments": {"seed": 1, "n": 3}}}}, "at least 4 are needed"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(HeldoutError, match=words):
        audited(tmp_path, spec(**changed))
