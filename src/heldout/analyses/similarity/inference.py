"""Similarities with all that is needed to judge them: interval, null, p-value, noise ceiling, cautions.

    assess(x, y, "cka", seed=0)           two networks; what other stimuli would show
    between(xs, ys, "rsa", seed=0)        several networks (seeds) a side; other stimuli and other networks
    within(xs, "rsa", seed=0)             how alike the networks of one condition are to each other

Intervals are Student's t. RDM measures take bootstrap variances: stimuli without self-pairs for two networks, the dual
bootstrap between sets of networks. The others take delete-a-group variances over stimuli, plus the variance over networks,
a little too wide because noise that belongs to both is counted in each; so do RDM measures within a condition. The p-value
is one-sided, of the permutation null, and needs no interval. The interval says how far the figure would move, the null
whether there is any relation at all: near independence only the null is to be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.cautions import LEAST_INTERVAL, cautions
from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import compare
from heldout.analyses.similarity.dual import combined, dual_bootstrap, variances
from heldout.analyses.similarity.jackknife import network_variances, pooled, stimulus_jackknife
from heldout.analyses.similarity.measures import Measure, checked, find_measure
from heldout.analyses.similarity.noise import noise_ceiling
from heldout.analyses.similarity.permutation import null_between, null_within
from heldout.analyses.similarity.resampling import draw_counts, resampled
from heldout.analyses.similarity.result import Similarity
from heldout.errors import StatisticsError
from heldout.statistics.permutation import null_p

Activations = ArrayLike | Tensor
Spread = tuple[float, float]  # a variance and its degrees of freedom
Rngs = Sequence[np.random.Generator]  # of the bootstrap, of the permutations, of the groups left out


@dataclass(frozen=True)
class Settings:
    """`draws` of the bootstrap, `permutations` of the null, `level` of the interval; `repeated` as in `similarity`."""

    draws: int = 1000
    permutations: int = 999
    level: float = 0.95
    repeated: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.draws < 2 or self.permutations < 1:
            raise StatisticsError(
                "a level lies strictly between 0 and 1, the bootstrap needs 2 draws, the null one permutation; got "
                f"level {self.level}, draws {self.draws}, permutations {self.permutations}"
            )


DEFAULT = Settings()


def assess(
    x: Activations, y: Activations, measure: str = "cka", *, seed: int, settings: Settings = DEFAULT
) -> Similarity:
    """Similarity of `x` (N, Dx) with `y` (N, Dy): of these two networks, for other stimuli."""
    return between([x], [y], measure, seed=seed, settings=settings)


def between(
    xs: Sequence[Activations],
    ys: Sequence[Activations],
    measure: str = "cka",
    *,
    seed: int,
    settings: Settings = DEFAULT,
) -> Similarity:
    """Mean similarity of each of `xs` [(N, D), ...] with each of `ys`: for other stimuli, and other networks like these.

    A side of a single network is taken as it is (a model). The networks of a side are independent draws of its condition.
    """
    chosen = find_measure(measure)
    a, b = _tables(xs, ys, chosen, settings)
    streams = np.random.default_rng(seed).spawn(3)
    matrix = _matrix(a, b, chosen)
    null = null_between(a, b, chosen, draws=settings.permutations, rng=streams[1])
    spread = _spread_between(a, b, chosen, matrix, settings, streams)
    return _result(chosen, float(matrix.mean()), spread, null, a, b, settings)


def within(xs: Sequence[Activations], measure: str = "cka", *, seed: int, settings: Settings = DEFAULT) -> Similarity:
    """Mean similarity over pairs of different networks of `xs` [(N, D), ...], 3 or more: how consistent a condition is.

    Of a measure with a direction, the mean of both.
    """
    chosen = find_measure(measure)
    if len(xs) < 3:
        raise StatisticsError(f"the similarity within a condition needs 3 networks or more; got {len(xs)}")
    others, first = _tables(xs[1:], xs[:1], chosen, settings)
    a = [*first, *others]
    streams = np.random.default_rng(seed).spawn(3)
    matrix = _pairwise(a, chosen)
    null = null_within(a, chosen, draws=settings.permutations, rng=streams[1])
    spread = _spread_within(a, chosen, matrix, settings, streams)
    return _result(chosen, _mean_pair(matrix), spread, null, a, a, settings)


def _spread_between(
    a: list[Floats], b: list[Floats], measure: Measure, matrix: Floats, settings: Settings, streams: Rngs
) -> Spread:
    n, several = len(a[0]), [len(side) for side in (a, b) if len(side) > 1]
    if n < LEAST_INTERVAL:
        return math.nan, 1.0
    if measure.rdms is not None:
        kind = measure.rdms
        draws = dual_bootstrap(kind.stack(a), kind.stack(b), kind.by, draws=settings.draws, rng=streams[0])
        variance = combined(variances(draws.values), subjects=min(several, default=1), stimuli=n)
        return variance, min([n, *several]) - 1
    stimuli = stimulus_jackknife(
        lambda kept: float(np.mean([measure.of(x[kept], y[kept]) for x in a for y in b])), n, rng=streams[2]
    )
    return pooled([stimuli, *network_variances(matrix, within=False)])


def _spread_within(a: list[Floats], measure: Measure, matrix: Floats, settings: Settings, streams: Rngs) -> Spread:
    n = len(a[0])
    if n < LEAST_INTERVAL:
        return math.nan, 1.0
    if measure.rdms is not None:
        rdms, by = measure.rdms.stack(a), measure.rdms.by
        sampled = resampled(rdms, rdms, draw_counts(n, settings.draws, streams[0]), by)
        figure = np.array([_mean_pair(m) for m in sampled])
        alone = variances(np.stack([figure] * 3, axis=1))
        stimuli = (combined(alone, subjects=1, stimuli=n), n - 1)
    else:
        stimuli = stimulus_jackknife(
            lambda kept: _mean_pair(_pairwise([x[kept] for x in a], measure)), n, rng=streams[2]
        )
    return pooled([stimuli, *network_variances(matrix, within=True)])


def _matrix(a: list[Floats], b: list[Floats], measure: Measure) -> Floats:
    """(Sa, Sb) similarities; each RDM is made once."""
    if measure.rdms is None:
        return np.array([[measure.of(x, y) for y in b] for x in a])
    u, v = measure.rdms.stack(a), measure.rdms.stack(b)
    return np.array([[compare(p, q, measure.rdms.by) for q in v] for p in u])


def _pairwise(a: list[Floats], measure: Measure) -> Floats:
    """(S, S) similarities of different networks, 0 on the diagonal; of both directions their mean."""
    if measure.rdms is not None:
        matrix = _matrix(a, a, measure)
        np.fill_diagonal(matrix, 0)
        return matrix
    matrix = np.zeros((len(a), len(a)))
    for i, j in combinations(range(len(a)), 2):
        forth = measure.of(a[i], a[j])
        matrix[i, j] = matrix[j, i] = forth if measure.symmetric else (forth + measure.of(a[j], a[i])) / 2
    return matrix


def _mean_pair(matrix: Floats) -> float:
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def _tables(
    xs: Sequence[Activations], ys: Sequence[Activations], measure: Measure, settings: Settings
) -> tuple[list[Floats], list[Floats]]:
    """All tables as float64, each checked with one of the other side."""
    if not xs or not ys:
        raise StatisticsError("each side needs the activations of one network or more; one side is empty")
    first = [checked(x, ys[0], measure, repeated=settings.repeated)[0] for x in xs]
    return first, [checked(xs[0], y, measure, repeated=settings.repeated)[1] for y in ys]


def _result(
    measure: Measure, value: float, spread: Spread, null: Floats, xs: list[Floats], ys: list[Floats], settings: Settings
) -> Similarity:
    from scipy.special import stdtrit

    variance, df = spread
    half = float(stdtrit(df, 0.5 + settings.level / 2)) * math.sqrt(variance)
    ceiling = None
    if measure.rdms is not None and len(ys) > 1:
        ceiling = noise_ceiling(measure.rdms.stack(ys), measure.rdms.by)
    return Similarity(
        measure=measure.name,
        value=value,
        low=value - half,
        high=value + half if math.isnan(half) else min(value + half, 1.0),  # no measure exceeds 1
        se=math.sqrt(variance),
        null=float(null.mean()),
        null_high=float(np.quantile(null, 0.95)),
        p=null_p(value, null),
        n=len(xs[0]),
        networks=(len(xs), len(ys)),
        ceiling=ceiling,
        cautions=cautions(xs, ys, measure, float(null.mean())),
    )
