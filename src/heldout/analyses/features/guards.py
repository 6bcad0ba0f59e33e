"""What a reader must know before believing figures of representation bias: too few rows, rare levels, dead units, leakage.

Guards warn and do not stop; what cannot be computed at all raises where it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.density import live_units
from heldout.analyses.features.labels import Coding, checked
from heldout.analyses.features.moments import JointMoments

ROWS_PER_COLUMN = 10
RARE = 0.05  # share of rows below which a level is rare
DEAD_SHARE = 0.1


def guards(coding: Coding, table: Mapping[str, ArrayLike], moments: JointMoments, *, split: str) -> list[str]:
    """Warnings on one split, one sentence each: rows against label columns, rare levels, labels that others determine,
    dead units."""
    columns, found = checked(table), []
    n, q = moments.n, coding.width
    if n < ROWS_PER_COLUMN * q:
        found.append(f"{split}: {n} rows for {q} label columns; {ROWS_PER_COLUMN} a column or more are advised")
    for feature in coding.features:
        if feature.kind == "continuous":
            continue
        shares = np.bincount(feature.codes(columns[feature.name]), minlength=len(feature.levels)) / n
        if shares.min() < RARE:
            rare = feature.levels[int(shares.argmin())]
            found.append(
                f"{split}: label {feature.name!r} is {rare!r} in {shares.min():.1%} of rows: variance "
                "explained is small for a rare level however it is represented; see the balanced figures"
            )
    found += [f"{split}: {sentence}" for sentence in _determined(coding, moments)]
    dead = 1 - float(live_units(moments).mean())
    if dead > DEAD_SHARE:
        found.append(f"{split}: {dead:.0%} of units are dead (variance at most 10^-6 of the largest)")
    return found


def _determined(coding: Coding, moments: JointMoments) -> list[str]:
    """Labels of which the others explain 90% or more (a variance inflation of 10): their unique parts mean little."""
    bb, found = moments.bb, []
    for feature in coding.features:
        own = np.arange(feature.columns.start, feature.columns.stop)
        others = np.setdiff1d(np.arange(coding.width), own)
        if not len(others) or not np.trace(bb[np.ix_(own, own)]) > 0:
            continue
        cross = bb[np.ix_(others, own)]
        explained = np.trace(cross.T @ np.linalg.pinv(bb[np.ix_(others, others)], hermitian=True) @ cross)
        share = float(explained / np.trace(bb[np.ix_(own, own)]))
        if share >= 0.9:
            found.append(
                f"the other labels explain {share:.0%} of label {feature.name!r}; its unique part means little"
            )
    return found


def shared_rows(fit: ArrayLike | Tensor, test: ArrayLike | Tensor) -> int:
    """How many rows of `test` (m, D) occur, bit for bit, in `fit` (n, D): duplicates across splits, which no longer test."""
    seen = {row.tobytes() for row in np.ascontiguousarray(fit)}
    return sum(row.tobytes() in seen for row in np.ascontiguousarray(test))
