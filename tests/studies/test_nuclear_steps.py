"""Steps of the nuclear study on few nuclei: targets and what is added back, weights of errors, what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.geometry.interventions import FULL
from heldout.analyses.geometry.passes import predict
from heldout.analyses.geometry.squares import squares
from heldout.errors import ConfigError
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.helix_fit import helix_fit
from heldout.runs.steps import StepContext
from heldout.studies import nuclear_baselines as baselines
from heldout.studies import nuclear_helix
from heldout.studies.nuclear import STUDY
from heldout.studies.nuclear_data import COUNTS, check_data, enough_groups, enough_nuclei, enough_tokens
from heldout.studies.nuclear_helix import HELIX
from heldout.studies.nuclear_measure import (
    KEPT,
    SITES,
    blocks,
    features_of,
    frame_of,
    keep_components,
    squares_of,
    table_of,
    terms_of,
    untrained_network,
)
from heldout.studies.nuclear_settings import NETWORKS
from heldout.studies.nuclear_structure import STRUCTURE, read_structure
from heldout.studies.nuclear_train import (
    CURVES,
    KINDS,
    PREDICTIONS,
    SCALE,
    TABLES,
    WEIGHTS,
    Trained,
    formula_of,
    loaded,
    network_of,
    nuclei,
    offsets,
    predictions,
    rms,
    split_of,
    task_of,
    total,
    train_network,
)
from heldout.tasks.nuclear import masses, nucleus_keys
from heldout.tasks.nuclear.energies import derive
from heldout.tasks.nuclear.formulas import BW2, SEMF, fit
from heldout.training.losses import squared_error

SETTINGS: dict[str, Any] = STUDY.configure("smoke")[0].model_dump(mode="json") | {"width": 16, "steps": 4, "seed": 100}
RESIDUALS = [name for name, kind in KINDS.items() if kind.residual]


class Answers(nn.Module):
    """A network of given answers, by nucleus."""

    def __init__(self, tokens: Tensor, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(200, 200))
        self.table: Tensor
        self.table[tokens[:, 0], tokens[:, 1]] = values.float()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens[:, 0], tokens[:, 1]][:, None]


def context(out: Path, name: str, given: dict[str, Any], **inputs: Path) -> StepContext:
    out.mkdir(parents=True, exist_ok=True)
    return StepContext(name, SETTINGS | given, inputs, out=out, device="cpu")


# -- targets -----------------------------------------------------------------------------------------------------------


def test_every_network_of_the_settings_has_its_kind() -> None:
    assert list(KINDS) == list(NETWORKS)


@pytest.mark.parametrize("name", RESIDUALS)
def test_residual_networks_are_trained_on_what_the_formula_leaves_and_nothing_else_changes(name: str) -> None:
    kind = KINDS[name]
    task = task_of(SETTINGS, kind)
    z, n = nuclei(task, "train")
    formula = fit(SEMF.terms, z, n, task.rows["train"].value * (z + n))
    for split_name, split in task.splits.items():
        found = split_of(task, kind, split_name)
        z, n = nuclei(task, split_name)
        assert np.array_equal(offsets(task, kind, split_name), formula.binding(z, n) / (z + n))
        batch, own = (s.items.take(np.arange(len(s))) for s in (found, split))
        assert batch.targets is not None
        left = task.rows[split_name].value - formula.binding(z, n) / (z + n)
        np.testing.assert_array_equal(batch.targets[:, 0].numpy(), left.astype(np.float32))
        assert torch.equal(batch.inputs, own.inputs)
        assert {k: v.tolist() for k, v in batch.strata.items()} == {k: v.tolist() for k, v in own.strata.items()}
        np.testing.assert_array_equal(found.keys, split.keys)
        np.testing.assert_array_equal(found.units, split.units)
        assert (found.name, found.role, found.note) == (split.name, split.role, split.note)


def test_other_networks_see_their_targets_as_they_are() -> None:
    for name in set(KINDS) - set(RESIDUALS):
        task = task_of(SETTINGS, KINDS[name])
        assert split_of(task, KINDS[name], "train") is task.splits["train"]
        assert not offsets(task, KINDS[name], "id").any()


@pytest.mark.parametrize("name", ["binding", *RESIDUALS])
def test_a_network_of_right_answers_has_no_error(name: str) -> None:
    """The formula is added back, once, and energies are those of whole nuclei."""
    kind = KINDS[name]
    task = task_of(SETTINGS, kind)
    tokens = torch.cat([split.items.inputs for split in task.splits.values()])  # type: ignore[attr-defined]
    targets = [split_of(task, kind, split).items.targets for split in task.splits]  # type: ignore[attr-defined]
    table = predictions(Answers(tokens, torch.cat(targets)[:, 0]), task, kind)
    assert np.abs(table["predicted"] - table["value"]).max() < 0.1  # keV: float32, times A
    assert rms(Answers(tokens, torch.cat(targets)[:, 0]), task, kind, "id") < 0.1
    # The values are the evaluation's, by nucleus.
    for split, year in (("id", SETTINGS["old"] if kind.vintage else SETTINGS["table"]), ("new", SETTINGS["new"])):
        rows = table[table["split"] == split]
        measured = masses(year)
        at = measured.find(nucleus_keys(rows["z"].to_numpy(), rows["n"].to_numpy()))
        energy = derive(measured, "binding", per_nucleon=False)
        np.testing.assert_allclose(rows["value"], energy.value[at], rtol=1e-12)
        np.testing.assert_allclose(rows["uncertainty"], energy.uncertainty[at], rtol=1e-12)


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_network_that_says_nothing_is_the_formula(name: str) -> None:
    task = task_of(SETTINGS, KINDS[name])
    nothing = Answers(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1))
    table = predictions(nothing, task, KINDS[name])
    np.testing.assert_allclose(
        table["predicted"], formula_of(task).binding(table["z"].to_numpy(), table["n"].to_numpy()), rtol=1e-12
    )


def test_controls_are_not_multiplied_by_nucleons() -> None:
    kind = KINDS["asymmetry"]
    table = predictions(untrained_network(SETTINGS, task_of(SETTINGS, kind), 0), task_of(SETTINGS, kind), kind)
    np.testing.assert_allclose(table["value"], (table["n"] - table["z"]) ** 2 / (table["z"] + table["n"]), rtol=1e-12)


# -- training ----------------------------------------------------------------------------------------------------------


def test_weighting_by_total_is_the_error_of_whole_nuclei() -> None:
    task = task_of(SETTINGS, KINDS["binding"])
    split = task.splits["train"]
    batch = split.items.take(np.arange(300))
    assert batch.targets is not None
    outputs = batch.targets + torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0)) * 50
    z, n = (side[:300] for side in nuclei(task, "train"))
    errors = (z + n) * (outputs - batch.targets)[:, 0].double().numpy()
    loss = squared_error((SCALE,), weight=total)(outputs, batch)
    assert float(loss) * SCALE == pytest.approx(np.mean(errors**2), rel=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder a network: two kinds by the settings, and three ways with weight decay."""
    at = tmp_path_factory.mktemp("networks")
    ways: dict[str, dict[str, Any]] = {
        "binding": {"network": "binding"},
        "vintage-residual": {"network": "vintage-residual"},
        "no-decay": {"network": "no-decay", "weight_decay": 5.0},
        "none": {"network": "binding", "weight_decay": 0.0},
        "some": {"network": "binding", "weight_decay": 5.0},
        **{
            f"{network} {weighting}": {"network": network, "weighting": weighting}
            for network in ("binding", "asymmetry")
            for weighting in ("nucleon", "total")
        },
    }
    for name, given in ways.items():
        train_network(context(at / name, name, given))
    return {name: at / name for name in ways}


