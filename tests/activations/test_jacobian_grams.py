"""Jacobian Grams against brute force, and random probes against the formula of their error."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heldout.activations.jacobians import JacobianGram, jacobian_grams
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections, chain
from heldout.errors import ConfigError, ProxyError
from heldout.networks.transformer import Attention
from heldout.tasks.base import Rectangular, Split


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Mixer(nn.Module):
    """Attention and a curved map, so that Jacobians differ from item to item and from place to place."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.linear = Attention(4, 2, causal=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x + 3 * self.attn(2 * x)))


with torch.random.fork_rng():
    torch.manual_seed(0)
    MIXER = Mixer()
    MLP = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 4))
LENGTHS = torch.tensor([5, 3, 4, 5, 2, 5, 1, 4])
MASK = torch.arange(5) < LENGTHS[:, None]
SEQUENCES = Split("fit", "fit", Rectangular(draw(8, 5, 4), mask=MASK))
ROWS = Split("fit", "fit", Rectangular(draw(40, 5)))
FACTOR = draw(3, 2, seed=3)


def grams(network: nn.Module, split: Split, kind: Any = "exact", **given: Any) -> JacobianGram:
    probes = Probes(kind, draws=given.pop("draws", 1), seed=given.pop("seed", 0))
    layers = given.pop("layers", [".:input", "."])
    (gram,) = jacobian_grams(Sections(network, layers), split, 0, 1, probes=probes, **given)
    return gram


def jacobians(network: nn.Module, x: Tensor) -> Tensor:
    """(B, T', D', T, D), whole: what the code under test never makes."""
    return torch.stack([torch.autograd.functional.jacobian(network.double(), item[None])[0, :, :, 0] for item in x])


def brute_force(factor: Tensor, end: Tensor, start: Tensor) -> Tensor:
    """The definition, with positions that count at the end and at the start (B, T)."""
    whole = torch.einsum("btisd,ik->btksd", jacobians(MIXER, SEQUENCES.items.inputs), factor)
    whole = whole * end[:, :, None, None, None] * start[:, None, None, :, None]
    return torch.einsum("btksd,btkse->de", whole, whole) / start.sum()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_exact_probes_are_the_definition_with_padding_and_a_factor(batch_size: int) -> None:
    gram = grams(MIXER, SEQUENCES, factor=FACTOR, batch_size=batch_size)
    torch.testing.assert_close(gram.matrix(), brute_force(FACTOR, MASK, MASK), rtol=1e-12, atol=1e-14)
    assert (gram.items, gram.positions, gram.error, gram.batched) == (8, int(LENGTHS.sum()), 0.0, True)


def test_positions_that_do_not_count_are_left_out_at_either_end() -> None:
    last = torch.nn.functional.one_hot(LENGTHS - 1, 5).bool()
    gram = grams(MIXER, SEQUENCES, layers=[".:input", (".", "last")])
    torch.testing.assert_close(gram.matrix(), brute_force(torch.eye(3).double(), last, MASK), rtol=1e-12, atol=1e-14)
    long = SEQUENCES.subset((LENGTHS > 1).nonzero()[:, 0].numpy())
    gram = grams(MIXER, long, layers=[(".:input", "1:"), "."])
    inner = MASK & (torch.arange(5) > 0)
    full = brute_force(torch.eye(3).double(), MASK, inner)  # the item of length 1 has no second position: adds nothing
    torch.testing.assert_close(gram.matrix(), full, rtol=1e-12, atol=1e-14)


