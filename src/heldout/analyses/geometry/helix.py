"""What does a network use its helix for? Change the helix's radius, turns or pitch and keep all else as it was, or take as
much of the same components away, of no shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from heldout.errors import ConfigError, ProxyError
from heldout.proxies.helix_fit import Floats, HelixFit, position

SAME = 1e-6  # relative to the largest score
ROUNDING = 1e-9


def with_helix(
    fit: HelixFit, table: ArrayLike, *, radius: float = 1.0, turns: float = 1.0, pitch: float = 1.0
) -> Floats:
    """(n, D) float64: `table` with its helix changed; the residual and all other components are added back.

    - `table`: the rows `fit` was made of, in the order of `fit.tokens`.
    - `radius` multiplies the coefficients of cosine and sine, `turns` the number of turns (the phase at the first token
      stays), `pitch` the drift c1 t + c2 t^2 away from the first token.

    All factors 1 give the table back. Rows leave the places the network was trained on, so what it does there need not be
    what it does with its own helix.

    Raises `ConfigError` where the table is not the fit's, or a factor is not finite.
    """
    rows = np.asarray(table, dtype=np.float64)
    factors = np.array([radius, turns, pitch])
    if not np.isfinite(factors).all():
        raise ConfigError(f"radius, turns and pitch are finite factors; got {radius}, {turns}, {pitch}")
    if rows.shape != (len(fit.tokens), len(fit.mean)):
        raise ConfigError(f"the helix was fitted to a table {(len(fit.tokens), len(fit.mean))}; got {rows.shape}")
    scores = (rows - fit.mean) @ fit.components.T
    if not np.allclose(scores, fit.scores, rtol=0, atol=SAME * float(np.abs(fit.scores).max())):
        raise ConfigError(
            "this is not the table the helix was fitted to, or its rows are not in the order of fit.tokens"
        )
    t = position(fit.tokens)
    basis = _basis(t, fit.turns)
    coefficients = np.linalg.lstsq(basis, fit.fitted, rcond=None)[0]  # exact: the curve lies in the span
    scales = np.array([1, pitch, pitch, radius, radius])
    changed = _basis(t, fit.turns * turns) @ (scales[:, None] * coefficients)
    new: Floats = rows + (changed - basis @ coefficients) @ fit.components
    return new


def at_random(fit: HelixFit, size: float, *, seed: int, beyond: int = 0) -> Floats:
    """(n, K) a part of the fit's scores whose sum of squares is `size`, by random functions of the token.

    What a curve costs a network that is removed from its leading components may be what any loss there costs. So this takes
    as much of the same components: orthonormal functions of the token, drawn uniformly among those orthogonal to
    polynomials of degree `beyond` (which stay), one after another, what the scores hold of each, the last in part.

    Raises `ProxyError` where the scores hold less than `size` beyond the polynomials.
    """
    t = position(fit.tokens)
    stay = np.stack([t**k for k in range(beyond + 1)], axis=1)
    drawn = np.random.default_rng(seed).normal(size=(len(t), len(t) - stay.shape[1]))
    functions = np.linalg.qr(np.concatenate([stay, drawn], axis=1))[0][:, stay.shape[1] :]
    held = functions.T @ fit.scores  # (n - beyond - 1, K)
    sizes = (held**2).sum(axis=1)
    total = np.cumsum(sizes)
    if not 0 < size <= total[-1] * (1 + ROUNDING):
        raise ProxyError(f"a part of size {size:.6g} cannot be taken of scores that hold {total[-1]:.6g}")
    last = min(int((total < size).sum()), len(total) - 1)
    weights = np.ones(last + 1)
    weights[-1] = np.sqrt(min(1.0, max(0.0, size - (total[last] - sizes[last])) / sizes[last]))
    part: Floats = functions[:, : last + 1] @ (weights[:, None] * held[: last + 1])
    return part


def _basis(t: Floats, turns: float) -> Floats:
    angle = 2 * np.pi * turns * t
    return np.stack([np.ones_like(t), t, t**2, np.cos(angle), np.sin(angle)], axis=1)
