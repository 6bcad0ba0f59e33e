"""T13: a network of two blocks that never meet, from its weights to its modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from heldout.activations.jacobians import Probes
from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.analyses.degeneracy.graph import log_graph, mass_threshold, relative_threshold
from heldout.analyses.degeneracy.modules import find_layered_modules, find_modules, numbered, stability
from heldout.analyses.degeneracy.shuffles import shuffle_test
from heldout.networks.mlp import MLP, Hidden
from heldout.proxies.bases import local_bases, neuron_bases
from heldout.tasks.base import Rectangular, Split

BLOCK, DEPTH = 4, 4
LAYERS = [".:input", *(f"hidden.{i}.act" for i in range(DEPTH)), "."]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks(seed: int = 100) -> MLP:
    """Width 8, four hidden layers, biases 0, weights of two random 4 x 4 blocks a layer."""
    made = MLP([2 * BLOCK] * (DEPTH + 2)).double().requires_grad_(False)
    linears = [m.linear for m in made.hidden if isinstance(m, Hidden)] + [made.readout]
    for i, linear in enumerate(linears):
        linear.weight.copy_(torch.block_diag(*(draw(BLOCK, BLOCK, seed=seed + 2 * i + b) for b in (0, 1))))
        linear.bias.zero_()
    return made


def inputs() -> Tensor:
    """Every pair of 40 inputs to one block and 40 to the other: the blocks are independent on these data, not nearly so."""
    one, other = draw(40, BLOCK, seed=1), draw(40, BLOCK, seed=2)
    return torch.cat([one.repeat_interleave(40, 0), other.repeat(40, 1)], dim=1)


@pytest.mark.parametrize("basis", ["neuron", "interaction"])
def test_blocks_are_found_from_weights_to_modules(basis: str) -> None:
    sections, fit = Sections(blocks(), LAYERS), Split("fit", "fit", Rectangular(inputs()))
    exact = Probes("exact")
    found = neuron_bases(sections, fit) if basis == "neuron" else local_bases(sections, fit, probes=exact)
    squares = [edge_matrix(sections, found, fit, i, probes=exact).squares.numpy() for i in range(len(sections))]

    sides = []
    for b in found.bases:
        assert b.decoder_ is not None
        share = (b.decoder_[:, :BLOCK] ** 2).sum(dim=1) / (b.decoder_**2).sum(dim=1)
        assert bool(((share < 1e-12) | (share > 1 - 1e-12)).all())  # a feature is of one block
        sides.append((share < 0.5).numpy().astype(np.int64))
    for e, here, there in zip(squares, sides[:-1], sides[1:], strict=True):
        assert e[there[:, None] != here].max() <= 1e-12 * e.max()

    graph = log_graph(squares, [mass_threshold(e) for e in squares])
    modules = find_layered_modules(graph)
    at = graph.connected
    truth = np.concatenate(sides)
    assert numbered(modules.labels[at]).tolist() == numbered(truth[at]).tolist()
    assert modules.count == 2
    assert modules.newman > 0.4
    assert modules.layered > 0.4
    np.testing.assert_allclose(modules.inside(), 1, rtol=1e-14)
    assert stability(graph, resolutions=(0.1,), seeds=range(5))["lowest"].iloc[0] == 1
    cut = find_modules(graph)  # at resolution 1 blocks are cut by depth as well
    assert cut.newman > modules.newman
    assert cut.layered < modules.layered
    assert all(len(set(truth[at][cut.labels[at] == m])) == 1 for m in set(cut.labels[at]))
    common = log_graph(squares, [relative_threshold(e, 1e-4) for e in squares])
    assert shuffle_test(common, draws=20, seeds=(0, 1, 2)).z > 3