def test_an_mlp_is_its_closed_form() -> None:
    """J = W2 diag(gate) W1: the mean of J^T J."""
    x = ROWS.items.inputs
    one, two = (MLP[i].double() for i in (0, 2))
    gate = (one(x) > 0).double()
    whole = torch.einsum("oh,bh,hi->boi", two.weight, gate, one.weight)
    expected = torch.einsum("boi,boj->ij", whole, whole).detach() / len(x)
    torch.testing.assert_close(grams(MLP, ROWS).matrix(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["exact", "position", "full"])
def test_neither_memory_nor_batches_change_the_answer(kind: str) -> None:
    whole = grams(MIXER, SEQUENCES, kind, draws=3).matrix()
    for given in ({"memory": 60_000}, {"memory": 2**20}, {"batch_size": 2}):
        torch.testing.assert_close(grams(MIXER, SEQUENCES, kind, draws=3, **given).matrix(), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["exact", "position", "full"])
def test_shards_merge_to_one_stream(kind: str) -> None:
    whole = grams(MIXER, SEQUENCES, kind)
    size = int(len(SEQUENCES) / 2)
    first, second = (Split("fit", "fit", Offset(torch.arange(start, start + size))) for start in (0, size))
    merged, other = grams(MIXER, first, kind), grams(MIXER, second, kind)
    merged.merge(other)
    torch.testing.assert_close(merged.matrix(), whole.matrix(), rtol=1e-12, atol=1e-15)
    assert (merged.items, merged.positions) == (whole.items, whole.positions)
    with pytest.raises(ProxyError, match="do not merge"):
        merged.merge(JacobianGram(Probes("full", draws=7)))


class Offset(Rectangular):
    """A part of the sequences whose items keep their numbers, as the shards of one split do."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(SEQUENCES.items.inputs[numbers], mask=MASK[numbers])
        self.numbers = numbers

    def take(self, index: Any) -> Any:
        batch = super().take(index)
        return replace(batch, index=self.numbers[batch.index])


def test_probes_over_one_position_are_exact() -> None:
    """T14: a sign squared is one."""
    exact = grams(MLP, ROWS, "exact").matrix()
    found = grams(MLP, ROWS, "position")
    torch.testing.assert_close(found.matrix(), exact, rtol=1e-14, atol=0)
    assert found.error <= 1e-15
    assert grams(MLP, ROWS, "auto").probes.kind == "exact"
    assert grams(MIXER, SEQUENCES, "auto").probes.kind == "position"


def variance(blocks: Tensor) -> float:
    """The formula in the module's text for one item; blocks (P, T, D) are its gradients."""
    n = torch.einsum("psd,pue->sude", blocks, blocks)
    trace = torch.einsum("sudd->su", n)
    square = torch.einsum("sude,sued->su", n, n)
    diagonal = torch.einsum("psd,pud->psu", blocks, blocks)
    return float((trace**2 + square).sum() - 2 * (diagonal**2).sum())


@pytest.mark.parametrize("kind", ["position", "full"])
def test_the_error_of_random_probes_is_the_formula(kind: str) -> None:
    """T6: measured over many draws, the formula, and what a Jacobian Gram says of itself, within 15%."""
    whole = jacobians(MIXER, SEQUENCES.items.inputs) * MASK[:, :, None, None, None] * MASK[:, None, None, :, None]
    if kind == "full":
        variances = [variance(item.flatten(0, 1)) for item in whole]
    else:  # signs of their own for each feature: variances add
        variances = [sum(variance(item[:, i]) for i in range(3)) for item in whole]
    exact = grams(MIXER, SEQUENCES)
    norm = float(exact.matrix().norm())
    formula = math.sqrt(sum(variances)) / (exact.positions * norm)
    measured = [
        float((grams(MIXER, SEQUENCES, kind, seed=s).matrix() - exact.matrix()).norm()) / norm for s in range(80)
    ]
    assert math.sqrt(sum(m**2 for m in measured) / len(measured)) == pytest.approx(formula, rel=0.15)
    # What a Jacobian Gram says of itself, from two sweeps over the same items many times over, with signs of their own.
    many = Split("fit", "fit", Rectangular(SEQUENCES.items.inputs.repeat(300, 1, 1), mask=MASK.repeat(300, 1)))
    for draws in (1, 4):
        said = grams(MIXER, many, kind, draws=draws, error_items=2400, batch_size=2400)
        assert said.variance == pytest.approx(sum(variances) / 8 / draws, rel=0.15)
        scale = math.sqrt(2400 * said.variance) / (said.positions * float(said.matrix().norm()))
        assert said.error == pytest.approx(scale, rel=1e-12)
        assert said.error == pytest.approx(formula / math.sqrt(300 * draws), rel=0.15)


def test_random_probes_are_unbiased() -> None:
    exact = grams(MIXER, SEQUENCES).matrix()
    for kind in ("position", "full"):
        one = grams(MIXER, SEQUENCES, kind, draws=100, error_items=8)
        assert float((one.matrix() - exact).norm() / exact.norm()) < 4 * one.error < 0.2


class Opaque(torch.autograd.Function):
    """x^3, with a derivative that only a plain tensor can take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(g.numpy() * 3 * x.detach().numpy() ** 2)


def test_an_operation_without_a_batched_rule_is_differentiated_one_by_one() -> None:
    found = grams(chain(Opaque.apply, MLP.double()), ROWS)
    assert not found.batched
    assert found.reason
    expected = grams(chain(lambda x: x**3, MLP.double()), ROWS)
    assert expected.batched
    torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=1e-12, atol=1e-14)


def test_one_sweep_serves_all_layers() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    layers = [".:input", "1", "3", "4"]
    together = jacobian_grams(Sections(network, layers), ROWS, 0, 3)
    for i, gram in enumerate(together):
        (alone,) = jacobian_grams(Sections(network, [layers[i], "4"]), ROWS, 0, 1)
        torch.testing.assert_close(gram.matrix(), alone.matrix(), rtol=1e-12, atol=1e-15)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="unknown kind of probes 'gauss'"):
        Probes("gauss")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one draw"):
        Probes("full", draws=0)
    with pytest.raises(ConfigError, match="use a smaller batch_size or more memory"):
        grams(MLP, ROWS, memory=1000)
    with pytest.raises(ProxyError, match="no gradients were seen"):
        JacobianGram(Probes("exact")).matrix()
