from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.training.seeds import initialised


def linears(network: nn.Module) -> list[nn.Linear]:
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def test_defaults_are_a_plain_mlp() -> None:
    names = ["hidden.0.linear", "hidden.1.linear", "readout"]
    assert list(MLP((4, 3, 3, 2)).state_dict()) == [f"{n}.{kind}" for n in names for kind in ("weight", "bias")]
    assert list(MLP((4, 3, 3, 2), dropout=0.5).state_dict()) == list(MLP((4, 3, 3, 2)).state_dict())
    plain = initialised(lambda: MLP((4, 3, 2)), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = MLP((4, 3, 2))
        torch.manual_seed(5)
        by_hand = [nn.Linear(4, 3), nn.Linear(3, 2)]
    for ours, theirs in zip(linears(again), by_hand, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    assert {name for name, _ in plain.named_modules()} >= {"hidden.0", "hidden.0.act"}


@pytest.mark.parametrize(("init", "variance"), [("torch", 1 / 3), ("zero_bias", 1 / 3), ("lecun", 1.0), ("he", 2.0)])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_initial_weights_have_their_variance(init: Any, variance: float, gain: float) -> None:
    for linear in linears(initialised(lambda: MLP((300, 400, 500, 200), init=init, gain=gain), 0)):
        n, weight = linear.weight.numel(), linear.weight.detach().double()
        found = float(weight.var() * linear.in_features) / gain**2
        assert abs(found / variance - 1) < 5 * (2 / n) ** 0.5  # of a normal sample; a uniform one varies less
        assert bool((linear.bias == 0).all()) == (init != "torch")
        normal = float((weight / weight.std()).pow(4).mean())
        assert abs(normal - (3.0 if init in {"lecun", "he"} else 1.8)) < 0.1


def test_norm_and_dropout_have_their_places() -> None:
    network = initialised(lambda: MLP((6, 50, 2), "leaky_relu", norm="layer", dropout=0.5), 0).train()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    layer: Any = network.hidden[0]
    h = nn.functional.leaky_relu(nn.functional.layer_norm(layer.linear(x), (50,)))
    network.eval()
    torch.testing.assert_close(network(x), network.readout(h))
    network.train()
    seen = layer(x)
    dropped = seen == 0
    assert 0.3 < float(dropped.double().mean()) < 0.7
    torch.testing.assert_close(seen[~dropped], 2 * h[~dropped])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"norm": "group"}, "unknown norm 'group'"),
        ({"init": "xavier"}, "unknown init 'xavier'"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"gain": 0.0}, "gain positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MLP((4, 3, 2), **given)
