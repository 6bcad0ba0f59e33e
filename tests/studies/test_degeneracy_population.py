"""Networks of one training loss: planted tables turn theta, planted weights have known losses, and a small run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heldout.errors import ConfigError, StatisticsError
from heldout.runs.steps import Step, StepContext
from heldout.statistics.rule import mean_test
from heldout.studies.degeneracy_population import (
    LOSSES,
    MEASURED,
    TRAINED,
    images_of,
    left_out,
    measure_population,
    measured,
    network_of,
    population_theta,
    population_variance,
    train_population,
    training_of,
)
from heldout.tasks.digits import digits
from heldout.training.losses import cross_entropy
from heldout.training.matched import loss_on

TASK: dict[str, Any] = {"seed": 100, "items": 80, "hidden": [8]}
WAYS: dict[str, Any] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.2, "batch": 20},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.1, "batch": 20, "momentum": 0.9},
    "adam": {"optimizer": "adam", "learning_rate": 0.01, "batch": 20},
    "decay": {"optimizer": "adamw", "learning_rate": 0.01, "batch": 500, "weight_decay": 0.1},
    "never": {"optimizer": "sgd", "learning_rate": 1e-5, "batch": 20},
}
TRAINING = {"ways": WAYS, "level": 0.3, "tolerance": 0.001, "steps": 300}
SAMPLING = {"chains": 4, "burn_in": 100, "draws": 300, "localisation": 50.0}


def planted(
    at: Path, seed: int, n_eff: Sequence[float], held: Sequence[float], *, reasons: Sequence[str] = (), level: str = ""
) -> Path:
    """One seed's output with these coefficients and held-out losses, which vary over 60 images."""
    folder = at / f"s{seed}"
    folder.mkdir(parents=True)
    rows: dict[str, Any] = {
        "seed": seed,
        "way": [f"w{i}" for i in range(len(held))],
        "n_eff": n_eff,
        "quadratic": n_eff,
    }
    rows |= {"weight_norm": list(held), "reason": list(reasons) or [""] * len(held)}
    rows |= {"unmatched": [level if r == "not taken" else "" for r in rows["reason"]]}
    pd.DataFrame(rows).to_parquet(folder / MEASURED)
    noise = np.random.default_rng(seed).normal(0, 0.01, (1, 60))
    np.savez(folder / LOSSES, losses=np.asarray(held)[:, None] + noise - noise.mean())
    return folder


def test_theta_turns_with_the_evidence(tmp_path: Path) -> None:
    """Hand-made ranks: in step, reversed, and one swap of five, 1 - 6 x 2 / (5 x 24) = 0.9."""
    held = [0.1, 0.2, 0.3, 0.4, 0.5]
    folders = [
        planted(tmp_path, 100, [1, 2, 3, 4, 50], held),
        planted(tmp_path, 101, [9, 7, 5, 3, 1], held),
        planted(tmp_path, 102, [1, 3, 2, 4, 5], held),
    ]
    found = population_theta(folders)
    assert [t.seed for t in found] == [100, 101, 102]
    assert [t.value for t in found] == pytest.approx([1, -1, 0.9], abs=1e-12)
    assert [(t.networks, t.reason) for t in found] == [(5, "")] * 3


@pytest.mark.parametrize(("sign", "direction"), [(1, "p_plus"), (-1, "p_minus")])
def test_data_can_support_and_refute_the_claim(tmp_path: Path, sign: int, direction: str) -> None:
    rng = np.random.default_rng(100)
    folders = []
    for seed in range(100, 108):
        held = rng.normal(0.2, 0.02, 8)
        folders.append(planted(tmp_path, seed, sign * 1000 * held + rng.normal(0, 5, 8), held))
    thetas = [t.value for t in population_theta(folders)]
    variance, images = population_variance(folders, draws=50)
    test = mean_test(thetas, unit_variance=variance, n_clusters=images, delta=0.1)
    assert images == 60
    assert getattr(test, direction) < 1e-3


