"""Measures of similarity cut in two: what depends on one side alone, computed once, and what joins two sides.

Where a few candidates meet thousands of synthetic brains, distances, ranks and decompositions of a candidate are made
once. The figures are those of `measures`, with two differences that model recovery needs: ``encoding`` fits its map on
the fit split and scores it on the test split, and ``rsa`` can hold model RDMs constant (see `partial`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heldout.analyses.similarity.checks import Floats, centred
from heldout.analyses.similarity.cka import LEAST, cross_square, ratio
from heldout.analyses.similarity.compare import standardised
from heldout.analyses.similarity.partial import By, control
from heldout.analyses.similarity.predictivity import PENALTIES
from heldout.analyses.similarity.rdm import Distance, rdm
from heldout.errors import StatisticsError

Half = Callable[[Floats, Floats], Any]  # of one side's activations on the fit and on the test split


@dataclass(frozen=True)
class Halves:
    """`of_model` and `of_brain` take activations of the fit (n, D) and the test split (N, D); `join` takes what they made
    and gives the similarity on the test split. More is more alike."""

    of_model: Half
    of_brain: Half
    join: Callable[[Any, Any], float]


def whole(of: Callable[[Floats, Floats], float]) -> Halves:
    """Any measure of two tables over the test stimuli, nothing of it computed ahead."""
    return Halves(_test, _test, of)


def rsa(
    distance: Distance = "correlation", by: By = "pearson", controls: Mapping[str, ArrayLike] | None = None
) -> Halves:
    """Correlation of RDMs over the test stimuli; partial where there are `controls`, name -> their condensed model RDM."""
    left = control(controls, by) if controls else None

    def half(_: Floats, test: Floats) -> Floats:
        distances = rdm(test, distance)
        return standardised(distances, by) if left is None else left(distances)

    return Halves(half, half, lambda a, b: float(np.clip(a @ b, -1, 1)))


class _Centred(NamedTuple):
    rows: Floats
    squares: Floats
    hsic: float


def cka() -> Halves:
    """Debiased linear CKA over the test stimuli."""
    return Halves(_centred, _centred, _cka)


def _centred(_: Floats, test: Floats) -> _Centred:
    if len(test) < LEAST:
        raise StatisticsError(f"debiased CKA needs {LEAST} or more test stimuli; got {len(test)}")
    rows = centred(test)
    squares = np.einsum("nd,nd->n", rows, rows)
    return _Centred(rows, squares, _hsic(rows, squares, rows, squares))


def _cka(a: _Centred, b: _Centred) -> float:
    return ratio(_hsic(a.rows, a.squares, b.rows, b.squares), a.hsic, b.hsic)


def _hsic(x: Floats, k: Floats, y: Floats, l: Floats) -> float:  # noqa: E741 - as in `cka`, whose formula this is
    n = len(x)
    return cross_square(x, y) - n / (n - 2) * float(k @ l) + float(k.sum() * l.sum()) / ((n - 1) * (n - 2))


class _Regressors(NamedTuple):
    left: Floats  # (n, r) left singular vectors of the centred fit split
    size: Floats  # (r,) singular values
    test: Floats  # (N, r) the test split, about the fit split's mean, along the right ones


class _Responses(NamedTuple):
    fit: Floats  # both about the fit split's mean
    test: Floats


def encoding() -> Halves:
    """Pooled R^2 on the test split of the brain's neurons, from the candidate's units: at most 1, below 0 where worse than
    the fit split's mean. Ridge regression on the fit split; its one penalty, a share of the mean squared singular value as
    in `predictivity`, has the least generalised cross-validation error there (Golub, Heath and Wahba 1979)."""
    return Halves(_regressors, _responses, _encoding)


def _regressors(fit: Floats, test: Floats) -> _Regressors:
    mean = fit.mean(axis=0)
    left, size, right = np.linalg.svd(centred(fit, "the fit split"), full_matrices=False)
    kept = size > 1e-12 * size[0]
    return _Regressors(left[:, kept], size[kept], (test - mean) @ right[kept].T)


def _responses(fit: Floats, test: Floats) -> _Responses:
    mean = fit.mean(axis=0)
    return _Responses(fit - mean, test - mean)


def _encoding(model: _Regressors, brain: _Responses) -> float:
    n, squares = len(model.left), model.size**2
    along = model.left.T @ brain.fit  # (r, neurons)
    power = (along * along).sum(axis=1)
    beyond = max(float((brain.fit * brain.fit).sum() - power.sum()), 0.0)  # what no penalty fits
    penalties = PENALTIES * squares.mean()
    kept = squares / (squares + penalties[:, None])  # (penalties, r)
    freedom = n - 1 - kept.sum(axis=1)
    loss = np.where(freedom > 0, (beyond + ((1 - kept) ** 2) @ power) / np.maximum(freedom, 1e-12) ** 2, math.inf)
    penalty = penalties[int(np.argmin(loss))]
    error = brain.test - model.test @ ((model.size / (squares + penalty))[:, None] * along)
    total = float((brain.test * brain.test).sum())
    if not total > 0:
        raise StatisticsError("the brain's responses do not vary over the test stimuli: there is nothing to predict")
    return 1 - float((error * error).sum()) / total


def _test(_: Floats, test: Floats) -> Floats:
    return test
