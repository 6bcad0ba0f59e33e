"""Tables that hold no helix but look like a given one: what chance alone draws, of the table's full width.

- `permuted`: the same rows in another order. Exact where rows are exchangeable.
- `Process`: a smooth random curve and white noise about a quadratic drift, matched to the table: a random walk
  (`walk_kernels`) or a stationary Gaussian process (`stationary_kernels`) whose smoothness and length are estimated.

A process is fitted by maximum likelihood: the table beyond a quadratic in the token is diagonalised under each kernel,
every channel a replicate. Parametric kernels that do not oscillate, on purpose: a kernel estimated freely from a helix has
its period, draws helices, and no helix could ever beat it. Matching lag-1 autocorrelation and spectrum alone is not
enough; without each of the following the test rejects too often where there is nothing to find:

- what a straight line and a parabola explain is *held*: surrogates have the table's own, and the rest is drawn given it;
- line and parabola count in the likelihood, and are a drift of their own only where a curve would have so much of them
  once in a thousand tables (`CHANCE`). A drift seen where there is none makes the surrogates' waves too flat;
- length and noise are searched, not read off a grid: rounded, a smooth curve's variance is off by a tenth, what line and
  parabola exceed it by looks like a drift, and 10% of smooth curves are rejected at .05;
- the number of dimensions in which the curve runs is matched, from the angles between its leading modes: in few it
  wanders, in many its components are cosines;
- variance far below the noise of any table (`FLOOR`) counts as noise: likelihood would else be decided by modes that
  no component shows.

What this does not cover: curves whose channels differ in smoothness, noise that is confined to few channels, oscillating
noise such as an alternation of even and odd tokens. n tokens, D width, m = n - 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KERNELS: dict[str, Callable[[Floats], Floats]] = {  # of distance in length scales; Rasmussen and Williams (2006), 4.2
    "matern 1/2": lambda d: np.exp(-d),
    "matern 3/2": lambda d: (1 + np.sqrt(3) * d) * np.exp(-np.sqrt(3) * d),
    "matern 5/2": lambda d: (1 + np.sqrt(5) * d + 5 * d**2 / 3) * np.exp(-np.sqrt(5) * d),
    "gaussian": lambda d: np.exp(-(d**2) / 2),
}
LENGTH_RATIO = 1.15  # between neighbouring lengths of the grid, which runs from the window down to one token
LENGTH_STEP = 3e-3  # relative, to which a length is searched between its neighbours on the grid
NOISE = np.geomspace(5e-4, 1e4, 30)  # the noise's variance over the curve's mean one beyond the quadratic
ZOOMS, ZOOM = 3, 11  # finer grids about the best of these, and the ratios in each
FLOOR = 1e-3  # of the mean variance beyond the quadratic
LEADING = 1e-2  # modes of the curve that tell its number of dimensions: those above this share of the largest,
SIGNAL = 0.5  # and of which the curve is this share at least
CHANCE = 1e-3  # that a curve alone has as much of a line, or of a parabola, as is put down to a drift
FEWEST_DIMS = 3  # a curve in fewer could not be a helix, and would be no null for one


def permuted(table: Floats, rng: np.random.Generator) -> Floats:
    """(n, D) the rows in another order."""
    moved: Floats = table[rng.permutation(len(table))]
    return moved


@dataclass(frozen=True, eq=False)
class Kernels:
    """Kernels over the same tokens, diagonalised beyond a quadratic; made once for many tables.

    `names` and `lengths` (in tokens); `distance` (n, n) between tokens; `matrices` (k, n, n); `drift` (n, 2) and `beyond`
    (n, m), orthonormal, a line and a parabola and all that is orthogonal to both and to a constant; `values` (k, m) and
    `modes` (k, m, m), in `beyond`.
    """

    names: tuple[str, ...]
    lengths: tuple[float, ...]
    distance: Floats
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
    moments = _Moments(rest @ rest.T / table.shape[1], power, _sure(table.shape[1]))
    kernel, curve, noise = _likeliest(moments, kernels)
    dims, channels = _dimensions(kernel.modes[0].T @ rest, curve * kernel.values[0], noise)
    matrix = curve * kernel.matrices[0]
    expected = kernels.drift.T @ matrix @ kernels.drift + noise * np.eye(2)
    brought = np.diag(expected)
    drift = np.where(power > brought * _sure(dims), power - brought, 0)
    # Given some of its coordinates, a Gaussian's others have this mean and this covariance.
    cross = kernels.drift.T @ matrix @ kernels.beyond
    weights = np.linalg.solve(expected + np.diag(drift), cross)
    values, vectors = np.linalg.eigh(kernels.beyond.T @ matrix @ kernels.beyond - cross.T @ weights)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    return Process(
        kernel.names[0],
        kernel.lengths[0],
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
    distance = np.abs(tokens[:, None] - tokens).astype(np.float64)
    return Kernels(tuple(names), tuple(lengths), distance, matrices, drift, beyond, *_eigen(matrices, beyond))


def _eigen(matrices: Floats, beyond: Floats) -> tuple[Floats, Floats]:
    values, modes = np.linalg.eigh(beyond.T @ matrices @ beyond)
    return np.clip(values, 0, None), modes


def _only(kernels: Kernels, name: str, length: float) -> Kernels:
    """The kernel of this name at any length, over the same tokens."""
    matrices = KERNELS[name](kernels.distance / length)[None]
    values, modes = _eigen(matrices, kernels.beyond)
    return replace(kernels, names=(name,), lengths=(length,), matrices=matrices, values=values, modes=modes)


@dataclass(frozen=True, eq=False)
class _Moments:
    """What the likelihood sees of a table: second moments of a channel, `gram` (m, m) beyond line and parabola and `power`
    (2,) of these two, and `sure`, how many times what the curve brings is put down to a drift."""

    gram: Floats
    power: Floats
    sure: float


def _sure(channels: int) -> float:
    """The mean square over so many channels of variance 1 that chance exceeds with probability `CHANCE`."""
    return float(chi2.isf(CHANCE, channels) / channels)


def _likeliest(moments: _Moments, kernels: Kernels) -> tuple[Kernels, float, float]:
    """The likeliest kernel, alone, and the variances of curve and noise.

    The grid brackets each kernel's length, which is then searched: of a smooth curve without noise, a length rounded by a
    few per cent puts the variance off by a tenth, and with it what of line and parabola the curve brings.
    """
    losses = _losses(moments, kernels)[0]
    if not set(kernels.names) <= set(KERNELS):  # a walk has no length
        found = [kernels]
    else:
        found = [_searched(moments, kernels, name, losses) for name in dict.fromkeys(kernels.names)]
    fits = [(kernel, *_losses(moments, kernel)) for kernel in found]
    kernel, _, curve, noise = min(fits, key=lambda fit: float(fit[1][0]))
    return kernel, float(curve[0]), float(noise[0])


def _searched(moments: _Moments, kernels: Kernels, name: str, losses: Floats) -> Kernels:
    """The kernel `name` at its likeliest length, between the neighbours of the best on the grid."""
    lengths = {kernels.lengths[k]: float(losses[k]) for k, other in enumerate(kernels.names) if other == name}
    best = min(lengths, key=lambda length: lengths[length])
    low, high = max(best / LENGTH_RATIO, min(lengths)), min(best * LENGTH_RATIO, max(lengths))
    search = minimize_scalar(
        lambda log: _losses(moments, _only(kernels, name, float(np.exp(log))))[0][0],
        bounds=(np.log(low), np.log(high)),
        method="bounded",
        options={"xatol": LENGTH_STEP},
    )
    return _only(kernels, name, float(np.exp(search.x)))


def _losses(moments: _Moments, kernels: Kernels) -> tuple[Floats, Floats, Floats]:
    """(k,) each kernel's -2 log likelihood a channel, up to a constant, and its variances of curve and noise.

    Line and parabola count in full, for without them a long curve is taken for a shorter one; but where there is so much
    of them that a drift is at work, more would count no further.
    """
    gram, power = moments.gram, moments.power
    floor = FLOOR * float(np.trace(gram)) / len(gram)
    observed = ((gram @ kernels.modes) * kernels.modes).sum(axis=1)[:, None] + floor  # (k, 1, m)
    mean = kernels.values.mean(axis=1)[:, None]  # (k, 1)
    curve = (kernels.values / mean)[:, None]  # (k, 1, m), of mean variance 1
    line = np.diagonal(kernels.drift.T @ kernels.matrices @ kernels.drift, axis1=1, axis2=2) / mean  # (k, 2)
    ratios, step = np.tile(NOISE, (len(mean), 1)), np.log(NOISE[1] / NOISE[0])
    for _ in range(ZOOMS + 1):
        shape = curve + ratios[:, :, None]  # (k, ratios, m)
        scale = (observed / shape).mean(axis=2)  # the maximum over the curve's variance, in closed form
        total = np.maximum(scale[:, :, None] * (line[:, None] + ratios[:, :, None]), power / moments.sure)
        loss = np.log(shape).sum(axis=2) + len(gram) * np.log(scale) + (np.log(total) + power / total).sum(axis=2)
        best = loss.argmin(axis=1)[:, None]
        ratio, scales, least = (np.take_along_axis(x, best, axis=1) for x in (ratios, scale, loss))  # (k, 1)
        ratios, step = ratio * np.exp(step * np.linspace(-1, 1, ZOOM)), 2 * step / (ZOOM - 1)
    return least[:, 0], (scales / mean)[:, 0], np.clip(scales * ratio - floor, 0, None)[:, 0]


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
