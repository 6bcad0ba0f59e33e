"""Does a table of embeddings hold a helix that chance would not draw?

    test = helix_test(table, tokens, seed=0)
    test.p, test.worst, test.fit.turns, test.excess

T (see `heldout.proxies.helix_fit`) is compared with T of surrogates of the full width, components and turns chosen anew in
each: random walks, smooth Gaussian processes and permuted tokens (`surrogates`). p is the largest of the three, so the helix
has to beat them all. `excess` is T minus the 95th percentile of the worst family, the form a structure is judged in.

What a small p does not show. That the helix means something: a network trained on a smooth formula has one too, so it is
no evidence of shells or magic numbers. That the network uses it: replace it (`heldout.proxies.helix`) or change it
(`with_helix`). That training made it: put untrained networks, networks trained on noise, and networks without weight decay
beside it. That other training seeds would have it: one table is one draw.

Its errors, at .05, simulated: the family that a table is drawn from rejects it in 5.0% of 5 800 tables, 3.7 to 6.0% of each
of 14 kinds; all families together in 3.7%, and where a smooth process is the hardest family in that one's 5%, no less.
Tables that are none of the three are another matter (`surrogates`). Nor does a large p show that there is no helix: one
near the noise's edge is missed, and one whose straight line holds nearly all of it, since gain is a share of the components'
variance: such a one is found in white noise, and missed among smooth curves as loud as its waves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from heldout.analyses.geometry.surrogates import (
    Kernels,
    Process,
    fit_process,
    permuted,
    stationary_kernels,
    walk_kernels,
)
from heldout.errors import ConfigError
from heldout.proxies.helix_fit import (
    COMPONENTS,
    FEWEST_ROUND,
    STEP,
    Floats,
    HelixFit,
    Ints,
    Waves,
    checked,
    circle_waves,
    fit_waves,
    helix_waves,
)
from heldout.statistics.permutation import null_p

DRAWS = 999
FEWEST_DRAWS = 19  # fewer cannot reach .05
QUANTILE = 0.95
BLOCK = 64  # surrogates whose profiles are computed together


@dataclass(frozen=True, eq=False)
class Family:
    """One null: T of its surrogates `draws` (R,), the table's `p` among them, and for a figure the turns (R,) each
    surrogate was best at and the pointwise 95th percentile `band` (G,) of aspect x gain over the grid.

    `process`: what was matched, where the surrogates come from a process.
    """

    draws: Floats
    turns: Floats
    band: Floats
    p: float
    process: Process | None = None

    @property
    def threshold(self) -> float:
        """The 95th percentile of the draws."""
        return float(np.quantile(self.draws, QUANTILE))


@dataclass(frozen=True, eq=False)
class HelixTest:
    """The table's own `fit`, and the nulls by family."""

    fit: HelixFit
    families: Mapping[str, Family]

    @property
    def statistic(self) -> float:
        return self.fit.statistic

    @property
    def p(self) -> float:
        """The largest over families."""
        return max(family.p for family in self.families.values())

    @property
    def worst(self) -> str:
        """The family with the largest 95th percentile."""
        return max(self.families, key=lambda name: self.families[name].threshold)

    @property
    def excess(self) -> float:
        """T minus the 95th percentile of the worst family."""
        return self.statistic - self.families[self.worst].threshold


class HelixNull:
    """What the tests of many tables over the same tokens share: waves and diagonalised kernels, made once."""

    def __init__(self, tokens: ArrayLike, *, step: float = STEP) -> None:
        self.tokens: Ints = np.sort(np.asarray(tokens)).astype(np.int64)
        self.waves = helix_waves(self.tokens, step=step)
        self.kernels: dict[str, Kernels] = {
            "random walk": walk_kernels(self.tokens),
            "gaussian process": stationary_kernels(self.tokens),
        }


def helix_test(
    table: ArrayLike,
    tokens: ArrayLike,
    *,
    seed: int,
    draws: int = DRAWS,
    components: int = COMPONENTS,
    null: HelixNull | None = None,
) -> HelixTest:
    """Test `table` (n, D), one row for each of `tokens` (n,), against `draws` surrogates of each family.

    `null`: made once for many tables with the same tokens. Errors as of `helix_fit`; `ConfigError` where `null` is of other
    tokens or `draws` is below 19, with which nothing reaches .05.
    """
    _check_draws(draws)
    ordered, rows = checked(table, tokens, components)
    null = HelixNull(ordered) if null is None else null
    if not np.array_equal(null.tokens, ordered):
        raise ConfigError(f"the null was made for {len(null.tokens)} other tokens; make one with HelixNull(tokens)")
    fit = fit_waves(rows, ordered, null.waves, components)
    *rngs, last = np.random.default_rng(seed).spawn(len(null.kernels) + 1)
    families = {}
    for (name, kernels), rng in zip(null.kernels.items(), rngs, strict=True):
        process = fit_process(rows, kernels)
        families[name] = _family(fit, null.waves, process.draw, rng, draws, process)
    families["permuted"] = _family(fit, null.waves, lambda rng: permuted(rows, rng), last, draws)
    return HelixTest(fit, families)


def circle_test(
    table: ArrayLike, tokens: ArrayLike, *, period: int, seed: int, draws: int = DRAWS, components: int = 2
) -> HelixTest:
    """Test a table of cyclic tokens, 0 to `period` - 1, for a circle against the same rows in other orders.

    No drift, whole turns, one among them (`circle_fit`). Permuted tokens are the only null: *any* smooth closed curve in
    many dimensions is a circle of one turn in its first two components, so one turn shows that neighbours are near and
    that the ends meet, and no more.
    """
    _check_draws(draws)
    ordered, rows = checked(table, tokens, components, fewest=FEWEST_ROUND)
    waves = circle_waves(ordered, period)
    fit = fit_waves(rows, ordered, waves, components)
    family = _family(fit, waves, lambda rng: permuted(rows, rng), np.random.default_rng(seed), draws)
    return HelixTest(fit, {"permuted": family})


def component_scores(table: Floats, components: int) -> Floats:
    """(n, K) scores of the first K principal components, up to order and sign, which change no R^2 and no aspect."""
    x = table - table.mean(axis=0)
    n, width = x.shape
    if width < n:
        directions = eigh(x.T @ x, subset_by_index=[width - components, width - 1], check_finite=False)[1]
        scores: Floats = x @ directions
    else:
        values, vectors = eigh(x @ x.T, subset_by_index=[n - components, n - 1], check_finite=False)
        scores = vectors * np.sqrt(np.clip(values, 0, None))
    return scores


def _family(
    fit: HelixFit,
    waves: Waves,
    draw: Callable[[np.random.Generator], Floats],
    rng: np.random.Generator,
    draws: int,
    process: Process | None = None,
) -> Family:
    components = len(fit.components)
    profiles = np.concatenate(
        [
            np.multiply(*waves.profile(np.stack([component_scores(draw(rng), components) for _ in range(size)])))
            for size in _blocks(draws)
        ]
    )
    largest = profiles.max(axis=1)
    band = np.quantile(profiles, QUANTILE, axis=0)
    return Family(largest, waves.grid[profiles.argmax(axis=1)], band, null_p(fit.statistic, largest), process)


def _blocks(draws: int) -> Iterator[int]:
    for start in range(0, draws, BLOCK):
        yield min(BLOCK, draws - start)


def _check_draws(draws: int) -> None:
    if draws < FEWEST_DRAWS:
        raise ConfigError(f"{draws} draws cannot reach p = .05; use at least {FEWEST_DRAWS}, and {DRAWS} to judge")
