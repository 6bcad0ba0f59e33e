"""The shapes of Dyck sentences: random walks of the nesting depth, drawn exactly, given their lengths.

The distribution is that of Hewitt et al. 2020 and Murty et al. 2023. A sentence is written token by token: at depth 0
it opens or ends with probability 1/2 each, between 0 and m it opens or closes with 1/2 each, at m it closes; an end
before `SHORTEST` tokens is drawn again. Drawing that literally wastes what a cap or a wanted length rejects. So the
length is drawn first, from its exact distribution, and then the walk given its length: the chance to open is
reweighted by the chance to be back at 0 at the right moment (Doob's h-transform), which one small table holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heldout.errors import ConfigError

SHORTEST = 4


@dataclass(frozen=True, eq=False)
class Drawn:
    """N walks laid end to end, walk i at ``offsets[i] : offsets[i + 1]``.

    - `offsets`: (N + 1,) int64.
    - `opens`: (total,) bool, whether the bracket opens.
    - `levels`: (total,) int16, its depth: 1 for an outermost pair, the same for both brackets of a pair.
    - `openers`: (total,) int32, the place in its sentence of the pair's opening bracket.
    """

    offsets: np.ndarray
    opens: np.ndarray
    levels: np.ndarray
    openers: np.ndarray


class Walks:
    """Walks of depth at most `depth` (m) and length at most `cap`.

    `lengths` (even numbers from 4 to `cap`) have `probabilities`, which sum to one; `dropped` is the probability that
    the cap took away.
    """

    def __init__(self, depth: int, cap: int) -> None:
        if depth < 1:
            raise ConfigError(f"dyck: depth (m) must be at least 1, got {depth}")
        if cap < SHORTEST:
            raise ConfigError(f"dyck: cap must be at least {SHORTEST}, the shortest sentence, got {cap}")
        self.depth, self.cap = depth, cap
        opening = np.where(np.arange(depth + 1) < depth, 0.5, 0.0)
        closing = np.where(np.arange(depth + 1) < depth, 0.5, 1.0)
        # back[d]: chance to be at 0 after exactly r more steps from depth d, over e^scale; it underflows otherwise.
        back, scale = np.zeros(depth + 1), 0.0
        back[0] = 1.0
        self._up = np.zeros((cap + 1, depth + 1))  # chance to open with r steps to go at depth d
        self._second = np.zeros(cap + 1)  # chance that the second token of a walk of this length opens
        weight = np.zeros(cap + 1)
        for r in range(1, cap):
            up = opening * np.append(back[1:], 0.0)
            down = np.append(0.0, closing[1:] * back[:-1])
            length = r + 1
            if length >= SHORTEST and length % 2 == 0:
                # Back at 0 after two tokens is too short to end, so going on has probability 1 there, not 1/2.
                total = up[1] + 2 * down[1]
                self._second[length] = up[1] / total
                weight[length] = 0.5 * total * np.exp(scale)
            total = up + down
            self._up[r] = np.divide(up, total, out=np.zeros_like(up), where=total > 0)
            back, scale = total / total.sum(), scale + float(np.log(total.sum()))
        self.lengths = np.arange(SHORTEST, cap + 1, 2)
        self.dropped = max(0.0, 1.0 - float(weight.sum()))
        self.probabilities = weight[self.lengths] / weight.sum()

    def draw_lengths(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n,) int64, lengths as the language has them, up to the cap."""
        return rng.choice(self.lengths, size=n, p=self.probabilities)

    def draw(self, lengths: np.ndarray, rng: np.random.Generator) -> Drawn:
        """One walk of each of `lengths` (N,), from the language's distribution given that length."""
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        opens = np.empty(offsets[-1], dtype=bool)
        levels = np.empty(offsets[-1], dtype=np.int16)
        openers = np.empty(offsets[-1], dtype=np.int32)
        # Longest first, so that the walks still going are always the first ones and slices are views.
        order = np.argsort(-lengths, kind="stable")
        sorted_lengths, starts = lengths[order], offsets[:-1][order]
        rows = np.arange(len(lengths))
        depth = np.zeros(len(lengths), dtype=np.int64)
        opened = np.zeros((len(lengths), self.depth + 1), dtype=np.int32)  # where the current pair at each level began
        for t in range(int(lengths.max(initial=0))):
            n = int(np.searchsorted(-sorted_lengths, -t))
            left = sorted_lengths[:n] - t
            chance = np.ones(n) if t == 0 else self._second[left + 1] if t == 1 else self._up[left, depth[:n]]
            up = rng.random(n) < chance
            level = depth[:n] + up
            row = rows[:n]
            opened[row[up], level[up]] = t
            at = starts[:n] + t
            opens[at], levels[at], openers[at] = up, level, opened[row, level]
            depth[:n] += np.where(up, 1, -1)
        return Drawn(offsets, opens, levels, openers)
