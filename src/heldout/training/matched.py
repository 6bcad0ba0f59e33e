"""Training to one training loss, so that networks trained in different ways can be compared at equal fit.

Training ends at the first update after which the loss on the whole split is at or below a level. How far an update
jumps past it depends on the way of training, which would then be what is compared: so that last update is shortened to
where the level lies. It is the update made, times a factor from 0 to 1 that is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from heldout.errors import ConfigError
from heldout.tasks.base import Split
from heldout.training.batching import shuffled
from heldout.training.loop import Loss, Progress, train
from heldout.training.settings import TrainSettings

CHUNK = 4_096  # items in one pass
HALVINGS = 40


@dataclass(frozen=True)
class Reached:
    """Where training ended: the `loss` on the whole split, after how many `updates`, the `share` of the last one that
    was kept, and the `reason` where the loss is not the level that was asked for."""

    loss: float
    updates: int
    share: float
    reason: str = ""


def train_to(
    network: nn.Module,
    split: Split,
    loss: Loss,
    level: float,
    *,
    batch: int,
    settings: TrainSettings,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Reached:
    """Train `network` in place until its mean `loss` over all of `split` is `level`, to a share `tolerance` of it.

    `loss` (outputs, batch) is a mean over items. Weight decay moves weights and is no part of it. It is looked at after
    every update; `settings.steps` is the most that are made, and a network that has not got there by then is left as it
    is, with the reason. Raises `ConfigError` where the level is not positive, or the network starts at or below it.
    """
    if not (0 < level < math.inf and tolerance > 0):
        raise ConfigError(f"a training loss to reach and its tolerance must be positive, got {level} and {tolerance}")
    before: dict[str, Tensor] = {}
    here: dict[str, Tensor] = {}

    def look(net: nn.Module) -> dict[str, float]:
        before.update(here)
        here.update({k: v.detach().clone() for k, v in net.state_dict().items()})
        return {"train/loss": loss_on(net, split, loss)}

    if (start := loss_on(network, split, loss)) <= level:
        raise ConfigError(f"the network starts at a training loss of {start:.4g}; give a level below it, got {level:g}")
    history = train(
        network,
        shuffled(split, batch, seed=settings.seed),
        loss,
        settings=replace(settings, evaluate_every=1),
        evaluate=look,
        progress=progress,
        until=lambda rows: rows.rows[-1][1]["train/loss"] <= level,
    )
    updates, last = history.rows[-1][0], history.last("train/loss")
    if last > level:
        return Reached(last, updates, 1.0, f"the training loss is {last:.4g} after {updates} updates, not {level:g}")

    def shortened(share: float) -> float:
        _between(network, before, here, share)
        return loss_on(network, split, loss)

    low, high, value = 0.0, 1.0, last  # of the last update: the loss is above the level at `low`, `value` at `high`
    for _ in range(HALVINGS):
        if level - value <= tolerance * level:
            break
        middle = (low + high) / 2
        if (tried := shortened(middle)) > level:
            low = middle
        else:
            high, value = middle, tried
    value = shortened(high)
    reason = "" if level - value <= tolerance * level else f"the loss jumps at the level {level:g}, to {value:.4g}"
    return Reached(value, updates, high, reason)


@torch.no_grad()
def loss_on(network: nn.Module, split: Split, loss: Loss) -> float:
    """The mean of `loss` over all items of `split`, in evaluation mode; the network's mode is put back."""
    training, total = network.training, 0.0
    network.eval()
    device = next(network.parameters()).device
    for given in split.batches(CHUNK):
        batch = given.to(device)
        args, kwargs = batch.arguments()
        total += float(loss(network(*args, **kwargs), batch)) * len(batch)
    network.train(training)
    return total / len(split)


@torch.no_grad()
def _between(network: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> None:
    """Set floating-point state to `before` plus `share` of the way to `after`; the rest is that of `after`."""
    for name, value in network.state_dict().items():
        mixed = value.is_floating_point()
        value.copy_(torch.lerp(before[name], after[name], share) if mixed else after[name])
