"""Free directions by cause: exact integers that add up, with the gauge apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from heldout.analyses.degeneracy.counts import (
    CAUSES,
    DegeneracyCounts,
    attention_gauge,
    degeneracy_counts,
    residual_gauge,
)
from heldout.analyses.degeneracy.ranks import free_directions
from heldout.errors import ConfigError
from heldout.networks.mlp import MLP


def draw(*shape: int, seed: int = 100) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*widths: int, seed: int = 104) -> MLP:
    made = MLP(widths).double().requires_grad_(False)
    for i, p in enumerate(made.parameters()):
        p.copy_(draw(*p.shape, seed=seed + 17 * i) * (0.2 if p.ndim == 1 else 1))
    return made


def hessian_null(made: MLP, x: Tensor) -> int:
    """P - rank of the Jacobian of all outputs by all parameters, an oracle that knows no layers."""
    state = {k: v.detach() for k, v in made.named_parameters()}
    jacobian = jacrev(lambda s: functional_call(made, s, (x,)).flatten())(state)
    values = torch.linalg.svdvals(torch.cat([j.flatten(1) for j in jacobian.values()], dim=1))
    rank = int((values > 1e-9 * values[0]).sum())
    assert rank == len(values) or values[rank - 1] > 100 * values[rank]
    return sum(p.numel() for p in made.parameters()) - rank


def counted(made: MLP, x: Tensor) -> DegeneracyCounts:
    found = degeneracy_counts(free_directions(made, x))
    assert found.null == hessian_null(made, x)
    assert found.null == found.structure + found.gauge + found.unexplained
    assert found.unexplained == 0
    return found


def causes(found: DegeneracyCounts) -> tuple[int, ...]:
    return tuple(found.total(c) for c in CAUSES)


X = draw(150, 6, seed=99)


@pytest.mark.parametrize(("widths", "parameters", "gauge"), [((6, 8, 3), 83, 8), ((6, 8, 7, 3), 143, 15)])
def test_a_network_in_general_position_has_its_gauge_and_nothing_else(
    widths: tuple[int, ...], parameters: int, gauge: int
) -> None:
    found = counted(network(*widths), X)
    assert (found.parameters, found.null, found.gauge, found.structure) == (parameters, gauge, gauge, 0)


def test_three_neurons_that_are_always_on() -> None:
    """T5: 17 = 5 + 4 x 3; of those 8 are scales, 9 the linear map that three neurons and a constant make."""
    made = network(6, 8, 3)
    made.hidden[0].linear.bias[:3] = 30
    found = counted(made, X)
    assert (found.null, found.gauge) == (17, 8)
    assert causes(found) == (0, 0, 0, 0, 9)
    row = found.table[found.table["directions"] > 0].iloc[0]
    assert row["where"] == "hidden.0.act: 0, 1, 2 (always on)"


def test_inputs_of_low_rank() -> None:
    """Two of six inputs are sums of others: two directions free for each of eight neurons."""
    x = X.clone()
    x[:, 4], x[:, 5] = x[:, 0] + x[:, 1], x[:, 2] - 2 * x[:, 0]
    found = counted(network(6, 8, 3), x)
    assert causes(found) == (16, 0, 0, 0, 0)
    row = found.table.iloc[0]
    assert (row["where"], row["cause"], row["rank"], row["size"]) == ("hidden.0.linear", "activations", 5, 7)
    assert row["cut"] >= 1e-12
    assert row["gap"] > 1e6
    assert (row["rank_1e-12"], row["rank_1e-06"]) == (5, 5)


def test_a_neuron_that_nothing_reads_has_no_scale_of_its_own() -> None:
    """Its seven parameters are free, by gradients; the rest keeps seven scales."""
    made = network(6, 8, 3)
    made.readout.weight[:, 2] = 0
    found = counted(made, X)
    assert (found.null, found.gauge) == (14, 7)
    assert causes(found) == (0, 7, 0, 0, 0)


def test_a_neuron_that_is_never_on() -> None:
    """Its map and its readout are free; with inputs of low rank, the map's direction that both free is counted once."""
    made = network(6, 8, 3)
    made.hidden[0].linear.bias[2] = -1000
    found = counted(made, X)
    assert (found.null, found.gauge) == (7 + 7 + 3, 7)
    assert causes(found) == (3, 7, 0, 0, 0)
    x = X.clone()
    x[:, 5] = x[:, 0]
    assert causes(counted(made, x)) == (3 + 8, 7, -1, 0, 0)


def test_pairs_of_input_and_gradient_that_depend_though_neither_does() -> None:
    """Inputs on one axis or the other, and a neuron for each: of 3 x 2 pairs, each neuron sees two."""
    made = network(2, 2, 2)
    made.hidden[0].linear.weight.copy_(torch.eye(2).double())
    made.hidden[0].linear.bias.fill_(-0.1)
    size = 0.2 + draw(40, 1).abs()
    x = torch.cat([size[:20] * torch.tensor([1.0, 0.0]), size[20:] * torch.tensor([0.0, 1.0])])
    found = counted(made, x)
    assert causes(found) == (0, 0, 0, 2, 0)
    assert (found.null, found.gauge) == (4, 2)


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_the_gauge_of_a_residual_stream(norm: str) -> None:
    """A stream of width 4, read through a norm by three ReLUs that write to it, and by five outputs."""
    inputs, width, hidden, outputs = 5, 4, 3, 5
    x = draw(200, inputs)
    shapes = [(width, inputs), (hidden, width), (width, hidden), (outputs, width)]

    def normed(z: Tensor) -> Tensor:
        z = z - z.mean(dim=-1, keepdim=True) if norm == "layer" else z
        return z if norm == "none" else z / ((z**2).mean(dim=-1, keepdim=True) + 0.5).sqrt()

    def output(w: Tensor) -> Tensor:
        embed, read, write, unembed = (
            part.view(s) for part, s in zip(w.split([a * b for a, b in shapes]), shapes, strict=True)
        )
        stream = x @ embed.T
        stream = stream + torch.relu(normed(stream) @ read.T) @ write.T
        return normed(stream) @ unembed.T

    w = draw(sum(a * b for a, b in shapes), seed=101)
    values = torch.linalg.svdvals(jacrev(output)(w).reshape(-1, len(w)))
    rank = int((values > 1e-9 * values[0]).sum())
    assert values[rank - 1] > 1e6 * values[rank]
    # What is written along a mean that is taken off, and read along it, is free too: an activation that is always zero.
    idle = inputs + hidden + hidden + outputs if norm == "layer" else 0
    assert len(w) - rank == residual_gauge(width, norm).directions + hidden + idle


def test_gauges_by_formula() -> None:
    assert [g.directions for g in attention_gauge(3, 8)] == [192, 192]
    assert [g.directions for g in attention_gauge(3, 8, rotary=True)] == [192, 24]
    assert [residual_gauge(5, n).directions for n in ("none", "layer", "rms")] == [25, 6, 10]
    with pytest.raises(ConfigError, match="unknown norm 'batch'"):
        residual_gauge(5, "batch")
    with pytest.raises(ConfigError, match="an even head width"):
        attention_gauge(1, 3, rotary=True)
    with pytest.raises(ConfigError, match="head width must be positive"):
        attention_gauge(1, 0)
    with pytest.raises(ConfigError, match="unknown cause"):
        degeneracy_counts(free_directions(network(6, 8, 3), X)).total("chance")