@pytest.mark.parametrize("name", ["binding", "vintage-residual"])
def test_curves_and_predictions_tell_the_same(trained: dict[str, Path], name: str) -> None:
    curves, table = (pd.read_parquet(trained[name] / file) for file in (CURVES, PREDICTIONS))
    error = (table["predicted"] - table["value"]) ** 2
    last = curves[curves["metric"] == "rms"].groupby("split")["value"].last()
    for split in ("train", "select"):
        assert last[split] == pytest.approx(np.sqrt(error[table["split"] == split].mean()), rel=1e-5)
    with np.load(trained[name] / TABLES) as tables:
        assert tables["z"].shape == (len(tables["steps"]), 119, 16)
        assert len(tables["n"]) == len(tables["steps"])
        assert tables["steps"][-1] == SETTINGS["steps"]
        assert (tables["z"][0] != tables["z"][-1]).any()


def weights(folder: Path) -> bytes:
    from safetensors.torch import load_file

    return b"".join(v.numpy().tobytes() for _, v in sorted(load_file(folder / WEIGHTS).items()))


def test_no_decay_is_the_same_network_without_decay(trained: dict[str, Path]) -> None:
    assert weights(trained["no-decay"]) == weights(trained["none"])
    assert weights(trained["some"]) != weights(trained["none"])