def test_networks_without_a_coefficient_are_left_out_and_counted(tmp_path: Path) -> None:
    held, none = [0.1, 0.2, 0.3, 0.4, 0.9, 0.8], math.nan
    reasons = ["", "", "", "", "drift", "not taken"]
    some = planted(tmp_path, 100, [1, 2, 3, 4, none, none], held, reasons=reasons, level="the loss is 0.2")
    few = planted(tmp_path, 101, [1, 2, 3, none, none, none], held, reasons=["", "", "", "d", "d", "d"])
    flat = planted(tmp_path, 102, [1, 1, 1, 1, 1, 1], held)
    one, two, three = population_theta([some, few, flat])
    assert (one.value, one.networks) == (pytest.approx(1), 4)
    assert population_theta([some, few], predictor="weight_norm")[0].networks == 5  # matched is enough
    assert math.isnan(two.value)
    assert two.reason.startswith("3 of 6 networks")
    assert math.isnan(three.value)
    assert "the same for all" in three.reason
    assert left_out([some, few, flat]) == {"networks": 18, "unmatched": 1, "withheld": 4}
    with pytest.raises(StatisticsError, match="nothing to resample"):
        population_variance([few, flat])
    assert population_variance([some, few], draws=20)[0] == population_variance([some], draws=20)[0]


def test_images_decide_ranks_only_where_networks_are_close(tmp_path: Path) -> None:
    """Losses that differ by the same for every image never change places; those that differ by noise do."""
    apart = planted(tmp_path, 100, [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])
    assert population_variance([apart], draws=100) == (0.0, 60)
    close = planted(tmp_path, 101, [1, 2, 3, 4], [0.2, 0.2, 0.2, 0.2])
    np.savez(close / LOSSES, losses=np.random.default_rng(100).normal(0.2, 0.1, (4, 60)))
    assert population_variance([close], draws=100)[0] > 0.02


def test_an_unknown_predictor_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_eff, quadratic, weight_norm"):
        population_theta([planted(tmp_path, 100, [1, 2, 3, 4], [1, 2, 3, 4])], predictor="luck")


def test_training_images_differ_between_seeds_and_held_out_ones_do_not() -> None:
    one, two = images_of(TASK), images_of({**TASK, "seed": 101})
    assert len(one.train) == 80
    assert not torch.equal(one.train.items.inputs, two.train.items.inputs)  # type: ignore[attr-defined]
    assert torch.equal(one.held.items.inputs, two.held.items.inputs)  # type: ignore[attr-defined]
    assert len(one.held) == 1797 - len(digits()["train"])
    pixels = [{bytes(x.numpy()) for x in split.items.inputs} for split in one]  # type: ignore[attr-defined]
    assert len(pixels[0] & pixels[1]) <= 1  # no image is in both; two of the data set may look alike
    with pytest.raises(ConfigError, match="from 1 to 898"):
        images_of({**TASK, "items": 899})


def test_the_losses_of_two_planted_networks_are_those_known_beforehand() -> None:
    """One answers alike whatever it sees, log 10; the other is sure of class 0, so it loses 5 nats where that is wrong."""
    images = images_of(TASK)
    blank, sure = network_of(TASK), network_of(TASK)
    for network in (blank, sure):
        torch.nn.init.zeros_(network.readout.weight)
        torch.nn.init.zeros_(network.readout.bias)
    with torch.no_grad():
        sure.readout.bias[0] = 5.0
    rows = [measured(n.eval(), images, None) for n in (blank, sure)]
    zeros = float((images.held.items.targets == 0).double().mean())  # type: ignore[attr-defined]
    norm = math.log(math.exp(5) + 9)
    assert rows[0][0]["held_loss"] == pytest.approx(math.log(10), rel=1e-6)
    assert rows[1][0]["held_loss"] == pytest.approx(norm - 5 * zeros, rel=1e-6)
    assert rows[1][0]["held_accuracy"] == pytest.approx(zeros, rel=1e-12)
    assert rows[1][0]["weight_norm"] ** 2 - rows[0][0]["weight_norm"] ** 2 == pytest.approx(25, rel=1e-5)
    assert [r["reason"] for r, _ in rows] == ["not taken"] * 2
    assert math.isnan(rows[0][0]["n_eff"])


