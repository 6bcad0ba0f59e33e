"""Proxies made of what you have: a scikit-learn estimator with `inverse_transform`, or an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from heldout.errors import ProxyError
from heldout.proxies.base import check_rows


class Estimator:
    """A scikit-learn transformer as a proxy: `inverse_transform(transform(x))`.

    Works for NMF, FactorAnalysis-like, FastICA, DictionaryLearning and any other that has both methods. Runs on the CPU
    in float64.
    """

    def __init__(self, estimator: Any) -> None:
        missing = [m for m in ("fit", "transform", "inverse_transform") if not hasattr(estimator, m)]
        if missing:
            raise ProxyError(
                f"{type(estimator).__name__} has no {' and no '.join(missing)}; an estimator needs fit, transform and "
                "inverse_transform to serve as a proxy"
            )
        self.estimator = estimator

    def fit(self, x: Tensor) -> Self:
        rows = check_rows(x, type(self.estimator).__name__).numpy()
        try:
            self.estimator.fit(rows)
        except ValueError as error:
            raise ProxyError(f"{type(self.estimator).__name__} cannot be fitted: {error}") from error
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        rows = x.detach().double().cpu().numpy()
        try:
            new = self.estimator.inverse_transform(self.estimator.transform(rows))
        except ValueError as error:  # not fitted, another width, values outside its domain
            raise ProxyError(f"{type(self.estimator).__name__} cannot be applied: {error}") from error
        return torch.as_tensor(new).to(x)


class Autoencoder:
    """An encoder and a decoder that are trained already (a sparse autoencoder, say); `fit` learns nothing.

    Both run in ``eval()`` mode, and have their training flags back afterwards.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        self.encoder, self.decoder = encoder, decoder

    def fit(self, x: Tensor) -> Self:
        return self

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        with _evaluating(self.encoder), _evaluating(self.decoder):
            new = self.decoder(self.encoder(x))
        if not isinstance(new, Tensor) or new.shape != x.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ProxyError(f"the decoder returned {got} for activations of shape {tuple(x.shape)}; shapes must agree")
        return new.to(x.dtype)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off and normalisation by what was learned, until the context closes."""
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True
