"""Bases of a layer: neurons, principal components, and the interaction basis (Bushnaq et al. 2024), as proxies.

    basis = InteractionBasis(metric).fit(x)       # metric: (D, D), how much the rest depends on this layer
    basis.at(8).reconstruct(x)                    # the eight most important features

For activations with covariance G and a Jacobian Gram M (`heldout.activations.jacobians`), the interaction basis is the
one in which both are diagonal: with G = U D U^T, R = U D^(-1/2) and R^+ M R^+T = V L V^T, features are (f - mean) C with
C = R V L^(1/2), and f = mean + features C^+ with C^+ = L^(-1/2) V^T R^+. So features are uncorrelated with variance L, the
spectrum of G M, and the mean Jacobian Gram with respect to them is the identity: what matters is in their size. An
invertible affine change of coordinates of the layer, undone behind it, leaves L and, up to sign, features as they are;
principal components survive rotations only.

Within an eigenspace of equal L features are determined up to a rotation: look at the gaps before naming one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import Self

import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.errors import ProxyError
from heldout.proxies.base import check_fitted, check_rank, check_rows, check_width
from heldout.proxies.spectrum import EXACT, Spectrum


class Basis(ABC):
    """Coordinates of a layer of width D: `encode` to features, `decode` back; `rank` keeps the first of them.

    - `encoder_` (D, K), `decoder_` (K, D), `mean_` (D,), `weights_` (K,) the features' importance, largest first; float64.
    - `rank` counts features out of D, so that bases compare: at D the reconstruction is the identity, from K to D - 1 (K
      of the features exist) it is the projection on all K, as with None.
    """

    name = "basis"

    def __init__(self, rank: int | None = None) -> None:
        self.rank = rank
        self.encoder_: Tensor | None = None
        self.decoder_: Tensor | None = None
        self.mean_: Tensor | None = None
        self.weights_: Tensor | None = None
        self.activation_: Spectrum | None = None  # of the covariance of the activations

    def fit(self, x: Tensor) -> Self:
        moments = Moments()
        moments.update(check_rows(x, self.name))
        return self.fit_moments(moments)

    def fit_moments(self, moments: Moments) -> Self:
        """Fit from accumulated moments. Raises `ProxyError` for a constant layer, and where rows are too few to tell a
        direction that never varies from one that has not yet been seen to."""
        covariance = moments.scatter().cpu() / moments.count
        assert moments.mean is not None
        self.mean_ = moments.mean.cpu()
        if self.rank is not None:
            check_rank(self.rank, len(covariance), self.name)
        encoder, decoder, self.weights_ = self._axes(covariance, moments.count)
        # Signs as in scikit-learn's svd_flip: the largest entry of each direction is positive.
        sign = decoder.gather(1, decoder.abs().argmax(dim=1, keepdim=True)).sign()
        self.encoder_, self.decoder_ = encoder * sign.T, decoder * sign
        return self

    @abstractmethod
    def _axes(self, covariance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder (D, K), decoder (K, D) and weights (K,)."""

    def _spread(self, covariance: Tensor, count: int, relative: float) -> Spectrum:
        """The spectrum of the covariance, or an error where it says nothing."""
        assert self.mean_ is not None
        width = len(covariance)
        rounding = 4 * torch.finfo(torch.float64).eps * float(self.mean_.abs().max())
        if float(covariance.trace()) <= width * rounding**2:
            raise ProxyError(
                f"{self.name}: the layer is constant over {count} rows; there is nothing to find a basis of"
            )
        if count <= width:
            raise ProxyError(
                f"{self.name}: {count} rows for {width} directions; at least {width + 1} are needed to tell a direction "
                "that does not vary from one that has not been seen to"
            )
        return Spectrum.of(covariance, relative=relative, what="the covariance of the activations")

    @property
    def features(self) -> int:
        """K, the number of features that exist."""
        return check_fitted(self.encoder_, self.name).shape[1]

    @property
    def width(self) -> int:
        """D, the number of neurons."""
        return check_fitted(self.encoder_, self.name).shape[0]

    def at(self, rank: int | None) -> Self:
        """The same fit cut at another rank; nothing is computed again."""
        other = copy(self)
        other.rank = rank if rank is None else check_rank(rank, self.width, self.name)
        return other

    def encode(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., K), every feature whatever the rank."""
        encoder, mean = check_fitted(self.encoder_, self.name), check_fitted(self.mean_, self.name)
        check_width(x, len(encoder), self.name)
        features: Tensor = (x - mean.to(x)) @ encoder.to(x)
        return features

    def decode(self, features: Tensor) -> Tensor:
        """(..., K) -> (..., D)."""
        decoder, mean = check_fitted(self.decoder_, self.name), check_fitted(self.mean_, self.name)
        x: Tensor = mean.to(features) + features @ decoder.to(features)
        return x

    def reconstruct(self, x: Tensor) -> Tensor:
        features = self.encode(x)
        if self.rank == self.width:
            return x.clone()
        if self.rank is not None:
            features[..., self.rank :] = 0
        return self.decode(features)


class NeuronBasis(Basis):
    """Neurons as they are, by falling variance; those left out stay at their mean."""

    name = "neuron"

    def _axes(self, covariance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        weights, order = covariance.diagonal().sort(descending=True, stable=True)
        decoder = torch.eye(len(covariance), dtype=torch.float64)[order]
        return decoder.T, decoder, weights


class PrincipalBasis(Basis):
    """Principal components whose variance stands above `relative` of the largest, and above rounding."""

    name = "pca"

    def __init__(self, rank: int | None = None, *, relative: float = EXACT) -> None:
        super().__init__(rank)
        self.relative = relative

    def _axes(self, covariance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        self.activation_ = self._spread(covariance, count, self.relative)
        kept = self.activation_.rank
        vectors = self.activation_.vectors[:, :kept]
        return vectors, vectors.T, self.activation_.values[:kept]


class InteractionBasis(Basis):
    """The basis that diagonalises the activations' covariance and `metric`, a Jacobian Gram (D, D), at once.

    Of the covariance, directions above `relative` of its largest eigenvalue are kept; of the metric seen in units of the
    activations' spread, those above `metric_relative`. Both spectra stand in `activation_` and `interaction_`, with
    the cuts that held. What it does not show: what the metric's mean over the data hides, and features in superposition.
    """

    name = "interaction"

    def __init__(
        self, metric: Tensor, rank: int | None = None, *, relative: float = EXACT, metric_relative: float = EXACT
    ) -> None:
        super().__init__(rank)
        self.metric, self.relative, self.metric_relative = metric.detach().double().cpu(), relative, metric_relative
        self.interaction_: Spectrum | None = None

    def _axes(self, covariance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        if self.metric.shape != covariance.shape:
            raise ProxyError(
                f"{self.name}: a Jacobian Gram of shape {tuple(self.metric.shape)} for activations of width "
                f"{len(covariance)}; ({len(covariance)}, {len(covariance)}) was expected"
            )
        spread = self.activation_ = self._spread(covariance, count, self.relative)
        directions, deviation = spread.vectors[:, : spread.rank], spread.values[: spread.rank].sqrt()
        whiten, colour = directions / deviation, (directions * deviation).T  # R (D, r) and R^+ (r, D)
        seen = colour @ self.metric @ colour.T
        what = "the Jacobian Gram seen by the activations (does the next layer depend on this one?)"
        self.interaction_ = Spectrum.of(seen, relative=self.metric_relative, what=what)
        kept = self.interaction_.rank
        weights, rotation = self.interaction_.values[:kept], self.interaction_.vectors[:, :kept]
        return whiten @ rotation * weights.sqrt(), (rotation / weights.sqrt()).T @ colour, weights