def test_weighting_changes_networks_on_energies_alone(trained: dict[str, Path]) -> None:
    assert weights(trained["binding total"]) != weights(trained["binding nucleon"])
    assert weights(trained["asymmetry total"]) == weights(trained["asymmetry nucleon"])


def test_what_is_read_is_the_network_that_was_trained(trained: dict[str, Path], tmp_path: Path) -> None:
    ctx = context(tmp_path, "reading", {"network": "vintage-residual"}, weights=trained["vintage-residual"])
    kind = Trained.named("vintage-residual")
    task = task_of(SETTINGS, kind)
    table = predictions(loaded(ctx, kind, task), task, kind)
    pd.testing.assert_frame_equal(table, pd.read_parquet(trained["vintage-residual"] / PREDICTIONS))


# -- baselines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vintage", [False, True])
def test_baselines_are_fitted_on_train_and_predict_all(vintage: bool, tmp_path: Path) -> None:
    heavy = {"above_z": 75, "above_n": 110}
    baselines.predict_without(context(tmp_path, "baselines", {"vintage": vintage, **heavy}))
    table = pd.read_parquet(tmp_path / baselines.PREDICTED)
    task = task_of(SETTINGS | heavy, Trained(vintage=vintage))
    assert table.groupby("split").size().to_dict() == {name: len(split) for name, split in task.splits.items()}
    train = table[table["split"] == "train"]
    for label, formula in ((baselines.FORMULA, SEMF), (baselines.EXTENDED, BW2)):
        own = fit(formula.terms, *(train[c].to_numpy() for c in ("z", "n", "value")))
        np.testing.assert_allclose(table[label], own.binding(table["z"].to_numpy(), table["n"].to_numpy()), rtol=1e-9)
        published = formula.binding(table["z"].to_numpy(), table["n"].to_numpy())
        np.testing.assert_allclose(table[f"published {label}"], published, rtol=1e-12)
    coordinates, residuals, groups = baselines.training(task, vintage)
    np.testing.assert_allclose(residuals, train["value"] - train[baselines.FORMULA], atol=1e-6)
    assert len(np.unique(groups)) == (len(np.unique(train["z"])) if vintage else len(train))
    assert len(coordinates) == len(train)


# -- components and tables ---------------------------------------------------------------------------------------------


def test_sums_survive_being_written() -> None:
    rng = np.random.default_rng(0)
    own = squares({name: rng.normal(size=30) for name in ("8", FULL, "16")}, rng.integers(0, 7, 30))
    read = squares_of(frame_of(own))
    np.testing.assert_array_equal(read.units, own.units)
    np.testing.assert_array_equal(read.n, own.n)
    for name in own.names:
        assert read.rms(name) == pytest.approx(own.rms(name), rel=1e-14)


