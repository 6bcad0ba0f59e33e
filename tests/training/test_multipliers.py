"""Learning rates and weight decays that a network sets for its own parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from heldout.errors import ConfigError
from heldout.networks.token_mlp import TokenMLP
from heldout.tasks.base import Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import squared_error
from heldout.training.optimizers import multipliers, optimizer_of
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Stack, train_stacked

SETTINGS = TrainSettings(12, 0.02, "cosine", warmup=3, weight_decay=0.1, clip=None)


def split() -> Split:
    tokens = torch.cartesian_prod(torch.arange(6), torch.arange(8))
    targets = (tokens[:, :1] - 2.0) * tokens[:, 1:]
    return Split("train", "fit", Rectangular(tokens, targets))


def made(parametrisation: str = "mup") -> TokenMLP:
    return initialised(lambda: TokenMLP((6, 8), width=96, blocks=1, parametrisation=parametrisation), 1)  # type: ignore[arg-type]


def run(settings: TrainSettings, parametrisation: str = "mup", **given: object) -> TokenMLP:
    network = made(parametrisation)
    train(network, shuffled(split(), 16, seed=0), squared_error(), settings=settings, **given)  # type: ignore[arg-type]
    return network


def test_a_schedule_multiplies_each_groups_rate() -> None:
    """Against a loop by hand in which every parameter is a group of its own."""
    theirs = made()
    matrices = {"into.weight", "blocks.0.first.weight", "blocks.0.second.weight"}
    factors = {name: 1 / 3 if name in matrices else 1.0 for name, _ in theirs.named_parameters()}
    groups = [
        {"params": [p], "weight_decay": 0.1 / factors[name] if p.ndim == 2 else 0.0}
        for name, p in theirs.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, foreach=False)
    batches = shuffled(split(), 16, seed=0)
    for step in range(SETTINGS.steps):
        batch = batches(step)
        for group, factor in zip(optimizer.param_groups, factors.values(), strict=True):
            group["lr"] = factor * SETTINGS.rate(step)
        optimizer.zero_grad()
        squared_error()(theirs(batch.inputs), batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for ours, by_hand in zip(run(SETTINGS).parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_keeps_its_groups(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(network: nn.Module) -> dict[str, float]:
        calls.append(network)
        if len(calls) == 2:
            raise Stop
        return {}

    calls: list[nn.Module] = []
    settings, path = replace(SETTINGS, checkpoint_every=5, evaluate_every=7), tmp_path / "state"
    with pytest.raises(Stop):
        run(settings, checkpoint=path, evaluate=stop)
    for a, b in zip(run(settings, checkpoint=path).parameters(), run(SETTINGS).parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_stack_has_them_too() -> None:
    stack = Stack([made(), made()])
    train_stacked(stack, shuffled(split(), 16, seed=0), squared_error(), settings=SETTINGS)
    for a, b in zip(stack.network(1).parameters(), run(SETTINGS).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_which_parameters_decay_stays_with_the_settings() -> None:
    network = made()
    optimizer = optimizer_of(network, replace(SETTINGS, decay="linear"))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays[id(network.embeddings[0].weight)] == 0
    assert decays[id(network.readout.weight)] == pytest.approx(0.1)
    assert decays[id(network.into.weight)] == pytest.approx(0.3)


def test_frozen_parameters_are_in_no_group() -> None:
    network = made()
    network.embeddings.requires_grad_(False)
    optimizer = optimizer_of(network, SETTINGS)
    trained: list[Tensor] = [p for g in optimizer.param_groups for p in g["params"]]
    assert {id(p) for p in trained} == {id(p) for p in network.parameters() if p.requires_grad}


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_they_belong_to_one_optimizer(optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer, learning_rate=1e-4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"made for the optimizer adamw, got '{optimizer}'; use adamw"):
        run(settings)
    assert multipliers(made("standard"), settings) == {}
    run(settings, "standard")
