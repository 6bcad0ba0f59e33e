"""Online minimum description length: the bits it takes to send labels to someone who has the activations.

Rows are sent in blocks that grow; each is coded by a probe trained on all rows before it, the first uniformly (Blier and
Ollivier 2018; Voita and Titov 2020). A feature that is easily read costs few bits *early*, which accuracy does not show.
Probabilities are mixed with a little of the uniform, K / (t + K) after t rows of K classes, so that a class not yet seen
has a finite code. The code's length depends on the order of rows, and on the blocks, which are part of the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.decode import checked_classes, control_labels
from heldout.errors import ConfigError, StatisticsError

Floats = NDArray[np.float64]

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)  # of the rows, block ends
STRENGTH = 1.0  # C of the probes: fixed, since choosing it would have to be paid for in bits


@dataclass(frozen=True, eq=False)
class CodeLength:
    """`bits` with the activations; `uniform` n log2 K without anything; `adaptive` with a code that learns the label's
    frequencies alone (Krichevsky and Trofimov 1981); `control` with the activations for labels dealt out anew.

    `by_block` (blocks,) sums to `bits`; `ends` (blocks,) are the rows sent after each.
    """

    bits: float
    uniform: float
    adaptive: float
    control: float
    by_block: Floats
    ends: tuple[int, ...]
    n: int

    @property
    def compression(self) -> float:
        """uniform / bits: 1 where activations are of no use to the probe, more where they are."""
        return self.uniform / self.bits


def code_length(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    types: ArrayLike | None = None,
) -> CodeLength:
    """Bits to send classes `labels` (n,) given activations `x` (n, D), rows in random order (whole groups at a time).

    `types` as for `heldout.analyses.features.decode.decode`, for the control.
    """
    rows, classes = checked_classes(x, labels)
    rng = np.random.default_rng(seed)
    order = _order(len(rows), groups, rng)
    rows, classes, k = rows[order], classes[order], int(classes.max()) + 1
    kept = None if types is None else np.asarray(types)[order]
    ends = block_ends(len(rows))
    blocks = _blocks(rows, classes, k, ends)
    control = _blocks(rows, control_labels(classes, kept, rng), k, ends)
    return CodeLength(
        bits=float(blocks.sum()),
        uniform=len(rows) * float(np.log2(k)),
        adaptive=adaptive_bits(classes, k),
        control=float(control.sum()),
        by_block=blocks,
        ends=ends,
        n=len(rows),
    )


def block_ends(n: int) -> tuple[int, ...]:
    """The rows sent after each block, at least 8 in the first."""
    return tuple(sorted({max(8, int(np.ceil(share * n))) for share in SHARES if share * n >= 8} | {n}))


def adaptive_bits(classes: NDArray[np.intp], k: int) -> float:
    """Code length of labels alone: each is coded by (count so far + 1/2) / (t + K / 2)."""
    before = np.zeros(len(classes))
    for c in range(k):
        here = classes == c
        before[here] = np.arange(here.sum())
    return float(-np.log2((before + 0.5) / (np.arange(len(classes)) + k / 2)).sum())


def _blocks(x: Floats, classes: NDArray[np.intp], k: int, ends: tuple[int, ...]) -> Floats:
    lengths = [ends[0] * float(np.log2(k))]
    for start, stop in pairwise(ends):
        p = _probabilities(x[:start], classes[:start], x[start:stop], k)
        mixed = (start * p + 1) / (start + k)
        lengths.append(float(-np.log2(mixed[np.arange(stop - start), classes[start:stop]]).sum()))
    return np.array(lengths)


def _probabilities(x: Floats, classes: NDArray[np.intp], there: Floats, k: int) -> Floats:
    """(N, K) of a probe trained on the rows sent so far; 0 for classes it has not seen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.zeros((len(there), k))
    seen = np.unique(classes)
    if len(seen) == 1:
        found[:, seen] = 1.0
        return found
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=5000)).fit(x, classes)
    found[:, seen] = model.predict_proba(there)
    return found


def _order(n: int, groups: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.intp]:
    if groups is None:
        return rng.permutation(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ConfigError(f"groups have shape {labels.shape}; ({n},) was expected, one a row")
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise StatisticsError("one group cannot be sent in blocks; give two or more, or none")
    return np.argsort(rng.permutation(len(names))[codes], kind="stable")