def test_all_components_are_the_network_at_every_site(trained: dict[str, Path], tmp_path: Path) -> None:
    keep_components(context(tmp_path, "kept", {"components": [1, 16]}, weights=trained["binding"]))
    frame = pd.read_parquet(tmp_path / KEPT)
    assert set(frame["site"]) == set(SITES)
    table = pd.read_parquet(trained["binding"] / PREDICTIONS)
    for (_, split), rows in frame.groupby(["site", "split"]):
        found = squares_of(rows)
        assert found.rms("16") == found.rms(FULL)
        assert found.rms("1") != found.rms(FULL)
        error = table[table["split"] == split]
        assert found.rms(FULL) == pytest.approx(np.sqrt(np.mean((error["predicted"] - error["value"]) ** 2)), abs=0.1)
        assert found.n.sum() == len(error)


def test_tables_are_of_trained_tokens_in_order() -> None:
    task = task_of(SETTINGS, KINDS["vintage"])
    network = network_of(SETTINGS, task)
    for i, column in enumerate(("z", "n")):
        present = np.unique(nuclei(task, "train")[i])
        own = network.embeddings[i].weight.detach().double().numpy()[present]
        np.testing.assert_array_equal(table_of(network, task, column), own)


def test_untrained_networks_start_from_weights_of_no_seed() -> None:
    task = task_of(SETTINGS, KINDS["binding"])

    def first(network: TokenMLP) -> float:
        return float(network.into.weight.detach()[0, 0])

    seeds = [first(network_of(SETTINGS | {"seed": seed}, task)) for seed in range(3)]
    fresh = [first(untrained_network(SETTINGS | {"seed": s}, task, i)) for s in range(3) for i in range(3)]
    assert len({*seeds, *fresh}) == 12


def test_components_are_read_in_energies_of_whole_nuclei() -> None:
    """Each feature is the output from the mean and one component: with all components' parts added, the network."""
    task = task_of(SETTINGS, KINDS["binding"])
    network, split = untrained_network(SETTINGS, task, 0), task.splits["id"]
    z, n = nuclei(task, "id")
    features = features_of(network, task, split, 16) / (z + n)[:, None]
    whole = predictions(network, task, KINDS["binding"])
    output = whole["predicted"][whole["split"] == "id"].to_numpy() / (z + n)
    # The readout is affine: each feature holds the mean's answer once.
    rest = features.sum(axis=1) - output
    assert np.ptp(rest) < 1e-3 * np.ptp(output)
    assert terms_of(task, "id").names == BW2.terms


