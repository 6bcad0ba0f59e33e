"""How a token table came to be: its spectrum, its movement and its subspace over checkpoints of training.

Signs, order and, among near-equal variances, directions of principal components are arbitrary. So scores are rotated
onto those of a reference checkpoint (orthogonal Procrustes) before they are drawn, and subspaces are compared by
angles, which no rotation within them changes. T checkpoints, N tokens, D width, k components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.geometry.spectrum import Principal, principal
from heldout.analyses.similarity.checks import centred, table
from heldout.analyses.similarity.procrustes import procrustes
from heldout.errors import StatisticsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evolution:
    """A table over training, against one `reference` checkpoint.

    - `steps` (T,); `share` (T, k) explained variance ratios of the leading components; `participation` (T,).
    - `size` (T,): root mean square distance of tokens to their mean, in the embedding's unit.
    - `scores` (T, N, k): on each checkpoint's own leading components, rotated onto the reference's. Rotated to look
      alike, they do: `similarity` says how far.
    - `similarity` (T,): cosine of the angular Procrustes distance to the reference, whole width, 0 to 1.
    - `moved`, `reshaped` (T - 1,): root mean square change of a token's place from one checkpoint to the next, about the
      mean, over the reference's size: as it is, and what the best rotation of the whole table leaves of it.
    - `directions` (T, k): angles between the leading subspace and the reference's in the network's own width, radians,
      ascending, 0 to pi / 2. `patterns` (T, k): the same for the subspaces of the scores, in the space of tokens, where a
      rotation of the width plays no part.
    """

    steps: NDArray[np.int64]
    reference: int
    share: Floats
    participation: Floats
    size: Floats
    scores: Floats
    similarity: Floats
    moved: Floats
    reshaped: Floats
    directions: Floats
    patterns: Floats


def evolution(
    tables: Sequence[ArrayLike | Tensor], steps: Sequence[int], *, components: int = 3, reference: int = -1
) -> Evolution:
    """From `tables`, T times (N, D), the same tokens in the same order, at increasing `steps` of one training run.

    Raises `StatisticsError` where shapes disagree, or a table has fewer than `components` directions that vary.
    """
    rows = [table(t, f"the table of checkpoint {i}", least=3) for i, t in enumerate(tables)]
    if len(rows) < 2 or len(steps) != len(rows) or list(steps) != sorted(set(steps)):
        raise StatisticsError(
            f"two or more tables with one step each, increasing, are needed; got {len(rows)}, {steps}"
        )
    shapes = {r.shape for r in rows}
    if len(shapes) > 1:
        raise StatisticsError(
            f"tables have shapes {', '.join(map(str, sorted(shapes)))}; all must hold the same tokens"
        )
    if not -len(rows) <= reference < len(rows):
        raise StatisticsError(f"reference {reference} of {len(rows)} checkpoints; they are counted from 0")
    fits = [principal(r) for r in rows]
    least = min(len(fit.variances) for fit in fits)
    if not 1 <= components <= least:
        raise StatisticsError(f"{components} components; every table has at least {least}: choose from 1 to {least}")
    about = [centred(r, f"the table of checkpoint {i}") for i, r in enumerate(rows)]
    goal = fits[reference]
    size = np.array([np.sqrt(fit.variances.sum()) for fit in fits])
    scale = size[reference] * np.sqrt(len(rows[0]))
    pairs = list(pairwise(about))
    return Evolution(
        steps=np.asarray(steps, dtype=np.int64),
        reference=reference % len(rows),
        share=np.stack([fit.share[:components] for fit in fits]),
        participation=np.array([fit.participation for fit in fits]),
        size=size,
        scores=np.stack([_aligned(fit, goal, components) for fit in fits]),
        similarity=np.array([procrustes(r, rows[reference]) for r in rows]),
        moved=np.array([np.linalg.norm(b - a) for a, b in pairs]) / scale,
        reshaped=np.array([_after_rotation(a, b) for a, b in pairs]) / scale,
        directions=np.stack([_angles(fit.components[:components].T, goal.components[:components].T) for fit in fits]),
        patterns=np.stack([_angles(fit.scores[:, :components], goal.scores[:, :components]) for fit in fits]),
    )


def _aligned(fit: Principal, goal: Principal, k: int) -> Floats:
    """Scores on the k leading components, by the rotation (or reflection) that brings them closest to the goal's."""
    from scipy.linalg import orthogonal_procrustes

    scores = fit.scores[:, :k]
    rotation, _ = orthogonal_procrustes(scores, goal.scores[:, :k])
    turned: Floats = scores @ rotation
    return turned


def _after_rotation(a: Floats, b: Floats) -> float:
    """min over rotations (and reflections) R of |a R - b|."""
    from scipy.linalg import orthogonal_procrustes

    rotation, _ = orthogonal_procrustes(a, b)
    return float(np.linalg.norm(a @ rotation - b))


def _angles(a: Floats, b: Floats) -> Floats:
    from scipy.linalg import subspace_angles

    angles: Floats = np.sort(subspace_angles(a, b))
    return angles
