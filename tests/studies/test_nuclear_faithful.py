"""Simplified networks of the nuclear study: what is compared, in which unit, and what the ranks and gaps are of."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heldout.analyses.estimates import Column, Scores
from heldout.analyses.geometry.kept import kept
from heldout.analyses.geometry.passes import predict
from heldout.analyses.summary import label
from heldout.evidence import Estimate
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.helix_fit import helix_fit
from heldout.runs.steps import StepContext
from heldout.studies.nuclear import STUDY
from heldout.studies.nuclear_faithful import (
    DRIFT,
    HAAR,
    HELIX,
    LAYER,
    MEAN,
    PCA,
    RECORD,
    REST,
    SCORES,
    TABLES,
    THRESHOLD,
    faithful,
    of_tables,
    simplify,
)
from heldout.studies.nuclear_judge import Found
from heldout.studies.nuclear_measure import PENULTIMATE, TABLE_SITES, bases_of, mass, table_of
from heldout.studies.nuclear_train import Trained, loaded, task_of, train_network
from heldout.tasks.nuclear import Nuclear

SETTINGS: dict[str, Any] = STUDY.configure("smoke")[0].model_dump(mode="json") | {"width": 16, "steps": 60}
SETTINGS |= {"components": [1, 8, 16], "alike": 50.0}
SEEDS = (100, 101)
LEAST = {PCA: 1, DRIFT: 2, HELIX: 3}  # dimensions


def context(out: Path, given: dict[str, Any], **inputs: Path) -> StepContext:
    out.mkdir(parents=True)
    return StepContext(out.name, SETTINGS | given, inputs, out=out, device="cpu")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of two seeds, at random and by vintage, and their simplifications."""
    root = tmp_path_factory.mktemp("faithful")
    for network in ("binding", "vintage"):
        for seed in SEEDS:
            own = {"network": network, "seed": seed}
            train_network(context(root / f"train-{network}-s{seed}", own))
            weights = root / f"train-{network}-s{seed}"
            simplify(context(root / f"faithful-{network}-s{seed}", own, weights=weights))
    return root


@pytest.fixture(scope="module")
def estimates(at: Path) -> list[Estimate]:
    found = Found(SEEDS, ("binding", "vintage"), 8, {path.name: path for path in at.iterdir()})
    return list(faithful(found))


def network_at(at: Path, name: str, seed: int) -> tuple[TokenMLP, Nuclear]:
    kind = Trained.named(name)
    weights = at / f"train-{name}-s{seed}"
    ctx = StepContext("read", SETTINGS | {"seed": seed}, {"weights": weights}, out=at, device="cpu")
    task = task_of(SETTINGS, kind)
    return loaded(ctx, kind, task), task


@cache
def scores(at: Path, name: str, seed: int) -> dict[tuple[str, str, str], dict[str, float]]:
    """Means over nuclei by site, edit and split."""
    read = Scores.read([at / f"faithful-{name}-s{seed}" / SCORES])
    found = {}
    for cell in read.cells:
        where = (cell.network, cell.seed, cell.split, cell.edit.label, cell.edit.site)
        table = read.table(Column(*where, "n", None, None)).table
        found[cell.edit.site, cell.edit.label, cell.split] = {
            k: float(v.sum() / table["n"].sum()) for k, v in table.items() if k != "unit"
        }
    return found


def value(estimates: list[Estimate], **where: Any) -> float:
    (one,) = [e for e in estimates if all(getattr(e, k) == v for k, v in where.items())]
    return one.value


