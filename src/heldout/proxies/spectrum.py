"""Eigenvalues of a positive semidefinite matrix, and how many of them stand above its noise.

A rank is a statement about a tolerance. Here it is the number of eigenvalues above a cut, the larger of a share of the
largest one and the noise that rounding leaves; `Spectrum` carries all of it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heldout.errors import ConfigError, NonFiniteError, ProxyError

EXACT = 1e-12  # of the largest eigenvalue, where a matrix is exact but for rounding in float64
ESTIMATED = 1e-6  # where it was estimated by random probes
INDEFINITE = 1e-3  # a negative eigenvalue of this share of the largest is no rounding


@dataclass(frozen=True, eq=False)
class Spectrum:
    """`values` (D,) float64, largest first and as computed, negative ones included; `vectors` (D, D), its columns.

    `noise`: the level of an eigenvalue that is zero but for rounding: D eps times the largest, or minus the smallest where
    that is larger (the matrix has none below zero, so what is computed there is noise).
    """

    values: Tensor
    vectors: Tensor
    noise: float
    relative: float

    @staticmethod
    def of(matrix: Tensor, *, relative: float = EXACT, what: str = "the matrix") -> Spectrum:
        """The spectrum of a symmetric (D, D), in float64 on the CPU. Raises `ProxyError` where it is not semidefinite or
        zero, `NonFiniteError` where it holds NaN or infinite values."""
        if not 0 <= relative < 1:
            raise ConfigError(f"a relative tolerance must be from 0 to below 1, got {relative}")
        square = matrix.detach().double().cpu()
        if square.ndim != 2 or square.shape[0] != square.shape[1]:
            raise ProxyError(f"{what} must be square, got shape {tuple(square.shape)}")
        if not bool(torch.isfinite(square).all()):
            raise NonFiniteError(f"{what} holds NaN or infinite values")
        values, vectors = torch.linalg.eigh((square + square.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        top, bottom = float(values[0]), float(values[-1])
        if top <= 0:
            raise ProxyError(f"{what} has rank zero: its largest eigenvalue is {top:.3g}")
        if -bottom > INDEFINITE * top:
            raise ProxyError(f"{what} is not positive semidefinite: eigenvalues from {bottom:.3g} to {top:.3g}")
        return Spectrum(values, vectors, max(len(values) * torch.finfo(torch.float64).eps * top, -bottom), relative)

    @property
    def cut(self) -> float:
        """Eigenvalues above this count."""
        return max(self.relative * float(self.values[0]), self.noise)

    @property
    def rank(self) -> int:
        """The number of eigenvalues above `cut`."""
        return int((self.values > self.cut).sum())

    @property
    def gap(self) -> float:
        """The smallest eigenvalue that counts over the largest that does not: how clear the rank is; inf at full rank."""
        rank = self.rank
        return (
            float("inf")
            if rank == len(self.values)
            else float(self.values[rank - 1] / max(float(self.values[rank]), self.noise))
        )

    def ranks(self, tolerances: Sequence[float] = (1e-12, 1e-6, 1e-3)) -> dict[float, int]:
        """The rank at each relative tolerance; none counts what is below the noise."""
        top = float(self.values[0])
        return {t: int((self.values > max(t * top, self.noise)).sum()) for t in tolerances}

    def __str__(self) -> str:
        top = float(self.values[0])
        return (
            f"rank {self.rank} of {len(self.values)} above {self.cut / top:.1e} of the largest eigenvalue "
            f"(asked {self.relative:.1e}, noise {self.noise / top:.1e})"
        )
