"""Two networks on the same data: how often would another training run have answered alike?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject
from heldout.analyses.scoring import compare
from heldout.analyses.tables import Groups, Sink
from heldout.evidence import Cell, Origin
from heldout.tasks.base import Split

OTHER_SEED = "other_seed"
WHOLE = "."  # the site that is the network itself


def compare_networks(
    subject: Subject, other: nn.Module, splits: Sequence[Split], sink: Sink, *, batch_size: int = 256
) -> None:
    """Score `other` as if it were an edit of the subject's network, into cells of the edit ``other_seed``.

    A proxy that agrees with its network more often than another seed does has captured something of this network; one
    that does not may have captured the task alone.
    """
    for split in splits:
        cell = Cell(subject.task, subject.name, subject.seed, split.name, Origin(OTHER_SEED, WHOLE))
        units = split.unit_ids()
        for batch in split.batches(batch_size):
            batch = batch.to(subject.device)
            with Tap(subject.network) as tap:
                mine = subject.scoring.predictions(tap(batch).output, batch)
            with Tap(other) as tap:
                theirs = subject.scoring.predictions(tap(batch).output, batch)
            labels = {"unit": units[mine.item.cpu().numpy()]}
            labels |= {name: np.asarray(values.cpu()) for name, values in mine.strata.items()}
            sink.add(cell, Groups(labels).sums(compare(mine, theirs)))
