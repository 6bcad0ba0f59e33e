"""How a network is trained, as data."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from heldout.errors import ConfigError, unknown

if TYPE_CHECKING:
    import torch

Schedule = Literal["constant", "cosine", "linear"]
Decay = Literal["matrices", "linear"]
Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
Precision = Literal["float32", "bfloat16"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "cosine", "linear")
DECAYS: tuple[Decay, ...] = ("matrices", "linear")
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "adam", "sgd", "rmsprop")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `heldout.training.loop.train`: an optimiser (AdamW where nothing else is named), a schedule, clipping.

    - `steps`: number of updates.
    - `learning_rate`: the highest; reached linearly over the first `warmup` updates, then kept (``constant``) or
      lowered along a `schedule` (``cosine``, ``linear``) to `final` times itself at the last update.
    - `optimizer`: ``adamw``, ``adam``, ``sgd`` or ``rmsprop``; `momentum` belongs to the last two, `betas` and `eps` to
      the Adams, and RMSprop's smoothing is the second of `betas`.
    - `weight_decay`: decoupled in AdamW, a term of the gradient in the others. It applies, by `decay`, to tensors of
      two or more dimensions (``matrices``: weight matrices, kernels, embeddings) or to the weights of linear maps alone
      (``linear``, as minGPT has it), never to biases and norm gains.
    - `clip`: the gradient's largest Euclidean norm over all parameters together; None does not clip.
    - `evaluate_every`, `checkpoint_every`: in updates; None means at the end only. The end always counts.
    - `seed`: names the run, and seeds what the network draws while it trains (dropout).
    - `precision`: ``bfloat16`` is mixed precision: forward pass and loss under `torch.autocast`, which has matrix products
      in bfloat16 (8 significant bits) and decides for the rest by device. Weights and moments stay float32. It makes other
      networks, not only roundings of the same. Evaluation is in float32 either way.
    """

    steps: int
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: int = 0
    final: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay: Decay = "matrices"
    clip: float | None = 1.0
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    seed: int = 0
    optimizer: Optimizer = "adamw"
    momentum: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"training: {unknown('schedule', str(self.schedule), SCHEDULES)}")
        if self.decay not in DECAYS:
            raise ConfigError(f"training: {unknown('decay', str(self.decay), DECAYS)}")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"training: {unknown('optimizer', str(self.optimizer), OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"training: {unknown('precision', str(self.precision), PRECISIONS)}")
        rules = {
            "steps": (self.steps >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < math.inf, "positive and finite"),
            "warmup": (0 <= self.warmup <= self.steps, f"from 0 to steps ({self.steps})"),
            "final": (0 <= self.final <= 1, "a fraction from 0 to 1"),
            "betas": (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers from 0 to below 1"),
            "eps": (0 < self.eps < math.inf, "positive and finite"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0 and finite"),
            "clip": (self.clip is None or self.clip > 0, "positive, or None"),
            "evaluate_every": (self.evaluate_every is None or self.evaluate_every >= 1, "at least 1, or None"),
            "checkpoint_every": (self.checkpoint_every is None or self.checkpoint_every >= 1, "at least 1, or None"),
            "seed": (self.seed >= 0, "at least 0"),
            "momentum": (
                0 <= self.momentum < 1 and (self.momentum == 0 or self.optimizer in {"sgd", "rmsprop"}),
                "from 0 to below 1, and 0 unless the optimizer is sgd or rmsprop",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ConfigError(f"training: {name} must be {rule}, got {getattr(self, name)!r}")

    def casting(self, device: torch.device) -> AbstractContextManager[Any]:
        """What forward pass and loss are computed under on `device`."""
        import torch

        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (0 to steps - 1)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        falling = 1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final + (1 - self.final) * falling)
