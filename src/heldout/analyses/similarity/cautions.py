"""What a reader must know before believing a similarity: what chance scores, how few stimuli, which directions decide.

Cautions are sentences beside a figure; what cannot be computed at all raises where it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heldout.analyses.similarity.checks import Floats, centred
from heldout.analyses.similarity.cka import cross_square
from heldout.analyses.similarity.measures import Measure

LEAST_INTERVAL = 10  # stimuli, as for a verdict of `heldout.statistics.rule`
FEW_STIMULI = 20
FEW_NETWORKS = 5
CHANCE = 0.1  # mean of the null above which a biased measure is called high by chance
NARROW = 2.0  # effective dimension up to which a few directions are the geometry
CROWDED = 0.5  # effective dimension, as a share of the units, from which features may share units


def effective_dimension(x: Floats) -> float:
    """(sum of variances)^2 / sum of squared variances along principal directions, 1 to min(N - 1, D)."""
    rows = centred(x)
    return float((rows * rows).sum() ** 2 / cross_square(rows, rows))


def cautions(xs: Sequence[Floats], ys: Sequence[Floats], measure: Measure, null: float) -> tuple[str, ...]:
    """Sentences on networks `xs` and `ys` compared by `measure`, whose mean under permutation is `null`."""
    n, found = len(xs[0]), []
    if n < LEAST_INTERVAL:
        found.append(f"{n} stimuli are too few for an interval; {LEAST_INTERVAL} are needed")
    elif n < FEW_STIMULI:
        found.append(f"{n} stimuli: the interval is rough; {FEW_STIMULI} or more are advised")
    if measure.biased and null > CHANCE:
        found.append(
            f"{measure.label} is biased: these activations score {null:.2f} on average with their stimuli paired at random; "
            "judge the excess over that, or use debiased CKA"
        )
    several = [len(side) for side in (xs, ys) if len(side) > 1]
    if several and min(several) < FEW_NETWORKS:
        found.append(
            f"{min(several)} networks a side say little of other training runs; {FEW_NETWORKS} or more are advised"
        )
    for name, side in (("x", xs), ("y", ys)):
        width = side[0].shape[1]
        size = float(np.mean([effective_dimension(v) for v in side]))
        if size <= NARROW:
            found.append(
                f"{name} varies along few directions (effective dimension {size:.1f} of {width}): the figure is about its "
                "loudest features and says nothing of quiet ones"
            )
        elif size >= CROWDED * width and n > 2 * width:
            found.append(
                f"{name} fills its units (effective dimension {size:.1f} of {width}): if it holds more features than units, "
                "in superposition, similarity is understated and can be misordered; compare features instead of units"
            )
    return tuple(found)
