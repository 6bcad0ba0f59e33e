"""Repair: how many long examples does it take to get longer operands right, and does training on short ones help?

Four ways to spend k long examples. *Priming* mixes them into training from the start; *fine-tuning* goes on from the network
trained on short ones, with the long ones alone or *with replay* of short ones; *from scratch* sees nothing else. This
module makes the data and judges the outcome; training itself is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.equivalence.answers import Answers, Values
from heldout.analyses.estimates import View
from heldout.errors import ConfigError, StatisticsError, unknown
from heldout.training.seeds import generator

Method = Literal["priming", "fine_tuning", "fine_tuning_replay", "from_scratch"]
METHODS: tuple[Method, ...] = get_args(Method)
K = (10, 50, 500)
REACHED = 0.9  # the truth on longer operands that C6 asks for

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Examples:
    """What one repair trains on: item numbers in the short and in the long pool, and how often each is drawn.

    `short` (n,) and `long` (k,) int64; `share` is the probability that a drawn example is long, uniform within each pool.
    `fresh`: start from initial weights, not from the trained network. `weights` (n + k,) is each example's probability,
    short ones first, in the order of `short`, then `long`.
    """

    method: Method
    short: np.ndarray
    long: np.ndarray
    share: float
    fresh: bool

    @property
    def weights(self) -> Floats:
        n, k = len(self.short), len(self.long)
        short = np.full(n, (1 - self.share) / max(1, n))
        return np.concatenate([short, np.full(k, self.share / k)])

    def batches(self, size: int, *, seed: int) -> Callable[[int], NDArray[np.int64]]:
        """step -> (size,) places in short-then-long, drawn with replacement by `weights`; a function of seed and step."""
        cumulative = np.cumsum(self.weights)
        cumulative[-1] = 1.0  # whatever rounding has made of it: no draw may fall beyond

        def draw(step: int) -> NDArray[np.int64]:
            uniform = generator(seed, "order", step).random(size)
            return np.searchsorted(cumulative, uniform, side="right").astype(np.int64)

        return draw


def examples(method: Method, k: int, *, short: int, long: int, seed: int, share: float | None = None) -> Examples:
    """The examples of one repair with k of `long` long examples, beside `short` short ones.

    The k are a prefix of one permutation of the pool that depends on `seed` alone: 10 lie within 50 within 500, and all
    methods are given the same ones, so that what differs is the method.

    `share`: of draws that are long, between 0 and 1. By default every example of priming is drawn alike, k / (n + k) (long
    ones are then rare), and replay draws half and half. The other two see long ones only and take no share.
    """
    if method not in METHODS:
        raise ConfigError(f"repair: {unknown('method', str(method), METHODS)}")
    if not 1 <= k <= long:
        raise ConfigError(f"repair: {k} long examples of {long}; choose from 1 to {long}")
    mixed = method in ("priming", "fine_tuning_replay")
    if share is not None and not (mixed and 0 < share < 1):
        raise ConfigError(
            f"repair: a share of {share} for {method}; mixed methods take one between 0 and 1, others none"
        )
    if mixed and short < 1:
        raise ConfigError(f"repair: {method} mixes with short examples, and there are none")
    chosen = generator(seed, "data").permutation(long)[:k].astype(np.int64)
    kept = np.arange(short if mixed else 0, dtype=np.int64)
    if not mixed:
        share = 1.0
    elif share is None:
        share = k / (short + k) if method == "priming" else 0.5
    return Examples(method, kept, chosen, share, method in ("priming", "from_scratch"))


def repair_values(answers: Answers, truth: np.ndarray, old: np.ndarray, new: np.ndarray) -> Values:
    """Each item's outcome, (N,) 0 or 1, on operands longer than trained: ``truth``, ``equivalence_n`` (the old rule's
    answer, `old` (N, W)), ``equivalence_n1`` (with one digit more, `new`), and whether the answer is one of these and which.

    ``kept``: the old rule's answer, and not the new one's nor the truth. ``moved``: the new rule's where that is not the
    old rule's, right or not. ``neither``: no rule's and not right. On operands of n + 1 digits the new rule *is* the truth;
    only longer ones tell "the relation moved" from "the network can add".
    """
    right, as_old, as_new = (answers.matches(target) for target in (truth, old, new))
    return {
        "truth": right,
        "equivalence_n": as_old,
        "equivalence_n1": as_new,
        "kept": as_old & ~as_new & ~right,
        "moved": as_new & ~as_old,
        "neither": ~(right | as_old | as_new),
    }


def first_reaching(truth: ArrayLike, *, threshold: float = REACHED) -> NDArray[np.int64]:
    """(R,) the place in the grid of the fewest k whose truth (G, R), k ascending, is at least `threshold`; G for never.

    The *first* k counts, also where a larger one falls below again. G is the least that "never" can mean: more than the
    largest k was needed.
    """
    curve = np.asarray(truth, dtype=np.float64)
    if curve.ndim != 2 or not len(curve):
        raise StatisticsError(f"truth over a grid of k has shape (G, R), G at least 1; got {curve.shape}")
    reached = curve >= threshold
    first: NDArray[np.int64] = np.where(reached.any(axis=0), reached.argmax(axis=0), len(curve))
    return first


def steps_saved(method: ArrayLike, scratch: ArrayLike, *, threshold: float = REACHED) -> Floats:
    """(R,) C6's estimand: by how many steps of the grid of k the method reaches `threshold` sooner than from scratch.

    From -G to G. A tie is 0, and so is "neither ever": no advantage was seen. Where only one of the two never gets there the
    difference counts to the step beyond the grid, a lower bound. NaN where a truth is NaN.
    """
    a, b = np.asarray(method, dtype=np.float64), np.asarray(scratch, dtype=np.float64)
    if a.shape != b.shape:
        raise StatisticsError(f"both methods must be tried with the same k; got shapes {a.shape} and {b.shape}")
    saved = (first_reaching(b, threshold=threshold) - first_reaching(a, threshold=threshold)).astype(np.float64)
    saved[np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0)] = np.nan
    return saved


def fewer_examples(
    method: Method, *, split: str, grid: Sequence[int] = K, site: str = ".", threshold: float = REACHED
) -> Callable[[View], Floats]:
    """`steps_saved` as an estimand of scores, from cells of the edits ``priming-10``, ``from_scratch-10``, ..."""

    def estimand(view: View) -> Floats:
        curves = [
            np.stack([view.ratio("truth", split=split, edit=repair_label(m, k), site=site) for k in sorted(grid)])
            for m in (method, "from_scratch")
        ]
        return steps_saved(*curves, threshold=threshold)

    return estimand


def repair_label(method: str, k: int) -> str:
    """The label of the `Origin(method, parameter=k)` that a repair's cells carry."""
    return f"{method}-{k:g}"
