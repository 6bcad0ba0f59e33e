"""Planted degeneracies are counted exactly, and change PCA but not the interaction basis."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from test_degeneracy_counts import draw, hessian_null, network
from torch import Tensor

from heldout.activations.jacobians import Probes
from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.counts import degeneracy_counts
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.analyses.degeneracy.gates import gate_clusters
from heldout.analyses.degeneracy.planting import (
    Planted,
    mix_gates,
    plant_activations,
    plant_gates,
    plant_gradients,
)
from heldout.analyses.degeneracy.ranks import free_directions
from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.proxies.bases import local_bases, principal_bases
from heldout.tasks.base import Rectangular, Split

X = draw(150, 6, seed=99)


def before(made: MLP, layer: int) -> Tensor:
    return made.hidden[layer].linear(made.hidden[:layer](X))


def alone(made: MLP, layer: int) -> list[int]:
    return [c.medoid for c in gate_clusters(before(made, layer)) if len(c.neurons) == 1 and not c.always]


@cache
def generic(*widths: int, count: int = 1) -> list[MLP]:
    """Networks in general position: drawn until `count` have one free direction a hidden neuron and no more."""
    found: list[MLP] = []
    for seed in range(100, 200):
        made = network(*widths, seed=seed)
        live = all(len(alone(made, i)) == w for i, w in enumerate(widths[1:-1]))
        if live and hessian_null(made, X) == sum(widths[1:-1]):
            found.append(made)
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} networks in general position")


def check(planted: Planted, base: int) -> None:
    found = degeneracy_counts(free_directions(planted.network, X))
    assert found.null == hessian_null(planted.network, X) == base + planted.null
    assert found.unexplained == 0


@pytest.mark.parametrize("seed", range(4))
def test_each_kind_is_counted_exactly(seed: int) -> None:
    """D4, one hidden layer: 6-8-3 with null 8; + 4 (three readers and a scale), + 8 (a map and a scale), + k^2 - k."""
    made = generic(6, 8, 3, count=4)[seed]
    neuron = seed % 8
    activations = plant_activations(made, X, layer=0, neuron=neuron, seed=seed)
    gradients = plant_gradients(made, X, layer=0, neuron=neuron, seed=seed)
    pair = plant_gates(made, X, layer=0, neurons=(neuron, (neuron + 3) % 8), seed=seed)
    triple = plant_gates(made, X, layer=0, neurons=(neuron, (neuron + 3) % 8, (neuron + 5) % 8), seed=seed)
    assert [p.null for p in (activations, gradients, pair, triple)] == [4, 8, 2, 6]
    for planted in (activations, gradients, pair, triple):
        check(planted, 8)
    assert activations.change < 1e-14
    assert gradients.change < 1e-14
    assert pair.change > 1e-3
    parts = [degeneracy_counts(free_directions(p.network, X)) for p in (activations, gradients, triple)]
    assert [p.total("activations") for p in parts] == [3, 0, 0]
    assert [p.total("gradients") for p in parts] == [0, 7, 0]
    assert [p.total("gates") for p in parts] == [0, 0, 6]


@pytest.mark.parametrize("layer", [0, 1])
def test_each_kind_is_counted_exactly_in_a_deeper_network(layer: int) -> None:
    """D4, two hidden layers: what keeps the function is exact in either; gates in the last."""
    made = generic(6, 8, 7, 3)[0]
    check(plant_activations(made, X, layer=layer, neuron=2), 15)
    check(plant_gradients(made, X, layer=layer, neuron=2), 15)
    if layer == 1:
        check(plant_gates(made, X, layer=layer, neurons=(1, 4)), 15)
        check(plant_gates(made, X, layer=layer, neurons=(1, 4, 6)), 15)


def test_plants_add_up() -> None:
    """T5's triple and pair, 16; then a multiple of a lone neuron, 20, and one with its gradients, 28."""
    made = generic(6, 8, 3)[0]
    planted, base = plant_gates(made, X, layer=0, neurons=(0, 1, 2)), 8
    steps = [planted, plant_gates(planted.network, X, layer=0, neurons=(3, 4), seed=1)]
    steps.append(plant_activations(steps[-1].network, X, layer=0, neuron=6))
    steps.append(plant_gradients(steps[-1].network, X, layer=0, neuron=7))
    totals = []
    for step in steps:
        check(step, base)
        base += step.null
        totals.append(base)
    assert totals == [14, 16, 20, 28]
    assert sorted(len(c.neurons) for c in gate_clusters(before(steps[-1].network, 0))) == [1, 2, 2, 2, 3]


def test_the_function_stays_for_every_input_or_for_those_given() -> None:
    made = generic(6, 8, 7, 3)[0]
    weight, bias = made.hidden[0].linear.weight[1], made.hidden[0].linear.bias[1]
    other = 3 * draw(500, 6, seed=1)
    other -= (other @ weight + bias)[:, None] * weight / (weight @ weight)  # at the neuron's threshold
    activations = plant_activations(made, X, layer=0, neuron=1).network
    gradients = plant_gradients(made, X, layer=0, neuron=1).network
    torch.testing.assert_close(activations(other), made(other), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(X), made(X), rtol=0, atol=1e-13)
    assert float((gradients(other) - made(other)).abs().max()) > 1e-9


