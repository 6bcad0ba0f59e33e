"""The largest disagreements, written so that a person can read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from heldout.analyses.disagreements import Disagreement
from heldout.errors import SplitError
from heldout.evidence import Origin
from heldout.tasks.base import Split
from heldout.tasks.targets import tokens_of

CONTEXT = 12  # tokens shown before and at the position
Decode = Callable[[int], str]


def written(d: Disagreement, origin: Origin, split: Split, *, kind: str, decode: Decode | None) -> dict[str, Any]:
    """One row of the table.

    ``site``, ``name``, ``parameter`` and ``edit`` (its label) say whose it is; ``item`` is its number in the split,
    ``context`` the tokens up to the position (where inputs are tokens and `decode` is there), ``answer`` the network's.
    ``position``, ``edited``, ``target``, ``divergence`` and ``same`` are those of `Disagreement`.
    """
    return {
        "site": origin.site,
        "name": origin.name,
        "parameter": origin.parameter,
        "edit": origin.label,
        "item": d.item,
        "position": d.position,
        "context": "" if decode is None else _context(d, split, decode),
        "answer": _answer(d.network, kind, decode),
        "edited": _answer(d.edited, kind, decode),
        "target": "" if d.target is None else _answer(d.target, kind, decode),
        "divergence": d.divergence,
        "same": d.same,
    }


def _answer(value: Any, kind: str, decode: Decode | None) -> str:
    if kind == "regression":
        return ", ".join(f"{v:.4g}" for v in (value if isinstance(value, list) else [value]))
    if kind == "embedding":
        return f"nearest: reference {value}"
    return str(value) if decode is None else decode(value)


def _context(d: Disagreement, split: Split, decode: Decode) -> str:
    """Of a prediction at a position, the tokens up to it; of one for the whole item, its last tokens."""
    batch = split.items.take(np.array([d.item]))
    try:
        (tokens,) = tokens_of(batch)
    except SplitError:
        return ""
    real = torch.ones_like(tokens, dtype=torch.bool) if batch.mask is None else batch.mask[0]
    last = int(real.nonzero().max()) + 1
    if batch.scored is not None or (batch.targets is not None and batch.targets.ndim == 2):
        last = min(last, d.position + 1)
    return "".join(decode(int(t)) for t in tokens[max(0, last - CONTEXT) : last])
