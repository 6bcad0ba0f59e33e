"""Low-rank proxies: keep the directions of largest second moment (SVD) or variance (PCA) and drop the rest.

    svd = SVD().fit(x)          # every rank at once
    svd.at(8).reconstruct(x)    # x V_8 V_8^T

The exact eigendecomposition of a float64 (D, D) matrix: on tall matrices it is the fastest route and the exact one. Signs
are fixed as in scikit-learn's ``svd_flip`` (the entry of largest magnitude in each direction is positive).
"""

from __future__ import annotations

from copy import copy
from typing import Self

import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.errors import ProxyError
from heldout.proxies.base import check_fitted, check_rank, check_rows, check_width


class SVD:
    """Projection on the leading `rank` right singular vectors of the fitted activations; None keeps all.

    `centred` makes it PCA: x -> mean + (x - mean) V V^T. Not centred, the mean is one more thing to be represented. What
    it does not show: a direction of small variance can matter most to the network.
    """

    def __init__(self, rank: int | None = None, *, centred: bool = False) -> None:
        self.rank, self.centred = rank, centred
        self.components_: Tensor | None = None  # (D, D) float64, rows are directions, largest first
        self.total_: float = float("nan")  # the spectrum's sum
        self.spectrum_: Tensor | None = None  # (D,) eigenvalues of the second-moment (or covariance) matrix, divisor N
        self.mean_: Tensor | None = None  # (D,), zeros where not centred
        self._cast: tuple[Tensor, Tensor] | None = None

    @property
    def _name(self) -> str:
        return "PCA" if self.centred else "SVD"

    def fit(self, x: Tensor) -> Self:
        moments = Moments()
        moments.update(check_rows(x, self._name))
        return self.fit_moments(moments)

    def fit_moments(self, moments: Moments) -> Self:
        """Fit from accumulated moments: what `fit` gives on all the rows they have seen."""
        scatter = moments.scatter(centred=self.centred).cpu()
        if self.rank is not None:
            check_rank(self.rank, scatter.shape[0], self._name)
        values, vectors = torch.linalg.eigh(scatter)
        directions = vectors.flip(1).T
        top = directions.abs().argmax(dim=1, keepdim=True)
        self.components_ = directions * directions.gather(1, top).sign()
        self.spectrum_ = values.flip(0).clamp(min=0) / moments.count
        self.total_ = float(self.spectrum_.sum())
        assert moments.mean is not None
        self.mean_ = moments.mean.cpu() if self.centred else torch.zeros_like(moments.mean, device="cpu")
        self._cast = None
        return self

    def at(self, rank: int) -> SVD:
        """The same fit cut at another rank; nothing is computed again."""
        components = check_fitted(self.components_, self._name)
        other = copy(self)
        other.rank, other._cast = check_rank(rank, components.shape[0], self._name), None
        return other

    def keeping(self, components: list[int]) -> SVD:
        """The same fit with the directions numbered `components` kept (from 0, largest first), in that order."""
        directions, spectrum = check_fitted(self.components_, self._name), check_fitted(self.spectrum_, self._name)
        if len(set(components)) < len(components) or not set(components) <= set(range(len(directions))):
            raise ProxyError(
                f"{self._name}: directions {components} of {len(directions)}; choose different ones from 0 to "
                f"{len(directions) - 1}"
            )
        other = copy(self)
        other.components_, other.spectrum_ = directions[components], spectrum[components]
        other.rank, other._cast = None, None
        return other

    def reconstruct(self, x: Tensor) -> Tensor:
        components = check_fitted(self.components_, self._name)
        mean = check_fitted(self.mean_, self._name)
        check_width(x, components.shape[1], self._name)
        if self._cast is None or self._cast[0].dtype != x.dtype or self._cast[0].device != x.device:
            self._cast = components[: self.rank].to(x), mean.to(x)
        kept, centre = self._cast
        if not self.centred:
            return (x @ kept.T) @ kept
        return centre + ((x - centre) @ kept.T) @ kept

    def explained(self) -> Tensor:
        """(D,) share of the second moment (variance, where centred) that the first 1, 2, ... directions hold, 0 to 1.

        On the data of the fit: an upper bound of what they hold elsewhere.
        """
        spectrum = check_fitted(self.spectrum_, self._name)
        return spectrum.cumsum(0) / self.total_ if self.total_ > 0 else torch.ones_like(spectrum)
