"""The optimiser that a `TrainSettings` names, over parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from heldout.errors import ConfigError
from heldout.training.settings import TrainSettings

Multipliers = Mapping[str, tuple[float, float]]  # parameter -> factors on its learning rate and its weight decay


def optimizer_of(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser over the trainable parameters of one network; weight decay on those that `settings.decay` names.

    A network may have a method ``multipliers()``; see `multipliers`.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    return make_optimizer(trained, decayed(network, settings), settings, multipliers(network, settings))


def decayed(network: nn.Module, settings: TrainSettings) -> set[str]:
    """The names of the parameters that weight decay applies to."""
    if settings.decay == "linear":
        linear = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
        return {name for name, p in network.named_parameters() if id(p) in linear}
    return {name for name, p in network.named_parameters() if p.ndim >= 2}


def multipliers(network: nn.Module, settings: TrainSettings) -> Multipliers:
    """Parameter name -> factors on the learning rate and the weight decay, as the network's own method has them.

    They belong to its parametrisation (`TokenMLP` has one in which the best settings hold at every width) and are those
    of AdamW; asked for with another optimiser, they raise `ConfigError`. A parameter that is not named has factors of 1;
    so has every parameter of a network without the method, and of one that returns nothing.
    """
    own = getattr(network, "multipliers", None)
    given: Multipliers = {} if own is None else own()
    if given and settings.optimizer != "adamw":
        raise ConfigError(
            f"training: {type(network).__name__} multiplies the learning rates of some of its parameters by factors that "
            f"are made for the optimizer adamw, got {settings.optimizer!r}; use adamw, or build the network without them"
        )
    return given


def make_optimizer(
    parameters: Mapping[str, Tensor],
    decays: Iterable[str],
    settings: TrainSettings,
    multipliers: Multipliers | None = None,
) -> torch.optim.Optimizer:
    """The optimiser over `parameters`; `decays` are the names of those with weight decay; set rates by `set_rate`.

    Every optimiser here works element by element, so that stacked parameters are updated as each alone would be.
    """
    names, factors = set(decays), multipliers or {}
    members: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in parameters.items():
        rate, decay = factors.get(name, (1.0, 1.0))
        members.setdefault((rate, decay * settings.weight_decay if name in names else 0.0), []).append(parameter)
    groups = [
        {"params": params, "lr": rate * settings.learning_rate, "weight_decay": decay, "multiplier": rate}
        for (rate, decay), params in members.items()
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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next update, times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
