"""Is a feature represented beyond what the other features bring? Permutation of its labels within strata of theirs.

Within a stratum all other labels are (nearly) constant, so a permutation breaks what links activations to this label and
keeps what comes through the others. Rows are what is exchanged. With groups, labels that are constant within groups
move between groups whole, and labels that vary within groups move within their group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.features.intervals import group_codes
from heldout.analyses.features.labels import Coding
from heldout.errors import ConfigError, StatisticsError
from heldout.statistics.permutation import null_p

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

DRAWS = 1000
BINS = 5  # quantiles that a continuous label is cut into to make strata
MOVABLE = 0.1  # share of rows that must be able to change their label for a permutation to be a test
BLOCK = 2**24  # numbers of permuted labels at a time


@dataclass(frozen=True, eq=False)
class Null:
    """`observed` held-out pooled R^2, its `draws` (R,) under permutation of both splits, and the one-sided `p`.

    `movable`: the share of T's rows that share their stratum with a row of another label. Where it is below 10% the strata
    fix nearly every label, and there is no test: `p` is NaN and `reason` says so.
    """

    observed: float
    draws: Floats
    p: float
    movable: float
    reason: str = ""

    @property
    def threshold(self) -> float:
        """The 95th percentile of the draws; NaN where there is no test."""
        return float("nan") if self.reason else float(np.quantile(self.draws, 0.95))


def strata_of(coding: Coding, table: Mapping[str, ArrayLike], without: str) -> Codes:
    """(n,) strata of all labels but one: levels as they are, numbers cut at their quintiles."""
    others = [f for f in coding.features if f.name != without]
    if len(others) == len(coding.features):
        coding.feature(without)  # raises, with the nearest names
    rows = len(np.asarray(table[without]))
    keys = [np.zeros(rows, dtype=np.intp)]
    for f in others:
        values = np.asarray(table[f.name])
        if f.kind == "continuous":
            edges = np.quantile(values.astype(np.float64), np.arange(1, BINS) / BINS)
            keys.append(np.searchsorted(edges, values.astype(np.float64), side="right").astype(np.intp))
        else:
            keys.append(f.codes(values))
    return np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.intp)


def permutation_null(
    fit: tuple[ArrayLike | Tensor, ArrayLike],
    test: tuple[ArrayLike | Tensor, ArrayLike],
    *,
    seed: int,
    strata: tuple[Codes, Codes] | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    draws: int = DRAWS,
) -> Null:
    """Held-out R^2 of one label against its permutations.

    `fit`, `test`: activations (n, D) and the label's own columns (n, q) of each split; `strata`, `groups`: (n,) of each.
    """
    sides = [
        _Side(x, b, None if strata is None else strata[i], None if groups is None else groups[i])
        for i, (x, b) in enumerate((fit, test))
    ]
    v, t = sides
    if v.x.shape[1] != t.x.shape[1] or v.b.shape[1] != t.b.shape[1]:
        raise ConfigError(f"the splits differ in width: activations {v.x.shape} and {t.x.shape}")
    observed = float(_r2(v, t, v.b[None], t.b[None])[0])
    if t.movable < MOVABLE:
        why = f"the other labels fix this one in all but {t.movable:.0%} of rows: permuting it within strata tests nothing"
        return Null(observed, np.empty(0), float("nan"), t.movable, why)
    step = max(1, BLOCK // max(v.b.size, t.b.size))
    rngs = np.random.default_rng(seed).spawn(2)
    null = np.concatenate(
        [
            _r2(v, t, v.permuted(min(step, draws - i), rngs[0]), t.permuted(min(step, draws - i), rngs[1]))
            for i in range(0, draws, step)
        ]
    )
    return Null(observed, null, null_p(observed, null), t.movable)


class _Side:
    """One split: activations about their mean, label columns, and the blocks within which labels move."""

    def __init__(self, x: ArrayLike | Tensor, b: ArrayLike, strata: Codes | None, groups: ArrayLike | None) -> None:
        rows, self.b = np.asarray(x, dtype=np.float64), np.asarray(b, dtype=np.float64)
        if rows.ndim != 2 or self.b.ndim != 2 or len(self.b) != len(rows):
            raise ConfigError(f"activations (n, D) and columns (n, q) are needed; got {rows.shape} and {self.b.shape}")
        self.mean = rows.mean(axis=0)
        self.x = rows - self.mean
        blocks = np.zeros(len(rows), dtype=np.intp) if strata is None else np.asarray(strata, dtype=np.intp)
        if blocks.shape != (len(rows),):
            raise ConfigError(f"strata have shape {blocks.shape}; ({len(rows)},) was expected")
        self.unit = np.arange(len(rows))  # what moves: a row, or a group whose rows all have one label
        if groups is not None:
            codes = group_codes(groups, len(rows))
            first = np.unique(codes, return_index=True)[1]
            if (self.b == self.b[first[codes]]).all():
                if not (blocks == blocks[first[codes]]).all():
                    raise StatisticsError(
                        "the label is constant within groups and so moves between groups, but the strata vary within "
                        "them; give strata that are constant within groups, or none"
                    )
                self.unit, blocks = codes, blocks[first]
                self.labels = self.b[first]
            else:
                blocks = np.unique(np.stack([blocks, codes], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        if groups is None or len(blocks) == len(rows):
            self.labels = self.b
        self.blocks = blocks
        self.order = np.argsort(blocks, kind="stable")

    @property
    def movable(self) -> float:
        varied = np.zeros(self.blocks.max() + 1, dtype=bool)
        for column in self.labels.T:
            low, high = np.full(len(varied), np.inf), np.full(len(varied), -np.inf)
            np.minimum.at(low, self.blocks, column)
            np.maximum.at(high, self.blocks, column)
            varied |= high > low
        return float(varied[self.blocks[self.unit]].mean())

    def permuted(self, draws: int, rng: np.random.Generator) -> Floats:
        """(draws, n, q) labels permuted within blocks: sorted by block and then by a random number."""
        keys = rng.random((draws, len(self.blocks)))
        mixed = np.lexsort((keys, np.broadcast_to(self.blocks, keys.shape)), axis=-1)
        moved = np.empty((draws, *self.labels.shape))
        moved[:, self.order] = self.labels[mixed]
        return moved[:, self.unit]


def _r2(v: _Side, t: _Side, b_v: Floats, b_t: Floats) -> Floats:
    """(R,) held-out pooled R^2 for labels (R, n, q) of the two splits; everything about V's means."""
    mean_b = b_v.mean(axis=1, keepdims=True)
    b_v, b_t = b_v - mean_b, b_t - mean_b
    x_t = t.x + (t.mean - v.mean)
    inverse = np.linalg.pinv(b_v.transpose(0, 2, 1) @ b_v, hermitian=True)
    w = inverse @ _cross(b_v, v.x)
    gain = 2 * (w * _cross(b_t, x_t)).sum(axis=(1, 2)) - (w * ((b_t.transpose(0, 2, 1) @ b_t) @ w)).sum(axis=(1, 2))
    total = float((x_t**2).sum())
    if total <= 0:
        raise StatisticsError("the activations do not vary: there is no variance to explain")
    r2: Floats = gain / total
    return r2


def _cross(b: Floats, x: Floats) -> Floats:
    """(R, n, q) and (n, D) -> (R, q, D), as one product."""
    r, n, q = b.shape
    product: Floats = (b.transpose(0, 2, 1).reshape(r * q, n) @ x).reshape(r, q, -1)
    return product
