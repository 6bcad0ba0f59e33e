"""Answers against the truth, against what a rule predicts, and against the answers to the rule's representatives.

N items, W answer digits. Digit arrays are (N, W) whole numbers, *units first* (column i is worth base^i), zero-padded. An
answer that cannot be read as a number is wrong by every measure and stays in every denominator.

Everything is additive: one value an item, summed by unit and stratum, so that the verdict rule and its bootstrap can run
on it (`heldout.analyses.estimates`). Exact match does not show *how* wrong a wrong answer is; the digits stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heldout.analyses.tables import Groups, Sink
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Cell, Estimate, Origin
from heldout.statistics.intervals import proportion_interval

Bools = NDArray[np.bool_]
Values = dict[str, np.ndarray]

GREEDY = Origin("greedy", ".")  # what a network answers, unedited: the origin of its cells
UNPARSABLE = -1  # the length of an answer that is no number


@dataclass(frozen=True, eq=False)
class Answers:
    """Greedy answers: `digits` (N, W), and `parsable` (N,) bool; the digits of what is not parsable mean nothing."""

    digits: np.ndarray
    parsable: np.ndarray

    def __post_init__(self) -> None:
        if self.digits.ndim != 2 or self.parsable.shape != (len(self.digits),) or self.parsable.dtype != np.bool_:
            raise ConfigError(
                f"answers are digits (N, W) and parsable (N,) bool; got {self.digits.shape} and "
                f"{self.parsable.shape} {self.parsable.dtype}"
            )

    def __len__(self) -> int:
        return len(self.digits)

    def right(self, target: np.ndarray) -> Bools:
        """(N, W) whether each digit is `target`'s, (N, W); all False where the answer is not parsable."""
        if target.shape != self.digits.shape:
            raise ConfigError(
                f"targets have shape {target.shape}, the answers {self.digits.shape}; pad both to one width"
            )
        return np.asarray((self.digits == target) & self.parsable[:, None], dtype=np.bool_)

    def matches(self, target: np.ndarray) -> Bools:
        """(N,) exact match with `target` (N, W)."""
        return np.asarray(self.right(target).all(axis=1), dtype=np.bool_)

    def agrees(self, other: Answers) -> Bools:
        """(N,) both parsable and equal: two unreadable answers do not agree."""
        return np.asarray(self.matches(other.digits) & other.parsable, dtype=np.bool_)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) digits without leading zeros, 1 for zero itself, `UNPARSABLE` where there is no number."""
        last = self.digits.shape[1] - (self.digits[:, ::-1] != 0).argmax(axis=1)
        length = np.where((self.digits != 0).any(axis=1), last, 1)
        return np.where(self.parsable, length, UNPARSABLE).astype(np.int64)


def answer_values(
    answers: Answers, truth: np.ndarray, equivalent: np.ndarray, partner: Answers | None = None
) -> Values:
    """Each measure of each item, (N,), 0 or 1.

    - ``truth``: exact match with `truth` (N, W). ``equivalence``: with `equivalent` (N, W), the rule's answer f(h(x)). Where
      truth and rule coincide (no operand is changed by h) the two are one number and say nothing about the rule.
    - ``self``: M(x) = M(h(x)), the network's own answers, `partner` those to the representatives (SER, where given). It
      needs no right answer: a network that answers nonsense, but the same nonsense, has 1; so has a constant one.
    - ``parsable``: the answer is a number.
    - ``truth_digit_i``, ``equivalence_digit_i``: digit i, units being 0. Digits right by chance are about 1 / base.
    """
    true, rule = answers.right(truth), answers.right(equivalent)
    values: Values = {
        "truth": answers.matches(truth),
        "equivalence": answers.matches(equivalent),
        "parsable": answers.parsable,
    }
    if partner is not None:
        values["self"] = answers.agrees(partner)
    for name, right in (("truth", true), ("equivalence", rule)):
        values |= {f"{name}_digit_{i}": right[:, i] for i in range(right.shape[1])}
    return values


def add_scores(sink: Sink, cell: Cell, labels: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
    """Sum (N,) `values` by `labels` (``unit`` first, then strata such as ``la``, ``lb``) into one cell."""
    as_tensors = {name: torch.from_numpy(np.asarray(v, dtype=np.float64)) for name, v in values.items()}
    sink.add(cell, Groups(labels).sums(as_tensors))


@dataclass(frozen=True, eq=False)
class ShuffledNull:
    """Exact match (R,) of R shuffles, and `matches` (N,) of the best of them (the first, among equals)."""

    rates: np.ndarray
    matches: Bools

    @property
    def best(self) -> float:
        return float(self.rates.max())


def shuffled_null(answers: Answers, target: np.ndarray, *, draws: int, rng: np.random.Generator) -> ShuffledNull:
    """The null of an exact match: the same answers, dealt out among the items whose answer has the same length.

    A shuffle keeps how often each answer is given and how long it is, and breaks its tie to the question: a constant
    answer matches as often as before, so the null takes its whole score. Unparsable answers are a length of their own.
    The best of `draws` stands for the chance that one shuffle is lucky; it grows (slowly) with their number. `matches`
    is additive and goes into the same cell, so that (match - null) can be resampled as one.
    """
    if draws < 1:
        raise StatisticsError(f"a null needs at least one draw; got {draws}")
    lengths = answers.lengths
    groups = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    rates, best, matches = np.empty(draws), -1, np.zeros(len(answers), dtype=bool)
    for draw in range(draws):
        order = np.arange(len(answers))
        for group in groups:
            order[group] = rng.permutation(group)
        found = Answers(answers.digits[order], answers.parsable[order]).matches(target)
        rates[draw] = found.mean()
        if found.sum() > best:
            best, matches = int(found.sum()), found
    return ShuffledNull(rates, matches)


def proportions(
    values: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
    *,
    by: Iterable[str] = (),
    level: float = 0.95,
    **where: Any,
) -> list[Estimate]:
    """Each 0/1 measure over all items and in each stratum of `by` (for example ``la``, ``lb``), of *one* network.

    Intervals are Wilson's, and the one-sided rule of three where nothing or everything succeeded. They take items as
    independent, which ordered pairs of one unordered pair are not quite, and know nothing of other training runs: the
    verdict rule does. The stratum is written into the quantity: ``truth[la=4,lb=3]``. `where`: fields of `Estimate`.
    """
    names = list(by)
    missing = [n for n in names if labels is None or n not in labels]
    if missing:
        raise ConfigError(f"proportions by {', '.join(missing)}: no such label was given")
    size = len(next(iter(values.values())))
    cuts: list[tuple[str, Bools]] = [("", np.ones(size, dtype=bool))]
    if names and labels is not None:
        table = np.stack([np.asarray(labels[n]) for n in names], axis=1)
        for row in np.unique(table, axis=0):
            shown = ",".join(f"{n}={v}" for n, v in zip(names, row, strict=True))
            cuts.append((f"[{shown}]", (table == row).all(axis=1)))
    found = []
    for name, value in values.items():
        if not np.isin(value, (0, 1)).all():
            raise StatisticsError(f"{name!r} is no proportion: its values must be 0 or 1")
        for stratum, chosen in cuts:
            k, n = int(np.asarray(value)[chosen].sum()), int(chosen.sum())
            low, high = proportion_interval(k, n, level=level)
            method = "rule of three, one-sided" if k in (0, n) else "Wilson"
            found.append(
                Estimate(name + stratum, k / n, float(low), float(high), f"{method} {level:.0%}", n=n, **where)
            )
    return found
