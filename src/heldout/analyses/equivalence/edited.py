"""What an edit does to whole answers: exact match before and after it, as scores.

The answer is forced, and exact match under forcing is exact match under greedy decoding (see `passes`): for truth, give
sequences that end in the true answer; for equivalence, in the rule's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.analyses.equivalence.passes import Forced, Sequences, batch_of, forced
from heldout.analyses.faithfulness import Check, Subject, identity_check
from heldout.analyses.tables import Columns, Groups, Sink
from heldout.evidence import Cell
from heldout.tasks.base import Rectangular, Split


class Edited(NamedTuple):
    """The identity check, and each edit's exact match in the order given, so that draws can be seen one by one."""

    check: Check
    exact: tuple[float, ...]


def score_edits(
    network: nn.Module,
    sequences: Sequences,
    edits: Sequence[Edit],
    sink: Sink,
    cell: Cell,
    *,
    batch_size: int = 1024,
    device: str = "cpu",
) -> Edited:
    """Score each edit into `cell` with its own origin; edits of one origin (draws) add up, each item counted once a draw.

    Metrics, sums over items: ``exact_before`` and ``exact`` (0 or 1; the cost is their difference), ``digit_i_before`` and
    ``digit_i`` at answer step i, ``same`` (all steps choose the token that they chose before), ``kl`` (before || after,
    nats, mean over steps). Raises `SiteError` where an identity edit at the same sites changes the output.
    """
    replay, check = checked(network, sequences, [s for e in edits for s in e.functions], batch_size, device)
    exact = np.zeros(len(edits))
    for cut in sequences.slices(batch_size):
        tokens = sequences.tokens[cut]
        batch = batch_of(tokens[:, : sequences.fed], cut.start, device)
        before = forced(replay.record(batch).output, tokens, sequences.steps)
        groups = Groups({name: np.asarray(values)[cut] for name, values in sequences.labels.items()})
        drawn: dict[str, tuple[Cell, list[Columns]]] = {}
        for i, edit in enumerate(edits):
            after = forced(replay.run(batch, edit.functions).output, tokens, sequences.steps)
            columns = groups.sums(_compared(before, after))
            exact[i] += columns["exact"].sum()
            own = Cell(cell.task, cell.network, cell.seed, cell.split, edit.origin)
            drawn.setdefault(own.filename, (own, []))[1].append(columns)
        for own, draws in drawn.values():
            sink.add(own, groups.join(draws))
    return Edited(check, tuple((exact / len(sequences)).tolist()))


def checked(
    network: nn.Module, sequences: Sequences, sites: Iterable[str], batch_size: int, device: str
) -> tuple[Replay, Check]:
    """A replay for edits at `sites`, after an identity edit there has reproduced the output of one batch."""
    first = Rectangular(sequences.tokens[:batch_size, : sequences.fed])
    replay = Replay(network, sorted(set(sites)))
    subject = Subject(network, device=device)
    return replay, identity_check(subject, Split("first batch", "test", first), replay, batch_size=batch_size)


def _compared(before: Forced, after: Forced) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {
        "exact_before": before.exact,
        "exact": after.exact,
        "same": (before.chosen == after.chosen).all(dim=1),
        "kl": before.kl(after).mean(dim=1),
    }
    for i, (b, a) in enumerate(zip(before.correct.unbind(1), after.correct.unbind(1), strict=True)):
        values |= {f"digit_{i}_before": b, f"digit_{i}": a}
    return {name: value.to(torch.float64) for name, value in values.items()}
