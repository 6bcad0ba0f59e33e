"""Whether items have targets, and next-token targets from the tokens themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from heldout.errors import SplitError
from heldout.tasks.base import Batch, Derived, Split


class NextToken(Derived):
    """Items whose target at each position is the token at the next one; the last position of each is not scored.

    A `scored` mark of the items stands on the token that is to be predicted. Tokens are the input of whole numbers:
    ``input_ids`` where there is one of that name, else the first.
    """

    def take(self, index: np.ndarray) -> Batch:
        batch = self.items.take(index)
        tokens = tokens_of(batch)
        real = torch.ones_like(tokens, dtype=torch.bool) if batch.mask is None else batch.mask
        wanted = real if batch.scored is None else real & batch.scored
        nothing = torch.zeros_like(real[:, :1])
        follows = torch.cat([wanted[:, 1:], nothing], dim=1)
        targets = torch.cat([tokens[:, 1:], torch.zeros_like(tokens[:, :1])], dim=1)
        return replace(batch, targets=targets, scored=real & follows)


def tokens_of(batch: Batch) -> Tensor:
    """(B, T) the batch's token ids. Raises `SplitError` where no input is of that kind."""
    args, kwargs = batch.arguments()
    named = {**{str(i): x for i, x in enumerate(args)}, **kwargs}
    whole = {
        k: x
        for k, x in named.items()
        if isinstance(x, Tensor) and x.ndim == 2 and x.dtype in (torch.int64, torch.int32)
    }
    if not whole:
        held = ", ".join(f"{k} {tuple(x.shape)} {x.dtype}" for k, x in named.items() if isinstance(x, Tensor))
        raise SplitError(f"next-token scoring needs inputs of token ids, whole numbers (B, T); got {held}")
    return whole["input_ids"] if "input_ids" in whole else next(iter(whole.values()))


def has_targets(split: Split) -> bool:
    """Whether the items of `split` have targets, as its first one tells."""
    return split.items.take(np.zeros(1, dtype=np.int64)).targets is not None


def with_next_tokens(split: Split) -> Split:
    """`split` with the next token as the target of each position; as it is where it has targets."""
    return split if has_targets(split) else replace(split, items=NextToken(split.items))
