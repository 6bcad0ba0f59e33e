"""Which algorithm a network uses to add modulo p: pizza, clock, both, something between, or none that can be told.

    found = classify(network, Modular(ModularSettings(modulus=23, equals=False)))
    found.label, found.reason, [c.reads for c in found.circles]

Two algorithms read a circle of tokens, at angles w t, w = 2 pi k / p (Zhong, Liu, Tegmark and Andreas, "The Clock and
the Pizza", 2023, arXiv 2306.17844). A *clock* multiplies: its logits are cos(w (a + b - c)). A *pizza* looks at the
average of the two points and sees which slice it is in: |cos(w (a - b) / 2)| cos(w (a + b - c)), which fails where
operands are opposite. The second point may be turned by an angle u first, where a network reads its two operands by
different maps. Each frequency is read apart, and causally, with all others taken out of the embedding. Its circle reads
as

- *none* where its logits do not follow the sum at this frequency (`Profile.follows` below 1/2);
- *pizza* where they stay as they are when both points are replaced by their average (`Circle.average`): they agree at
  least as well as those of a circle that is a clock to a third (`agreement_of`), at no turn or at the best one;
- *clock* where they agree no better than those of two thirds, and their dependence on a - b is no more than a third of
  a pizza's (`Profile.clock` at least 2/3);
- *mixed* where either lies between; *other* where the two contradict: what the average gives and how the strength
  depends on a - b are measured apart, and pizza, clock and their mixtures are the networks for which they tell the
  same.

Thresholds are those of closed-form networks (`heldout.networks.pooled_planted`) at a third and two thirds. A network is
named after its circles that are pizza, clock or mixed and cause logits at least a quarter as strong as the strongest of
them (`LOUD`): *pizza* or *clock* where all are, *both* where some are the one and some the other, *mixed* else. It is
named only if it answers (`ENOUGH`) and still does with nothing but circles read so in its embedding (`ALONE`).
Otherwise it is *unclear*: a network that has its pairs by heart, say, though its logits follow every sum.

Pizza and clock are the ends of a line: one hidden layer is either by how its units' phases are distributed. Whether
they are two algorithms, or views of one, is disputed. In a superposed embedding a circle alone may act otherwise than
among others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from heldout.analyses.geometry.frequencies import (
    Floats,
    agreement,
    agreement_of,
    coherence,
    keep,
    points,
    powers,
    principal_plane,
    profile,
)
from heldout.analyses.geometry.pairs import Pairs
from heldout.errors import StatisticsError
from heldout.tasks.modular import Modular

Reads = Literal["pizza", "clock", "mixed", "other", "none"]
Label = Literal["pizza", "clock", "both", "mixed", "unclear"]
LABELS: tuple[Label, ...] = ("pizza", "clock", "both", "mixed", "unclear")
NAMED: tuple[Reads, ...] = ("pizza", "clock", "mixed")
ENOUGH, ALONE = 0.95, 0.9  # accuracy that a network needs, and that its named circles alone need
FOLLOWS, LOUD = 0.5, 0.25
ROUND, PLANE = 0.9, 0.95  # coherence and accuracy that one circle in the first two components needs


@dataclass(frozen=True)
class Circle:
    """One frequency of the embedding.

    `power`: its share of the embedding's variance; `coherence` of the tokens' angles in the first two components;
    `without` and `alone`: accuracy when it, and when all others, are taken out of the embedding. Of the logits that it
    causes alone: `strength` (mean over a - b), `follows`, `clock` and `turn` as in `Profile`, and `average`, their
    agreement with what the average of both points gives, the better of no turn and `turn`.
    """

    frequency: int
    power: float
    coherence: float
    without: float
    alone: float
    strength: float
    follows: float
    clock: float
    turn: float
    average: float
    reads: Reads


@dataclass(frozen=True)
class Algorithm:
    """What `classify` found.

    - `label`; `reason` says why it is "unclear". `used`: the frequencies behind the label, strongest first.
    - `accuracy` on the pairs scored; `average`: accuracy where each pair's embeddings are replaced by their average.
    - `plane`: accuracy with all but the first two components of the embedding taken out; `one_circle`: whether it is
      above .95 and some frequency's coherence above .9.
    - `symmetricity`, `irrelevance`: the two diagnostics of Zhong et al., see the functions of these names.
    - `slices`, `antipodal`: see `slices_of`, for the first of `used`, or else the strongest frequency.
    """

    label: Label
    reason: str
    used: tuple[int, ...]
    circles: tuple[Circle, ...]
    accuracy: float
    average: float
    plane: float
    one_circle: bool
    symmetricity: float
    irrelevance: float
    slices: int
    antipodal: float


def classify(
    network: nn.Module, task: Modular, *, scored: NDArray[np.bool_] | None = None, site: str = "embed", seed: int = 0
) -> Algorithm:
    """The algorithm of `network`, any network of pairs of tokens with an embedding at `site`; see the module's text.

    Accuracies are taken on the pairs `scored` (p, p), by default all that are not in the task's ``train``. `seed` draws
    the classes of `symmetricity`. Everything else is exact and over all pairs. Raises what `Pairs` raises.
    """
    pairs = Pairs(network, task, site)
    scored = unseen(task) if scored is None else np.asarray(scored, dtype=bool)
    if scored.shape != (pairs.p, pairs.p) or not scored.any():
        raise StatisticsError(f"scored must be a mask ({pairs.p}, {pairs.p}) of at least one pair, got {scored.shape}")
    table = (pairs.first + pairs.second) / 2
    circles = tuple(circle_of(pairs, k, scored, table) for k in range(1, pairs.p // 2 + 1))
    accuracy = pairs.accuracy(pairs.logits, scored)
    used, reason = used_circles(pairs, circles, accuracy, scored)
    plane = pairs.accuracy(pairs.run(*(principal_plane(t)[1] for t in (pairs.first, pairs.second))), scored)
    strongest = used[0] if used else max(circles, key=lambda c: c.power)
    slices, antipodal = slices_of(pairs, strongest.frequency, strongest.turn)
    return Algorithm(
        label=label_of(used),
        reason=reason,
        used=tuple(c.frequency for c in used),
        circles=circles,
        accuracy=accuracy,
        average=pairs.accuracy(pairs.middle(), scored),
        plane=plane,
        one_circle=plane > PLANE and max(c.coherence for c in circles) > ROUND,
        symmetricity=symmetricity(pairs, seed=seed),
        irrelevance=irrelevance(pairs),
        slices=slices,
        antipodal=antipodal,
    )


def unseen(task: Modular) -> NDArray[np.bool_]:
    """(p, p): the pairs that the task does not train on."""
    p = task.settings.modulus
    found = np.ones((p, p), dtype=bool)
    seen = np.unique(task.splits["train"].items.take(np.arange(len(task.splits["train"]))).inputs[:, :2], axis=0)
    found[seen[:, 0], seen[:, 1]] = False
    return found


def circle_of(pairs: Pairs, frequency: int, scored: NDArray[np.bool_], table: Floats) -> Circle:
    """One frequency, by itself and by its absence; `table` (p, D) is what power and coherence are taken of."""
    tables = (pairs.first, pairs.second)
    alone = [keep(t, [frequency]) for t in tables]
    rest = [k for k in range(1, pairs.p // 2 + 1) if k != frequency]
    logits = pairs.run(*alone)
    found = profile(logits, frequency)
    turns = {0.0, found.turn}
    average = max(agreement(logits, pairs.middle_of(frequency, turn), frequency) for turn in sorted(turns))
    return Circle(
        frequency=frequency,
        power=float(powers(table)[frequency - 1]),
        coherence=float(coherence(table)[frequency - 1]),
        without=pairs.accuracy(pairs.run(*(keep(t, rest) for t in tables)), scored),
        alone=pairs.accuracy(logits, scored),
        strength=float(found.strength.mean()),
        follows=found.follows,
        clock=found.clock,
        turn=found.turn,
        average=average,
        reads=reading(found.follows, found.clock, average, pairs.p, frequency),
    )


def reading(follows: float, clock: float, average: float, p: int, frequency: int) -> Reads:
    """How a circle is read, by the rules of the module's text."""
    if follows < FOLLOWS:
        return "none"
    if np.isnan(clock):  # the logits follow the opposite of the sum
        return "other"
    mostly_pizza, mostly_clock = (agreement_of(share, p, frequency) for share in (1 / 3, 2 / 3))
    if average >= mostly_pizza:
        return "pizza"
    if average <= mostly_clock and clock >= 2 / 3:
        return "clock"
    return "mixed" if average > mostly_clock or clock > 1 / 3 else "other"


