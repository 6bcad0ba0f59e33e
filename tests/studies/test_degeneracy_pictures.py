"""Pictures in the degeneracy study: counts that are known on linear networks, and a small run of both steps and its page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.ablation import NodeAblation, Performance
from heldout.errors import ConfigError
from heldout.evidence import read_estimates, write_estimates
from heldout.runs.steps import StepContext
from heldout.studies.degeneracy_kept import KINDS, Remembered, bases_of, counted
from heldout.studies.degeneracy_page_pictures import pictures
from heldout.studies.degeneracy_pictures import (
    MEASURED,
    accuracies,
    half_octaves,
    log_ratio,
    measure_pictures,
    measured,
    pictures_estimates,
    splits_of,
    spread,
    train_pictures,
)
from heldout.studies.degeneracy_shown import Shown
from heldout.tasks.base import Rectangular, Role, Split

SMALL: dict[str, Any] = {
    "seed": 100,
    "source": "digits",
    "path": "",
    "select": 0.25,
    "data_seed": 0,
    "hidden": [5],
    "epochs": 10,
    "batch": 64,
    "learning_rate": 1e-2,
    "tolerances": [0.001, 0.01],
    "derivatives": 200,
}
SECTION = "pixels to hidden 1"


def linear(first: Tensor, second: Tensor) -> nn.Sequential:
    """x -> x first -> x first second, float64."""
    network = nn.Sequential(*(nn.Linear(len(w), w.shape[1], bias=False) for w in (first, second))).double()
    with torch.no_grad():
        for layer, w in zip(network, (first, second), strict=True):
            cast(nn.Linear, layer).weight.copy_(w.T)
    return network


def splits_for(network: nn.Module, inputs: int) -> dict[str, Split]:
    """Correlated inputs, and as targets what the network itself says, so that each direction it uses is needed."""
    rng = np.random.default_rng(0)
    mixing = np.eye(inputs) + 0.4 * rng.normal(size=(inputs, inputs))
    found = {}
    for name, role in (("train", "fit"), ("select", "select"), ("id", "test")):
        x = torch.from_numpy(rng.normal(size=(600, inputs)) @ mixing)
        with torch.no_grad():
            found[name] = Split(name, cast(Role, role), Rectangular(x, network(x).argmax(-1)))
    return found


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=shape))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_linear_network_needs_as_many_edges_as_its_rank(rank: int) -> None:
    """In the interaction basis, and that many features; principal components need more edges."""
    network = linear(normal(6, rank) @ normal(rank, 5), normal(5, 4))
    found = measured(Sections(network, [".:input", "0", "."]), splits_for(network, 6), tolerances=[0.0])
    assert found["accuracy"] == {"train": 1.0, "select": 1.0, "id": 1.0}
    lib = found["lib"]
    assert lib["features"] == {"pixels": rank, "hidden 1": rank, "logits": 4}
    assert lib["edges"][SECTION]["0"]["count"] == lib["kept"]["pixels"]["0"]["count"] == rank
    assert lib["edges"][SECTION]["0"]["id"] == 1
    assert lib["strongest"][SECTION] <= rank
    assert found["pca"]["features"]["pixels"] == 6
    assert found["pca"]["edges"][SECTION]["0"]["count"] > rank


def test_neurons_that_read_one_pixel_each_need_one_edge_each() -> None:
    network = linear(torch.diag(torch.tensor([1.0, 1.2, 0.8, 1.1, 0.9])).double(), normal(5, 4))
    found = measured(Sections(network, [".:input", "0", "."]), splits_for(network, 5), tolerances=[0.0])
    # Four logits see four directions of the five.
    assert found["lib"]["edges"][SECTION]["0"]["count"] == 4
    assert found["neuron"]["edges"][SECTION]["0"]["count"] == 5
    assert found["pca"]["edges"][SECTION]["0"]["count"] > 5


def test_counts_nest_and_keep_what_they_say() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    tolerances = [0.0, 0.02, 0.2, 1.0]
    found = measured(
        Sections(network, [".:input", "1", "."]), splits_for(network, 6), tolerances=tolerances, derivatives=100
    )
    for kind in KINDS:
        own = found[kind]
        for tried in (*own["kept"].values(), *own["edges"].values()):
            counts = [entry["count"] for entry in tried.values()]
            assert all(a >= b for a, b in pairwise(counts))
            assert counts[-1] == 0
            for tolerance, entry in zip(tolerances, tried.values(), strict=True):
                assert entry["select"] >= entry["whole"] - tolerance
                below = entry["tried"].get(str(entry["count"] - 1), -1)
                assert below < entry["whole"] - tolerance
        for site, accuracies_of in own["curve"].items():
            assert list(accuracies_of.values())[-1] == found["accuracy"]["id"]
            assert int(list(accuracies_of)[-1]) == {"pixels": 6, "hidden 1": 8}[site]
            for entry in ("0", "0.02"):  # the curve and the count are the same ablation
                kept = own["kept"][site][entry]
                assert accuracies_of.get(str(kept["count"]), kept["id"]) == kept["id"]


def test_the_last_layer_is_the_same_in_every_basis() -> None:
    network = linear(normal(6, 5), normal(5, 4))
    splits = splits_for(network, 6)
    sections = Sections(network, [".:input", "0", "."])
    for kind in KINDS:
        basis = bases_of(kind, sections, splits["train"])["."]
        assert basis.encoder_ is not None
        assert sorted(basis.encoder_.argmax(0).tolist()) == [0, 1, 2, 3]
        assert torch.equal(basis.encoder_.sum(0), torch.ones(4, dtype=torch.float64))
    with pytest.raises(ConfigError, match="unknown kind of basis 'ica'"):
        bases_of("ica", sections, splits["train"])


def test_what_was_scored_is_not_scored_again() -> None:
    network = linear(normal(6, 5), normal(5, 4))
    splits = splits_for(network, 6)
    sections = Sections(network, [".:input", "0", "."])
    plain = NodeAblation(sections, bases_of("pca", sections, splits["train"]), ".:input")
    asked: list[tuple[str, int]] = []

    class Watched(NodeAblation):
        def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
            asked.append((split.name, int(kept.sum())))
            return super().score(kept, split, batch_size=batch_size)

    remembered = Remembered(Watched(sections, plain.bases, ".:input"))
    for tolerance in (0.0, 0.05, 0.05):
        one, other = (counted(a, splits["select"], [splits["id"]], tolerance=tolerance) for a in (plain, remembered))
        assert one == other
    assert len(asked) == len(set(asked))


def test_numbers_of_features_are_half_octaves_and_all() -> None:
    assert half_octaves(1) == [1]
    assert half_octaves(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert half_octaves(100) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 100]
    assert spread(3, 9).tolist() == [0, 4, 8]
    assert spread(20, 4).tolist() == [0, 1, 2, 3]


def test_a_ratio_with_nothing_is_none() -> None:
    assert log_ratio(6, 3) == pytest.approx(math.log(2))
    assert math.isnan(log_ratio(0, 3))
    assert math.isnan(log_ratio(3, 0))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both steps of two seeds."""
    folders = []
    for seed in (100, 101):
        at = tmp_path_factory.mktemp(f"s{seed}")
        weights, found = at / "weights" / "out", at / "found" / "out"
        for folder in (weights, found):
            folder.mkdir(parents=True)
        settings = SMALL | {"seed": seed}
        train_pictures(StepContext("train", settings, {}, out=weights, device="cpu"))
        measure_pictures(StepContext("measure", settings, {"weights": weights}, out=found, device="cpu"))
        folders.append(found)
    return folders


