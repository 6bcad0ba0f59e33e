"""The single predictions on which an edited network departs furthest from the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.analyses.faithfulness import Subject
from heldout.analyses.outputs import Directions
from heldout.analyses.scoring import Predictions, compare
from heldout.tasks.base import Split


@dataclass(frozen=True)
class Disagreement:
    """One prediction: its item in the split, its position, and what is answered there.

    `network`, `edited` and `target` are classes, or numbers (lists of them), or the number of the nearest reference item;
    `target` is None where there is none. `divergence` is the KL in nats, the squared difference in units of the network's
    output scale, or 1 - cosine. `same` says whether both count as the same prediction.
    """

    item: int
    position: int
    network: Any
    edited: Any
    target: Any
    divergence: float
    same: bool


def largest_disagreements(
    subject: Subject, split: Split, edits: Sequence[Edit], *, n: int, batch_size: int = 256
) -> list[list[Disagreement]]:
    """For each edit the `n` predictions on which it departs furthest: other predictions first, then by divergence.

    In one pass of the network and one of each edit; what is kept does not grow with the split.
    """
    kept: list[list[Disagreement]] = [[] for _ in edits]
    if not n or not edits:
        return kept
    replay = Replay(subject.network, {site for edit in edits for site in edit.functions})
    replay.check(next(split.batches(batch_size)).to(subject.device))
    where = f" on split {split.name!r}"
    for batch in split.batches(batch_size):
        batch = batch.to(subject.device)
        ours = subject.scoring.predictions(replay.record(batch).output, batch, where=where)
        for edit, rows in zip(edits, kept, strict=True):
            theirs = subject.scoring.predictions(replay.run(batch, edit.functions).output, batch, where=where)
            values = compare(ours, theirs)
            far, same = (values[k].double().cpu().numpy() for k in (subject.scoring.divergence, "same"))
            answers = _answers(ours, theirs)
            for i in np.lexsort((-far, same))[:n]:
                network, edited, target = (None if a is None else a[i].tolist() for a in answers)
                item, place = int(ours.item[i]), int(ours.place[i])
                rows.append(Disagreement(item, place, network, edited, target, float(far[i]), bool(same[i])))
            rows.sort(key=lambda d: (d.same, -d.divergence))  # stable: of equals, the earlier in the split's batches
            del rows[n:]
    return kept


def _answers(ours: Predictions, theirs: Predictions) -> tuple[Tensor, Tensor, Tensor | None]:
    """(M, ...) what the network answers, what the edited one does, and the targets."""
    if isinstance(ours, Directions):
        return ours.top, ours.similarity(theirs.logits).argmax(dim=1), None
    targets = ours.targets
    if targets is not None and targets.ndim > ours.top.ndim:
        targets = targets.squeeze(1)
    return ours.top, theirs.top, targets
