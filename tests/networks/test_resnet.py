"""Networks with and without residual connections: that the addition is all they differ in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heldout.errors import ConfigError
from heldout.networks.resnet import ResidualBlock, ResNet, shortcut
from heldout.training.seeds import initialised

SHAPE = (3, 64, 64)


def both(**settings: Any) -> tuple[ResNet, ResNet]:
    plain, residual = (
        initialised(lambda r=r: ResNet(SHAPE, 7, residual=r, width=4, **settings), seed=5) for r in (False, True)
    )
    return plain, residual


@pytest.mark.parametrize("settings", [{}, {"blocks": (2, 1, 3)}])
def test_plain_and_residual_have_the_same_initial_weights(settings: Any) -> None:
    plain, residual = (network.state_dict() for network in both(**settings))
    assert list(plain) == list(residual)
    assert all(torch.equal(plain[name], residual[name]) for name in plain)


def test_the_connection_is_the_only_difference() -> None:
    """Blocks whose convolutions give nothing hand on the shortcut, or nothing."""
    x = torch.randn(5, *SHAPE)
    plain, residual = both()
    for network in (plain.eval(), residual.eval()):
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.second.norm.weight)
    stem = residual.stem(x)
    assert torch.equal(plain.stem(x), stem)
    assert not plain.stages(plain.stem(x)).any()
    expected = stem
    for stride, channels in ((1, 4), (2, 8), (2, 16), (2, 32)):
        expected = shortcut(expected, stride, channels).relu()
    assert torch.equal(residual.stages(stem), expected)
    first, zero = both()
    with torch.no_grad():
        assert not torch.allclose(first.eval()(x), zero.eval()(x))


def test_a_block_is_two_convolutions_and_the_shortcut() -> None:
    block = ResidualBlock(3, 5, 2, residual=True).eval()
    x = torch.randn(2, 3, 9, 9)
    inner = block.second(F.relu(block.first(x)))
    torch.testing.assert_close(block(x), F.relu(inner + shortcut(x, 2, 5)))
    block.residual = False
    torch.testing.assert_close(block(x), F.relu(inner))


@pytest.mark.parametrize("side", [8, 9])
def test_the_shortcut_averages_patches_and_adds_empty_channels(side: int) -> None:
    x = torch.randn(2, 3, side, side)
    found = shortcut(x, 2, 5)
    assert found.shape == (2, 5, (side + 1) // 2, (side + 1) // 2)
    assert not found[:, 3:].any()
    torch.testing.assert_close(found[0, 1, 0, 0], x[0, 1, :2, :2].mean())
    torch.testing.assert_close(found[1, 2, -1, -1], x[1, 2, -1 - (side + 1) % 2 :, -1 - (side + 1) % 2 :].mean())
    assert torch.equal(shortcut(x, 1, 3), x)


def test_shapes_and_depth() -> None:
    network = ResNet(SHAPE, 7, residual=True, width=4, blocks=(2, 2, 2, 2))
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 18
    x = torch.randn(2, *SHAPE)
    assert network(x).shape == (2, 7)
    assert network.stages(network.stem(x)).shape == (2, 32, 4, 4)
    maps = network.eval().maps(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]
    torch.testing.assert_close(network.readout(maps[-1].mean((2, 3))), network(x))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"blocks": ()}, "must be positive"),
        ({"blocks": (1, 0)}, r"must be positive, got \(1, 0\)"),
        ({"width": 0}, "must be positive"),
        ({"blocks": (1,) * 7}, "stem and 7 stages halve a 64 x 64 image 7 times, to less than a pixel"),
    ],
)
def test_bad_settings_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(SHAPE, 7, residual=True, **given)
