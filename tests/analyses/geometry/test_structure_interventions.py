"""Interventions: a structure that the network reads, one that it does not, and what is removed at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.analyses.geometry.interventions import ALONE, FULL, REMOVED, Components, TokenCurve, intervene
from heldout.analyses.geometry.passes import predict
from heldout.errors import ConfigError, ProxyError
from heldout.proxies.svd import SVD
from heldout.tasks.base import Rectangular, Split

TOKENS, WIDTH = 60, 8


class Reads(nn.Module):
    """The score on one direction of an embedded token, exactly: (B, 1) int64 -> (B, 1)."""

    def __init__(self, table: Tensor, direction: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table)
        self.readout = nn.Linear(table.shape[1], 1, bias=False, dtype=table.dtype)
        self.readout.weight.data = direction[None]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.embedding(x[:, 0]))
        return out


def known(read: int) -> tuple[Reads, Split, Moments, Tensor]:
    """A table with orthogonal columns of decreasing size; the network reads column `read`."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(TOKENS, WIDTH))
    columns = np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(TOKENS) * np.linspace(3, 1, WIDTH)
    table = torch.from_numpy(columns)
    network = Reads(table, torch.eye(WIDTH, dtype=torch.float64)[read])
    tokens = torch.arange(TOKENS)[:, None]
    split = Split("held", "test", Rectangular(tokens, network(tokens).detach()), units=np.arange(TOKENS) // 3)
    moments = Moments()
    moments.update(table)
    return network, split, moments, table


def test_removing_what_is_read_costs_what_it_holds() -> None:
    network, split, moments, _ = known(0)
    found = intervene(network, split, {"embedding": Components(moments, [0])}, seed=0)
    assert found.squares.rms(FULL) == 0
    assert found.displacement["embedding"] == pytest.approx(9)
    assert found.effect == pytest.approx(3)
    assert found.squares.rms(ALONE) == pytest.approx(0, abs=1e-12)
    assert found.random.shape == (20,)
    assert found.random.max() < 3
    assert found.p == 1 / 21
    assert ((found.overlap >= 0) & (found.overlap <= 1)).all()


def test_removing_what_is_not_read_costs_nothing_and_random_removals_cost_more() -> None:
    network, split, moments, _ = known(7)
    found = intervene(network, split, {"embedding": Components(moments, [0, 1])}, seed=0)
    assert found.effect == pytest.approx(0, abs=1e-12)
    assert found.squares.rms(ALONE) == pytest.approx(1)  # nothing is left of what is read
    assert found.p == 1
    assert found.random.min() > 0


def test_random_removals_displace_as_much() -> None:
    _, _, moments, table = known(0)
    part = Components(moments, [1, 3])
    for seed in range(3):
        removal = part.random(seed)
        moved = table - removal.reconstruct(table)
        assert float(moved.square().sum(dim=1).mean()) == pytest.approx(part.displacement)
        assert removal.displacement(moments) == pytest.approx(part.displacement)
    own = part.removed("embedding")
    assert not callable(own)
    assert part.overlap(part._removal) == pytest.approx(1)


def test_a_curve_in_a_token_table() -> None:
    """The curve is the column that is read: alone it predicts all, and its residual nothing."""
    network, split, moments, table = known(2)
    structure = torch.zeros_like(table)
    structure[:, 2] = table[:, 2]
    curve = TokenCurve(table, structure.numpy(), column=0)
    found = intervene(network, split, {"embedding": curve}, seed=1, draws=10)
    same = intervene(network, split, {"embedding": Components(moments, [2])}, seed=1, draws=10)
    assert found.squares.rms(ALONE) == pytest.approx(0, abs=1e-12)
    assert found.effect == pytest.approx(same.effect)
    assert found.displacement["embedding"] == pytest.approx(same.displacement["embedding"])
    np.testing.assert_allclose(found.random, same.random, rtol=1e-9)
    np.testing.assert_allclose(found.overlap, same.overlap, rtol=1e-9)
    assert torch.equal(network.embedding.weight, table)


def test_the_mean_and_the_controls_are_of_the_tokens_present() -> None:
    network, split, _, table = known(0)
    shifted = table.clone()
    shifted[40:] += 100  # tokens that never occurred in training
    structure = torch.zeros_like(table)
    structure[:40, 0] = table[:40, 0] - table[:40, 0].mean()
    curve = TokenCurve(shifted, structure, 0, present=np.arange(40))
    assert curve.displacement == pytest.approx(float(structure[:40].square().sum(dim=1).mean()))
    few = split.subset(np.arange(40))
    alone = predict(network, few, curve.alone("embedding"))
    np.testing.assert_allclose(alone, table[:40, 0].numpy(), atol=1e-12)


def test_draws_are_the_seeds_own() -> None:
    network, split, moments, _ = known(0)
    parts = {"embedding": Components(moments, [0])}
    one, again, other = (intervene(network, split, parts, seed=s, draws=5).random for s in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_units_and_scale_are_carried() -> None:
    network, split, moments, table = known(0)
    scale = np.linspace(1, 2, TOKENS)
    found = intervene(network, split, {"embedding": Components(moments, [0])}, seed=0, draws=1, scale=scale)
    at = found.squares.names.index(REMOVED)
    wanted = np.bincount(np.arange(TOKENS) // 3, weights=(scale * table[:, 0].numpy()) ** 2)
    np.testing.assert_allclose(found.squares.sums[:, at], wanted, rtol=1e-9)


def test_what_cannot_be_matched_is_refused() -> None:
    network, split, moments, table = known(0)
    with pytest.raises(ProxyError, match="cannot be removed"):
        intervene(network, split, {"embedding": TokenCurve(table, 10 * table.numpy(), 0)}, seed=0)
    with pytest.raises(ProxyError, match="holds no variance"):
        intervene(network, split, {"embedding": TokenCurve(table, 0 * table.numpy(), 0)}, seed=0)
    with pytest.raises(ConfigError, match="a site and at least one"):
        intervene(network, split, {}, seed=0)
    with pytest.raises(ConfigError, match="at least one component"):
        intervene(network, split, {"embedding": Components(moments, [])}, seed=0)
    with pytest.raises(ProxyError, match="directions"):
        intervene(network, split, {"embedding": Components(moments, [8])}, seed=0)
    with pytest.raises(ConfigError, match="must agree"):
        intervene(network, split, {"embedding": TokenCurve(table, np.ones((3, 2)), 0)}, seed=0)
    assert SVD(centred=True).fit_moments(moments).total_ > 0
