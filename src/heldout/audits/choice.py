"""Which edits are looked at closely: by the rank rule, or every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heldout.activations.edits import Edit
from heldout.audits.fitted import CONTROLS


def choices_of(
    edits: Sequence[Edit], agreement: Sequence[float] | None, *, readings: Sequence[str], threshold: float
) -> list[dict[str, Any]]:
    """One row for each edit that gets a null, its gap and its table of disagreements.

    With `agreement` (of each edit, on the select split), of each site and family the smallest parameter whose agreement,
    averaged over draws, reaches the threshold, and the largest there is where none does; without, every parameter. The
    user's own `readings` are always all looked at; controls never are. Rows have ``edit`` (its place in `edits`),
    ``site``, ``name``, ``parameter``, ``label``, ``ruled`` (chosen by the rule), ``agreement`` and ``reached``.
    """
    groups: dict[tuple[str, str], dict[float | None, list[int]]] = {}
    for i, edit in enumerate(edits):
        o = edit.origin
        if o.name not in CONTROLS:
            groups.setdefault((o.site, o.name), {}).setdefault(o.parameter, []).append(i)
    rows = []
    for (_, name), grid in groups.items():
        ruled = agreement is not None and name not in readings
        mean = {p: None if agreement is None else sum(agreement[i] for i in at) / len(at) for p, at in grid.items()}
        kept = list(grid)
        if ruled:
            ordered = sorted(kept, key=lambda p: p or 0)
            kept = [next((p for p in ordered if (mean[p] or 0.0) >= threshold), ordered[-1])]
        for p in kept:
            origin = edits[grid[p][0]].origin
            rows.append(
                {
                    "edit": grid[p][0],
                    "site": origin.site,
                    "name": name,
                    "parameter": p,
                    "label": origin.label,
                    "ruled": ruled,
                    "agreement": mean[p],
                    "reached": None if mean[p] is None or not ruled else (mean[p] or 0.0) >= threshold,
                }
            )
    return rows
