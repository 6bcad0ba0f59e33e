"""Labels that stand in known components are found there and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from heldout.analyses.components import component_contents, probe, r_squared
from heldout.errors import StatisticsError


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth in direction 0 (with noise of a tenth of its variance), a binary label in direction 2, noise elsewhere."""
    rng = np.random.default_rng(seed)
    depth, kind = rng.integers(1, 6, n), rng.integers(0, 2, n)
    x = np.zeros((n, 4))
    x[:, 0] = 3 * depth + rng.normal(size=n) * 3 * np.sqrt(2 / 9)
    x[:, 1] = rng.normal(size=n) * 2
    x[:, 2] = kind + 0.05 * rng.normal(size=n)
    x[:, 3] = rng.normal(size=n) * 0.1
    return x, depth, kind


def test_labels_are_read_where_they_stand() -> None:
    (fit, d0, k0), (test, d1, k1) = planted(4000, 0), planted(4000, 1)
    rows = component_contents(
        fit, test, np.eye(4), numbers={"depth": (d0, d1)}, classes={"kind": (k0, k1)}, ranks=(1, 2, 4)
    )
    score = {(r["label"], r["first"], r["last"]): r["score"] for r in rows}
    # R^2 = variance of 3 depth (18) over itself and the noise's (2)
    assert score["depth", 0, 0] == pytest.approx(0.9, abs=0.01)
    assert score["depth", 0, 3] == pytest.approx(0.9, abs=0.01)
    assert abs(score["depth", 1, 1]) < 0.01
    assert score["kind", 2, 2] > 0.999
    assert score["kind", 0, 1] == pytest.approx(0.5, abs=0.04)
    assert score["kind", 0, 3] > 0.999
    share = {(r["first"], r["last"]): r["variance"] for r in rows}
    assert share[0, 3] == pytest.approx(1.0)
    assert share[0, 0] + share[1, 1] == pytest.approx(share[0, 1])
    assert {r["n"] for r in rows} == {4000}
    assert {r["baseline"] for r in rows if r["label"] == "depth"} == {0.0}


def test_r_squared_is_zero_for_the_mean_and_below_for_worse() -> None:
    rng = np.random.default_rng(0)
    known, wanted = rng.normal(size=500), rng.normal(size=500)
    assert r_squared(
        np.zeros((500, 1)), known - known.mean(), np.zeros((500, 1)), wanted - wanted.mean()
    ) == pytest.approx(0)
    assert r_squared(np.zeros((500, 1)), known + 5, np.zeros((500, 1)), wanted) < -10
    assert np.isnan(r_squared(np.zeros((5, 1)), np.ones(5), np.zeros((5, 1)), np.ones(5)))


def test_one_class_and_too_few_rows() -> None:
    assert probe(np.zeros((5, 1)), np.ones(5), np.zeros((4, 1)), np.array([1, 1, 0, 1])) == 0.75
    with pytest.raises(StatisticsError, match="two rows"):
        component_contents(np.zeros((1, 2)), np.zeros((3, 2)), np.eye(2), numbers={}, classes={}, ranks=(1,))