# -- what is compared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binding", "vintage"])
def test_errors_are_those_of_the_components_kept_elsewhere(at: Path, name: str) -> None:
    """The faithfulness analysis and the study's own sums of squares, of the same cuts of the same network."""
    network, task = network_at(at, name, 100)
    bases = bases_of(network, task)
    found = scores(at, name, 100)
    for split in ("id", *(["new"] if name == "vintage" else [])):
        for site, places in ((LAYER, [PENULTIMATE]), (TABLES, list(TABLE_SITES.values()))):
            own = {place: bases[place] for place in places}
            curve = kept(network, task.splits[split], own, (1, 8, 16), scale=mass(task, split))
            for rank in (1, 8):
                error = np.sqrt(found[site, f"pca-{rank}", split]["whole_error"])
                assert error == pytest.approx(curve.squares.rms(str(rank)), rel=1e-4)
            assert np.sqrt(found[site, "mean", split]["whole_own"]) == pytest.approx(
                curve.squares.rms("full"), rel=1e-4
            )


@pytest.mark.parametrize(("edit", "residual"), [("helix-3", 0), ("helix-8", 5), ("drift-2", 0), ("helix-rest", None)])
def test_the_helix_in_place_of_both_tables_is_what_is_scored(at: Path, edit: str, residual: int | None) -> None:
    """The same by hand: other weights in the tables, no edit."""
    network, task = network_at(at, "binding", 101)
    other = copy.deepcopy(network)
    for i, column in enumerate(TABLE_SITES):
        table, tokens = table_of(network, task, column), task.tokens[column]
        fit = helix_fit(table, tokens)
        t = (tokens - tokens[0]) / (tokens[-1] - tokens[0])
        curve = fit.fitted
        if edit.startswith("drift"):
            curve = np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, fit.scores, 2)).T
        rows = fit.mean + curve @ fit.components
        if residual is None:
            rows = table - fit.residual @ fit.components
        elif residual:
            u, d, v = np.linalg.svd(table - rows, full_matrices=False)
            rows = rows + u[:, :residual] * d[:residual] @ v[:residual]
        with torch.no_grad():
            weight = other.embeddings[i].weight
            assert isinstance(weight, Tensor)
            weight[torch.from_numpy(tokens)] = torch.from_numpy(rows).float()
    own, changed = (predict(n, task.splits["id"]) for n in (network, other))
    found = scores(at, "binding", 101)[TABLES, edit, "id"]
    assert found["same"] == pytest.approx(np.mean(np.abs(changed - own) <= SETTINGS["alike"]), abs=0.01)
    whole = np.mean((mass(task, "id") * (changed - own)) ** 2)
    assert found["whole_changed"] == pytest.approx(whole, rel=1e-4)
    assert found["squared"] == pytest.approx(np.mean((changed - own) ** 2), rel=1e-4)  # keV per nucleon


@pytest.mark.parametrize("name", ["binding", "vintage"])
def test_with_every_component_nothing_changes(at: Path, name: str) -> None:
    for seed in SEEDS:
        found = scores(at, name, seed)
        for site in (LAYER, TABLES):
            for family in (PCA, HAAR):
                one = found[site, f"{family}-16", "id"]
                assert one["same"] == 1
                assert np.sqrt(one["whole_changed"]) < 1  # keV of more than 1e6
        record = json.loads((at / f"faithful-{name}-s{seed}" / RECORD).read_text())
        assert record["identity"]["difference"] <= record["identity"]["tolerance"]


def test_random_subspaces_differ_between_tables_and_draws(at: Path) -> None:
    network, task = network_at(at, "binding", 100)
    edits = [e for e in of_tables(network, task, (8,)) if e.origin.label == "haar-8"]
    assert len({e.origin.label for e in edits}) == 1
    x = torch.randn(5, 16)
    images = [f(x, None) for e in edits for f in e.functions.values()]
    assert all(not torch.allclose(a, b) for i, a in enumerate(images) for b in images[:i])


