"""Modular addition in the degeneracy study: Fourier shares of known features, and a small network measured throughout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heldout.errors import StatisticsError
from heldout.runs.steps import StepContext
from heldout.studies.degeneracy_modular import (
    ARRAYS,
    BASES,
    LAYERS,
    MEASURED,
    SECTIONS,
    accuracies,
    frequency_shares,
    graph_of,
    measure_network,
    network_of,
    purity,
    task_of,
    train_network,
)
from heldout.training.seeds import initialised

SMALL: dict[str, Any] = {
    "modulus": 7,
    "share": 0.6,
    "corner": 2,
    "data_seed": 0,
    "width": 4,
    "heads": 2,
    "hidden": 8,
    "steps": 10,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "weight_decay": 1.0,
    "look_every": 5,
    "settled": 5,
    "seed": 100,
    "tolerance": 0.01,
    "relative": 1e-3,
    "shuffles": 2,
}


def test_features_of_one_frequency_have_all_their_power_there() -> None:
    p = 11
    a, b = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    w = 2 * np.pi / p
    features = {
        3: np.cos(3 * w * a + 0.4),
        4: np.cos(4 * w * b) - 2 * np.sin(4 * w * a),
        2: np.cos(2 * w * (a + b) + 1.0) + 5,
        5: np.cos(5 * w * a) * np.cos(5 * w * b),
    }
    shares = frequency_shares(np.stack(list(features.values()), axis=-1))
    assert shares.shape == (4, 6)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for row, k in zip(shares, features, strict=True):
        assert row[k] == pytest.approx(1)
    assert purity(shares, 4) == pytest.approx(1)


def test_mixtures_have_the_shares_of_their_parts() -> None:
    p = 13
    a, b = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    w = 2 * np.pi / p
    mixed = 2 * np.cos(w * a) + np.cos(3 * w * b)  # variances 2 and 1/2
    cross = np.cos(w * a) * np.cos(3 * w * b)  # of two frequencies at once: none
    constant = np.full((p, p), 7.0)
    noise = np.random.default_rng(0).normal(size=(p, p))
    shares = frequency_shares(np.stack([mixed, cross, constant, noise], axis=-1))
    assert shares[0, [1, 3]] == pytest.approx([0.8, 0.2])
    assert shares[1, 0] == pytest.approx(1)
    assert shares[2, 0] == 1
    assert shares[3, 1:].max() < 0.2
    assert purity(shares, 2) == pytest.approx(0.4)
    with pytest.raises(StatisticsError, match="4 features"):
        purity(shares, 5)


def test_the_chain_answers_at_the_last_position() -> None:
    task = task_of(SMALL)
    network = initialised(lambda: network_of(SMALL), 0).eval()
    assert [name for name, _ in network.named_children()] == ["embed", "attention", "last", "mlp", "readout"]
    with torch.no_grad():
        out = network(task.splits["id"].items.take(np.arange(4)).inputs)
    assert out.shape == (4, SMALL["modulus"] + 1)
    assert set(accuracies(network, task)) == {f"{name}/accuracy" for name in ("train", "select", "id", "corner")}


def test_edges_below_the_threshold_are_none() -> None:
    graph = graph_of([np.array([[1.0, 0.5, 1e-5], [0.0, 2e-3, 1.0]])], 1e-3)
    assert graph.counts == (4,)
    assert graph.weights[0][0, 1] == pytest.approx(np.log(500))


def test_a_small_network_is_measured_throughout(tmp_path: Path) -> None:
    weights, found = tmp_path / "weights" / "out", tmp_path / "found" / "out"
    for folder in (weights, found):
        folder.mkdir(parents=True)
    train_network(StepContext("train", SMALL, {}, out=weights, device="cpu"))
    measure_network(StepContext("measure", SMALL, {"weights": weights}, out=found, device="cpu"))
    measured = json.loads((found / MEASURED).read_text())
    with np.load(found / ARRAYS) as arrays:
        for kind in BASES:
            own = measured[kind]
            assert set(own["kept"]) == set(LAYERS[:-1])
            for name, edges in own["edges"].items():
                assert name in SECTIONS
                assert 0 <= edges["count"] <= edges["total"] == arrays[f"{kind} {name}"].size
                assert edges["select"] >= edges["whole"] - SMALL["tolerance"]
                assert {"id", "corner"} <= set(edges)
            for site in LAYERS[:-1]:
                shares = arrays[f"{kind} fourier {site}"]
                assert shares.shape == (own["features"][site], 1 + SMALL["modulus"] // 2)
                np.testing.assert_allclose(shares.sum(axis=1), 1)
            assert len(own["labels"]) == sum(own["features"][site] for site in LAYERS[:-1])
    # Both bases end in the same logits, of which there are as many.
    assert measured["lib"]["features"]["readout"] == measured["pca"]["features"]["readout"]
