"""A table of embeddings replaced by the helix fitted to it: does the helix alone do what the embeddings do?

    helix = Helix(tokens).fit(embedding.weight[tokens])      # rows in the order of `tokens`
    Edit.from_proxy("embeddings.0", helix, origin)

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
from heldout.proxies.base import check_fitted, check_rows, check_width
from heldout.proxies.helix_fit import COMPONENTS, HelixFit, helix_fit


class Helix:
    """Each row goes to its token's point on the helix of `helix_fit` in the table's first `components`.

    - `tokens`: the whole number of each row of the table; None numbers them from 0.
    - `rest`: the other components stay as they are; else they are at their mean, and the helix is all there is.

    What it does not show: that the helix matters, where the table survives it. The drift is part of the curve; a straight
    line may do as well (compare with `SVD(1, centred=True)`).
    """

    def __init__(
        self, tokens: Sequence[int] | None = None, *, rest: bool = False, components: int = COMPONENTS
    ) -> None:
        self.tokens, self.rest, self.components = tokens, rest, components
        self.fit_: HelixFit | None = None
        self.table_: Tensor | None = None  # (n, D) float64, in the order given
        self.points_: Tensor | None = None  # (n, D) float64, what each row goes to

    def fit(self, x: Tensor) -> Self:
        """Raises `ProxyError` where two rows are equal and so cannot be told apart, and the errors of `helix_fit`."""
        rows = check_rows(x, "a helix").numpy()
        tokens = np.arange(len(rows)) if self.tokens is None else np.asarray(self.tokens)
        fit = helix_fit(rows, tokens, components=self.components)
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ProxyError(
                "two tokens of the table have the same row: a helix cannot tell which of them a row belongs to"
            )
        order = np.argsort(tokens, kind="stable")
        points = np.empty_like(rows)
        points[order] = (
            rows[order] - fit.residual @ fit.components if self.rest else fit.mean + fit.fitted @ fit.components
        )
        self.fit_, self.table_, self.points_ = fit, torch.from_numpy(rows), torch.from_numpy(points)
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        """(M, D) the points of the tokens whose rows `x` (M, D) are; `ProxyError` where one is no row of the table."""
        table, points = check_fitted(self.table_, "a helix"), check_fitted(self.points_, "a helix")
        check_width(x, table.shape[1], "a helix")
        return points.to(x)[_rows_of(table.to(x), x)]


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
