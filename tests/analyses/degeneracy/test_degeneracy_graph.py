"""Log weights and their thresholds, by hand and by the integral that they are."""

from __future__ import annotations

import numpy as np
import pytest

from heldout.analyses.degeneracy.graph import (
    count_threshold,
    layered_graph,
    log_graph,
    mass_threshold,
    relative_threshold,
)
from heldout.errors import ConfigError, NonFiniteError

E0 = np.array([[8.0, 2.0, 0.0], [1.0, 4.0, 0.5]])  # 3 features -> 2
E1 = np.array([[1.0, 0.25]])  # 2 -> 1


def test_a_weight_is_the_log_of_an_edge_over_its_threshold() -> None:
    graph = log_graph([E0, E1], [1.0, 0.5])
    expected = [[np.log(8), np.log(2), 0], [0, np.log(4), 0]]
    np.testing.assert_allclose(graph.weights[0], expected, rtol=1e-15)
    np.testing.assert_allclose(graph.weights[1], [[np.log(2), 0]], rtol=1e-15)
    assert graph.counts == (3, 1)  # the edge that stands at its threshold weighs nothing
    assert graph.sizes == (3, 2, 1)
    assert all(w.dtype == np.float64 for w in graph.weights)


def test_a_weight_is_the_share_of_tolerances_at_which_an_edge_is_there() -> None:
    """The derivation: the mean count of edges over tolerances on a log scale, up to the size of the range."""
    tolerances = np.logspace(np.log10(0.3), 2, 400_001)
    present = (E0[..., None] > tolerances).mean(axis=-1) * np.log(tolerances[-1] / 0.3)
    np.testing.assert_allclose(log_graph([E0], [0.3]).weights[0], present, atol=1e-4)


def test_the_unit_of_strength_changes_nothing() -> None:
    one = log_graph([E0], [mass_threshold(E0)])
    other = log_graph([1e-6 * E0], [mass_threshold(1e-6 * E0)])
    np.testing.assert_allclose(one.weights[0], other.weights[0], atol=1e-12)


@pytest.mark.parametrize(
    ("share", "edge"), [(0.5, 8.0), (0.52, 4.0), (0.9, 2.0), (0.95, 1.0), (0.999, 0.5), (1.0, 0.5)]
)
def test_the_edges_above_a_mass_threshold_hold_that_share_and_no_fewer_do(share: float, edge: float) -> None:
    assert mass_threshold(E0, share) == edge  # of 15.5: 8, 12, 14, 15, 15.5
    held = {m: float(E0[m <= E0].sum() / E0.sum()) for m in (0.5, 1.0, 2.0, 4.0, 8.0)}
    assert edge == max(m for m in held if held[m] >= share)


def test_a_share_of_one_ends_at_the_last_edge_whatever_rounding_leaves() -> None:
    rng = np.random.default_rng(100)
    for _ in range(200):
        e = 10 ** rng.uniform(-12, 3, (7, 5))
        e[0] = 0
        assert mass_threshold(e, 1.0) == e[e > 0].min() or e[e >= mass_threshold(e, 1.0)].sum() == pytest.approx(
            e.sum()
        )


def test_a_count_threshold_keeps_exactly_as_many() -> None:
    rng = np.random.default_rng(101)
    e = rng.exponential(size=(9, 11))
    for kept in (1, 2, 50, 98, 99):
        assert (e >= count_threshold(e, kept)).sum() == kept
        assert log_graph([e], [count_threshold(e, kept)]).counts == (kept - 1,)


def test_a_relative_threshold_is_a_share_of_the_largest() -> None:
    assert relative_threshold(E0, 0.25) == 2.0


def test_strengths_edges_and_layers_are_numbered_layer_by_layer() -> None:
    graph = layered_graph([E0, E1])
    assert graph.layers.tolist() == [0, 0, 0, 1, 1, 2]
    assert graph.starts.tolist() == [0, 3, 5, 6]
    np.testing.assert_allclose(graph.strengths, [9, 6, 0.5, 11, 5.75, 1.25])
    sources, targets, weights = graph.edges()
    found = {(int(s), int(t)): float(w) for s, t, w in zip(sources, targets, weights, strict=True)}
    assert found == {(0, 3): 8, (1, 3): 2, (0, 4): 1, (1, 4): 4, (2, 4): 0.5, (3, 5): 1, (4, 5): 0.25}
    idle = layered_graph([np.array([[1.0, 0.0]])])
    assert idle.connected.tolist() == [True, False, True]


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(ConfigError, match="must share a layer"):
        layered_graph([E0, E0])
    with pytest.raises(ConfigError, match="section 0 are float32; float64 is needed"):
        layered_graph([E0.astype(np.float32)])
    with pytest.raises(ConfigError, match="negative"):
        layered_graph([-E0])
    with pytest.raises(NonFiniteError, match="section 1"):
        layered_graph([E0, E1 * np.nan])
    with pytest.raises(ConfigError, match="2 sections need as many positive thresholds"):
        log_graph([E0, E1], [1.0])
    with pytest.raises(ConfigError, match="positive thresholds"):
        log_graph([E0], [0.0])
    with pytest.raises(ConfigError, match="from 1 to the 5 edges"):
        count_threshold(E0, 6)
    with pytest.raises(ConfigError, match="without any strength"):
        mass_threshold(np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="a share of strength"):
        mass_threshold(E0, 0)
    with pytest.raises(ConfigError, match="a relative threshold"):
        relative_threshold(E0, 0)
    with pytest.raises(ConfigError, match="must be matrices"):
        layered_graph([])
