"""What must hold of simplifications before a claim about their gaps is judged.

A claim names its families. One that is not nearly the network in distribution, or whose agreement does not grow with its
size, says nothing about what a faithful simplification loses elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heldout.analyses.summary import label
from heldout.statistics.claims import Gate
from heldout.studies.audited import Audited

NOISE = 0.01  # a size that keeps so much of one sample may keep a little less of another
DROP = 0.01  # how far agreement may fall from one size to a larger one and still be said to rise


def short_families(audited: Audited, site: str, families: Sequence[str]) -> dict[str, float]:
    """Those families for which the rank rule found no size at `site` in some seed, each with its least agreement there."""
    found: dict[str, float] = {}
    for record in audited.records.values():
        for c in record["chosen"]:
            if c["site"] == site and c["family"] in families and not c["reached"]:
                found[c["family"]] = min(c["agreement"], found.get(c["family"], 1.0))
    return found


def kept_gate(name: str, audited: Audited, site: str, families: Sequence[str], *, split: str, threshold: float) -> Gate:
    """The rank rule found a size for every family and seed, and each keeps its `threshold`, up to `NOISE`, on `split`."""
    without = short_families(audited, site, families)
    kept = {
        (family, who[1]): float(audited.chosen.ratio(audited.point(who), site, family, split, "same")[0])
        for family in families
        for who in audited.records
    }
    (family, seed), least = min(kept.items(), key=lambda item: item[1])
    text = f"least on {split} {least:.3f} ({family}, seed {seed}); {threshold - NOISE:g} needed"
    text += "".join(f"; {f}: its largest size keeps {v:.2f} in one seed" for f, v in without.items())
    return Gate(name, not without and least >= threshold - NOISE, text)


def rises_gate(
    name: str, audited: Audited, site: str, grid: Mapping[str, Sequence[float | None]], families: Sequence[str]
) -> Gate:
    """Agreement on the reference, mean over seeds, never falls by more than `DROP` from a size of the grid to a larger."""
    views = [audited.point(who) for who in audited.records]
    reference = audited.chosen.reference
    worst, where = 0.0, ""
    for family in families:
        best = -np.inf
        for size in sorted(float(p) for p in grid[family] if p is not None):
            edit = label(family, size)
            same = float(np.mean([v.ratio("same", split=reference, edit=edit, site=site)[0] for v in views]))
            if best - same > worst:
                worst, where = best - same, f" ({family} {size:g})"
            best = max(best, same)
    text = f"largest fall of agreement on {reference} from a smaller size {worst:.4f}{where}; at most {DROP}"
    return Gate(name, worst <= DROP, text)
