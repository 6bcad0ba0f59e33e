"""Algorithms told apart on networks whose algorithm is known in closed form, and refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.geometry.algorithms import (
    Algorithm,
    classify,
    irrelevance,
    reading,
    slices_of,
    symmetricity,
    unseen,
)
from heldout.analyses.geometry.frequencies import (
    agreement_of,
    coefficients,
    coherence,
    keep,
    points,
    powers,
    principal_plane,
    profile,
)
from heldout.analyses.geometry.pairs import Pairs
from heldout.errors import ConfigError, NetworkError, StatisticsError
from heldout.networks.pooled import PooledMLP
from heldout.networks.pooled_planted import planted, planted_lookup
from heldout.networks.transformer import Transformer
from heldout.tasks.modular import Modular, ModularSettings
from heldout.training.seeds import initialised

P = 11
TASK = Modular(ModularSettings(modulus=P, corner=0, equals=False), seed=0)
SUMS = np.add.outer(np.arange(P), np.arange(P)) % P


def turned(network: PooledMLP, angle: float) -> PooledMLP:
    """The network with its first operand's circle turned by half of `angle` and its second's by half of it the other way,
    before they are read; the sum of both angles stays."""
    with torch.no_grad():
        for columns, by in ((slice(0, 2), -angle / 2), (slice(2, 4), angle / 2)):
            rotation = torch.tensor([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]], dtype=torch.float64)
            network.up.weight[:, columns] = network.up.weight[:, columns] @ rotation
    return network


# -- frequencies -----------------------------------------------------------------------------------------------------


def test_a_table_is_the_sum_of_its_frequencies() -> None:
    table = np.random.default_rng(0).normal(size=(P, 4))
    parts = [keep(table, [k]) - table.mean(0) for k in range(1, P // 2 + 1)]
    np.testing.assert_allclose(sum(parts) + table.mean(0), table, atol=1e-14)
    np.testing.assert_allclose(keep(table, range(1, P // 2 + 1)), table, atol=1e-14)
    shares = np.array([(part**2).sum() for part in parts]) / ((table - table.mean(0)) ** 2).sum()
    np.testing.assert_allclose(powers(table), shares, atol=1e-14)
    assert powers(table).sum() == pytest.approx(1)
    assert coefficients(table).shape == (1 + P // 2, 4)
    assert (powers(np.ones((P, 2))) == 0).all()


def test_tokens_lie_on_their_circle() -> None:
    table = np.random.default_rng(1).normal(size=(P, 3))
    w = 2 * np.pi * 3 / P
    np.testing.assert_allclose(points(table, 3, np.exp(1j * w * np.arange(P))), keep(table, [3]), atol=1e-14)
    np.testing.assert_allclose(
        points(table, 3, np.zeros(2, dtype=complex)), table.mean(0)[None].repeat(2, 0), atol=1e-14
    )


@pytest.mark.parametrize("sense", [1, -1])
def test_coherence_is_that_of_the_order_of_the_angles(sense: int) -> None:
    angles = sense * 2 * np.pi * 4 * np.arange(P) / P + 0.3
    ring = np.pad(np.stack([np.cos(angles), np.sin(angles)], axis=1), ((0, 0), (0, 4)))
    found = coherence(ring)
    assert found[3] == pytest.approx(1)
    assert np.delete(found, 3).max() < 1e-12
    assert (coherence(ring[:, :1]) == 0).all()
    scores, kept = principal_plane(ring)
    assert scores.shape == (P, 2)
    np.testing.assert_allclose(kept, ring, atol=1e-14)


@pytest.mark.parametrize(("clock", "turn"), [(0.0, 0.0), (0.25, 0.0), (0.6, 0.0), (0.0, 0.6), (0.5, -2.1)])
def test_a_profile_is_read_back(clock: float, turn: float) -> None:
    turn = 2 * np.pi / 120 * round(turn * 120 / (2 * np.pi))
    k, w = 2, 2 * np.pi * 2 / P
    a, b, c = np.meshgrid(*[np.arange(P)] * 3, indexing="ij")
    logits = (clock + (1 - clock) * np.abs(np.cos((w * (a - b) - turn) / 2))) * np.cos(w * (a + b - c)) + 7
    found = profile(3 * logits, k)
    assert found.follows == pytest.approx(1)
    assert found.clock == pytest.approx(clock, abs=1e-12)
    assert found.turn == pytest.approx(turn)
    assert found.fit == pytest.approx(1)
    assert np.isnan(profile(-logits, k).clock)


def test_noise_follows_no_sum() -> None:
    logits = np.random.default_rng(4).normal(size=(P, P, P))
    follows = [profile(logits, k).follows for k in range(1, P // 2 + 1)]
    assert np.mean(follows) == pytest.approx(1 / (2 * P), abs=0.05)


def test_agreement_of_mixtures_falls_from_one_to_a_clock_s() -> None:
    found = [agreement_of(s, 1001, 1) for s in np.linspace(0, 1, 7)]
    assert found[0] == 1
    assert (np.diff(found) < 0).all()
    # mean (1 - |cos x|)^2 = 1 - 4 / pi + 1/2
    assert found[-1] == pytest.approx(4 / np.pi - 0.5, abs=1e-5)


# -- networks of known algorithm -------------------------------------------------------------------------------------


def label(network: nn.Module, task: Modular = TASK) -> Algorithm:
    return classify(network, task)


def test_a_pizza_is_named() -> None:
    for network in (planted(P, {1: 0, 2: 0}), planted(P, {1: 0, 2: 0}, pooling="mean")):
        found = label(network)
        assert (found.label, set(found.used), found.reason) == ("pizza", {1, 2}, "")
        assert found.accuracy == found.average == 1
        assert (found.slices, found.antipodal) == (2 * P, 1)
        assert found.symmetricity == pytest.approx(1)
        assert found.irrelevance == pytest.approx(0, abs=1e-12)
        for circle in found.circles[:2]:
            assert circle.alone == circle.without == 1
            assert circle.power == pytest.approx(0.5)
            assert (circle.follows, circle.clock, circle.average) == pytest.approx((1, 0, 1), abs=1e-9)


def test_a_clock_is_named() -> None:
    found = label(planted(P, {3: 1}))
    assert (found.label, found.used) == ("clock", (3,))
    circle = found.circles[2]
    assert (circle.follows, circle.clock) == pytest.approx((1, 1), abs=1e-9)
    assert circle.average == pytest.approx(agreement_of(1, P, 3))
    assert circle.without < 0.5
    assert found.one_circle
    assert np.isnan(found.irrelevance)
    assert found.symmetricity < 0.5


def test_a_network_with_both_is_named_both_and_a_mixture_mixed() -> None:
    found = label(planted(P, {1: 0, 4: 1}))
    assert (found.label, set(found.used)) == ("both", {1, 4})
    assert [c.reads for c in found.circles if c.frequency in found.used] == ["pizza", "clock"]
    assert label(planted(P, {2: 0.5})).label == "mixed"
    assert label(planted(P, {2: 0.25})).label == "pizza"
    assert label(planted(P, {2: 0.75})).label == "clock"


def test_a_quiet_circle_does_not_name_a_network() -> None:
    network = planted(P, {1: 0, 4: 1})
    with torch.no_grad():
        network.embed.weight[:, 2:] *= 0.1  # of a homogeneous network: the clock's logits, too
    found = label(network)
    assert (found.label, found.used) == ("pizza", (1,))
    assert found.circles[3].reads == "clock"


def test_a_turned_pizza_is_a_pizza_though_it_reads_its_operands_differently() -> None:
    found = label(turned(planted(P, {2: 0}), np.pi / 3))
    circle = found.circles[1]
    assert circle.reads == "pizza"
    assert circle.average == pytest.approx(1)
    assert circle.turn == pytest.approx(np.pi / 3)
    assert (found.label, found.average) == ("pizza", 1)
    assert found.symmetricity < 0.9


def test_networks_without_an_algorithm_are_unclear_and_say_why() -> None:
    by_heart = label(planted_lookup(SUMS))
    assert (by_heart.label, by_heart.used, by_heart.accuracy) == ("unclear", (), 1)
    assert "read as a pizza or a clock" in by_heart.reason
    half = label(planted_lookup(np.where(unseen(TASK), (SUMS + 1) % P, SUMS)))
    assert (half.label, half.accuracy) == ("unclear", 0)
    assert "0.000 of the pairs" in half.reason
    untrained = label(initialised(lambda: PooledMLP(P, width=16, hidden=64, pooling="concat"), 100))
    assert untrained.label == "unclear"


@pytest.mark.parametrize("seed", range(10))
def test_no_lookup_is_named(seed: int) -> None:
    assert label(planted_lookup(SUMS, seed=seed)).label == "unclear"


def test_labels_do_not_depend_on_the_names_of_tokens_or_the_scale() -> None:
    network = planted(P, {1: 0, 4: 1})
    order = (3 * np.arange(P)) % P  # multiplies every frequency by 3
    with torch.no_grad():
        network.embed.weight.copy_(network.embed.weight[order].clone())
        network.readout.weight.copy_(5 * network.readout.weight[order].clone())
    found = label(network)
    assert found.label == "both"
    assert set(found.used) == {3, 1}  # 3 x 1, and 3 x 4 = 12 = 1 modulo 11


def test_readings_at_the_thresholds() -> None:
    low, high = (agreement_of(s, P, 1) for s in (2 / 3, 1 / 3))
    assert reading(0.49, 0.0, 1.0, P, 1) == "none"
    assert reading(1.0, np.nan, 1.0, P, 1) == "other"
    assert reading(1.0, 0.9, high, P, 1) == "pizza"
    assert reading(1.0, 0.7, low, P, 1) == "clock"
    assert reading(1.0, 0.6, low, P, 1) == "mixed"
    assert reading(1.0, 0.2, (low + high) / 2, P, 1) == "mixed"
    assert reading(1.0, 0.2, low, P, 1) == "other"


# -- the two diagnostics of the literature ---------------------------------------------------------------------------


def test_irrelevance_is_one_where_the_right_logit_knows_nothing_of_the_difference() -> None:
    pairs = Pairs(planted(P, {1: 0}), TASK)
    pairs.logits = np.broadcast_to(SUMS[:, :, None].astype(float), (P, P, P))  # the same spread at every difference
    assert irrelevance(pairs) == pytest.approx(1)


def test_symmetricity_of_the_mean_is_one_whatever_it_computes() -> None:
    assert symmetricity(Pairs(planted_lookup(SUMS), TASK)) == pytest.approx(1)
    noise = initialised(lambda: PooledMLP(P, width=64, hidden=256, pooling="concat"), 100)
    assert abs(symmetricity(Pairs(noise, TASK))) < 0.2


def test_slices_around_a_turned_circle() -> None:
    network = turned(planted(P, {2: 0}), np.pi / 3)
    circle = label(network).circles[1]
    assert slices_of(Pairs(network, TASK), 2, circle.turn) == (2 * P, 1)


# -- other networks and mistakes -------------------------------------------------------------------------------------


def test_a_transformer_with_an_equals_sign_is_read_at_its_token_embedding() -> None:
    task = Modular(ModularSettings(modulus=7, corner=0), seed=0)
    network = initialised(
        lambda: Transformer(8, width=8, layers=1, norm="none", activation="relu", max_length=3), 100
    ).eval()
    pairs = Pairs(network, task)
    np.testing.assert_allclose(pairs.run(pairs.first, pairs.second), pairs.logits, atol=1e-5)
    assert pairs.logits.shape == (7, 7, 8)
    assert classify(network, task).label == "unclear"


def test_edits_reach_the_logits_and_leave_the_network_alone() -> None:
    network = planted(P, {1: 1})
    before = network.embed.weight.clone()
    pairs = Pairs(network, TASK)
    shifted = np.roll(pairs.first, -1, axis=0)  # token t stands where t + 1 was
    np.testing.assert_allclose(pairs.run(shifted, pairs.second), np.roll(pairs.logits, -1, axis=0), atol=1e-12)
    assert torch.equal(network.embed.weight, before)


class Mixing(nn.Module):
    """A site at which operands are no longer apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(P, 4)
        self.mix = nn.Identity()
        self.readout = nn.Linear(4, P)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        out: Tensor = self.readout(self.mix(x + x.flip(1)).sum(1))
        return out


def test_what_does_not_fit_is_named() -> None:
    network = planted(P, {1: 0})
    with pytest.raises(ConfigError, match="the task is multiply modulo 11"):
        classify(network, Modular(ModularSettings(modulus=P, operation="multiply", corner=0, equals=False)))
    with pytest.raises(ConfigError, match="modulo 12"):
        classify(network, Modular(ModularSettings(modulus=12, corner=0, equals=False)))
    with pytest.raises(StatisticsError, match="at least one pair"):
        classify(network, TASK, scored=np.zeros((P, P), dtype=bool))
    with pytest.raises(NetworkError, match="depends on the other"):
        classify(Mixing(), TASK, site="mix")
    with pytest.raises(NetworkError, match="embedded tokens"):
        classify(network, TASK, site="up")
    with pytest.raises(NetworkError, match="at least 11 classes"):
        classify(PooledMLP(P, width=2, hidden=4, classes=5), TASK)
