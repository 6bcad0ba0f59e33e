"""Blocks beside dense networks: planted tables turn theta, blocks are blocks, and a small run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.curvature import curvature, hessian
from heldout.errors import ConfigError, NetworkError
from heldout.networks.mlp import MLP
from heldout.runs.steps import Step, StepContext
from heldout.statistics.rule import mean_test
from heldout.studies.degeneracy_blocks import (
    MEASURED,
    Blocks,
    blocks_theta,
    dense_width,
    measure_blocks,
    network_of,
    parameters,
    splits_of,
    squared_error,
    train_blocks,
)
from heldout.tasks.base import Batch, Rectangular
from heldout.training.seeds import initialised

TASK: dict[str, Any] = {"seed": 100, "inputs": 3, "teacher": 4, "items": 150, "held_items": 100}
SHAPE: dict[str, Any] = {"width": 6, "layers": 1, "activation": "tanh"}
TRAINING = {"optimizer": "adam", "learning_rate": 0.01, "batch": 50, "steps": 1500, "level": 0.3, "tolerance": 1e-3}
MEASURE = {
    "sampling": {"chains": 4, "burn_in": 100, "draws": 400, "localisation": 50.0},
    "cuts": [0.01, 1.0],
}


def planted(at: Path, seed: int, block: float, dense: float, **changed: Any) -> Path:
    folder = at / f"s{seed}"
    folder.mkdir()
    rows = {"seed": seed, "network": ["block", "dense"], "quadratic": [block, dense], "n_eff": [dense, block]}
    rows |= {"quadratic@0.01": [2.0, 2.0], "unmatched": ["", ""], "reason": ["", ""], **changed}
    pd.DataFrame(rows).to_parquet(folder / MEASURED)
    return folder


def test_theta_is_the_log_ratio_of_the_count_asked_for(tmp_path: Path) -> None:
    folder = planted(tmp_path, 100, 20.0, 30.0)
    assert blocks_theta([folder])[0] == (100, pytest.approx(math.log(1.5)), 2, "")
    assert blocks_theta([folder], count="n_eff")[0].value == pytest.approx(-math.log(1.5))
    assert blocks_theta([folder], count="quadratic@0.01")[0].value == 0
    with pytest.raises(ConfigError, match=r"quadratic@0\.01"):
        blocks_theta([folder], count="quadratic@0.02")


@pytest.mark.parametrize(("ratio", "direction"), [(1.3, "p_plus"), (0.9, "p_minus"), (1.0, "p_minus")])
def test_data_can_support_and_refute_the_claim(tmp_path: Path, ratio: float, direction: str) -> None:
    rng = np.random.default_rng(100)
    folders = [planted(tmp_path, s, 30.0, 30 * ratio * math.exp(rng.normal(0, 0.01))) for s in range(100, 105)]
    thetas = [t.value for t in blocks_theta(folders)]
    test = mean_test(thetas, unit_variance=0.0, n_clusters=None, delta=math.log(1.05))
    assert getattr(test, direction) < 0.01


def test_a_seed_without_a_value_says_why(tmp_path: Path) -> None:
    unmatched = planted(tmp_path, 100, 20.0, 30.0, unmatched=["", "the training loss is 0.4"])
    (found,) = blocks_theta([unmatched])
    assert math.isnan(found.value)
    assert found.reason == "dense: the training loss is 0.4"
    drifts = planted(tmp_path, 101, 20.0, 30.0, reason=["chains drift", ""])
    assert blocks_theta([drifts])[0].value == pytest.approx(math.log(1.5))  # the quadratic count needs no chains
    assert blocks_theta([drifts], count="n_eff")[0].reason == "block: chains drift"
    assert "not positive" in blocks_theta([planted(tmp_path, 102, 0.0, 30.0)])[0].reason


def test_each_target_is_a_function_of_its_own_half_alone() -> None:
    splits = splits_of({**TASK, "items": 1000})
    items = splits["train"].items
    assert isinstance(items, Rectangular)
    assert items.targets is not None
    assert items.targets.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert items.targets.var(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-5)
    x, y = items.inputs.numpy(), items.targets.numpy()
    halves = {0: x[:, :3], 1: x[:, 3:]}
    for target in (0, 1):
        own, other = (held_out_r2(halves[h], y[:, target]) for h in (target, 1 - target))
        assert own > 0.9
        assert other < 0.05
    linear = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[1] / len(x)
    assert (linear > 0.05).all()  # what no linear map explains


def held_out_r2(x: np.ndarray, y: np.ndarray) -> float:
    """How much of the second half of `y` a kernel ridge fitted on the first half knows."""
    half = len(x) // 2
    return float(KernelRidge(alpha=1e-2, kernel="rbf", gamma=0.2).fit(x[:half], y[:half]).score(x[half:], y[half:]))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("width", [6, 16])
def test_both_networks_have_as_many_parameters_as_widths_allow(layers: int, width: int) -> None:
    s = {**TASK, **SHAPE, "layers": layers, "width": width}
    block, dense = (sum(p.numel() for p in network_of(n, s).parameters()) for n in ("block", "dense"))
    assert block == 2 * parameters(3, width, layers, 1)
    assert dense == parameters(6, dense_width(s), layers, 2)
    nearer = (parameters(6, dense_width(s) + step, layers, 2) for step in (-1, 1))
    assert all(abs(dense - block) <= abs(other - block) for other in nearer)


def test_a_block_neither_sees_nor_moves_the_other_half() -> None:
    s = {**TASK, **SHAPE}
    network = network_of("block", s)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(100))
    changed = torch.cat([x[:, :3], x[:, 3:] + 1], dim=1)
    assert torch.equal(network(x)[:, 0], network(changed)[:, 0])
    assert not torch.equal(network(x)[:, 1], network(changed)[:, 1])
    assert not torch.equal(*(p.hidden[0].linear.weight for p in network.parts))  # type: ignore[arg-type, union-attr]
    matrix = hessian(BehaviouralLoss(network, x, dtype=torch.float64))
    half = len(matrix) // 2
    assert float(matrix[:half, half:].abs().max()) == 0
    assert float(matrix[:half, :half].abs().max()) > 0


def test_counts_of_blocks_add_up() -> None:
    """N_eff of two networks side by side is the sum of theirs: nothing joins them."""
    one, two = (initialised(lambda: MLP((3, 5, 1), "tanh"), seed) for seed in (100, 101))
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(100))
    parts = zip((one, two), x.chunk(2, dim=1), strict=True)
    alone = sum(curvature(BehaviouralLoss(n, own, dtype=torch.float64)).effective(0.1)[0] for n, own in parts)
    both = curvature(BehaviouralLoss(Blocks([one, two]), x, dtype=torch.float64)).effective(0.1)[0]
    assert both == pytest.approx(alone, rel=1e-9)


def test_a_squared_error_is_summed_over_outputs_and_needs_targets() -> None:
    outputs, index = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.arange(2)
    assert float(squared_error(outputs, Batch(outputs, index, torch.zeros(2, 2)))) == 2.5
    with pytest.raises(NetworkError, match="each output"):
        squared_error(outputs, Batch(outputs, index, torch.zeros(2)))


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="block, dense"):
        network_of("sparse", {**TASK, **SHAPE})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("blocks")
    folders = root / "trained", root / "measured"
    for folder, function, own in zip(folders, (train_blocks, measure_blocks), (TRAINING, MEASURE), strict=True):
        folder.mkdir()
        step = Step(folder.name, function, {**TASK, **SHAPE, **own})
        function(StepContext(step.name, step.settings, {"weights": folders[0]}, out=folder, device="cpu"))
    return folders[1]


def test_a_small_run_compares_matched_networks(run: Path) -> None:
    rows = pd.read_parquet(run / MEASURED)
    assert list(rows["network"]) == ["block", "dense"]
    assert list(rows["parameters"]) == [62, 65]
    assert (rows["unmatched"] == "").all()
    assert rows["train_loss"].between(0.2997, 0.3).all()
    assert (rows["n"] == 150).all()
    assert rows["cut"].to_numpy() == pytest.approx(50 / (150 / math.log(150)))
    for _, row in rows.iterrows():
        assert (
            row["parameters"] > row["quadratic@0.01"] > row["quadratic@1"] > row["quadratic"] > 0
        )  # cuts .01, 1, 1.67
        assert row["untrained"] != row["quadratic"]
    block, dense = rows["quadratic"]
    assert blocks_theta([run])[0].value == pytest.approx(math.log(dense / block), rel=1e-12)
    assert math.isfinite(blocks_theta([run], count="untrained")[0].value)
