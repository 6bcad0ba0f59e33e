"""A helix in a table of embeddings: which number of turns fits best, how round it is, and what it adds to a parabola.

The first K principal components of the table are regressed on 1, t, t^2, cos 2 pi F t and sin 2 pi F t, where t runs from
0 at the first token to 1 at the last and F counts turns. For each F of a fine grid:

- `gain`: R^2 over the K components together, minus that of 1, t, t^2 alone, between 0 and 1;
- `aspect`: the second over the first singular value of the (2, K) block of cosine and sine coefficients: 1 is a circle
  seen square on, 0 a wave in a plane;
- `statistic` T = the largest aspect x gain.

A high R^2 shows nothing: the principal components of a plain random walk in many dimensions are cosines of rising frequency
(Antognini and Sohl-Dickstein 2018) and fit with R^2 near .98. They are flat waves, though, below 1.75 turns, which is why T
multiplies by the aspect and starts there. Nor does T show anything by itself: `heldout.analyses.geometry.helix_test` sets it
beside its nulls. Nor does a helix that beats them show what it is for: networks trained on a smooth formula have one too.
R^2 is of the first K components: where these hold a quarter of the variance, so does all that is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import ConfigError, NonFiniteError, StatisticsError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COMPONENTS = 3
LOW = 1.75  # turns: below it, a quadratic and a wave cannot be told apart
PER_TURN = 6  # tokens a turn at the least
STEP = 0.05  # turns
FEWEST = 12  # tokens: two turns of six
FEWEST_ROUND = 7  # tokens on a circle: fewer have too few orders to be tested against


class Waves:
    """Regressions on a cosine and a sine at each frequency of a grid, beyond a nuisance basis; made once for many tables.

    `nuisance` (n, q) and `phases` (n,) in turns per unit of frequency; `grid` (G,) frequencies.
    """

    def __init__(self, phases: Floats, nuisance: Floats, grid: Floats) -> None:
        self.phases, self.grid = phases, grid
        self.nuisance = np.linalg.qr(nuisance)[0]  # (n, q) orthonormal
        angles = 2 * np.pi * grid[:, None] * phases  # (G, n)
        raw = np.stack([np.cos(angles), np.sin(angles)], axis=2)  # (G, n, 2)
        beyond = raw - self.nuisance @ (self.nuisance.T @ raw)
        self._q, r = np.linalg.qr(beyond)
        size = np.abs(np.diagonal(r, axis1=1, axis2=2))
        if (size < 1e-8 * np.sqrt(len(phases))).any():
            bad = grid[(size < 1e-8 * np.sqrt(len(phases))).any(axis=1)]
            raise StatisticsError(f"at {bad[0]:g} turns a cosine and a sine cannot be told apart at these tokens")
        self._inverse = np.linalg.inv(r)  # (G, 2, 2)

    def baseline(self, scores: Floats) -> Floats:
        """(...,) R^2 of the nuisance basis for centred scores (..., n, K), over all components together."""
        explained = ((self.nuisance.T @ scores) ** 2).sum(axis=(-2, -1))
        r2: Floats = explained / (scores**2).sum(axis=(-2, -1))
        return r2

    def profile(self, scores: Floats) -> tuple[Floats, Floats]:
        """Gain and aspect, each (..., G), of centred scores (..., n, K)."""
        flat = self._q.transpose(0, 2, 1).reshape(-1, len(self.phases)) @ scores  # (..., 2G, K)
        projected = flat.reshape(*scores.shape[:-2], len(self.grid), 2, scores.shape[-1])
        gain = (projected**2).sum(axis=(-2, -1)) / (scores**2).sum(axis=(-2, -1))[..., None]
        return gain, _aspect(self._inverse @ projected)

    def statistic(self, scores: Floats) -> Floats:
        """(...,) the largest aspect x gain over the grid."""
        gain, aspect = self.profile(scores)
        largest: Floats = (gain * aspect).max(axis=-1)
        return largest

    def coefficients(self, scores: Floats, at: int) -> Floats:
        """(2, K) coefficients of the cosine and the sine at one frequency of the grid."""
        block: Floats = self._inverse[at] @ (self._q[at].T @ scores)
        return block

    def fitted(self, scores: Floats, at: int) -> Floats:
        """(n, K) what nuisance, cosine and sine explain of scores (n, K)."""
        curve: Floats = self.nuisance @ (self.nuisance.T @ scores) + self._q[at] @ (self._q[at].T @ scores)
        return curve


def position(tokens: ArrayLike) -> Floats:
    """(n,) where each token stands between the first, 0, and the last, 1."""
    t = np.asarray(tokens, dtype=np.float64)
    place: Floats = (t - t[0]) / (t[-1] - t[0])
    return place


def helix_waves(tokens: Ints, *, low: float = LOW, high: float | None = None, step: float = STEP) -> Waves:
    """Waves beyond a quadratic, from `low` to `high` turns over the window; n / 6 where `high` is None."""
    top = len(tokens) / PER_TURN if high is None else high
    if not 0 < low <= top or step <= 0:
        raise ConfigError(f"turns from {low:g} to {top:g} by {step:g}; give 0 < low <= high and a step above 0")
    t = position(tokens)
    grid: Floats = low + step * np.arange(int((top - low) / step + 1e-9) + 1, dtype=np.float64)
    return Waves(t, np.stack([np.ones_like(t), t, t**2], axis=1), grid)


def circle_waves(tokens: Ints, period: int) -> Waves:
    """Waves beyond a constant for tokens that close after `period`: 1, 2, ... whole turns a period, below one half of it."""
    if period < 3 or tokens[0] < 0 or tokens[-1] >= period:
        raise ConfigError(
            f"tokens {tokens[0]} to {tokens[-1]} of a cycle of {period}; give tokens from 0 to period - 1"
        )
    return Waves(tokens / period, np.ones((len(tokens), 1)), np.arange(1.0, (period + 1) // 2))


@dataclass(frozen=True, eq=False)
class HelixFit:
    """The best helix in a table's first K components, and the profile over turns it was chosen from.

    `turns` F, `aspect`, `gain`, `r2` and `statistic` at the best F; `grid`, `gains`, `aspects` (G,); `baseline` the R^2 of
    1, t, t^2; `scores` and `fitted` (n, K) in component space; `components` (K, D) orthonormal rows and `mean` (D,) bring
    them back to the table; `share` (K,) of the table's variance that each component holds; `block` (2, K) the cosine's and
    the sine's coefficients.
    """

    tokens: Ints
    turns: float
    aspect: float
    gain: float
    baseline: float
    statistic: float
    grid: Floats
    gains: Floats
    aspects: Floats
    scores: Floats
    fitted: Floats
    block: Floats
    components: Floats
    mean: Floats
    share: Floats

    @property
    def r2(self) -> float:
        return self.baseline + self.gain

    @cached_property
    def profile(self) -> Floats:
        """(G,) aspect x gain."""
        return self.gains * self.aspects

    @cached_property
    def r2s(self) -> Floats:
        """(G,) R^2 at each number of turns."""
        return self.baseline + self.gains

    @property
    def residual(self) -> Floats:
        """(n, K) scores minus the fitted curve."""
        return self.scores - self.fitted


def helix_fit(
    table: ArrayLike,
    tokens: ArrayLike,
    *,
    components: int = COMPONENTS,
    low: float = LOW,
    high: float | None = None,
    step: float = STEP,
) -> HelixFit:
    """The helix of largest aspect x gain in the first `components` principal components of `table` (n, D).

    `tokens` (n,) are different whole numbers in any order, with gaps where they have them; rows are sorted by them. Turns
    run from `low` to `high` (n / 6 where None) over the whole window.

    Raises `StatisticsError` for fewer than 12 tokens, tokens that repeat, a table that is constant or of lower rank than
    `components`; `NonFiniteError` where a row is not finite.
    """
    ordered, rows = checked(table, tokens, components)
    return fit_waves(rows, ordered, helix_waves(ordered, low=low, high=high, step=step), components)


def circle_fit(table: ArrayLike, tokens: ArrayLike, *, period: int, components: int = 2) -> HelixFit:
    """The circle of largest aspect x gain for cyclic tokens 0 to `period` - 1: no drift, whole turns, one among them.

    `turns` is the circle's frequency f: token and token + 1 stand f / `period` of a turn apart. Errors as of `helix_fit`,
    with at least 7 tokens.
    """
    ordered, rows = checked(table, tokens, components, fewest=FEWEST_ROUND)
    return fit_waves(rows, ordered, circle_waves(ordered, period), components)


def fit_waves(rows: Floats, tokens: Ints, waves: Waves, components: int) -> HelixFit:
    """As `helix_fit`, for checked rows and given waves."""
    mean = rows.mean(axis=0)
    left, sizes, right = np.linalg.svd(rows - mean, full_matrices=False)
    signs = np.sign(right[np.arange(components), np.abs(right[:components]).argmax(axis=1)])
    directions = right[:components] * signs[:, None]
    scores = left[:, :components] * sizes[:components] * signs
    gain, aspect = waves.profile(scores)
    best = int((gain * aspect).argmax())
    return HelixFit(
        tokens,
        float(waves.grid[best]),
        float(aspect[best]),
        float(gain[best]),
        float(waves.baseline(scores)),
        float((gain * aspect)[best]),
        waves.grid,
        gain,
        aspect,
        scores,
        waves.fitted(scores, best),
        waves.coefficients(scores, best),
        directions,
        mean,
        sizes[:components] ** 2 / (sizes**2).sum(),
    )


def checked(table: ArrayLike, tokens: ArrayLike, components: int, *, fewest: int = FEWEST) -> tuple[Ints, Floats]:
    """Tokens in rising order and the table's rows in that order, in float64; the errors of `helix_fit`."""
    rows, given = np.asarray(table, dtype=np.float64), np.asarray(tokens)
    if rows.ndim != 2 or given.shape != (len(rows),):
        raise ConfigError(f"a table (n, D) and tokens (n,) are needed; got {rows.shape} and {given.shape}")
    if not np.issubdtype(given.dtype, np.integer):
        raise ConfigError(f"tokens are whole numbers; got {given.dtype}")
    if not np.isfinite(rows).all():
        bad = given[~np.isfinite(rows).all(axis=1)]
        raise NonFiniteError(f"the rows of {len(bad)} tokens hold NaN or infinite values, first that of token {bad[0]}")
    if len(rows) < fewest:
        raise StatisticsError(
            f"{len(rows)} tokens are too few to tell a curve from chance; at least {fewest} are needed"
        )
    order = np.argsort(given, kind="stable")
    ordered = given[order].astype(np.int64)
    if (np.diff(ordered) == 0).any():
        twice = ordered[1:][np.diff(ordered) == 0][0]
        raise StatisticsError(f"token {twice} has more than one row; each token has one")
    sizes = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    if not 1 <= components <= len(sizes) or sizes[components - 1] <= 1e-10 * max(np.abs(rows).max(), sizes[0]):
        rank = int((sizes > 1e-10 * max(np.abs(rows).max(), 1e-300)).sum())
        raise StatisticsError(
            f"the table has rank {rank} about its mean; {components} components cannot be taken of it"
        )
    return ordered, rows[order]


def _aspect(block: Floats) -> Floats:
    """(...,) second over first singular value of (..., 2, K), from the closed form for a symmetric 2 x 2 matrix."""
    c, s = block[..., 0, :], block[..., 1, :]
    a, b, d = (c * c).sum(axis=-1), (c * s).sum(axis=-1), (s * s).sum(axis=-1)
    half, spread = (a + d) / 2, np.hypot((a - d) / 2, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        # lambda_- = det / lambda_+ keeps its digits where the wave is flat
        ratio = np.clip(a * d - b * b, 0, None) / (half + spread) ** 2
    aspect: Floats = np.sqrt(np.nan_to_num(ratio))
    return aspect
