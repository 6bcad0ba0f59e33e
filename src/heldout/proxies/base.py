"""What a proxy is: a simplification of a matrix of activations that knows no network.

A proxy follows scikit-learn's convention: settings in the constructor, `fit(x)` learns from (N, D) and returns the proxy,
`reconstruct(x)` maps (M, D) to (M, D) in the dtype and on the device of `x`. `heldout.proxies.checks.check_proxy` runs any
proxy, yours included, through the battery that ours pass.
"""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from heldout.errors import NonFiniteError, ProxyError


@runtime_checkable
class Proxy(Protocol):
    def fit(self, x: Tensor) -> Self: ...

    def reconstruct(self, x: Tensor) -> Tensor: ...


def check_rows(x: Tensor, what: str) -> Tensor:
    """`x` in float64 on the CPU, or a clear error where it is not a finite matrix (N, D) with at least one row."""
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ProxyError(f"{what} is fitted on a matrix (N, D) of activations, got shape {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).any(dim=1).sum())
        raise NonFiniteError(f"{what}: {bad} of {x.shape[0]} rows of activations hold NaN or infinite values")
    return x.detach().double().cpu()


def check_rank(rank: int, width: int, what: str) -> int:
    """`rank`, or a `ProxyError` where it is not between 0 and `width`."""
    if not 0 <= rank <= width:
        raise ProxyError(f"{what}: rank {rank} for activations of width {width}; choose from 0 to {width}")
    return rank


def check_fitted(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise ProxyError(f"{what} was not fitted; call .fit(x) first")
    return value


def check_width(x: Tensor, width: int, what: str) -> None:
    if x.shape[-1] != width:
        raise ProxyError(f"{what} was fitted on activations of width {width} and got width {x.shape[-1]}")