def read(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / MEASURED).read_text())
    return found


def test_a_small_run_is_measured_throughout(outputs: list[Path]) -> None:
    splits = splits_of(SMALL)
    for folder in outputs:
        found = read(folder)
        assert found["layers"] == ["pixels", "hidden 1", "logits"]
        assert found["sections"] == [SECTION, "hidden 1 to logits"]
        assert found["items"] == {name: len(split) for name, split in splits.items()}
        assert found["accuracy"]["id"] > 0.5  # of ten classes
        for kind in KINDS:
            own = found[kind]
            totals = {SECTION: own["features"]["pixels"] * own["features"]["hidden 1"]}
            totals["hidden 1 to logits"] = own["features"]["hidden 1"] * 10
            for section, total in totals.items():
                assert own["edges"][section]["0.001"]["total"] == total
                assert 0 < own["edges"][section]["0.01"]["count"] <= own["edges"][section]["0.001"]["count"] <= total
                assert 0 < own["strongest"][section] <= total
            assert own["kept"]["pixels"]["0.001"]["total"] == 64
        # A hidden layer of five takes five directions of pixels at most.
        assert found["lib"]["features"]["pixels"] <= 5 < found["pca"]["features"]["pixels"] <= 64
    assert read(outputs[0]) != read(outputs[1])


