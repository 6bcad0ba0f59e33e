"""The measures of similarity by name, each with the fewest stimuli for which it is computed.

    similarity(x, y)                  # debiased linear CKA
    similarity(x, y, "rsa-spearman")

A hard minimum stands where below it N alone, not the activations, fixes or dominates the figure: Procrustes and biased CKA
of two stimuli are always 1; the debiased estimator divides by N - 3; a correlation over the three distances of three stimuli
is mostly near 1 or -1, whatever they are; predictivity needs folds. The minimum makes a figure possible, not good: judge it
by its interval and its permutation null (`heldout.analyses.similarity.inference`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity import cka as linear_cka
from heldout.analyses.similarity import predictivity as linear
from heldout.analyses.similarity import procrustes as shape
from heldout.analyses.similarity.checks import Floats, centred, duplicates, pair
from heldout.analyses.similarity.compare import Comparator, compare
from heldout.analyses.similarity.rdm import Distance, rdm
from heldout.errors import ConfigError, StatisticsError, unknown

LEAST_RSA = 4


@dataclass(frozen=True)
class OfRDMs:
    """A comparison of RDMs: the distance between stimuli, and the comparator of the distances."""

    distance: Distance
    by: Comparator

    def __call__(self, x: Floats, y: Floats) -> float:
        return compare(rdm(x, self.distance), rdm(y, self.distance), self.by)

    def stack(self, networks: Sequence[Floats]) -> Floats:
        """(S, m): the condensed RDMs of S networks."""
        return np.stack([rdm(x, self.distance) for x in networks])


@dataclass(frozen=True)
class Measure:
    """A similarity of activations (N, Dx) and (N, Dy), 1 at most.

    - `symmetric`: whether the two sides may change places.
    - `least`: the hard minimum of stimuli.
    - `biased`: whether unrelated activations score above 0 on average, the more so the fewer stimuli there are to a unit.
    - `rdms`, `hsic`: of what family it is, where its resampling has a quicker form than calling `of` again.
    """

    name: str
    label: str
    symmetric: bool
    of: Callable[[Floats, Floats], float] = field(repr=False, compare=False)
    least: int
    biased: bool = False
    rdms: OfRDMs | None = None
    hsic: Literal["biased", "debiased"] | None = None


def _rsa(name: str, label: str, distance: Distance, by: Comparator) -> Measure:
    kind = OfRDMs(distance, by)
    return Measure(name, label, True, kind, LEAST_RSA, rdms=kind)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("cka", "CKA (linear, debiased)", True, linear_cka.cka, linear_cka.LEAST, hsic="debiased"),
        Measure(
            "cka-biased",
            "CKA (linear, biased)",
            True,
            partial(linear_cka.cka, debiased=False),
            3,
            biased=True,
            hsic="biased",
        ),
        _rsa("rsa", "RSA (correlation distance, Pearson)", "correlation", "pearson"),
        _rsa("rsa-spearman", "RSA (correlation distance, Spearman)", "correlation", "spearman"),
        _rsa("rsa-kendall", "RSA (correlation distance, Kendall's tau-a)", "correlation", "kendall"),
        _rsa("rsa-euclidean", "RSA (Euclidean distance, Pearson)", "euclidean", "pearson"),
        Measure("procrustes", "Procrustes (cosine of the angle)", True, shape.procrustes, shape.LEAST, biased=True),
        Measure("predict", "linear predictivity, x → y", False, linear.predictivity, linear.LEAST),
        Measure("predicted", "linear predictivity, y → x", False, lambda x, y: linear.predictivity(y, x), linear.LEAST),
    )
}


def similarity(x: ArrayLike | Tensor, y: ArrayLike | Tensor, measure: str = "cka", *, repeated: bool = False) -> float:
    """Similarity of activations `x` (N, Dx) and `y` (N, Dy) of the same N stimuli in the same order; widths may differ.

    - `measure`: a name in `MEASURES`; debiased linear CKA by default.
    - `repeated`: accept stimuli whose activations occur twice in both tables.

    Raises `StatisticsError` for different N, fewer stimuli than the measure's minimum, activations that do not vary, and
    repeated stimuli: a repeat counts one observation twice and brings back the bias that debiasing takes out.
    """
    chosen = find_measure(measure)
    a, b = checked(x, y, chosen, repeated=repeated)
    return chosen.of(a, b)


def find_measure(name: str) -> Measure:
    if name not in MEASURES:
        raise ConfigError(unknown("measure of similarity", name, MEASURES))
    return MEASURES[name]


def checked(
    x: ArrayLike | Tensor, y: ArrayLike | Tensor, measure: Measure, *, repeated: bool = False
) -> tuple[Floats, Floats]:
    """Both tables as float64, fit for the measure; errors as for `similarity`."""
    a, b = pair(x, y)
    if len(a) < measure.least:
        raise StatisticsError(f"{measure.label} of {len(a)} stimuli says nothing; at least {measure.least} are needed")
    centred(a, "x"), centred(b, "y")
    if not repeated:
        count, first = duplicates(a, b)
        if first is not None:
            raise StatisticsError(
                f"{count} of {len(a)} stimuli have, in x and in y, exactly the activations of an earlier one; the first are "
                f"rows {first[0]} and {first[1]}. Leave repeated stimuli out; pass repeated=True where they are "
                "different stimuli that both networks take for one"
            )
    return a, b
