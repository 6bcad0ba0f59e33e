"""Feature-matched rescaling: every feature made as loud as asked, then any measure of similarity as before.

Each feature's subspace is scaled by one number, the rest left alone: x -> m + (x - m) A, A = 1 + sum_f (s_f - 1) Q_f. Q_f
projects on the subspace of f *along* those of the other features and all that is orthogonal to them, so that scaling one
feature moves no other's class means. The s_f solve for the variance explained (R^2 of each label alone, as `variance`
has it) on the fit split, from second moments: no labels of the stimuli that are compared are used.

What else varies inside a subspace is scaled with the feature. A quiet feature in a noisy direction is therefore brought
up together with its noise, and a feature that is not there at all would be nothing but noise: those that the fit split
does not show (`Subspaces.presence`) are left as they are and listed. Equalised similarity says what would be seen if
features were equally loud; it does not say that they matter equally to the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.variance import fit_map
from heldout.analyses.similarity.checks import Floats, table
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, StatisticsError

LEVEL = 0.01  # presence: a feature whose p-value is larger is taken for absent
OVERLAP = 1e-6  # least singular value, of 1, of the subspaces' bases side by side
STEPS = 1000  # of the iteration at most
CLOSE, SOLVED = 1e-3, 1e-9  # largest errors of a logarithm of variance: for Newton to start from, and at the end


@dataclass(frozen=True, eq=False)
class Rescaling:
    """x -> mean + (x - mean) matrix. `gains`: feature -> s_f, the factor of its subspace; `reached`: feature -> R^2 on the
    fit split after it. `absent`: features that the fit split does not show, left as they are."""

    mean: Floats
    matrix: Floats
    gains: dict[str, float]
    reached: dict[str, float]
    absent: tuple[str, ...]

    def __call__(self, x: ArrayLike | Tensor) -> Floats:
        """Activations (N, D) of any split, rescaled."""
        rows = table(x, "the activations to rescale", least=1)
        if rows.shape[1] != len(self.mean):
            raise StatisticsError(
                f"rescaling was fitted to {len(self.mean)} units and cannot be applied to {rows.shape[1]}"
            )
        scaled: Floats = self.mean + (rows - self.mean) @ self.matrix
        return scaled


def equalise(fit: Subspaces, *names: str, level: float = LEVEL) -> Rescaling:
    """All features named (all there are, where none is) explain one and the same variance, the total variance unchanged.

    With fewer than two of them present nothing is rescaled.
    """
    chosen = names or fit.coding.names
    present, absent = _present(fit, chosen, level)
    forms = _Forms(fit, present)
    if len(present) < 2:
        return _rescaling(forms, np.ones(len(present)), absent)

    def errors(log_s: Floats) -> Floats:
        log_own = np.log(forms.own(np.exp(log_s)))
        # The first term sums to zero over features, so all vanish only where both do.
        return np.asarray(log_own - log_own.mean() + 0.5 * math.log(forms.total(np.exp(log_s)) / forms.whole))

    return _rescaling(forms, _solved(errors, len(present), "the features cannot be made equally loud"), absent)


def match(fit: Subspaces, targets: Mapping[str, float], *, level: float = LEVEL) -> Rescaling:
    """Each feature named explains its target on the fit split, a share of the total variance strictly between 0 and 1; for
    example what another network's features explain there (`Subspaces.variance_explained`).

    Raises `StatisticsError` for targets that no scaling reaches: however loud its subspace is made, a feature explains no
    more than its share of what varies inside.
    """
    if not targets:
        raise ConfigError("no targets were given; name one or more features with the variance each is to explain")
    for name, target in targets.items():
        if not 0 < target < 1:
            raise ConfigError(f"the target of {name!r} must lie strictly between 0 and 1; got {target}")
    present, absent = _present(fit, tuple(targets), level)
    forms = _Forms(fit, present)
    if not present:
        return _rescaling(forms, np.ones(0), absent)
    wanted = np.log([targets[name] for name in present])

    def errors(log_s: Floats) -> Floats:
        s = np.exp(log_s)
        return np.asarray(np.log(forms.own(s) / forms.total(s)) - wanted)

    pure = forms.own(np.ones(len(present))) / forms.inside()
    most = ", ".join(f"{name!r} at most {share:.3g}" for name, share in zip(present, pure, strict=True))
    message = f"no scaling reaches the targets {dict(targets)}; by their subspaces' purity, {most}"
    return _rescaling(forms, _solved(errors, len(present), message), absent)


class _Forms:
    """Variances after scaling as quadratic forms in (1, s_1, ..., s_F): 1 is of what no feature's subspace holds."""

    def __init__(self, fit: Subspaces, names: tuple[str, ...]) -> None:
        self.names, self.mean = names, fit.mean
        sigma = fit.moments.xx
        self.parts = _projections(fit, names)
        self._total = self._form(sigma)
        self._own = [self._form(_explained_covariance(fit, name)) for name in names]
        self.whole = float(np.trace(sigma))

    def total(self, s: Floats) -> float:
        return float(_with_rest(s) @ self._total @ _with_rest(s))

    def own(self, s: Floats) -> Floats:
        """(F,) variance explained by each label alone."""
        return np.array([_with_rest(s) @ form @ _with_rest(s) for form in self._own])

    def inside(self) -> Floats:
        """(F,) all that varies inside each subspace."""
        return np.diagonal(self._total)[1:]

    def _form(self, covariance: Floats) -> Floats:
        return np.array([[np.vdot(g, covariance @ h) for h in self.parts] for g in self.parts])


