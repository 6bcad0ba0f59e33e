"""Hooks never leak: after every test here, each network that was tapped is as it was before its first tap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from heldout.activations.replay import Replay
from heldout.activations.tap import Tap


def snapshot(network: nn.Module) -> list[Any]:
    """Everything about a network that a tap or a replay touches or might: hooks, forwards, flags, weights, kernels."""
    modules = list(network.modules())
    return [
        [{k: list(v) for k, v in vars(m).items() if "hooks" in k and isinstance(v, dict)} for m in modules],
        [vars(m).get("forward") for m in modules],
        [m.training for m in modules],
        [(id(p), p._version) for p in network.parameters()],
        [getattr(getattr(m, "config", None), "_attn_implementation", None) for m in modules],
    ]


def surroundings() -> tuple[Any, ...]:
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch._C._len_torch_function_stack(),
        torch.is_grad_enabled(),
        len(nn.modules.module._global_forward_hooks) + len(nn.modules.module._global_forward_pre_hooks),
    )


@pytest.fixture(autouse=True)
def no_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before: dict[nn.Module, list[Any]] = {}

    def watching(kind: type) -> None:
        original = kind.__init__

        def init(self: Any, network: nn.Module, *args: Any, **kwargs: Any) -> None:
            if network not in before:
                before[network] = snapshot(network)
            original(self, network, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", init)

    watching(Tap)
    watching(Replay)
    outside = surroundings()
    yield
    assert surroundings() == outside
    for network, state in before.items():
        assert snapshot(network) == state, f"{type(network).__name__} was left changed"
