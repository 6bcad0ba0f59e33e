"""Networks that answer several questions at once, scored as one prediction: all answers together.

Answers to different questions are independent given the input, so the logit of a combination is the sum of its answers'
log-probabilities: the likeliest combination is each question's likeliest answer, and cross-entropy and KL divergence are the
sums over questions. Two predictions are the same where every answer is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.analyses.scoring import Predictions, Scoring
from heldout.tasks.base import Batch
from heldout.tasks.features.heads import Heads


@dataclass(frozen=True, eq=False)
class Joint(Scoring):
    """Outputs (B, `heads.width`), targets (B, F), as `heads` says; classes are the combinations of answers."""

    heads: Heads | None = None
    kind: ClassVar[str] = "classification"

    def predictions(self, output: Any, batch: Batch, *, where: str = "") -> Predictions:
        assert self.heads is not None
        logits = joint_logits(self.heads, self._logits(output))
        known = None if batch.targets is None else joint_targets(self.heads, batch.targets)
        return super().predictions(logits, replace(batch, targets=known), where=where)


def joint_logits(heads: Heads, outputs: Tensor) -> Tensor:
    """(B, product of classes) log-probability of each combination; the last question's answer changes fastest."""
    found = outputs.new_zeros(len(outputs), 1)
    for classes, columns in zip(heads.classes, heads.columns, strict=True):
        logits = outputs[:, columns]
        if classes == 2:  # one logit: that of the second class over the first
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        found = (found[:, :, None] + F.log_softmax(logits, dim=1)[:, None, :]).flatten(1)
    return found


def joint_targets(heads: Heads, targets: Tensor) -> Tensor:
    """(B,) the number of the combination of targets (B, F)."""
    found = torch.zeros_like(targets[:, 0])
    for f, classes in enumerate(heads.classes):
        found = found * classes + targets[:, f]
    return found
