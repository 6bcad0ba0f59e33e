"""The interaction basis among the families of a spec: exact where it must be, and clear where it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from folders import base, save_hugging_face, sequence_splits, write, write_sequences
from torch import nn

from heldout.activations.sections import Sections
from heldout.activations.sites import Site
from heldout.analyses.faithfulness import Subject
from heldout.analyses.scoring import Scoring
from heldout.audits.fitted import fit, fitted_edits, output_site
from heldout.audits.parts import Families
from heldout.audits.running import run_audit
from heldout.audits.steps import SUMMARY
from heldout.cli import main
from heldout.evidence import read_estimates, read_scores
from heldout.proxies.bases import output_basis
from heldout.proxies.fit import Family, derived
from heldout.runs import Run
from heldout.tasks.base import Rectangular, Split

LINEAR = '''
import torch
from torch import nn


class Linear(nn.Module):
    """Carries two directions loudly, and answers by two others: rank 2 of 6."""

    def __init__(self):
        super().__init__()
        self.carry, self.out = nn.Linear(6, 6, bias=False), nn.Linear(6, 3)
        with torch.no_grad():
            self.carry.weight.copy_(torch.diag(torch.tensor([30.0, 20.0, 1.0, 1.0, 1.0, 1.0])))
            self.out.weight.copy_(torch.tensor([[0, 0, 1.0, 2, 0, 0], [0, 0, -2, 1, 0, 0], [0, 0, 1, -3, 0, 0]]))
            self.out.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))

    def forward(self, x):
        return self.out(self.carry(x))


class Chooses(Linear):
    """Answers by the place of the largest activation, which has no derivative."""

    def forward(self, x):
        h = self.carry(x)
        return nn.functional.one_hot(h.argmax(1), 6).to(h) + 0.01 * x


class Pair(Linear):
    """Returns something else before the answer."""

    def forward(self, x):
        return x, super().forward(x)


def points(seed, spread=1.0):
    x = spread * torch.randn(60, 6, generator=torch.Generator().manual_seed(seed))
    return {"inputs": x, "targets": (x[:, 2] > 0).long()}
'''


QUICK = {"null_draws": 1, "worst": 0, "early_warning": False}


def spec(**changed: Any) -> dict[str, Any]:
    splits = {
        "fit": {"role": "fit", "function": "linear:points", "arguments": {"seed": 1}},
        "id": {"role": "test", "function": "linear:points", "arguments": {"seed": 2}},
        "far": {"role": "test", "function": "linear:points", "arguments": {"seed": 3, "spread": 3.0}},
    }
    usual = {"network": {"from": "linear:Linear"}, "splits": splits, "sites": ["carry"]}
    return base(**{**usual, "families": {"ib": [1, 2, 6], "pca": [2]}, **QUICK, **changed})


def written(folder: Path, **changed: Any) -> Path:
    (folder / "linear.py").write_text(LINEAR)
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec(**changed)))
    return path


def same(path: Path) -> tuple[Run, pd.Series]:
    """The run, and same prediction by split, family and size."""
    run = run_audit(path, runs=path.parent / "runs", progress=None)
    found = read_estimates(run.output(SUMMARY) / "estimates.parquet")
    rows = found[found["quantity"] == "same_prediction"]
    return run, rows.set_index(["split", "edit", "parameter"])["value"]


def test_as_many_features_as_the_map_has_rank_are_exact_where_the_loudest_directions_are_not_read(
    tmp_path: Path,
) -> None:
    run, found = same(written(tmp_path, network={"from": "linear:Pair"}, scoring={"output": "1"}))
    for split in ("id", "far"):
        assert found[split, "ib", 2] == found[split, "ib", 6] == 1.0
        assert found[split, "ib", 1] < 1.0
        assert found[split, "pca", 2] < 0.8
    for folder, suffix in (("score", ""), ("oracle", "-oracle")):
        parts = [read_scores(p) for p in sorted(run.output(f"audit-{folder}-network-r0-far").glob("*.parquet"))]
        divergence: dict[str, float] = {}
        for cell, columns in parts:
            divergence[cell.edit.label] = divergence.get(cell.edit.label, 0.0) + float(sum(columns["kl"]))
        assert divergence[f"ib-2{suffix}"] < 1e-6
        assert divergence[f"pca-2{suffix}"] > 1


def test_what_was_kept_is_the_basis_that_was_fitted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    split = Split("fit", "fit", Rectangular(torch.randn(50, 4)))
    subject = Subject(network)
    fit(subject, split, {"1": Families(ib=(2, 5))}, (), tmp_path, seed=0, batch_size=16)
    edits = fitted_edits(tmp_path, (), tmp_path, device="cpu")
    assert [(e.origin.name, e.origin.parameter, e.origin.fit_split) for e in edits] == [
        ("ib", 2, "fit"),
        ("ib", 5, "fit"),
    ]
    basis = output_basis(Sections(network, ["1", "."]), split)
    rows = torch.randn(7, 5)
    assert torch.equal(edits[0].functions["1"](rows, None), basis.at(2).reconstruct(rows))
    assert torch.equal(edits[1].functions["1"](rows, None), rows)


def test_the_part_of_the_output_that_is_scored_is_what_is_differentiated() -> None:
    class Parts(nn.Module):
        def __init__(self, make: Any) -> None:
            super().__init__()
            self.make = make

        def forward(self, x: torch.Tensor) -> Any:
            return self.make(x)

    split = Split("fit", "fit", Rectangular(torch.randn(5, 4)))

    def asked(make: Any, output: str = "") -> str:
        found = output_site(Subject(Parts(make), scoring=Scoring(output=output)), split)
        assert str(Site.parse(found)) == found
        return found

    assert asked(lambda x: x) == "."
    assert asked(lambda x: {"states": x, "logits": x}) == ".[logits]"
    assert asked(lambda x: (x, x), "1") == ".[1]"


def test_derivatives_are_taken_on_a_sample_and_of_many_outputs_by_random_signs() -> None:
    """A linear network has one Jacobian: any sample gives the basis, and signs give it up to their error."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 260)).eval()
    split = Split("fit", "fit", Rectangular(torch.randn(400, 4)))

    def weights(outputs: int, sample: int) -> torch.Tensor:
        sections = Sections(nn.Sequential(network[0], linear_part(network[1], outputs)), ["0", "."])
        found = output_basis(sections, split, sample=sample).weights_
        assert found is not None
        return found

    def linear_part(whole: nn.Module, outputs: int) -> nn.Linear:
        part = nn.Linear(5, outputs)
        part.weight.data, part.bias.data = whole.weight[:outputs].clone(), whole.bias[:outputs].clone()
        return part

    torch.testing.assert_close(weights(20, 3), weights(20, 400), rtol=1e-10, atol=0)
    exact = derived(
        network, split, "0", Family("ib", options={"probes": "exact"}), sample=400, batch_size=64, device="cpu"
    ).weights_
    assert exact is not None
    torch.testing.assert_close(weights(260, 400)[:4], exact[:4], rtol=0.05, atol=0)
    assert not torch.equal(weights(260, 400)[:4], exact[:4])