def used_circles(
    pairs: Pairs, circles: tuple[Circle, ...], accuracy: float, scored: NDArray[np.bool_]
) -> tuple[tuple[Circle, ...], str]:
    """The loud ones of the named circles, if all of these answer without other frequencies; none, and why,
    otherwise."""
    if accuracy < ENOUGH:
        return (), f"{accuracy:.3f} of the pairs scored are answered; {ENOUGH} are needed"
    named = sorted((c for c in circles if c.reads in NAMED), key=lambda c: -c.strength)
    if not named:
        return (), f"none of the {len(circles)} frequencies is read as a pizza or a clock"
    kept = [c.frequency for c in named]
    right = pairs.accuracy(pairs.run(keep(pairs.first, kept), keep(pairs.second, kept)), scored)
    if right < ALONE:
        return (), f"the circles that are read as a pizza or a clock answer {right:.3f} alone; {ALONE} are needed"
    return tuple(c for c in named if c.strength >= LOUD * named[0].strength), ""


def label_of(used: tuple[Circle, ...]) -> Label:
    """The name of a network with these circles, see the module's text."""
    ways = {c.reads for c in used}
    if not ways:
        return "unclear"
    if len(ways) == 1:
        return "pizza" if ways == {"pizza"} else "clock" if ways == {"clock"} else "mixed"
    return "both" if {"pizza", "clock"} <= ways else "mixed"