def _projections(fit: Subspaces, names: tuple[str, ...]) -> list[Floats]:
    """Q_0 of all that is outside, and Q_f of each feature, (D, D), for rows times Q; they add up to the identity."""
    width = fit.moments.width
    if not names:
        return [np.eye(width)]
    joint = fit_map(fit.moments, fit.coding.columns(*names)).weights
    bases, start = [], 0
    for name in names:
        stop = start + fit.coding.feature(name).width
        _, size, directions = np.linalg.svd(joint[start:stop], full_matrices=False)
        bases.append(directions[size > OVERLAP * size[0]])
        start = stop
    together = np.concatenate(bases)
    if len(together) > width or np.linalg.svd(together, compute_uv=False)[-1] < OVERLAP:
        raise StatisticsError(
            f"the subspaces of {', '.join(names)} overlap: a direction of one is made of the others', so they cannot be "
            "scaled apart; name fewer features"
        )
    dual, cuts = np.linalg.pinv(together), np.cumsum([0, *map(len, bases)])
    parts = [dual[:, a:b] @ together[a:b] for a, b in pairwise(cuts)]
    return [np.eye(width) - sum(parts), *parts]


def _explained_covariance(fit: Subspaces, name: str) -> Floats:
    """(D, D) of what the map of one label alone says."""
    fitted = fit_map(fit.moments, fit.coding.columns(name))
    bb = fit.moments.bb[np.ix_(fitted.columns, fitted.columns)]
    covariance: Floats = fitted.weights.T @ bb @ fitted.weights
    return covariance


def _present(fit: Subspaces, names: tuple[str, ...], level: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    p = {name: fit.presence(name) for name in names}
    return tuple(n for n in p if p[n] <= level), tuple(n for n in p if p[n] > level)


def _rescaling(forms: _Forms, s: Floats, absent: tuple[str, ...]) -> Rescaling:
    rest, *parts = forms.parts
    matrix = rest + sum(gain * q for gain, q in zip(s, parts, strict=True))
    reached = forms.own(s) / forms.total(s)
    names = forms.names
    return Rescaling(
        forms.mean,
        np.asarray(matrix, dtype=np.float64),
        dict(zip(names, s.tolist(), strict=True)),
        dict(zip(names, reached.tolist(), strict=True)),
        absent,
    )


def _solved(errors: Callable[[Floats], Floats], features: int, message: str) -> Floats:
    """Gains at which the errors of the logarithms of variance vanish.

    Each is stepped against its own error, as would be exact for features apart from each other; Newton's method, which with
    correlated labels can run off to where a feature has vanished, only finishes.
    """
    from scipy.optimize import root

    log_s = np.zeros(features)
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            error = errors(log_s)
            if not np.isfinite(error).all() or np.abs(error).max() <= CLOSE:
                break
            log_s = log_s - 0.5 * error
        found = root(errors, log_s, method="hybr", options={"xtol": 1e-13}).x
        left = np.abs(errors(found)).max()
    if not left <= SOLVED:
        raise StatisticsError(f"{message} (left: {left:.2g} in the logarithm)")
    return np.asarray(np.exp(found), dtype=np.float64)


def _with_rest(s: Floats) -> Floats:
    return np.concatenate([[1.0], s])
