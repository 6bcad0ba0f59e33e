"""Tables that hold no helix but look like a given one: what chance alone draws, of the table's full width.

- `permuted`: the same rows in another order. Exact where rows are exchangeable.
- `Process`: a smooth random curve and white noise about a quadratic drift, matched to the table: a random walk
  (`walk_kernels`) or a stationary Gaussian process (`stationary_kernels`) whose smoothness and length are estimated.

A process is fitted by maximum likelihood over a grid: the table beyond a quadratic in the token is diagonalised under each
kernel, every channel a replicate. Parametric kernels that do not oscillate, on purpose: a kernel estimated freely from a
helix has its period, draws helices, and no helix could ever beat it. Matching lag-1 autocorrelation and spectrum alone is
not enough; without each of the following the test rejects too often where there is nothing to find:

- what a straight line and a parabola explain is *held*: surrogates have the table's own, and the rest is drawn given it;
  it is put down to a drift only where it surely exceeds what the curve brings, and speaks against lengths that would
  bring more of it;
- the number of dimensions in which the curve runs is matched, from the angles between its leading modes: in few it
  wanders, in many its components are cosines;
- variance far below the noise of any table (`FLOOR`) counts as noise: likelihood would else be decided by modes that
  no component shows.

What this does not cover: curves whose channels differ in smoothness, noise that is confined to few channels, oscillating
noise such as an alternation of even and odd tokens. n tokens, D width, m = n - 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KERNELS: dict[str, Callable[[Floats], Floats]] = {  # of distance in length scales; Rasmussen and Williams (2006), 4.2
    "matern 1/2": lambda d: np.exp(-d),
    "matern 3/2": lambda d: (1 + np.sqrt(3) * d) * np.exp(-np.sqrt(3) * d),
    "matern 5/2": lambda d: (1 + np.sqrt(5) * d + 5 * d**2 / 3) * np.exp(-np.sqrt(5) * d),
    "gaussian": lambda d: np.exp(-(d**2) / 2),
}
LENGTH_RATIO = 1.15  # between neighbouring lengths of the grid, which runs from the window down to one token
NOISE = np.geomspace(1e-6, 1e4, 81)  # the noise's variance over the curve's
FLOOR = 1e-3  # of the mean variance beyond the quadratic
LEADING = 1e-2  # modes of the curve that tell its number of dimensions: those above this share of the largest,
SIGNAL = 0.5  # and of which the curve is this share at least
SURE = 2.0  # standard deviations above what the curve brings, from which on line and parabola are a drift of their own
FEWEST_DIMS = 3  # a curve in fewer could not be a helix, and would be no null for one


def permuted(table: Floats, rng: np.random.Generator) -> Floats:
    """(n, D) the rows in another order."""
    moved: Floats = table[rng.permutation(len(table))]
    return moved


@dataclass(frozen=True, eq=False)
class Kernels:
    """Kernels over the same tokens, diagonalised beyond a quadratic; made once for many tables.

    `names` and `lengths` (in tokens); `matrices` (k, n, n); `drift` (n, 2) and `beyond` (n, m), orthonormal, a line and a
    parabola and all that is orthogonal to both and to a constant; `values` (k, m) and `modes` (k, m, m), in `beyond`.
    """

    names: tuple[str, ...]
    lengths: tuple[float, ...]
    matrices: Floats
    drift: Floats
    beyond: Floats
    values: Floats
    modes: Floats


def walk_kernels(tokens: Ints) -> Kernels:
    """A random walk: covariance min(i, j), steps over a gap of g tokens with g times the variance."""
    t = (tokens - tokens[0]).astype(np.float64)
    return _diagonalised(tokens, ["random walk"], [float(t[-1])], np.minimum(t[:, None], t)[None] / t[-1])


def stationary_kernels(tokens: Ints) -> Kernels:
    """Matern 1/2, 3/2, 5/2 and Gaussian kernels of lengths from one token to the whole window."""
    span = float(tokens[-1] - tokens[0])
    lengths = span / LENGTH_RATIO ** np.arange(int(np.log(span) / np.log(LENGTH_RATIO)) + 1)
    distance = np.abs(tokens[:, None] - tokens).astype(np.float64)
    grid = [(name, float(length)) for name in KERNELS for length in lengths]
    matrices = np.stack([KERNELS[name](distance / length) for name, length in grid])
    return _diagonalised(tokens, [name for name, _ in grid], [length for _, length in grid], matrices)


@dataclass(frozen=True, eq=False)
class Process:
    """A matched process, from which `draw` takes tables.

    `kernel` and `length` in tokens; `curve` and `noise` variances a channel; `drift` (2,) the variance of line and
    parabola beyond what the curve brings; `dims` the dimensions in which the curve runs, 3 to D.
    """

    kernel: str
    length: float
    curve: float
    noise: float
    drift: Floats
    dims: int
    held: Floats  # (n, D) what is not drawn
    root: Floats  # (n, q) of the curve's covariance given what is held
    beyond: Floats  # (n, m)
    channels: Floats | None  # (dims, D) orthonormal; None where the curve runs in all of them

    def draw(self, rng: np.random.Generator) -> Floats:
        """(n, D) one table."""
        width = self.held.shape[1]
        curve = self.root @ rng.standard_normal((self.root.shape[1], self.dims)) * np.sqrt(width / self.dims)
        if self.channels is not None:
            curve = curve @ self.channels
        noise = self.beyond @ (np.sqrt(self.noise) * rng.standard_normal((self.beyond.shape[1], width)))
        table: Floats = self.held + noise + curve
        return table


def fit_process(table: Floats, kernels: Kernels) -> Process:
    """The likeliest process for `table` (n, D), rows in the order of the kernels' tokens."""
    rest = kernels.beyond.T @ table  # (m, D)
    line = kernels.drift.T @ table  # (2, D)
    power = (line**2).mean(axis=1)
    at, curve, noise = _likeliest(rest @ rest.T / table.shape[1], power, kernels)
    dims, channels = _dimensions(kernels.modes[at].T @ rest, curve * kernels.values[at], noise)
    matrix = curve * kernels.matrices[at]
    expected = kernels.drift.T @ matrix @ kernels.drift + noise * np.eye(2)
    excess = power - np.diag(expected)
    drift = np.where(excess > SURE * np.sqrt(2 / dims) * np.diag(expected), excess, 0)
    # Given some of its coordinates, a Gaussian's others have this mean and this covariance.
    cross = kernels.drift.T @ matrix @ kernels.beyond
    weights = np.linalg.solve(expected + np.diag(drift), cross)
    values, vectors = np.linalg.eigh(kernels.beyond.T @ matrix @ kernels.beyond - cross.T @ weights)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    return Process(
        kernels.names[at],
        kernels.lengths[at],
        curve,
        noise,
        drift,
        dims,
        kernels.drift @ line + kernels.beyond @ (weights.T @ line),
        kernels.beyond @ (vectors[:, kept] * np.sqrt(values[kept])),
        kernels.beyond,
        channels,
    )


