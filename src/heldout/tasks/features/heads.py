"""The outputs of a network that answers several features at once, and what training lowers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.errors import ConfigError
from heldout.tasks.base import Batch


class Heads:
    """One block of output columns per feature: a single logit for two classes, one logit a class for more.

    `classes` (F of them) are the features' numbers of classes, `weights` how much each counts in the loss (default 1).
    """

    def __init__(self, classes: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self.classes = tuple(classes)
        self.weights = (1.0,) * len(self.classes) if weights is None else tuple(weights)
        if not self.classes or min(self.classes) < 2:
            raise ConfigError(f"features: every output needs two classes or more, got {self.classes}")
        if len(self.weights) != len(self.classes) or min(self.weights) <= 0:
            raise ConfigError(f"features: weights must be {len(self.classes)} positive numbers, got {self.weights}")
        widths = [1 if c == 2 else c for c in self.classes]
        ends = list(accumulate(widths))
        self.columns = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
        self.width = ends[-1]

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """(B, F) cross-entropy in nats of each item and feature: `outputs` (B, width), `targets` (B, F) int64.

        `smoothing` moves that share of the target's weight to the uniform distribution over classes.
        """
        parts = []
        for f, (classes, columns) in enumerate(zip(self.classes, self.columns, strict=True)):
            logits, target = outputs[:, columns], targets[:, f]
            if classes == 2:
                soft = target.to(logits.dtype) * (1 - smoothing) + smoothing / 2
                parts.append(F.binary_cross_entropy_with_logits(logits[:, 0], soft, reduction="none"))
            else:
                parts.append(F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing))
        return torch.stack(parts, dim=1)

    def loss(self, smoothing: float = 0.0) -> Callable[[Tensor, Batch], Tensor]:
        """(outputs, batch) -> the weighted mean over features of the batch's summed loss by its number of items.

        An item whose label is withheld (`batch.scored` False) adds nothing and is still counted as an item: a feature
        labelled in a quarter of the items has about a quarter of the gradient. A feature with no label in the whole
        batch is not trained and does not count among the features.
        """

        def mean(outputs: Tensor, batch: Batch) -> Tensor:
            assert batch.targets is not None
            losses = self.losses(outputs, batch.targets, smoothing)
            weights = losses.new_tensor(self.weights)
            if batch.scored is not None:
                losses = losses * batch.scored
                weights = weights * batch.scored.any(0)
            return (losses.mean(0) * weights).sum() / weights.sum()

        return mean

    def predictions(self, outputs: Tensor) -> Tensor:
        """(..., F) int64, the likeliest class of each feature: `outputs` is (..., width)."""
        parts = [
            (outputs[..., columns.start] > 0).long() if classes == 2 else outputs[..., columns].argmax(-1)
            for classes, columns in zip(self.classes, self.columns, strict=True)
        ]
        return torch.stack(parts, dim=-1)
