"""The code study: its configuration, its evidence from a smoke run, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heldout.analyses.faithfulness import Subject
from heldout.errors import ConfigError
from heldout.runs import Run
from heldout.studies import code_audit
from heldout.studies.code import ALL, LAYERS, STUDY, CodeConfig, claims
from heldout.studies.running import run_study
from heldout.tasks.base import Rectangular, Split

SMALL: dict[str, Any] = {
    "shape": {"layers": 2, "width": 8, "heads": 2, "positions": "sinusoidal", "window": 12},
    "sites": (LAYERS, ALL, "blocks.0.mlp"),
    "ranks": (2, 4),
    "clusters": (2, 3),
    "weight_ranks": (4,),
    "haar_ranks": (2,),
    "haar_draws": 2,
    "kmeans_draws": 2,
    "kmeans_sample": 100,
}


def subject_and_fit() -> tuple[Subject, Split]:
    network = code_audit.build_network(SMALL["shape"], 0).eval()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 97, size=(20, 12)))
    return Subject(network), Split("fit", "fit", Rectangular(tokens, tokens))


def test_every_preset_is_accepted_and_claims_are_fixed() -> None:
    for preset in STUDY.presets:
        config, changed = STUDY.configure(preset)
        assert not changed
        assert STUDY.steps(config, "") if preset != "paper" else True  # the paper's corpus is not on this machine
    assert [c.id for c in claims()] == [
        *("G1", "G1-svd", "G2", "G2-weights", "G3", "G4", "G6", "G6-svd", "G7", "G7-svd", "G7-words", "G8")
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"heads": 3}, "not a multiple of heads"),
        ({"ranks": (64,)}, "above the width of a head"),
        ({"clusters": (9_999,)}, "clusters of 4000 points"),
        ({"sites": ("layers",)}, "'all' must be among them"),
        ({"sites": ("all", "blocks.7.mlp")}, "'blocks.7.mlp' is not known"),
        ({"induction_heads": 5}, "as many others of 8"),
        ({"sorce": "folder"}, "unknown field 'sorce'"),
    ],
)
def test_settings_that_are_not_accepted(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        STUDY.configure("laptop", given)


def test_the_grid_covers_every_site_and_draws_of_one_edit_share_an_origin() -> None:
    subject, fit = subject_and_fit()
    edits = code_audit.all_edits(subject, fit, SMALL, oracle=False, wanted=None)
    found = {(e.origin.site, e.origin.label) for e in edits}
    sites = ["blocks.0.attn", "blocks.1.attn", "blocks.0.attn + blocks.1.attn"]
    names = ["svd-2", "svd-4", "kmeans-2", "kmeans-3", "weights-4", "onehot", "haar-2", "mean"]
    module = {("blocks.0.mlp", n) for n in ("svd-2", "svd-4", "kmeans-2", "kmeans-3", "mean")}
    assert found == {(s, n) for s in sites for n in names} | module
    assert sum(e.origin.label == "kmeans-3" for e in edits) == 2 * 4
    joint = next(e for e in edits if e.origin.site == sites[2] and e.origin.label == "svd-2")
    assert len(joint.functions) == 2 * 2 * 2  # layers, heads, queries and keys


def test_only_what_is_wanted_is_fitted() -> None:
    subject, fit = subject_and_fit()
    wanted = {("blocks.0.attn + blocks.1.attn", "svd", 4), ("blocks.1.attn", "kmeans", 3)}
    edits = code_audit.all_edits(subject, fit, SMALL, oracle=True, wanted=wanted)
    assert {(e.origin.site, e.origin.name, e.origin.parameter) for e in edits} == wanted
    assert all(e.origin.oracle for e in edits)


def test_a_full_rank_edit_of_all_layers_is_the_identity() -> None:
    subject, fit = subject_and_fit()
    joint = "blocks.0.attn + blocks.1.attn"
    edits = code_audit.all_edits(subject, fit, SMALL, oracle=False, wanted={(joint, "svd", 4), (joint, "weights", 4)})
    from heldout.activations.tap import Tap

    batch = next(fit.batches(20))
    with torch.no_grad():
        plain = subject.network(batch.inputs)
    for edit in edits:
        with Tap(subject.network, edit=edit.functions) as tap:
            assert torch.allclose(tap(batch).output.softmax(-1), plain.softmax(-1), atol=1e-5), edit.origin.label


def test_an_edit_of_some_heads_touches_only_those() -> None:
    from heldout.analyses.heads import HeadScore

    subject, fit = subject_and_fit()
    whole = code_audit.all_edits(
        subject, fit, SMALL, oracle=False, wanted={(f"blocks.{i}.attn", "svd", 2) for i in range(2)}
    )
    edit = code_audit.of_heads(whole, [HeadScore("blocks.1.attn", 0, 0.0, 0.0)], "one")
    assert set(edit.functions) == {"blocks.1.attn@attn.query[0]", "blocks.1.attn@attn.key[0]"}
    assert edit.origin.site == "one"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_study("code", preset="smoke", runs=tmp_path_factory.mktemp("runs"), engine="inline", device="cpu")


def test_the_smoke_run_judges_nothing_and_says_why(smoke: Run) -> None:
    judged = json.loads((smoke.output("code-judge") / "claims.json").read_text())
    assert {j["verdict"] for j in judged} == {"not judged"}
    assert all("smoke preset" in j["reason"] for j in judged)


def test_its_evidence_is_whole(smoke: Run) -> None:
    estimates = pd.read_parquet(smoke.output("code-judge") / "estimates.parquet")
    assert estimates.loc[estimates["value"].isna(), "reason"].str.len().gt(0).all()
    same = estimates[estimates["quantity"] == "same_prediction"]
    assert same["value"].between(0, 1).all()
    assert {"id", "python_packages", "c_cpp"} <= set(same["split"])
    assert estimates["quantity"].str.startswith("gap by word").any()
    assert estimates["quantity"].str.startswith("auroc: ").any()
    audit = json.loads((smoke.output("code-audit-s0") / "audit.json").read_text())
    assert audit["identity"]["difference"] <= audit["identity"]["tolerance"]


def test_categories_of_an_axis_add_up_to_the_whole(smoke: Run) -> None:
    from heldout.analyses.estimates import Column, Scores

    scores = Scores.read([smoke.output("code-audit-s0")])
    settings = {"shape": CodeConfig(**smoke.manifest["config"]).model_dump()}
    categories = code_audit.categories(settings)
    site = "blocks.0.attn + blocks.1.attn"

    def total(metric: str, name: str, value: int) -> float:
        return float(scores.sums(Column("decoder", 0, "id", "mean", site, metric, name, value))[1].sum())

    by_axis = {
        axis: sum(total("same", "category", categories.code(axis, i)) for i in range(len(names)))
        for axis, names in categories.axes.items()
    }
    assert len(set(by_axis.values())) == 1
    assert next(iter(by_axis.values())) > 0


def test_the_page_has_the_papers_figures(smoke: Run, tmp_path: Path) -> None:
    page = STUDY.page(smoke)
    figures = {f.id for s in page.sections for f in s.figures}
    assert {"gap", "faithfulness", "kinds-word", "kinds-role", "induction", "single-heads", "warning-svd"} <= figures
    assert "interaction" in figures
    text = next(s for s in page.sections if s.id == "text")
    assert any(row[0] == "python_packages" for row in text.tables[0].rows)
