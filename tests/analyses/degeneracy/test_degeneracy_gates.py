"""Gates in step, exactly and nearly, and what replacing them costs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.gates import gate_clusters, gate_errors, never_on, replace_gates
from heldout.errors import ConfigError, NonFiniteError, SiteError
from heldout.networks.mlp import MLP


def draw(*shape: int, seed: int = 100) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(flip: int = 3) -> Tensor:
    """200 rows of 7: neurons 0, 2 and 5 in step; 6 with 0 but for `flip` rows; 1 and 4 alone; 3 never on."""
    p = draw(200, 7)
    for neuron in (2, 5, 6):
        p[:, neuron] = p[:, neuron].abs() * p[:, 0].sign()
    p[:flip, 6] *= -1
    p[:, 3] = -p[:, 3].abs()
    return p


def test_equal_gates_are_found_by_their_pattern() -> None:
    found = gate_clusters(near())
    assert [c.neurons for c in found] == [(0, 2, 5), (1,), (4,), (6,)]
    assert [c.error for c in found] == [0, 0, 0, 0]
    assert [c.extra for c in found] == [6, 0, 0, 0]
    assert never_on(near()) == (3,)
    always = gate_clusters(near().abs() + 0.1)
    assert [(c.neurons, c.always, c.extra) for c in always] == [(tuple(range(7)), True, 42)]


def test_an_error_is_what_another_neurons_gate_costs() -> None:
    p = near()
    on = (p > 0).double()
    found = gate_errors(p)
    for i, j in combinations((0, 1, 2, 4, 5, 6), 2):
        for a, b in ((i, j), (j, i)):
            cost = ((on[:, a] * p[:, b] - on[:, b] * p[:, b]) ** 2).sum() / ((on[:, b] * p[:, b]) ** 2).sum()
            assert float(found[a, b]) == pytest.approx(float(cost), rel=1e-12, abs=0)
    assert found.diagonal().tolist() == [0] * 7
    assert found[0, 2] == found[2, 0] == found[5, 2] == 0
    assert bool(torch.isinf(found[0, 3]))


def test_scales_change_neither_gates_nor_their_errors() -> None:
    p, scale = near(), torch.tensor([1e-6, 2.0, 1e5, 1.0, 3.0, 7.0, 1e-3])
    torch.testing.assert_close(gate_errors(p * scale), gate_errors(p), rtol=1e-12, atol=0)
    assert gate_clusters(p * scale) == gate_clusters(p)


def test_a_tolerance_joins_what_costs_less_both_ways() -> None:
    p = near()
    cost = gate_errors(p)
    needed = float(torch.maximum(cost, cost.T)[[0, 2, 5], 6].max())
    assert needed < 0.2
    apart, joined = (gate_clusters(p, tolerance=t) for t in (needed * 0.999, needed * 1.001))
    assert [c.neurons for c in apart if len(c.neurons) > 1] == [(0, 2, 5)]
    assert [c.neurons for c in joined if len(c.neurons) > 1] == [(0, 2, 5, 6)]
    cluster = joined[0]
    assert cluster.error == pytest.approx(needed, rel=1e-12)
    assert cluster.medoid in (0, 2, 5)
    assert all(3 not in c.neurons for c in joined)


@pytest.mark.parametrize("tolerance", [1e-9, 0.05, 0.3, 0.9])
def test_sets_are_a_partition_of_live_neurons_within_the_tolerance(tolerance: float) -> None:
    p = draw(60, 25) + 0.4 * draw(60, 1, seed=101)
    found = gate_clusters(p, tolerance=tolerance)
    assert sorted(n for c in found for n in c.neurons) == list(range(25))
    cost = gate_errors(p)
    for c in found:
        assert c.error <= tolerance
        assert all(max(cost[i, j], cost[j, i]) <= tolerance for i, j in combinations(c.neurons, 2))
        assert all(cost[c.medoid, list(c.neurons)].sum() <= cost[i, list(c.neurons)].sum() + 1e-15 for i in c.neurons)
    if tolerance == 1e-9:
        assert [c.neurons for c in found] == [c.neurons for c in gate_clusters(p)]


def stepped(seed: int = 100) -> tuple[MLP, Tensor]:
    """A network whose hidden neurons 0, 1 and 2 are on where the first input, never near 0, is positive."""
    x = draw(300, 5, seed=seed)
    x[:, 0] = x[:, 0].sign() * (0.5 + x[:, 0].abs())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLP((5, 9, 3)).double().requires_grad_(False)
    network.hidden[0].linear.weight[:3] *= 0.02
    network.hidden[0].linear.weight[:3, 0] = torch.tensor([1.0, 2.0, 0.5]).double()
    network.hidden[0].linear.bias[:3] *= 0.02
    return network, x


def test_replacing_equal_gates_changes_nothing_and_random_ones_do() -> None:
    network, x = stepped()
    before = network.hidden[0].linear(x)
    exact = [c for c in gate_clusters(before) if len(c.neurons) > 1]
    assert [c.neurons for c in exact] == [(0, 1, 2)]
    found = replace_gates(network, "hidden.0.act", x, gate_clusters(before), draws=19)
    assert found.error == 0
    assert found.agreement == 1
    assert found.random.shape == found.random_agreement.shape == (19,)
    assert found.random.min() > 1e-3
    assert found.p == pytest.approx(1 / 20)
    again = replace_gates(network, "hidden.0.act", x, gate_clusters(before), draws=19)
    assert again.random.tobytes() == found.random.tobytes()


def test_a_replacement_is_the_network_with_the_medoids_gates() -> None:
    network, x = stepped()
    before = network.hidden[0].linear(x)
    clusters = gate_clusters(before, tolerance=0.9)
    assert any(c.error > 0 for c in clusters)
    gates = (before > 0).double()
    for c in clusters:
        gates[:, list(c.neurons)] = gates[:, [c.medoid]].clone()
    out, plain = network.readout(gates * before), network(x)
    expected = ((out - plain) ** 2).sum() / ((plain - plain.mean(dim=0)) ** 2).sum()
    found = replace_gates(network, "hidden.0.act", x, clusters, draws=1)
    assert found.error == pytest.approx(float(expected), rel=1e-12)
    assert found.agreement == float((out.argmax(1) == plain.argmax(1)).double().mean())


def test_lone_neurons_leave_nothing_to_replace() -> None:
    network, x = stepped()
    lone = [c for c in gate_clusters(network.hidden[0].linear(x)) if len(c.neurons) == 1]
    found = replace_gates(network, "hidden.0.act", x, lone, draws=3)
    assert found.error == 0
    assert np.all(found.random == 0)


def test_what_cannot_be_clustered_or_replaced() -> None:
    network, x = stepped()
    clusters = gate_clusters(network.hidden[0].linear(x))
    with pytest.raises(ConfigError, match="a tolerance must be from 0"):
        gate_clusters(x, tolerance=1.0)
    with pytest.raises(ConfigError, match="floating-point rows"):
        gate_clusters(x > 0)
    with pytest.raises(NonFiniteError, match="NaN"):
        gate_clusters(x * torch.nan)
    with pytest.raises(SiteError, match=r"unknown ReLU 'hidden\.0'; choose from hidden\.0\.act"):
        replace_gates(network, "hidden.0", x, clusters)
    with pytest.raises(ConfigError, match="needs clusters"):
        replace_gates(network, "hidden.0.act", x, [])
    with pytest.raises(SiteError, match="in place"):
        replace_gates(nn.Sequential(nn.Linear(5, 9), nn.ReLU(inplace=True)), "1", x, clusters)
    twice = nn.ReLU()
    with pytest.raises(SiteError, match="must run once"):
        replace_gates(nn.Sequential(nn.Linear(5, 9), twice, nn.Linear(9, 9), twice), "1", x, clusters)
    silent = MLP((5, 9, 3)).double().requires_grad_(False)
    silent.readout.weight.zero_()
    with pytest.raises(ConfigError, match="returns the same for all 300 inputs"):
        replace_gates(silent, "hidden.0.act", x, clusters)