def test_a_way_of_training_is_read_whole() -> None:
    batch, settings = training_of(WAYS["decay"], {**TASK, **TRAINING})
    assert (batch, settings.optimizer, settings.weight_decay, settings.clip) == (80, "adamw", 0.1, None)
    assert training_of(WAYS["sgd"], {**TASK, **TRAINING})[1].weight_decay == 0
    with pytest.raises(ConfigError, match="momentum"):
        training_of({**WAYS["sgd"], "momentun": 0.9}, {**TASK, **TRAINING})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("population")
    folders = root / "trained", root / "measured"
    for folder, function, settings in zip(
        folders, (train_population, measure_population), (TRAINING, {"sampling": SAMPLING}), strict=True
    ):
        folder.mkdir()
        step = Step(folder.name, function, {**TASK, **settings})
        function(StepContext(step.name, step.settings, {"weights": folders[0]}, out=folder, device="cpu"))
    return folders


def test_a_small_population_has_one_training_loss(run: tuple[Path, Path]) -> None:
    trained = json.loads((run[0] / TRAINED).read_text())
    rows = pd.read_parquet(run[1] / MEASURED)
    assert list(rows["way"]) == list(WAYS)
    matched = rows[rows["way"] != "never"]
    assert matched["train_loss"].between(0.2997, 0.3).all()
    assert "after 300 updates" in trained["never"]["reason"]
    never = rows.iloc[-1]
    assert never["unmatched"] == trained["never"]["reason"]
    assert math.isnan(never["n_eff"])
    assert (rows["held_loss"] > 0.3).all()
    assert matched["held_loss"].nunique() == 4


def test_a_small_population_is_measured_at_one_cut(run: tuple[Path, Path]) -> None:
    rows = pd.read_parquet(run[1] / MEASURED)
    matched = rows[rows["way"] != "never"]
    assert (matched["n"] == 80).all()
    assert matched["cut"].to_numpy() == pytest.approx(50 / (80 / math.log(80)))
    given = matched[matched["reason"] == ""]
    assert ((given["n_eff_low"] < given["n_eff"]) & (given["n_eff"] < given["n_eff_high"])).all()
    assert given["n_eff"].to_numpy() == pytest.approx(given["quadratic"].to_numpy(), rel=0.3)
    with np.load(run[1] / LOSSES) as arrays:
        assert arrays["losses"].mean(1) == pytest.approx(rows["held_loss"].to_numpy(), rel=1e-12)
    (theta,) = population_theta([run[1]], predictor="quadratic")
    ranks = matched[["quadratic", "held_loss"]].rank().corr().iloc[0, 1]
    assert theta == (100, pytest.approx(ranks), 4, "")
    assert left_out([run[1]])["unmatched"] == 1


def test_the_same_settings_give_the_same_weights(run: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {**TASK, **TRAINING, "ways": {"adam": WAYS["adam"]}}
    train_population(StepContext("again", settings, {}, out=tmp_path, device="cpu"))
    assert (tmp_path / "adam.safetensors").read_bytes() == (run[0] / "adam.safetensors").read_bytes()


def test_every_way_starts_from_the_same_weights() -> None:
    assert all(
        torch.equal(a, b) for a, b in zip(network_of(TASK).parameters(), network_of(TASK).parameters(), strict=True)
    )
    assert loss_on(network_of(TASK), images_of(TASK).train, cross_entropy) > 2