def symmetricity(pairs: Pairs, *, seed: int = 0) -> float:
    """Mean cosine of the gradients of a logit by the two embeddings, over all pairs, each with a class drawn by `seed`
    (Zhong et al., definition 4.1, on all pairs): 1 where only the sum of both embeddings matters to first order. Pairs
    of which a gradient is zero are left out; NaN where all are.

    A network whose two places are read by different maps has less, whatever its algorithm.
    """
    classes = np.random.default_rng(seed).integers(0, pairs.p, pairs.p**2)
    first, second = np.moveaxis(pairs.gradients(classes), 1, 0)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    kept = norms > 0
    return float(((first * second).sum(axis=1)[kept] / norms[kept]).mean()) if kept.any() else np.nan


def irrelevance(pairs: Pairs) -> float:
    """How little the right answer's logit depends on a - b (Zhong et al., definition 4.2): its standard deviation over
    pairs of one difference, mean over differences, divided by that over all pairs. 0 where it depends on the difference
    alone, as a pizza's, about 1 where it does not. NaN where it is constant, as an ideal clock's is.

    It cannot tell a clock from a network that has all pairs by heart.
    """
    right = np.take_along_axis(pairs.logits, pairs.sums[:, :, None], axis=2)[:, :, 0]
    total = float(right.std())
    if total <= 1e-9 * max(float(np.abs(right).max()), 1e-300):
        return np.nan
    at = np.arange(pairs.p)
    by_difference = right[at, (at[None, :] - at[:, None]) % pairs.p]  # (difference, first token)
    return float(by_difference.std(axis=1).mean()) / total


def slices_of(pairs: Pairs, frequency: int, turn: float = 0.0) -> tuple[int, float]:
    """How often the answer changes around the circle of one frequency, both operands at one point of it (the second
    turned back by `turn`), and the share of points that are answered as their opposites are. A pizza has 2 p slices and
    1, and so has a clock."""
    angles = 2 * np.pi * (np.arange(pairs.p**2) / pairs.p**2).reshape(pairs.p, pairs.p)
    answers = []
    for start in (0, np.pi):
        first, second = np.exp(1j * (angles + start)), np.exp(1j * (angles + start - turn))
        logits = pairs.run(points(pairs.first, frequency, first), points(pairs.second, frequency, second))
        answers.append(logits.argmax(-1).ravel())
    here, opposite = answers
    return int((here != np.roll(here, 1)).sum()), float((here == opposite).mean())
