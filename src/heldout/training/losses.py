"""What training lowers: a function from a network's outputs and the batch to one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError
from heldout.tasks.base import Batch

IGNORED = -100  # PyTorch's mark for a target that carries no loss


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats over every unmasked position; `batch.scored` plays no part.

    `outputs` is (B, C) with targets (B,), or (B, T, C) with targets (B, T) and, where there is padding, a mask (B, T).
    """
    if batch.targets is None or outputs.shape[:-1] != batch.targets.shape:
        given = "none" if batch.targets is None else tuple(batch.targets.shape)
        raise NetworkError(
            f"cross-entropy needs class logits last and one target for each: outputs are {tuple(outputs.shape)}, "
            f"targets {given}"
        )
    targets = batch.targets if batch.mask is None else batch.targets.masked_fill(~batch.mask, IGNORED)
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def squared_error(
    scales: Sequence[float] = (1.0,), *, target: str = "target", weight: Callable[[Batch], Tensor] | None = None
) -> Callable[[Tensor, Batch], Tensor]:
    """The loss mean((output - target)^2 / scale) over a batch, for outputs and targets (B, 1) in physical units.

    - `scales`: one scale for each quantity that is predicted, positive, in its unit *squared*; with two or more, the
      stratum named `target` (B,) says which quantity an item's target is. The loss divides by the scale itself, so
      that scales are also the quantities' relative weights.
    - `weight`: batch -> (B,) factors on the items' squared errors. Where a target is a value per particle, the squared
      number of particles makes it an error of the total.
    """
    if not scales or min(scales) <= 0:
        raise ConfigError(f"squared_error: scales must be positive, one for each quantity predicted, got {scales!r}")
    inverse = 1 / torch.tensor(scales, dtype=torch.float64)

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        if batch.targets is None or outputs.shape != batch.targets.shape:
            given = "none" if batch.targets is None else tuple(batch.targets.shape)
            raise NetworkError(
                f"a squared error needs one target for each output: outputs are {tuple(outputs.shape)}, targets {given}"
            )
        errors = (outputs - batch.targets).square()
        if weight is not None:
            errors = errors * weight(batch).to(errors).view(-1, 1)
        if len(scales) == 1:
            return errors.mean() * float(inverse[0])
        return (errors * inverse.to(errors)[batch.strata[target]].view(-1, 1)).mean()

    return loss
