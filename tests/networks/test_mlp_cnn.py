from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from heldout.errors import ConfigError
from heldout.networks.cnn import CNN
from heldout.networks.mlp import MLP
from heldout.training.seeds import initialised

DRAW = torch.Generator().manual_seed(0)


def test_mlp_is_its_equation() -> None:
    network = initialised(lambda: MLP((6, 5, 4, 3), "tanh"), 0)
    x = torch.randn(8, 2, 3, generator=DRAW)
    w = network.state_dict()
    h = x.reshape(8, 6)
    for layer in ("hidden.0.linear", "hidden.1.linear"):
        h = torch.tanh(h @ w[f"{layer}.weight"].T + w[f"{layer}.bias"])
    torch.testing.assert_close(network(x), h @ w["readout.weight"].T + w["readout.bias"])


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    network = MLP((4, 3))
    assert set(network.state_dict()) == {"readout.weight", "readout.bias"}
    x = torch.randn(5, 4, generator=DRAW)
    torch.testing.assert_close(network(x), network.readout(x))


def test_sites_read_well() -> None:
    names = {name for name, _ in MLP((4, 3, 3, 2)).named_modules()}
    assert {"hidden.0", "hidden.0.linear", "hidden.0.act", "hidden.1.act", "readout"} <= names
    names = {name for name, _ in CNN((1, 8, 8), 10).named_modules()}
    assert {"blocks.0", "blocks.0.conv", "blocks.1.act", "blocks.1.pool", "readout"} <= names


@pytest.mark.parametrize("readout", ["flat", "global"])
@pytest.mark.parametrize("pool", [True, False])
def test_cnn_is_its_equation(readout: str, pool: bool) -> None:
    network = initialised(lambda: CNN((2, 8, 9), 10, channels=(3, 5), pool=pool, readout=readout), 0)  # type: ignore[arg-type]
    x = torch.randn(4, 2, 8, 9, generator=DRAW)
    w, h = network.state_dict(), x
    for i in range(2):
        h = F.relu(F.conv2d(h, w[f"blocks.{i}.conv.weight"], w[f"blocks.{i}.conv.bias"], padding=1))
        h = F.max_pool2d(h, 2) if pool else h
    h = h.flatten(1) if readout == "flat" else h.mean((2, 3))
    torch.testing.assert_close(network(x), F.linear(h, w["readout.weight"], w["readout.bias"]))


def test_a_global_readout_forgets_where_things_are() -> None:
    network = initialised(lambda: CNN((1, 8, 8), 3, pool=False, readout="global"), 0)
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3, 3] = 1
    moved = torch.zeros(1, 1, 8, 8)
    moved[..., 4, 4] = 1
    torch.testing.assert_close(network(x), network(moved))


def test_bad_shapes_and_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="widths must be two or more"):
        MLP((4,))
    with pytest.raises(ConfigError, match="unknown activation 'rellu'"):
        MLP((4, 2), "rellu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="4 blocks with pooling leave nothing of a 8 x 8 image"):
        CNN((1, 8, 8), 10, channels=(2, 2, 2, 2))
    with pytest.raises(ConfigError, match="unknown readout"):
        CNN((1, 8, 8), 10, readout="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be positive"):
        CNN((0, 8, 8), 10)
