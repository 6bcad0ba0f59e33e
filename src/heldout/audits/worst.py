"""The largest disagreements between a network and its edited self, written so that a person can read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.analyses.faithfulness import Subject
from heldout.analyses.outputs import Directions, Numbers
from heldout.analyses.scoring import Predictions, compare
from heldout.errors import SplitError
from heldout.tasks.base import Batch, Split
from heldout.tasks.files import tokens_of

CONTEXT = 12  # tokens shown before and at the position
DIVERGENCE = {Numbers: "squared", Directions: "distance"}  # any other kind: kl


def divergence_of(predictions: Predictions) -> str:
    """The metric by which disagreements are ordered."""
    return DIVERGENCE.get(type(predictions), "kl")


def largest_disagreements(
    subject: Subject,
    split: Split,
    edits: Sequence[Edit],
    *,
    n: int,
    decode: Callable[[int], str] | None = None,
    batch_size: int = 256,
) -> list[dict[str, Any]]:
    """For each edit the `n` predictions on which it departs furthest: others first, then by KL (squared difference,
    1 - cosine). In one pass of the network, and one of each edit.

    Rows have ``site``, ``edit``, ``item`` (its number in the split), ``position``, ``context`` (tokens up to the
    position, where inputs are tokens and `decode` is there), ``answer`` (the network's),
    ``edited``, ``target``, ``divergence``, ``same``.
    """
    found: list[list[tuple[bool, float, dict[str, Any]]]] = [[] for _ in edits]
    if not n or not edits:
        return []
    replay = Replay(subject.network, {site for edit in edits for site in edit.functions})
    replay.check(next(split.batches(batch_size)).to(subject.device))
    where = f" on split {split.name!r}"
    for batch in split.batches(batch_size):
        batch = batch.to(subject.device)
        ours = subject.scoring.predictions(replay.record(batch).output, batch, where=where)
        tokens = _tokens(batch) if decode is not None else None
        for edit, rows in zip(edits, found, strict=True):
            theirs = subject.scoring.predictions(replay.run(batch, edit.functions).output, batch, where=where)
            values = compare(ours, theirs)
            far, same = (values[k].double().cpu().numpy() for k in (divergence_of(ours), "same"))
            for i in np.lexsort((-far, same))[:n]:
                row = {
                    "site": edit.origin.site,
                    "edit": edit.origin.label,
                    "item": int(ours.item[i]),
                    "position": int(ours.place[i]),
                    "context": _context(tokens, batch, ours, int(i), decode),
                    "answer": _answer(ours, int(i), decode),
                    "edited": _answer_of(ours, theirs, int(i), decode),
                    "target": _target(ours, int(i), decode),
                    "divergence": float(far[i]),
                    "same": bool(same[i]),
                }
                rows.append((bool(same[i]), -float(far[i]), row))
            rows.sort(key=lambda r: r[:2])
            del rows[n:]
    return [row for rows in found for _, _, row in rows]


def _answer(p: Predictions, i: int, decode: Callable[[int], str] | None) -> str:
    if isinstance(p, Numbers):
        return ", ".join(f"{v:.4g}" for v in p.logits[i].tolist())
    if isinstance(p, Directions):
        return f"nearest: reference {int(p.top[i])}"
    return _label(int(p.top[i]), decode)


def _answer_of(ours: Predictions, theirs: Predictions, i: int, decode: Callable[[int], str] | None) -> str:
    if isinstance(ours, Directions):
        return f"nearest: reference {int(ours.similarity(theirs.logits)[i].argmax())}"
    return _answer(theirs, i, decode)


def _target(p: Predictions, i: int, decode: Callable[[int], str] | None) -> str:
    if p.targets is None:
        return ""
    if isinstance(p, Numbers):
        return ", ".join(f"{v:.4g}" for v in p.targets[i].tolist())
    return _label(int(p.targets[i]), decode)


def _label(label: int, decode: Callable[[int], str] | None) -> str:
    return str(label) if decode is None else decode(label)


def _tokens(batch: Batch) -> torch.Tensor | None:
    try:
        return tokens_of(batch)
    except SplitError:
        return None


def _context(
    tokens: torch.Tensor | None, batch: Batch, p: Predictions, i: int, decode: Callable[[int], str] | None
) -> str:
    if tokens is None or decode is None:
        return ""
    row = int((batch.index == p.item[i]).nonzero()[0])
    last = int(p.place[i]) + 1 if p.logits.ndim == 2 and batch.scored is not None else tokens.shape[1]
    if batch.mask is not None:
        last = min(last, int(batch.mask[row].nonzero().max()) + 1)
    shown = tokens[row, max(0, last - CONTEXT) : last]
    return "".join(decode(int(t)) for t in shown) if len(shown) else ""