# -- what is chosen and estimated --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binding", "vintage"])
def test_ranks_are_the_least_that_are_alike_on_select(at: Path, name: str) -> None:
    for seed in SEEDS:
        found = scores(at, name, seed)
        record = json.loads((at / f"faithful-{name}-s{seed}" / RECORD).read_text())
        picks = {(c["site"], c["family"]): c for c in record["chosen"]}
        assert set(picks) == {(LAYER, PCA), (TABLES, PCA), (TABLES, HELIX), (TABLES, DRIFT), (TABLES, REST)}
        for (site, family), pick in picks.items():
            if family == REST:  # of one size
                assert pick["reached"] == (found[site, REST, "select"]["same"] >= THRESHOLD)
                continue
            sizes = [1, 2, 3, 8, 16] if site == TABLES else [1, 8, 16]
            alike = {k: found[site, f"{family}-{k}", "select"]["same"] for k in sizes if k >= LEAST[family]}
            reached = [k for k, share in alike.items() if share >= THRESHOLD]
            assert pick["reached"] == bool(reached)
            assert pick["parameter"] == (min(reached) if reached else max(alike))


def test_estimates_are_means_over_networks(at: Path, estimates: list[Estimate]) -> None:
    each = [scores(at, "vintage", seed) for seed in SEEDS]
    where: dict[str, Any] = {"network": "vintage", "site": TABLES, "split": "new", "edit": HELIX, "parameter": 8}
    for quantity, read in (
        ("alike", lambda s: s["same"]),
        ("rms_whole", lambda s: np.sqrt(s["whole_error"])),
        ("rms_changed", lambda s: np.sqrt(s["whole_changed"])),
    ):
        expected = np.mean([read(one[TABLES, "helix-8", "new"]) for one in each])
        assert value(estimates, quantity=quantity, **where) == pytest.approx(expected, rel=1e-9)
    assert not [e for e in estimates if e.network == "binding" and e.split == "new"]
    assert {e.edit for e in estimates if e.site == TABLES} == {PCA, HELIX, DRIFT, HAAR, REST, MEAN, "full"}


def test_gaps_are_from_nuclei_held_out_at_random_to_later_ones(at: Path, estimates: list[Estimate]) -> None:
    for family in (PCA, HELIX, DRIFT):
        gaps = []
        for seed in SEEDS:
            record = json.loads((at / f"faithful-vintage-s{seed}" / RECORD).read_text())
            (pick,) = [c for c in record["chosen"] if (c["site"], c["family"]) == (TABLES, family)]
            found = scores(at, "vintage", seed)
            alike = [found[TABLES, f"{family}-{pick['parameter']:g}", split]["same"] for split in ("id", "new")]
            noise = [found[TABLES, f"{family}+null-{pick['parameter']:g}", s]["same"] for s in ("id", "new")]
            gaps.append((alike[0] - alike[1], noise[0] - noise[1]))
        where = {"network": "vintage", "site": TABLES, "edit": family, "split": "new"}
        gap, null = np.mean(gaps, axis=0)
        assert value(estimates, quantity="alike_gap", **where) == pytest.approx(gap, abs=1e-12)
        assert value(estimates, quantity="alike_null_gap", **where) == pytest.approx(null, abs=1e-12)
        assert value(estimates, quantity="alike_excess_gap", **where) == pytest.approx(gap - null, abs=1e-12)


def test_noise_is_as_often_alike_as_what_it_stands_beside_or_says_why_not(at: Path) -> None:
    record = json.loads((at / "faithful-vintage-s100" / RECORD).read_text())
    found, matched = scores(at, "vintage", 100), []
    for pick, null in zip(record["chosen"], record["nulls"], strict=True):
        assert (abs(null["agreement"] - null["target"]) > 0.01) == ("no noise matches" in null["reason"])
        own, noise = (label(pick["family"] + more, pick["parameter"]) for more in ("", "+null"))
        assert null["target"] == pytest.approx(found[pick["site"], own, "id"]["same"])
        if not null["reason"]:  # two draws, other ones than the scale was chosen by
            assert found[pick["site"], noise, "id"]["same"] == pytest.approx(null["target"], abs=0.1)
            matched.append(null["target"])
    assert min(matched) < 0.9  # of noise so small that all are alike, nothing would be told
    assert {null["site"] for null in record["nulls"]} == {LAYER, TABLES}
