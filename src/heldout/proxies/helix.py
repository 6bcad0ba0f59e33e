"""A table of embeddings replaced by the helix fitted to it: does the helix alone do what the embeddings do?

    helix = Helix(tokens).fit(embedding.weight[tokens])      # rows in the order of `tokens`
    Edit.from_proxy("embeddings.0", helix, origin)
    Helix(tokens, residual=8)                                # and eight components of what the helix leaves
    Helix(tokens, wave=False)                                # its drift alone: does the wave matter at all?

It knows a finite set of rows and no others: `reconstruct` looks each row up and raises where it is not in the table, so the
battery's padding with zeros, and nested ranks, do not apply to it. To keep the first K components as they are instead, use
`SVD(K, centred=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from heldout.errors import ProxyError
from heldout.proxies.base import check_fitted, check_rank, check_rows, check_width
from heldout.proxies.helix_fit import COMPONENTS, Floats, HelixFit, helix_fit, position


class Helix:
    """Each row goes to its token's point on the helix of `helix_fit` in the table's first `components`.

    - `tokens`: the whole number of each row of the table; None numbers them from 0.
    - `rest`: the other components stay as they are; else they are at their mean, and the helix is all there is.
    - `residual`: so many principal components of what these points leave of the table are added to them, largest first;
      with all of them each row is itself. The points then lie in at most `components` + `residual` dimensions.
    - `wave`: False takes cosine and sine away and leaves the drift, a parabola.

    What it does not show: that the helix matters, where the table survives it. The drift is part of the curve; a straight
    line may do as well (compare with `wave=False`, and with `SVD(1, centred=True)`).
    """

    def __init__(
        self,
        tokens: Sequence[int] | None = None,
        *,
        rest: bool = False,
        residual: int = 0,
        wave: bool = True,
        components: int = COMPONENTS,
    ) -> None:
        self.tokens, self.rest, self.components = tokens, rest, components
        self.residual, self.wave = residual, wave
        self.fit_: HelixFit | None = None
        self.table_: Tensor | None = None  # (n, D) float64, in the order given
        self.points_: Tensor | None = None  # (n, D) float64, what each row goes to

    def fit(self, x: Tensor) -> Self:
        """Raises `ProxyError` where two rows are equal and so cannot be told apart, or `residual` is more than there are
        components, and the errors of `helix_fit`."""
        rows = check_rows(x, "a helix").numpy()
        check_rank(self.residual, rows.shape[1], "the residual of a helix")
        tokens = np.arange(len(rows)) if self.tokens is None else np.asarray(self.tokens)
        fit = helix_fit(rows, tokens, components=self.components)
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ProxyError(
                "two tokens of the table have the same row: a helix cannot tell which of them a row belongs to"
            )
        order = np.argsort(tokens, kind="stable")
        curve = fit.fitted if self.wave else drift(fit)
        points = np.empty_like(rows)
        points[order] = fit.mean + curve @ fit.components
        if self.rest:
            points[order] = rows[order] - (fit.scores - curve) @ fit.components
        if self.residual:
            left, sizes, right = np.linalg.svd(rows - points, full_matrices=False)
            points += (left[:, : self.residual] * sizes[: self.residual]) @ right[: self.residual]
        self.fit_, self.table_, self.points_ = fit, torch.from_numpy(rows), torch.from_numpy(points)
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        """(M, D) the points of the tokens whose rows `x` (M, D) are; `ProxyError` where one is no row of the table."""
        table, points = check_fitted(self.table_, "a helix"), check_fitted(self.points_, "a helix")
        check_width(x, table.shape[1], "a helix")
        return points.to(x)[_rows_of(table.to(x), x)]


def drift(fit: HelixFit) -> Floats:
    """(n, K) what 1, t, t^2 alone explain of the scores: the curve of `helix_fit` without its wave.

    `fit.fitted - drift(fit)` is the wave beyond it. The two are orthogonal over the tokens, and each sums to zero; of the
    scores' squares the drift holds the share `fit.baseline`, the wave `fit.gain`.
    """
    t = position(fit.tokens)
    basis = np.linalg.qr(np.stack([np.ones_like(t), t, t**2], axis=1))[0]
    explained: Floats = basis @ (basis.T @ fit.fitted)
    return explained


def _rows_of(table: Tensor, x: Tensor) -> Tensor:
    """(M,) the row of the table (n, D) that each row of x (M, D) equals; looked for all over where rounding hid it."""
    centre = table.mean(dim=0)
    shifted = table - centre
    found = ((shifted**2).sum(dim=1) - 2 * (x - centre) @ shifted.T).argmin(dim=1)
    for at in (x != table[found]).any(dim=1).nonzero().flatten().tolist():
        equal = (table == x[at]).all(dim=1).nonzero().flatten()
        if len(equal) == 0:
            raise ProxyError(
                f"row {at} of {len(x)} is no row of the table of {len(table)} tokens that the helix was fitted to; "
                "apply it to the outputs of that embedding, for tokens of the table"
            )
        found[at] = equal[0]
    return found