def test_padding_and_batches_change_nothing() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm, self.head = nn.Embedding(9, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 9)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.lstm(self.embed(tokens))[0])
            return out

    torch.manual_seed(0)
    network = Reads().eval()
    tokens, lengths = torch.randint(1, 9, (8, 6)), torch.tensor([2, 6, 3, 4, 6, 5, 2, 6])
    mask = torch.arange(6) < lengths[:, None]
    whole = Split("fit", "fit", Rectangular(tokens, mask=mask))
    family = Family("ib", options={"probes": "exact"})

    def encoder(split: Split, size: int) -> torch.Tensor:
        found = derived(network, split, "lstm[0]", family, sample=100, batch_size=size, device="cpu").encoder_
        assert found is not None
        return found

    other = Split("fit", "fit", Rectangular(torch.where(mask, tokens, 8), mask=mask))
    for split, size in ((whole, 3), (other, 8)):
        torch.testing.assert_close(encoder(split, size), encoder(whole, 8), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_hugging_face_decoder(tmp_path: Path) -> None:
    mask = {"mask_argument": "attention_mask"}
    changed = {"network": {"huggingface": "gpt2"}, "sites": ["transformer.h.0"], "families": {"ib": [2, 8]}}
    changed |= {"splits": sequence_splits("input_ids", **mask), "scoring": {"kind": "next_token"}}
    write_sequences(tmp_path)
    save_hugging_face("gpt2", tmp_path)
    _, found = same(write(tmp_path, base(**changed, **QUICK)))
    assert found["far", "ib", 8] == 1.0
    assert found["far", "ib", 2] < 1.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"network": {"from": "linear:Chooses"}}, ["ib at carry", "no differentiable path", "argmax"]),
        ({"sites": ["."]}, ["ib at .", "two or more different node layers"]),
        ({"families": {"ib": [7]}}, ["rank 7", "width 6", "from 0 to 6"]),
        ({"families": {"ib": []}}, ["carry has no family"]),
        ({"readings": [{"kind": "circuit", "name": "ib", "keep": {"carry": [0]}}]}, ["'ib'", "is a family's"]),
    ],
)
def test_what_cannot_be_had_is_named(
    changed: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, **changed)
    with pytest.raises(SystemExit) as leave:
        main(["audit", str(path), "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert leave.value.code == 2
    assert "Traceback" not in said
    assert all(word in said for word in words), said