def test_the_steps_are_repeatable(outputs: list[Path], tmp_path: Path) -> None:
    weights, found = tmp_path / "weights" / "out", tmp_path / "found" / "out"
    for folder in (weights, found):
        folder.mkdir(parents=True)
    train_pictures(StepContext("train", SMALL, {}, out=weights, device="cpu"))
    measure_pictures(StepContext("measure", SMALL, {"weights": weights}, out=found, device="cpu"))
    assert (found / MEASURED).read_bytes() == (outputs[0] / MEASURED).read_bytes()


def test_estimates_and_the_page_say_what_was_measured(outputs: list[Path], tmp_path: Path) -> None:
    write_estimates(tmp_path / "estimates.parquet", list(pictures_estimates(outputs)))
    table = read_estimates(tmp_path / "estimates.parquet")
    assert set(table["network"]) == {"pictures"}
    one, other = (read(folder) for folder in outputs)

    def value(quantity: str, **where: Any) -> float:
        rows = table[table["quantity"] == f"pictures:{quantity}"]
        for column, wanted in where.items():
            rows = rows[rows[column] == wanted]
        (found,) = rows["value"]
        return float(found)

    def edges(m: Mapping[str, Any], kind: str, what: str = "count") -> float:
        return float(m[kind]["edges"][SECTION]["0.01"][what])

    at = {"site": SECTION, "edit": "pca"}
    assert value("edges_needed:0.01", **at) == pytest.approx((edges(one, "pca") + edges(other, "pca")) / 2)
    ratio = np.mean([math.log(edges(m, "pca") / edges(m, "lib")) for m in (one, other)])
    assert value("edges_ratio:0.01", **at) == pytest.approx(ratio)
    cost = np.mean([m["accuracy"]["id"] - edges(m, "pca", "id") for m in (one, other)])
    assert value("edges_cost:0.01", **at) == pytest.approx(cost)
    last = np.mean([m["accuracy"]["id"] for m in (one, other)])
    assert value("curve", site="pixels", edit="neuron", parameter=64) == pytest.approx(last)
    assert value("accuracy", split="id") == pytest.approx(last)

    section = pictures(cast(Shown, SimpleNamespace(estimates=table)))
    assert [figure.id for figure in section.figures] == [
        "pictures-curve",
        "pictures-edges-0-001",
        "pictures-edges-0-01",
    ]
    assert {"interaction basis", "principal components", "neurons"} <= set(section.figures[1].data["basis"])
    assert all(table.rows for table in section.tables)
    assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)
    assert str(len(splits_of(SMALL)["select"])) in [row[1] for row in section.tables[0].rows]


def test_accuracy_is_the_share_of_right_answers() -> None:
    network = linear(torch.eye(3).double(), torch.eye(3).double())
    x = torch.eye(3).double()[[0, 1, 2, 0]]
    split = Split("id", "test", Rectangular(x, torch.tensor([0, 1, 0, 0])))
    assert accuracies(network, {"id": split}) == {"id": 0.75}
