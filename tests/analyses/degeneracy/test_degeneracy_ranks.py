"""Free directions: exact integers on planted networks, and the Hessian they are the null space of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from heldout.analyses.degeneracy.ranks import free_directions
from heldout.errors import NetworkError, ProxyError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relu_network(*widths: int, seed: int = 0) -> nn.Sequential:
    steps: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layer = nn.Linear(a, b, dtype=torch.float64)
        layer.weight.data, layer.bias.data = draw(b, a, seed=seed + 10 * i), 0.5 * draw(b, seed=seed + 10 * i + 1)
        steps += [layer, nn.ReLU()]
    return nn.Sequential(*steps[:-1])


X = draw(150, 6, seed=99)


def together(network: nn.Sequential, neurons: tuple[int, ...]) -> nn.Sequential:
    """Neurons with maps of their own that are on exactly where the first input is positive."""
    layer = network[0]
    assert isinstance(layer, nn.Linear)
    for k, neuron in enumerate(neurons):
        layer.weight.data[neuron] = 0.1 * draw(6, seed=50 + k)
        layer.weight.data[neuron, 0] = 100.0
        layer.bias.data[neuron] = 0.01 * (k + 1)
    return network


def separated() -> Tensor:
    """Inputs whose first coordinate is never near zero."""
    x = X.clone()
    x[:, 0] = x[:, 0].sign() * (0.5 + x[:, 0].abs())
    return x


def always_on(network: nn.Sequential, count: int) -> nn.Sequential:
    layer = network[0]
    assert isinstance(layer, nn.Linear)
    layer.bias.data[:count] = 30
    return network


# T5: the parameters that are free, and those of them that synchronised neurons add.
CASES: dict[str, tuple[Callable[[], nn.Sequential], Tensor, int, int, int]] = {
    "generic": (lambda: relu_network(6, 8, 3), X, 83, 8, 0),
    "a pair in step": (lambda: together(relu_network(6, 8, 3), (0, 1)), separated(), 83, 10, 2),
    "a triple in step": (lambda: together(relu_network(6, 8, 3), (0, 1, 2)), separated(), 83, 14, 6),
    "three always on": (lambda: always_on(relu_network(6, 8, 3), 3), X, 83, 17, 9),
    "two hidden layers": (lambda: relu_network(6, 8, 7, 3), X, 143, 15, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_free_directions_are_counted_exactly(case: str) -> None:
    make, inputs, parameters, null, extra = CASES[case]
    found = free_directions(make(), inputs)
    assert (found.parameters, found.null, found.unexplained) == (parameters, null, 0)
    assert sum(s.extra for s in found.synchronised) == extra
    assert found.hessian.gap > 1e3
    assert found.rank == parameters - null


def test_a_triple_and_a_pair() -> None:
    """Two sets with gates of their own, by the sign of two different inputs."""
    network, x = relu_network(6, 8, 3), separated()
    x[:, 1] = x[:, 1].sign() * (0.5 + x[:, 1].abs())
    layer = network[0]
    assert isinstance(layer, nn.Linear)
    for k, (neuron, leader) in enumerate(((0, 0), (1, 0), (2, 0), (3, 1), (4, 1))):
        layer.weight.data[neuron] = 0.1 * draw(6, seed=60 + k)
        layer.weight.data[neuron, leader] = 100.0
    found = free_directions(network, x)
    assert found.null == 16
    assert found.unexplained == 0
    assert sorted(len(s.neurons) for s in found.synchronised) == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("widths", [(6, 8, 3), (6, 8, 7, 3)])
def test_inputs_that_depend_on_each_other(widths: tuple[int, ...]) -> None:
    """Degeneracy A: the last input is the sum of two others: one direction free for each first neuron."""
    x = X.clone()
    x[:, 5] = x[:, 0] + x[:, 1]
    plain, found = free_directions(relu_network(*widths), X), free_directions(relu_network(*widths), x)
    assert found.linear["0"].inputs == 8
    assert found.null == plain.null + 8
    assert found.unexplained == 0


def test_a_neuron_that_nothing_reads_and_one_that_is_never_on() -> None:
    """Degeneracy B: a neuron that nothing reads sends no gradient back; one that is never on passes none on."""
    network, dead = relu_network(6, 8, 7, 3), relu_network(6, 8, 3)
    with torch.no_grad():
        network[4].weight[:, 6] = 0  # type: ignore[index,operator,union-attr]
        dead[0].bias[2] = -1000  # type: ignore[index,operator,union-attr]
    found = free_directions(network, X)
    assert found.linear["2"].gradients == 9
    assert found.linear["2"].free >= 9
    assert found.unexplained == 0
    counted = free_directions(dead, X)
    assert (counted.null, counted.unexplained) == (7 + 7 + 3, 0)
    assert all(2 not in s.neurons for s in counted.synchronised)


def test_the_spectrum_is_that_of_the_hessian_of_the_behavioural_loss() -> None:
    """T9, T10: against second derivatives taken by another route, and the rank of the Jacobian itself."""
    network, x = relu_network(3, 4, 2), draw(40, 3, seed=5)
    state = {k: v.detach() for k, v in network.named_parameters()}
    names, shapes = list(state), [v.shape for v in state.values()]
    flat = torch.cat([v.flatten() for v in state.values()])

    def outputs(w: Tensor) -> Tensor:
        parts = w.split([s.numel() for s in shapes])
        return functional_call(network, {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}, (x,))

    target = outputs(flat)
    matrix = jacrev(jacrev(lambda w: ((outputs(w) - target) ** 2).sum() / len(x)))(flat)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    found = free_directions(network, x)
    torch.testing.assert_close(found.hessian.values[: len(flat)], expected, rtol=1e-8, atol=1e-10)
    jacobian = jacrev(outputs)(flat).flatten(0, 1)
    assert found.rank == int(torch.linalg.matrix_rank(jacobian)) == len(flat) - 4
    cut = 0.01
    soft = torch.trace(matrix @ torch.linalg.inv(matrix + cut * torch.eye(len(flat)).double()))
    assert found.effective(cut) == pytest.approx(float(soft), rel=1e-9)


def test_the_authors_blocks_of_a_two_layer_hessian() -> None:
    """T9: without biases, H is made of I (x) <f2 f2>, (W2^T W2) o <o o f1 f1>, and the cross block W2 <o f1 f2>."""
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    network[0].weight.data, network[2].weight.data = draw(4, 3, seed=1), draw(2, 4, seed=2)  # type: ignore[union-attr]
    x = draw(60, 3, seed=3)
    gate = (x @ draw(4, 3, seed=1).T > 0).double()
    f2, w2 = gate * (x @ draw(4, 3, seed=1).T), draw(2, 4, seed=2)
    one = torch.kron(torch.eye(2).double(), f2.T @ f2)
    two = torch.einsum("oi,oj,ni,nj,nk,nl->ikjl", w2, w2, gate, gate, x, x).reshape(12, 12)
    cross = torch.einsum("oi,ni,nk,nj->ojik", w2, gate, x, f2).reshape(8, 12)
    whole = 2 / 60 * torch.cat([torch.cat([one, cross], 1), torch.cat([cross.T, two], 1)])
    found = free_directions(network, x).hessian.values[:20]
    torch.testing.assert_close(found, torch.linalg.eigvalsh(whole).flip(0), rtol=1e-9, atol=1e-11)


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ProxyError, match="10 items with 3 outputs for 83 parameters; at least 28 items"):
        free_directions(relu_network(6, 8, 3), X[:10])
    with pytest.raises(NetworkError, match=r"1\.weight belongs to another kind of module"):
        free_directions(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)), X)
    with pytest.raises(NetworkError, match="belongs to neither"):
        free_directions(nn.Sequential(nn.ReLU()), X)
    shared = nn.Linear(6, 6)
    with pytest.raises(NetworkError, match="0 must run once"):
        free_directions(nn.Sequential(shared, nn.ReLU(), shared), X)
    with pytest.raises(ProxyError, match="a cut must be positive"):
        free_directions(relu_network(6, 8, 3), X).effective(0)
