"""The page of the nuclear study, of small real runs: what is on it is what was measured, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.figures import Figure
from heldout.figures.nuclides_chart import nuclide
from heldout.figures.page import Page, Section, Table
from heldout.report.render import render
from heldout.runs import Run, execute
from heldout.studies.base import SMOKE
from heldout.studies.nuclear import STUDY
from heldout.studies.nuclear_helix import HELIX
from heldout.studies.nuclear_page_errors import edges
from heldout.studies.nuclear_settings import NuclearConfig
from heldout.studies.nuclear_shown import BASELINES, TRAINED_ON, Shown, kev, model, spread
from heldout.studies.nuclear_train import KINDS, PREDICTIONS

SMALL: dict[str, Any] = {
    "above_z": 70,
    "above_n": 100,
    "steps": 8,
    "width": 16,
    "components": [1, 2, 8, 16],
    "blocks_of": 1,
    "primer": {
        "moduli": [5],
        "poolings": ["concat"],
        "widths": [4],
        "weight_decays": [1.0],
        "shares": [0.8],
        "hidden": 8,
        "steps": 5,
    },
}
WHOLE = {"networks": ["binding", "vintage", "asymmetry"]}
BARE = {"networks": ["binding"], "seeds": 1}
SECTIONS = [
    *("errors", "chart", "components", "faithful", "terms", "helix", "structure", "evolution", "topography", "primer"),
    "setting",
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nuclear")


def finished(at: Path, name: str, given: dict[str, Any]) -> Run:
    config, _ = STUDY.configure(SMOKE, SMALL | given)
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    steps = STUDY.steps(config, "smoke")
    out, store = at / name, at / "store"
    return execute("nuclear", steps, out=out, store=store, engine="inline", manifest=manifest, progress=None)


@pytest.fixture(scope="module")
def whole(at: Path) -> Run:
    return finished(at, "whole", WHOLE)


@pytest.fixture(scope="module")
def page(whole: Run) -> Page:
    return STUDY.page(whole)


@pytest.fixture(scope="module")
def bare(at: Path, whole: Run) -> Page:  # after the other, whose steps it shares
    return STUDY.page(finished(at, "bare", BARE))


def section(page: Page, key: str) -> Section:
    return next(s for s in page.sections if s.id == key)


def figure(page: Page, key: str) -> Figure:
    return next(f for s in page.sections for f in s.figures if f.id == key)


def table(page: Page, title: str) -> Table:
    return next(t for s in page.sections for t in s.tables if title in t.title)


def shown(run: Run) -> Shown:
    return Shown(run, NuclearConfig(**run.manifest["config"]))


# -- whole pages -------------------------------------------------------------------------------------------------------


def test_every_section_is_there_and_can_be_written(page: Page, bare: Page) -> None:
    for one in (page, bare):
        assert [s.id for s in one.sections] == SECTIONS
        assert [j.id for j in one.judgements] == ["N1", "N2", "N3", "N4", "N5", "N6"]
        assert render(one)
        assert "nan" not in " ".join(one.summary)
        for f in (f for s in one.sections for f in s.figures):
            json.dumps(f.plot, allow_nan=False)
            assert "n = " in f.caption or "One network" in f.caption, f.id
        for t in (t for s in one.sections for t in s.tables):
            assert all(len(row) == len(t.columns) for row in t.rows)
            assert t.caption


def test_what_was_not_trained_is_left_out_or_said(page: Page, bare: Page) -> None:
    assert "control is missing" in " ".join(section(bare, "terms").text)
    assert "stands beside as a control" in " ".join(section(page, "terms").text)
    assert "No network on a smooth function" in " ".join(section(bare, "helix").text)
    assert [f.id for f in section(bare, "errors").figures] == ["errors"]
    assert [f.id for f in section(page, "errors").figures] == ["errors", "errors-later", "coverage"]
    assert [f.id for f in section(bare, "chart").figures] == ["chart"]
    assert len(section(page, "terms").figures) == len(section(bare, "terms").figures) + 1
    assert any("measured later" in s for s in page.summary)
    assert not any("measured later" in s for s in bare.summary)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_predictions(whole: Run, page: Page) -> None:
    here = shown(whole)
    rows = here.ensemble("binding").query("split == 'id'")
    words = {row[0]: row[-1] for row in table(page, "AME2020, every split").rows}
    for name in BASELINES:
        assert words[BASELINES[name]] == kev(float(np.sqrt(np.mean((rows[name] - rows["value"]) ** 2))))
    error = float(np.sqrt(np.mean((rows["predicted"] - rows["value"]) ** 2)))
    assert words["mean of networks on binding energies"] == kev(error)
    single = []
    for seed in here.seeds:
        one = pd.read_parquet(here.output(f"train-binding-s{seed}") / PREDICTIONS).query("split == 'id'")
        single.append(float(np.sqrt(np.mean((one["predicted"] - one["value"]) ** 2))))
    assert words["one network on binding energies"].startswith(f"{kev(float(np.mean(single)))} [")
    assert kev(float(np.mean(single))) in page.summary[0]


def test_regions_add_up_to_the_nuclei_measured_later(whole: Run, page: Page) -> None:
    rows = shown(whole).ensemble("vintage").query("split == 'new'")
    regions = table(page, "by where they lie")
    n = [row[1] for row in regions.rows]
    assert sum(n) == len(rows)
    squares = [float(str(row[3]).replace(",", "")) ** 2 for row in regions.rows]
    total = np.sqrt(np.average(squares, weights=n))
    assert total == pytest.approx(np.sqrt(np.mean((rows["formula"] - rows["value"]) ** 2)), abs=1)


def test_every_nucleus_that_cannot_be_scored_is_named(whole: Run, page: Page) -> None:
    lost = shown(whole).composition(True)["unscorable"]["new"]
    row = next(r for r in table(page, "no network can score").rows if r[1] == "measured later")
    assert lost
    assert row[4] == len(lost)
    assert row[5].split(", ") == [nuclide(z, n) for z, n in lost]


def test_the_chart_has_the_errors_of_held_out_nuclei(whole: Run, page: Page) -> None:
    rows = shown(whole).ensemble("binding").query("split == 'id'")
    drawn = figure(page, "chart").data
    (column,) = [c for c in drawn.columns if "MeV" in c]
    networks = drawn[drawn["chart"].str.startswith("mean of 2")]
    assert networks[column].tolist() == pytest.approx(((rows["predicted"] - rows["value"]) / 1e3).tolist())
    assert networks["nuclide"].tolist() == [nuclide(z, n) for z, n in zip(rows["z"], rows["n"], strict=True)]


def test_all_components_are_the_full_network(page: Page) -> None:
    drawn = figure(page, "kept").data
    for _, part in drawn.groupby("panel"):
        kept = part[part["name"] == "components kept"].set_index("x")["y"]
        full = part[part["name"] == "full network"]["y"].iloc[0]
        assert kept[16] == pytest.approx(full, rel=1e-3)


def test_simplified_networks_are_those_of_the_run(whole: Run, page: Page, bare: Page) -> None:
    here = shown(whole)
    assert [c.label for c in page.identity] == [f"{n}, seed {s}" for n in ("binding", "vintage") for s in here.seeds]
    assert all(c.passed for c in page.identity)
    rows = table(page, "smallest simplifications").rows
    assert [(r[0], r[1], r[2]) for r in rows][:4] == [
        ("AME2020", "both tables", "principal components"),
        ("AME2020", "both tables", "helix and its residual"),
        ("AME2020", "both tables", "its drift and the residual"),
        ("AME2020", "penultimate layer", "principal components"),
    ]
    assert [bool(r[-1]) for r in rows] == [False] * 4 + [True] * 4  # later nuclei, by vintage alone
    alone = table(page, "helix alone, and").rows
    assert {r[1] for r in alone} == {"held out at random", "measured later"}
    assert "helix alone" in {r[2] for r in alone}
    assert {r[0] for r in table(bare, "smallest simplifications").rows} == {"AME2020"}
    drawn = figure(page, "faithful-errors").data
    part = drawn[drawn["panel"] == "AME2020, held out at random: both tables"]
    every = part[(part["name"] == "principal components") & (part["x"] == 16)]["y"].iloc[0]
    assert every == pytest.approx(part[part["name"] == "full network"]["y"].iloc[0], rel=1e-3)


def test_what_the_helix_is_worth_stands_beside_its_controls(whole: Run, page: Page) -> None:
    rows = table(page, "helix removed, beside").rows
    parts = [(column, part) for column in ("neutrons", "protons") for part in ("whole curve", "cosine and sine")]
    assert [(r[0], r[1]) for r in rows] == parts
    records = [record["helix"]["n"]["wave"] for record in shown(whole).records()]
    assert rows[1][3] == kev(float(np.mean([r["removed"] for r in records])))
    assert rows[1][6] == kev(float(np.mean([np.mean(r["same"]) for r in records])))


def test_a_baseline_is_not_scored_on_what_it_is_fitted_to(page: Page) -> None:
    words = {row[0]: row[1] for row in table(page, "AME2020, every split").rows}
    for name in BASELINES:
        assert (words[BASELINES[name]] == "–") == (name in ("neighbours", "kernel"))
    drawn = figure(page, "errors").data
    absent = drawn[drawn["reason"].fillna("") != ""]
    assert set(absent["network"]) == {"neighbours", "kernel"}
    assert set(absent["split"]) == {"train"}


def test_a_choice_at_the_edge_is_said(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = shown(whole)
    inside: dict[str, Any] = {"at_edge": []}
    edge = [(2020, {"neighbours": inside, "kernel": {"at_edge": ["noise"]}}), (2003, {"neighbours": inside})]
    monkeypatch.setattr(Shown, "chosen", lambda self: edge)
    (sentence,) = edges(here)
    assert "kernel method, on the residual, fitted to AME2020: noise." in sentence
    monkeypatch.setattr(Shown, "chosen", lambda self: edge[1:])
    assert edges(here) == ()


def test_the_helix_table_has_every_network_and_table(whole: Run, page: Page) -> None:
    here = shown(whole)
    rows = table(page, "helix test of every network").rows
    names = [*(TRAINED_ON[n] for n in WHOLE["networks"]), TRAINED_ON["untrained"]]
    assert [(r[0], r[1]) for r in rows] == [(name, column) for name in names for column in ("neutrons", "protons")]
    p = []
    for seed in here.seeds:
        frame = pd.read_parquet(here.output(f"helix-binding-s{seed}") / HELIX)
        p.append(f"{frame[frame['column'] == 'n']['p'].iloc[0]:.3g}")
    assert rows[0][4] == ", ".join(p)


def test_the_picture_of_the_helix_has_its_spectrum_and_its_tokens(whole: Run, page: Page) -> None:
    arrays = shown(whole).structure
    for column, letter in (("n", "N"), ("z", "Z")):
        keys = [f.id for f in section(page, "helix").figures]
        assert keys.index(f"helix-{column}-planes") == keys.index(f"helix-{column}") + 1
        drawn = figure(page, f"helix-{column}").data
        assert drawn["name"].tolist() == [f"{letter} = {t}" for t in arrays[f"{column} tokens"]]
        assert figure(page, f"helix-{column}-planes").data["share"].sum() == pytest.approx(1)


# -- words -------------------------------------------------------------------------------------------------------------


def test_every_network_has_words() -> None:
    assert set(KINDS) <= set(TRAINED_ON)
    assert model("binding") == "one network on binding energies"
    assert model("vintage-residual (ensemble)") == "mean of networks on the formula's residual"
    assert model("kernel") == BASELINES["kernel"]


def test_energies_are_whole_with_true_minus_signs() -> None:
    assert (kev(1234.5678), kev(-12.4), kev(float("nan"))) == ("1,235", "−12", "none")


def test_a_spread_is_the_mean_between_the_least_and_the_greatest() -> None:
    frame = pd.DataFrame({"panel": "a", "name": "b", "x": [1, 1, 2], "y": [1.0, 4.0, 7.0]})
    assert spread(frame, ("panel", "name", "x"))[["y", "low", "high"]].to_numpy().tolist() == [[2.5, 1, 4], [7, 7, 7]]
