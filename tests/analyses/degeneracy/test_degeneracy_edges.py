"""Interaction edges against brute force and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heldout.activations.probes import Probes
from heldout.activations.sections import Sections, chain
from heldout.analyses.degeneracy.edges import Edges, attributions, edge_matrix
from heldout.errors import ConfigError
from heldout.networks.transformer import Attention
from heldout.proxies.bases import local_bases, neuron_bases, principal_bases
from heldout.tasks.base import Batch, Rectangular, Split

EXACT = Probes("exact")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(inputs: Any, **given: Any) -> Split:
    return Split("fit", "fit", Rectangular(inputs, **given))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(*weight.shape, bias=bias is not None, dtype=torch.float64)
    layer.weight.data = weight.T.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.linear = Attention(4, 2, causal=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x + 3 * self.attn(2 * x)))


with torch.random.fork_rng():
    torch.manual_seed(0)
    MIXER = chain(Mixer(), nn.Linear(3, 3))
MASK = torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 5, 1, 4, 5, 5])[:, None]
SEQUENCES = fit(draw(10, 5, 4), mask=MASK)
ROWS = fit(draw(200, 6, seed=6) @ draw(6, 6, seed=7) + 1)
SMOOTH = chain(linear(draw(6, 8, seed=1) / 6, draw(8, seed=2)), torch.tanh, linear(draw(8, 5, seed=3)), torch.tanh)


@pytest.mark.parametrize("positions", ["all", "last", "1:"])
def test_gradient_edges_are_the_definition_over_positions(positions: str) -> None:
    sections = Sections(MIXER, [(".:input", "all"), ("0", positions), "1"])
    keep = SEQUENCES if positions != "1:" else SEQUENCES.subset((MASK.sum(1) > 1).nonzero()[:, 0].numpy())
    mask = MASK if positions != "1:" else MASK[MASK.sum(1) > 1]
    bases = local_bases(sections, keep, probes=EXACT)
    first, second = bases.bases[:2]
    x = keep.items.take(range(len(keep))).inputs
    double = sections.network[0]
    expected = torch.zeros(second.features, first.features, dtype=torch.float64)
    for item, data in zip(x, mask, strict=True):
        counted = sections.layers[1].counted(data[None], None)[0]
        whole = torch.autograd.functional.jacobian(double, item[None])[0, :, :, 0]  # (T', D', T, D)
        between = torch.einsum("tisd,ik,jd->tksj", whole, second.encoder_, first.decoder_)
        moved = torch.einsum("tksj,sj->tkj", between[:, :, data], first.encode(item)[data])[counted]
        expected += (moved**2).sum(dim=0)
    found = edge_matrix(sections, bases, keep, 0, probes=EXACT, batch_size=4)
    torch.testing.assert_close(found.squares, expected / mask.sum(), rtol=1e-10, atol=1e-13)
    assert found.squares.dtype == torch.float64
    torch.testing.assert_close(found.rms**2, found.squares, rtol=1e-14, atol=0)
    again = edge_matrix(sections, bases, keep, 0, probes=EXACT, memory=80_000)
    torch.testing.assert_close(again.squares, found.squares, rtol=1e-12, atol=1e-15)


def test_linear_networks_have_diagonal_edges_of_the_features_variance() -> None:
    """I7: one edge a feature, of its variance, in either rule."""
    network = chain(
        linear(draw(12, 10, seed=1), draw(10, seed=5)), linear(draw(10, 9, seed=2)), linear(draw(9, 6, seed=3))
    )
    data = fit(draw(200, 12, seed=4))
    sections = Sections(network, [".:input", "0", "1", "2"])
    bases = local_bases(sections, data, final="pca")
    for section in (0, 1):
        weights = bases.bases[section].weights_
        assert weights is not None
        for rule in ("gradient", "integrated"):
            edges = edge_matrix(sections, bases, data, section, rule=rule, nodes=2)
            torch.testing.assert_close(edges.squares, weights.diag(), rtol=1e-9, atol=1e-12 * float(weights[0]))
            torch.testing.assert_close(edges.gain(weights), torch.ones(6).double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [local_bases, principal_bases, neuron_bases])
def test_integrated_attributions_are_complete(make: Callable[..., Any]) -> None:
    """T11: they add up to the feature minus its value at the mean, to 1e-6 with 20 nodes."""
    sections = Sections(SMOOTH, [".:input", "1", "3"])
    bases = make(sections, ROWS)
    batch = Batch(ROWS.items.inputs[:30] * 0.7, torch.arange(30))
    for section in (0, 1):
        first, second = bases.bases[section : section + 2]
        start = sections.cross(sections.prepared(batch), section, section + 1).rows[0].detach()
        step = sections.network[2 * section : 2 * section + 2]
        change = second.encode(step(start)) - second.encode(step(first.mean_.expand_as(start)))
        found = attributions(sections, bases, batch, section, rule="integrated", nodes=20)
        torch.testing.assert_close(found.sum(dim=-1), change, rtol=0, atol=1e-6)
        rough = attributions(sections, bases, batch, section, rule="gradient").sum(dim=-1)
        assert float((rough - change).abs().max()) > 0.01


def test_integrated_attributions_over_positions_are_complete() -> None:
    """Padding and positions that do not count stay as they are on the way from the mean."""
    sections = Sections(MIXER, [(".:input", ":3"), "0", "1"])
    bases = neuron_bases(sections, SEQUENCES)
    batch = SEQUENCES.items.take(range(4))
    crossing = sections.cross(sections.prepared(batch), 0, 1)
    found = attributions(sections, bases, batch, 0, rule="integrated", nodes=20)
    counted = (MASK & (torch.arange(5) < 3))[:4, :, None]
    at_mean = torch.where(counted, bases.bases[0].mean_, crossing.rows[0].detach())
    change = bases.bases[1].encode(crossing.rows[1].detach()) - bases.bases[1].encode(sections.network[0](at_mean))
    torch.testing.assert_close(found.sum(dim=-1), change * MASK[:4, :, None], rtol=0, atol=1e-6)


def test_a_cubic_needs_two_nodes() -> None:
    """int_0^1 3 (a x)^2 x da = x^3, and Gauss-Legendre with two nodes is exact up to degree three."""
    sections = Sections(chain(nn.Identity(), lambda x: x**3), ["0", "1"])
    centred = draw(100, 2, seed=9)
    centred = centred - centred.mean(dim=0)
    bases = neuron_bases(sections, fit(centred))
    found = attributions(sections, bases, Batch(centred[:5], torch.arange(5)), 0, rule="integrated", nodes=2)[:, 0]
    order = [int(b.encoder_[:, 0].argmax()) for b in bases.bases]
    torch.testing.assert_close(found[:, 0].sum(dim=1), centred[:5, order[1]] ** 3, rtol=1e-10, atol=1e-12)
    one = attributions(sections, bases, Batch(centred[:5], torch.arange(5)), 0, rule="integrated", nodes=1)[:, 0]
    torch.testing.assert_close(one[:, 0].sum(dim=1), 0.75 * centred[:5, order[1]] ** 3, rtol=1e-10, atol=1e-12)


def test_signs_over_positions_are_unbiased_and_exact_over_one() -> None:
    sections = Sections(MIXER, [".:input", "0", "1"])
    bases = local_bases(sections, SEQUENCES, probes=EXACT)
    exact = edge_matrix(sections, bases, SEQUENCES, 0, probes=EXACT)
    many = edge_matrix(sections, bases, SEQUENCES, 0, probes=Probes("position", draws=800))
    few = edge_matrix(sections, bases, SEQUENCES, 0, probes=Probes("position", draws=8))
    gaps = [float((e.squares - exact.squares).norm() / exact.squares.norm()) for e in (few, many)]
    assert gaps[1] < 0.05
    assert gaps[1] < gaps[0] / 3
    rows = Sections(SMOOTH, [".:input", "1", "3"])
    own = local_bases(rows, ROWS)
    pair = [edge_matrix(rows, own, ROWS, 0, probes=p).squares for p in (EXACT, Probes("position"))]
    torch.testing.assert_close(pair[0], pair[1], rtol=1e-12, atol=0)


# --- planted degeneracies ---------------------------------------------------------------------------------------------


def around(inner: Callable[[Tensor], Tensor], outer: nn.Module, make: Callable[..., Any]) -> list[Tensor]:
    """The edges into and out of a layer in which something was planted."""
    network = chain(linear(draw(6, 8, seed=1), draw(8, seed=2)), torch.tanh, inner, outer)
    sections = Sections(network, [".:input", "2", "3"])
    bases = make(sections, ROWS)
    return [edge_matrix(sections, bases, ROWS, s).squares for s in (0, 1)]


READ = draw(8, 5, seed=3)
CHANGE, MIX, CURVED = draw(8, 8, seed=11), draw(8, 3, seed=12), draw(8, 4, seed=13)
PLANTED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "another basis": (linear(CHANGE, draw(8, seed=14)), CHANGE.inverse() @ READ),
    "dependent activations": (
        linear(torch.cat([torch.eye(8).double(), MIX], dim=1)),
        torch.cat([READ - MIX @ draw(3, 5, seed=15), draw(3, 5, seed=15)]),
    ),
    "unread directions": (
        lambda f: torch.cat([f, torch.sin(f @ CURVED)], dim=1),
        torch.cat([READ, torch.zeros(4, 5).double()]),
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_edges_of_the_interaction_basis_do_not_see_planted_degeneracies(kind: str) -> None:
    inner, read = PLANTED[kind]
    shift = draw(8, seed=14) @ CHANGE.inverse() @ READ if kind == "another basis" else torch.zeros(5).double()
    plain = chain(linear(READ), torch.tanh)
    moved = chain(linear(read, -shift), torch.tanh)
    for before, after in zip(around(nn.Identity(), plain, local_bases), around(inner, moved, local_bases), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-10 * float(before.max()))
    before, after = (around(*network, principal_bases)[1] for network in ((nn.Identity(), plain), (inner, moved)))
    if after.shape == before.shape:
        assert float((after - before).norm() / before.norm()) > 0.1
    else:
        assert kind == "unread directions"


def test_blocks_have_no_edges_between_them() -> None:
    """T13: four layers of two blocks, on every pair of block inputs, so that blocks are uncorrelated to the last digit."""
    blocks = [[draw(5, 5, seed=10 * layer + b) for b in (1, 2)] for layer in range(4)]
    steps: list[Any] = []
    for pair in blocks:
        steps += [linear(torch.block_diag(*pair)), torch.relu]
    u, v = draw(40, 5, seed=91), draw(40, 5, seed=92)
    data = fit(torch.cat([u.repeat_interleave(40, dim=0), v.repeat(40, 1)], dim=1))
    sections = Sections(chain(*steps), [".:input", *(str(2 * i + 1) for i in range(4))])
    for make in (neuron_bases, principal_bases, local_bases):
        bases = make(sections, data)
        for section in range(4):
            edges = edge_matrix(sections, bases, data, section).squares
            sides = []
            for basis in bases.bases[section : section + 2]:
                share = basis.decoder_[:, :5].abs().sum(dim=1) / basis.decoder_.abs().sum(dim=1)
                assert bool(((share < 1e-6) | (share > 1 - 1e-6)).all())  # each feature lies in one block
                sides.append(share > 0.5)
            across = sides[1][:, None] != sides[0][None]
            assert 0 < int(across.sum()) < edges.numel()
            assert float(edges[across].max()) <= 1e-12 * float(edges.max())


# --- masks and errors -------------------------------------------------------------------------------------------------


def test_a_mask_has_exactly_as_many_edges_as_it_says() -> None:
    """Also among equal edges, and none more important is left out."""
    squares = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0]]).double()
    edges = Edges(0, "0", "1", squares, "gradient", EXACT, 1)
    for k in range(7):
        mask = edges.largest(k)
        assert int(mask.sum()) == k
        if 0 < k < 6:
            assert float(squares[mask].min()) >= float(squares[~mask].max())
    assert torch.equal(edges.largest(3), torch.tensor([[False, True, True], [True, False, False]]))
    with pytest.raises(ConfigError, match="7 edges of 0 -> 1; choose from 0 to 6"):
        edges.largest(7)


def test_rules_and_probes_that_do_not_serve() -> None:
    sections = Sections(SMOOTH, [".:input", "1", "3"])
    bases = neuron_bases(sections, ROWS)
    with pytest.raises(ConfigError, match="unknown rule of attribution 'shapley'"):
        edge_matrix(sections, bases, ROWS, 0, rule="shapley")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose 'exact' or 'position'"):
        edge_matrix(sections, bases, ROWS, 0, probes=Probes("full"))
    with pytest.raises(ConfigError, match="at least one node"):
        edge_matrix(sections, bases, ROWS, 0, rule="integrated", nodes=0)
