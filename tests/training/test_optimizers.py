from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.tasks.base import Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.optimizers import decayed, optimizer_of
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

BASE = TrainSettings(30, 0.02, "constant", weight_decay=0.1, clip=None, betas=(0.8, 0.95), eps=1e-6)
KINDS: list[tuple[TrainSettings, Any, dict[str, Any]]] = [
    (replace(BASE, optimizer="sgd", momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (replace(BASE, optimizer="sgd"), torch.optim.SGD, {}),
    (replace(BASE, optimizer="adam"), torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-6}),
    (BASE, torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
    (replace(BASE, optimizer="rmsprop"), torch.optim.RMSprop, {"alpha": 0.95, "eps": 1e-6}),
]


def blobs() -> Split:
    y = torch.arange(60) % 3
    return Split(
        "train", "fit", Rectangular(F.one_hot(y, 5) + torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), y)
    )


def run(settings: TrainSettings, **given: Any) -> MLP:
    network = initialised(lambda: MLP((5, 8, 3)), 1)
    train(network, shuffled(blobs(), 20, seed=0), cross_entropy, settings=settings, **given)
    return network


@pytest.mark.parametrize(("settings", "kind", "rest"), KINDS, ids=["momentum", "sgd", "adam", "adamw", "rmsprop"])
def test_each_is_torchs_own(settings: TrainSettings, kind: Any, rest: dict[str, Any]) -> None:
    network = initialised(lambda: MLP((5, 8, 3)), 1)
    matrices: list[Tensor] = [p for p in network.parameters() if p.ndim >= 2]
    others: list[Tensor] = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = kind(groups, lr=0.02, **rest)
    batches = shuffled(blobs(), 20, seed=0)
    for step in range(30):
        batch = batches(step)
        optimizer.zero_grad()
        cross_entropy(network(batch.inputs), batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for ours, theirs in zip(run(settings).parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", [kind[0] for kind in KINDS], ids=lambda s: f"{s.optimizer}-{s.momentum:g}")
def test_a_resumed_run_goes_on_with_its_moments(settings: TrainSettings, tmp_path: Path) -> None:
    whole = run(settings)

    class Stop(Exception):
        pass

    def stop(network: nn.Module) -> dict[str, float]:
        if stopping and network is not None:
            stopping.pop()
            return {}
        raise Stop

    path, settings = tmp_path / "state", replace(settings, checkpoint_every=10, evaluate_every=15)
    stopping = [True]  # lets the evaluation before the first update pass
    with pytest.raises(Stop):
        run(settings, checkpoint=path, evaluate=stop)
    resumed = run(settings, checkpoint=path)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_decay_is_named_by_parameter() -> None:
    network = MLP((5, 8, 3), norm="layer")
    weights = {"hidden.0.linear.weight", "readout.weight"}
    assert decayed(network, BASE) == decayed(network, replace(BASE, decay="linear")) == weights
    network.hidden.requires_grad_(False)
    trained = [p for group in optimizer_of(network, BASE).param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(network.readout.weight), id(network.readout.bias)}


def test_an_optimizer_that_is_not_there_and_momentum_that_is_not_used() -> None:
    with pytest.raises(ConfigError, match="unknown optimizer 'sdg'"):
        replace(BASE, optimizer="sdg")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="momentum must be from 0 to below 1, and 0 unless the optimizer is sgd"):
        replace(BASE, momentum=0.9)
    with pytest.raises(ConfigError, match="momentum must be"):
        replace(BASE, optimizer="sgd", momentum=1.0)