def test_neighbouring_chains_move_together() -> None:
    split = task_of(SETTINGS, KINDS["binding"]).splits["id"]
    found, chains = blocks(split, 4), split.unit_ids()
    assert len(np.unique(found)) == -(-len(np.unique(chains)) // 4)
    for block in np.unique(found):
        inside = np.unique(chains[found == block])
        assert len(inside) <= 4
        assert not np.isin(chains[found != block], np.arange(inside.min(), inside.max() + 1)).any()


def test_both_tables_of_trained_and_untrained_networks_are_tested(trained: dict[str, Path], tmp_path: Path) -> None:
    for name, inputs in (("binding", {"weights": trained["binding"]}), ("untrained", {})):
        at = tmp_path / name
        nuclear_helix.test_helix(context(at, "helix", {"network": name}, **inputs))
        rows = pd.read_parquet(at / HELIX)
        assert rows.groupby("column").size().to_dict() == {"z": 3, "n": 3}
        for _, same in rows.groupby("column"):
            assert same["p"].nunique() == same["excess"].nunique() == 1
            assert same["p"].iloc[0] == same["family_p"].max()
            assert same["excess"].iloc[0] == pytest.approx(same["statistic"].iloc[0] - same["threshold"].max())


# -- what the helix is worth -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def structure(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    at = tmp_path_factory.mktemp("structure")
    read_structure(context(at, "structure", {}, weights=trained["binding"]))
    found: dict[str, Any] = json.loads((at / STRUCTURE).read_text())
    return found


@pytest.mark.parametrize("column", ["z", "n"])
def test_curve_and_wave_are_removed_as_by_hand(
    structure: dict[str, Any], trained: dict[str, Path], column: str
) -> None:
    """Other weights in the table and no edit: the whole fitted curve, or what it adds to a parabola."""
    kind = KINDS["binding"]
    task = task_of(SETTINGS, kind)
    ctx = StepContext("read", SETTINGS, {"weights": trained["binding"]}, out=trained["binding"], device="cpu")
    z, n = nuclei(task, "id")
    tokens = task.tokens[column]
    t = (tokens - tokens[0]) / (tokens[-1] - tokens[0])
    record = structure["helix"][column]
    for part in ("curve", "wave"):
        network = loaded(ctx, kind, task)
        table = table_of(network, task, column)
        fit = helix_fit(table, tokens)
        drift = np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, fit.scores, 2)).T
        curve = fit.fitted if part == "curve" else fit.fitted - drift
        with torch.no_grad():
            weight = network.embeddings[("z", "n").index(column)].weight
            assert isinstance(weight, Tensor)
            weight[torch.from_numpy(tokens)] = torch.from_numpy(table - curve @ fit.components).float()
        error = (z + n) * (predict(network, task.splits["id"]) - task.rows["id"].value)
        found = record if part == "curve" else record["wave"]
        assert found["removed"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
        assert found["held"] == pytest.approx((fit.r2 if part == "curve" else fit.gain) * fit.share.sum(), rel=1e-6)
        assert len(found["random"]) == len(found["same"])
        above = sum(one >= found["removed"] for one in found["same"])
        assert found["p_same"] == pytest.approx((1 + above) / (1 + len(found["same"])))


# -- before anything is trained ----------------------------------------------------------------------------------------


def test_enough_data_is_counted(tmp_path: Path) -> None:
    check_data(context(tmp_path / "data", "data", {}))
    counts = json.loads((tmp_path / "data" / COUNTS).read_text())
    task = task_of(SETTINGS, KINDS["binding"])
    chains = len(np.unique(nuclei(task, "id")[0]))
    assert counts["nuclei"] == len(task.splits["id"])
    assert counts["groups"] == -(-chains // SETTINGS["blocks_of"])
    assert counts["tokens"][0] == {column: len(tokens) for column, tokens in task.tokens.items()}
    assert len(counts["tokens"]) == 2  # at random, and by vintage


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"above_z": 70, "above_n": 100, "blocks_of": 4},
            r"above_z=70, above_n=100, blocks_of=4: .* of 29 isotopic chains, 8 groups of 4, .* at least 10; give blocks_of "
            "at most 3, or lower",
        ),
        ({"above_z": 100, "above_n": 150, "blocks_of": 1}, r"of 2 isotopic chains.*; give lower above_z and above_n"),
    ],
)
def test_too_little_data_is_refused_before_anything_is_trained(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_data(context(tmp_path / "data", "data", given))


def test_what_is_accepted_is_accepted() -> None:
    """The largest blocks that the message offers, and one more."""
    task = task_of(SETTINGS | {"above_z": 70, "above_n": 100}, KINDS["binding"])
    s = SETTINGS | {"above_z": 70, "above_n": 100}
    assert enough_groups(task, s | {"blocks_of": 3}) == 10
    with pytest.raises(ConfigError, match="blocks_of at most 3"):
        enough_groups(task, s | {"blocks_of": 4})


def test_few_numbers_and_few_nuclei_are_refused() -> None:
    task = task_of(SETTINGS | {"above_z": 100, "above_n": 140}, KINDS["binding"])
    s = SETTINGS | {"above_z": 100, "above_n": 140}
    with pytest.raises(ConfigError, match=r"different numbers of protons, and a helix is fitted to at least 12"):
        enough_tokens(task, s)
    with pytest.raises(ConfigError, match=r"nuclei in split 'id', and 11 terms are told apart on at least 14"):
        enough_nuclei(task, s)


def test_the_check_comes_first() -> None:
    config, _ = STUDY.configure("laptop")
    assert next(iter(STUDY.steps(config, ""))).name == "nuclear-data"
