"""Training to a stated loss: the level is met from above, by a last update that is shortened and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.matched import loss_on, train_to
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

DRAW = torch.Generator().manual_seed(100)
X = torch.randn(60, 5, generator=DRAW)
SPLIT = Split("train", "fit", Rectangular(X, (X[:, 0] > 0).long()))


def settings(**changed: object) -> TrainSettings:
    base = {"steps": 400, "learning_rate": 0.1, "optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0}
    return TrainSettings(**{**base, "clip": None, "seed": 100, **changed})  # type: ignore[arg-type]


def network() -> MLP:
    return initialised(lambda: MLP((5, 8, 2), "tanh"), 100)


def level_of(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    return outputs.square().mean()


@pytest.mark.parametrize("way", [{}, {"momentum": 0.9}, {"optimizer": "adam"}, {"learning_rate": 1.0}])
def test_ways_of_training_meet_at_one_loss(way: dict[str, object]) -> None:
    net = network()
    found = train_to(net, SPLIT, cross_entropy, 0.3, batch=60, settings=settings(**way), tolerance=1e-4)
    assert found.reason == ""
    assert 0 < found.share <= 1
    assert 0.3 * (1 - 1e-4) <= found.loss <= 0.3
    assert loss_on(net, SPLIT, cross_entropy) == found.loss
    assert not net.training


def test_the_network_is_the_last_but_one_plus_a_share_of_the_last_update() -> None:
    found = train_to(net := network(), SPLIT, cross_entropy, 0.3, batch=20, settings=settings(), tolerance=1e-5)
    twins = []
    for updates in (found.updates - 1, found.updates):
        train(twin := network(), shuffled(SPLIT, 20, seed=100), cross_entropy, settings=settings(steps=updates))
        twins.append(twin)
    before, after = (t.state_dict() for t in twins)
    assert loss_on(twins[0], SPLIT, cross_entropy) > 0.3 >= loss_on(twins[1], SPLIT, cross_entropy)
    assert 0 < found.share < 1
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, torch.lerp(before[name], after[name], found.share), rtol=0, atol=1e-7)


def test_a_line_is_cut_where_the_level_lies() -> None:
    """The loss of one weight w is w^2; from 1, a step of 0.3 x 2 goes to 0.4, and the level 0.49 lies at 0.7."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    split = Split("train", "fit", Rectangular(torch.ones(3, 1)))
    found = train_to(net, split, level_of, 0.49, batch=3, settings=settings(learning_rate=0.3), tolerance=1e-6)
    assert found.updates == 1
    assert found.share == pytest.approx(0.5, abs=1e-5)
    assert net.weight.item() == pytest.approx(0.7, abs=1e-5)


def test_a_level_out_of_reach_is_said_and_the_network_kept() -> None:
    found = train_to(net := network(), SPLIT, cross_entropy, 1e-4, batch=60, settings=settings(steps=3))
    assert "after 3 updates, not 0.0001" in found.reason
    assert found.loss == loss_on(net, SPLIT, cross_entropy)


@pytest.mark.parametrize(("level", "said"), [(0.0, "positive"), (-1.0, "positive"), (50.0, "starts at")])
def test_levels_that_mean_nothing_are_refused(level: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_to(network(), SPLIT, cross_entropy, level, batch=60, settings=settings())


def test_the_loss_is_the_mean_over_items_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network().train()
    whole = loss_on(net, SPLIT, cross_entropy)
    monkeypatch.setattr("heldout.training.matched.CHUNK", 7)
    assert loss_on(net, SPLIT, cross_entropy) == pytest.approx(whole, rel=1e-6)
    assert net.training