def _diagonalised(tokens: Ints, names: Sequence[str], lengths: Sequence[float], matrices: Floats) -> Kernels:
    t = (tokens - tokens[0]) / (tokens[-1] - tokens[0])
    basis = np.linalg.qr(np.stack([np.ones_like(t), t, t**2], axis=1), mode="complete")[0]
    drift, beyond = basis[:, 1:3], basis[:, 3:]
    values, modes = np.linalg.eigh(beyond.T @ matrices @ beyond)
    return Kernels(tuple(names), tuple(lengths), matrices, drift, beyond, np.clip(values, 0, None), modes)


def _likeliest(gram: Floats, power: Floats, kernels: Kernels) -> tuple[int, float, float]:
    """Which kernel, and the variances of curve and noise.

    `gram` (m, m) second moments of a channel beyond line and parabola, `power` (2,) of these two. A drift may add to the
    latter at will, so they speak only against processes that would bring more of them than there is.
    """
    floor = FLOOR * float(np.trace(gram)) / len(gram)
    observed = ((gram @ kernels.modes) * kernels.modes).sum(axis=1) + floor  # (k, m)
    shape = kernels.values[:, None, :] + NOISE[:, None]  # (k, ratios, m), for a curve of variance 1
    scale = (observed[:, None, :] / shape).mean(axis=2)  # the maximum over the curve's variance, in closed form
    brought = np.diagonal(kernels.drift.T @ kernels.matrices @ kernels.drift, axis1=1, axis2=2)  # (k, 2)
    total = np.maximum(scale[:, :, None] * (brought[:, None, :] + NOISE[:, None]), power)
    loss = np.log(shape).sum(axis=2) + len(gram) * np.log(scale) + (np.log(total) + power / total).sum(axis=2)
    at, ratio = np.unravel_index(int(loss.argmin()), loss.shape)
    curve = float(scale[at, ratio])
    return int(at), curve, max(0.0, curve * float(NOISE[ratio]) - floor)


def _dimensions(modes: Floats, curve: Floats, noise: float) -> tuple[int, Floats | None]:
    """In how many dimensions the curve runs, and which, from its modes (m, D) and their variances (m,).

    Two modes of a curve in r dimensions have a squared cosine of 1 / r on average, noise one of 1 / D; where the curve is a
    share f of each mode it is 1 / D + f f' (1 / r - 1 / D), from which r is had by least squares.
    """
    width = modes.shape[1]
    share = curve / (curve + noise + 1e-300)
    leading = (curve > LEADING * curve.max()) & (share > SIGNAL)
    if leading.sum() < 2:
        return width, None
    unit = modes[leading] / np.linalg.norm(modes[leading], axis=1, keepdims=True)
    pairs = np.triu_indices(len(unit), 1)
    cosines, shares = (unit @ unit.T)[pairs] ** 2, np.outer(share[leading], share[leading])[pairs]
    inverse = 1 / width + (shares * (cosines - 1 / width)).sum() / (shares**2).sum()
    dims = width if inverse * width <= 1 else max(min(FEWEST_DIMS, width), round(1 / inverse))
    if dims >= width:
        return width, None
    return dims, np.linalg.svd(unit, full_matrices=True)[2][:dims]
