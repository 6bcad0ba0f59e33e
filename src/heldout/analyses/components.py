"""What components carry: how much of a label can be read from the leading directions of some activations, held out.

N rows, D features, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from heldout.errors import StatisticsError

SHRINKAGE = 1e-3


def component_contents(
    fit: np.ndarray,
    test: np.ndarray,
    components: np.ndarray,
    *,
    numbers: dict[str, tuple[np.ndarray, np.ndarray]],
    classes: dict[str, tuple[np.ndarray, np.ndarray]],
    ranks: Sequence[int],
    singles: int = 16,
) -> list[dict[str, Any]]:
    """One row a component set and label: what is read from each of the first `singles` components and from the first
    r together, for each r of `ranks`.

    - `fit`, `test`: (N, D) activations; readers are fitted on one and scored on the other.
    - `components`: (K, D) orthonormal rows, largest first.
    - `numbers`: label -> (values of the fit rows, of the test rows); scored by R^2 of linear regression, at most 1.
    - `classes`: label -> the same for whole numbers; scored by the accuracy of linear discriminant analysis.

    Rows have ``label``, ``first`` and ``last`` component (counted from 0, both included), ``score`` (held out),
    ``baseline`` (0 for R^2, the most frequent class's share), ``variance`` (their share of the test rows' variance about
    the fit mean) and ``n``. A high score shows that the label can be read there, not that the network does.
    """
    if len(fit) < 2 or len(test) < 2:
        raise StatisticsError(
            f"components are read from two rows at least on each side; got {len(fit)} and {len(test)}"
        )
    mean = fit.mean(axis=0)
    here, there = (fit - mean) @ components.T, (test - mean) @ components.T
    total = float(((test - mean) ** 2).sum())
    sets = [(i, i) for i in range(min(singles, len(components)))] + [(0, r - 1) for r in ranks if r > 1]
    rows = []
    for first, last in sets:
        a, b = here[:, first : last + 1], there[:, first : last + 1]
        shared = {
            "first": first,
            "last": last,
            "n": len(test),
            "variance": float((b**2).sum()) / total if total else 0.0,
        }
        for label, (known, wanted) in numbers.items():
            rows.append({"label": label, "score": r_squared(a, known, b, wanted), "baseline": 0.0, **shared})
        for label, (known, wanted) in classes.items():
            _, counts = np.unique(wanted, return_counts=True)
            rows.append(
                {"label": label, "score": probe(a, known, b, wanted), "baseline": counts.max() / counts.sum(), **shared}
            )
    return rows


def r_squared(fit: np.ndarray, known: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Held-out R^2 of least squares with an intercept: 1 - residual / variance about the *test* mean; may be below 0."""
    design = np.column_stack([fit, np.ones(len(fit))])
    weights = np.linalg.lstsq(design, known.astype(np.float64), rcond=None)[0]
    residual = wanted - np.column_stack([test, np.ones(len(test))]) @ weights
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return 1 - float((residual**2).sum()) / spread if spread else float("nan")


def probe(fit: np.ndarray, known: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Held-out accuracy of linear discriminant analysis, its covariance shrunk by `SHRINKAGE` so that it can be inverted."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(np.unique(known)) < 2:
        return float((wanted == known[0]).mean())
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(fit, known)
    return float((model.predict(test) == wanted).mean())
