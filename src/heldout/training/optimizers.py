"""The optimiser that a `TrainSettings` names, over parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from heldout.training.settings import TrainSettings


def optimizer_of(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser over the trainable parameters of one network; weight decay on those that `settings.decay` names."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    return make_optimizer(trained, decayed(network, settings), settings)


def decayed(network: nn.Module, settings: TrainSettings) -> set[str]:
    """The names of the parameters that weight decay applies to."""
    if settings.decay == "linear":
        linear = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
        return {name for name, p in network.named_parameters() if id(p) in linear}
    return {name for name, p in network.named_parameters() if p.ndim >= 2}


def make_optimizer(
    parameters: Mapping[str, Tensor], decays: Iterable[str], settings: TrainSettings
) -> torch.optim.Optimizer:
    """The optimiser over `parameters`; `decays` are the names of those with weight decay.

    Every optimiser here works element by element, so that stacked parameters are updated as each alone would be.
    """
    names = set(decays)
    groups = [
        {"params": [p for n, p in parameters.items() if n in names], "weight_decay": settings.weight_decay},
        {"params": [p for n, p in parameters.items() if n not in names], "weight_decay": 0.0},
    ]
    rate, fused = settings.learning_rate, all(p.device.type in {"cpu", "cuda"} for p in parameters.values()) or None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=fused)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=rate, alpha=settings.betas[1], eps=settings.eps, momentum=settings.momentum
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=settings.betas, eps=settings.eps, fused=fused)