LAYERS = [".:input", "hidden.0.act", "hidden.1.act", "."]


def seen(made: MLP, kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """Features of every layer on the data, and edges between them."""
    sections, fit = Sections(made, LAYERS), Split("fit", "fit", Rectangular(X))
    exact = Probes("exact")
    bases = local_bases(sections, fit, probes=exact) if kind == "interaction" else principal_bases(sections, fit)
    rows = [X, made.hidden[0](X), made.hidden(X), made(X)]
    features = [basis.encode(r) for basis, r in zip(bases.bases, rows, strict=True)]
    return features, [edge_matrix(sections, bases, fit, i, probes=exact).squares for i in range(len(sections))]


def moved(one: Tensor, other: Tensor, signs: bool) -> float:
    """The largest difference relative to the largest entry, up to signs of columns; inf where shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    turned = other * (one * other).sum(dim=0).sign() if signs else other
    return float((one - turned).abs().max() / one.abs().max())


@pytest.mark.parametrize("kind", ["activations", "gradients", "gates"])
@pytest.mark.parametrize("layer", [0, 1])
def test_planting_leaves_the_interaction_basis_and_changes_principal_components(kind: str, layer: int) -> None:
    """D5. Gates cannot be planted behind a function's back: there, the planted network is moved along its freedom."""
    made = generic(6, 8, 7, 3)[0]
    if kind == "gates":
        made = plant_gates(made, X, layer=layer, neurons=(0, 2, 5)).network
        other = mix_gates(made, X, layer=layer, neurons=(0, 2, 5), seed=100)
        assert other.null == 0
        assert other.change < 1e-12
        assert hessian_null(other.network, X) == hessian_null(made, X)
    else:
        plant = plant_activations if kind == "activations" else plant_gradients
        other = plant(made, X, layer=layer, neuron=2)
    (a, edges_a), (b, edges_b) = seen(made, "interaction"), seen(other.network, "interaction")
    assert max(moved(u, v, True) for u, v in zip(a, b, strict=True)) < 1e-9
    assert max(moved(u, v, False) for u, v in zip(edges_a, edges_b, strict=True)) < 1e-9
    (a, edges_a), (b, edges_b) = seen(made, "pca"), seen(other.network, "pca")
    changed = layer + 1
    assert moved(a[changed], b[changed], True) > 1e-3
    assert max(moved(edges_a[i], edges_b[i], False) for i in (layer, layer + 1)) > 1e-3
    assert all(moved(a[i], b[i], True) < 1e-9 for i in range(4) if i != changed)


def test_the_network_given_stays_as_it_is_and_seeds_decide() -> None:
    made = generic(6, 8, 3)[0]
    kept = {k: v.clone() for k, v in made.state_dict().items()}
    runs = [plant_gates(made, X, layer=0, neurons=(0, 1), seed=s).network for s in (3, 3, 4)]
    assert all(torch.equal(v, kept[k]) for k, v in made.state_dict().items())
    first, again, other = (list(r.parameters()) for r in runs)
    assert all(torch.equal(p, q) for p, q in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    gates = [before(r, 0)[:, :2] > 0 for r in runs]
    assert all(torch.equal(g[:, 0], g[:, 1]) for g in gates)
    assert all(torch.equal(p, q) for p, q in pairwise(gates))


def test_what_cannot_be_planted() -> None:
    made = generic(6, 8, 3)[0]
    with pytest.raises(ConfigError, match="hidden layer 1; choose from 0 to 0"):
        plant_activations(made, X, layer=1, neuron=0)
    with pytest.raises(ConfigError, match="different ones below 8"):
        plant_gates(made, X, layer=0, neurons=(0, 0))
    with pytest.raises(ConfigError, match="different ones below 8"):
        plant_gradients(made, X, layer=0, neuron=8)
    with pytest.raises(ConfigError, match="from 2 to 3 neurons may share"):
        plant_gates(made, X, layer=0, neurons=(0, 1, 2, 3))
    with pytest.raises(ConfigError, match="do not share a gate"):
        mix_gates(made, X, layer=0, neurons=(0, 1))
    pair = plant_gates(made, X, layer=0, neurons=(0, 1)).network
    with pytest.raises(ConfigError, match=r"neurons \[1\] of hidden layer 0 are always on, never on, or share a gate"):
        plant_activations(pair, X, layer=0, neuron=1)
    with pytest.raises(ConfigError, match="a single reader"):
        plant_activations(network(6, 8, 1), X, layer=0, neuron=0)
    with pytest.raises(ConfigError, match="networks of ReLUs without norms"):
        plant_activations(MLP((6, 8, 3), "tanh"), X, layer=0, neuron=0)
    close = X.clone()
    weight, bias = made.hidden[0].linear.weight[0], made.hidden[0].linear.bias[0]
    close[7] = -weight * (bias - 1e-9) / (weight @ weight)
    with pytest.raises(ConfigError, match="too close to its threshold on item 7"):
        plant_gradients(made, close, layer=0, neuron=0)
