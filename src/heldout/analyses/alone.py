"""Does an item get the same output alone as in a batch? Where it does not, every number would depend on the batches.

A network that takes positions first mixes items without any error: attention over (T, B, D) is as content with (B, T, D).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import TOLERANCE, Subject
from heldout.errors import NetworkError
from heldout.tasks.base import Split

ITEMS = 4  # run together, and one by one
WRAPPER = (
    "a network that takes positions first (batch_first=False) needs a wrapper that transposes axes 0 and 1 on the way in "
    "and out; sites inside it are then written SITE@time_first (docs/audit.md, Networks)"
)
ARGUMENTS = (
    "a split's inputs name the arguments (a mapping of them), and a wrapper binds those that are the same for all items "
    "(docs/audit.md, Networks)"
)


def check_items_alone(subject: Subject, split: Split) -> None:
    """Run some items of `split`, from the shortest to the longest, together and one by one, and compare their outputs.

    Raises `NetworkError` where an item's output differs by more than rounding, and says whether items are mixed (axis 0)
    or padding is seen (axis 1); and where the network fails. `ITEMS` items are tried: it does not show that all others
    are as they should be.
    """
    order = np.argsort(split.items.lengths, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, ITEMS).round().astype(np.int64))]
    try:
        together = _outputs(subject, split, chosen)
        alone = [_outputs(subject, split, chosen[i : i + 1])[0] for i in range(len(chosen))]
    except NetworkError as error:
        if isinstance(error.__cause__, RuntimeError | AssertionError):  # shapes that do not fit, among others
            raise NetworkError(f"{error}. If it is the order of axes: {WRAPPER}") from error
        if isinstance(error.__cause__, TypeError):
            raise NetworkError(f"{error}. If it is how it is called: {ARGUMENTS}") from error
        raise
    scale = max((float(one.abs().max()) for one in alone if one.numel()), default=0.0)
    tolerance = TOLERANCE.get(alone[0].dtype, 1e-4) * scale
    differs = [_difference(*pair) for pair in zip(together, alone, strict=True)]
    worst = int(np.argmax(differs))
    if differs[worst] <= tolerance:
        return
    said = (
        f"{type(subject.network).__name__} gives item {chosen[worst]} of split {split.name!r} another output among "
        f"{len(chosen)} items than alone (by {differs[worst]:.3g}; rounding: {tolerance:.1g})"
    )
    if differs[-1] > tolerance:  # the longest item has no padding
        raise NetworkError(
            f"{said}: items are mixed. Axis 0 of every input and of the output must count items, and no item may depend on "
            f"another; {WRAPPER}"
        )
    raise NetworkError(
        f"{said}: it sees the padding of axis 1. Name the keyword under which it gets the mask (mask_argument, or "
        "padding_argument for its opposite), or make it leave padding out"
    )


def _outputs(subject: Subject, split: Split, index: np.ndarray) -> list[Tensor]:
    """Of each item at `index`, its scored outputs (M, V)."""
    batch = split.items.take(index).to(subject.device)
    with Tap(subject.network) as tap:
        found = subject.scoring.predictions(tap(batch).output, batch, where=f" on split {split.name!r}")
    return [found.logits[found.item == int(item)] for item in index]


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max()) if one.numel() else 0.0
