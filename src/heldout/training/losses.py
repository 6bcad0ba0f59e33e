"""What training lowers: a function from a network's outputs and the batch to one number."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from heldout.errors import NetworkError
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
