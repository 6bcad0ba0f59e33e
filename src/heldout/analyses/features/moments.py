"""Joint moments of labels and activations: all that variance explained, density and components need, from one pass.

    moments = JointMoments(coding.width)
    for rows, design in chunks(x, design):
        moments.update(rows, design)

B columns of the design, X of the activations (D); float64 and centred throughout (Chan, Golub and LeVeque 1983), so that
no digit is lost to large means. Merging shards in index order gives what one stream gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

Floats = NDArray[np.float64]
Chunk = tuple[Tensor, Tensor]

CHUNK = 4096


class JointMoments:
    """Weighted mean and scatter of design columns (q) and activations (D) side by side.

    `n` rows, `weight` their total weight (n where none are given). Blocks, about the means, divided by `weight`:
    `bb` (q, q), `bx` (q, D), `xx` (D, D) float64 arrays.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.n, self.weight = columns, 0, 0.0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def update(self, rows: Tensor, design: Tensor, weights: Tensor | None = None) -> None:
        """Add rows (N, D) with design (N, q); `weights` (N,) not negative, None weighs all alike."""
        if rows.ndim != 2 or design.shape != (len(rows), self.columns):
            raise ConfigError(
                f"activations {tuple(rows.shape)} and labels {tuple(design.shape)} do not match; (N, D) and "
                f"(N, {self.columns}) were expected"
            )
        if not len(rows):
            return
        q, width = self.columns, rows.shape[1]
        z = torch.empty(len(rows), q + width, dtype=torch.float64, device=rows.device)
        z[:, :q], z[:, q:] = design, rows.detach()
        if weights is None:
            total, mean = float(len(rows)), z.mean(dim=0)
            _require_finite(mean, rows, self.n)
            z -= mean
            scatter = z.T @ z
        else:
            w = _weights(weights, len(rows)).to(z.device)
            total = float(w.sum())
            mean = (w @ z) / total if total else z.mean(dim=0)
            _require_finite(z.mean(dim=0), rows, self.n)
            z -= mean
            scatter = z.T @ (z * w[:, None])
        self._join(len(rows), total, mean.cpu(), scatter.cpu())

    def merge(self, other: JointMoments) -> None:
        if other._mean is not None and other._scatter is not None:
            self._join(other.n, other.weight, other._mean, other._scatter.clone())

    def _join(self, n: int, weight: float, mean: Tensor, scatter: Tensor) -> None:
        self.n += n
        if self._mean is None or self._scatter is None:
            self.weight, self._mean, self._scatter = weight, mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise ConfigError(
                f"activations of width {len(mean) - self.columns} cannot join moments of width "
                f"{len(self._mean) - self.columns}"
            )
        total = self.weight + weight
        if total == 0:
            return
        shift = mean - self._mean
        self._scatter += scatter
        self._scatter.addr_(shift, shift, alpha=self.weight * weight / total)
        self._mean = self._mean + shift * (weight / total)
        self.weight = total

    def mean(self) -> tuple[Floats, Floats]:
        """The means of the design (q,) and of the activations (D,)."""
        mean = self._seen()[0].numpy()
        return mean[: self.columns], mean[self.columns :]

    @property
    def bb(self) -> Floats:
        return self._block(slice(None, self.columns), slice(None, self.columns))

    @property
    def bx(self) -> Floats:
        return self._block(slice(None, self.columns), slice(self.columns, None))

    @property
    def xx(self) -> Floats:
        return self._block(slice(self.columns, None), slice(self.columns, None))

    @property
    def variances(self) -> Floats:
        """(D,) of the units, divisor n (the total weight)."""
        return np.diagonal(self._seen()[1].numpy())[self.columns :] / self.weight

    @property
    def width(self) -> int:
        return len(self._seen()[0]) - self.columns

    def activations(self) -> Moments:
        """The moments of the activations alone, for what is fitted on them (`heldout.proxies.svd.SVD.fit_moments`)."""
        if self.weight != self.n:
            raise StatisticsError("weighted moments have no count of rows; fit components on moments without weights")
        mean, scatter = self._seen()
        return Moments.of(self.n, mean[self.columns :], scatter[self.columns :, self.columns :])

    def _block(self, rows: slice, columns: slice) -> Floats:
        block: Floats = self._seen()[1].numpy()[rows, columns] / self.weight
        return block

    def _seen(self) -> tuple[Tensor, Tensor]:
        if self._mean is None or self._scatter is None or self.weight == 0:
            raise StatisticsError("no activations were seen (or none with weight): there is nothing to measure")
        return self._mean, self._scatter


def chunks(x: ArrayLike | Tensor, design: ArrayLike, size: int = CHUNK) -> Iterator[Chunk]:
    """Activations (n, D) and their design (n, q), in chunks of `size` rows."""
    rows = x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x))
    return paired(torch.split(rows, size), design)


def paired(stream: Iterable[Tensor], design: ArrayLike) -> Iterator[Chunk]:
    """A stream of activations (N, D), each with its part of the design (n, q); raises `ConfigError` where rows and labels do
    not come out even."""
    columns = torch.from_numpy(np.asarray(design, dtype=np.float64))
    start = 0
    for rows in stream:
        part = columns[start : start + len(rows)]
        start += len(rows)
        if len(part) < len(rows):
            raise ConfigError(f"labels for {len(columns)} rows, but activations have at least {start}; give one a row")
        yield rows, part
    if start != len(columns):
        raise ConfigError(f"labels for {len(columns)} rows and activations for {start} do not match; give one a row")


def moments_of(x: ArrayLike | Tensor, design: ArrayLike, weights: ArrayLike | None = None) -> JointMoments:
    """Moments of activations (n, D) and design (n, q) held in memory; `weights` (n,) as for `JointMoments.update`."""
    design = np.asarray(design, dtype=np.float64)
    moments = JointMoments(design.shape[1])
    w = None if weights is None else _weights(weights, len(design))
    for i, (rows, part) in enumerate(chunks(x, design)):
        moments.update(rows, part, None if w is None else w[i * CHUNK : (i + 1) * CHUNK])
    return moments


def _weights(weights: ArrayLike | Tensor, n: int) -> Tensor:
    w = torch.as_tensor(weights).double()
    if w.shape != (n,) or not bool((w >= 0).all()) or not bool(torch.isfinite(w).all()):
        raise ConfigError(f"weights must be ({n},) finite numbers, none negative; got shape {tuple(w.shape)}")
    return w


def _require_finite(mean: Tensor, rows: Tensor, before: int) -> None:
    """A mean is finite only where everything is: the rows themselves are looked at when it is not."""
    if bool(torch.isfinite(mean).all()):
        return
    bad = (~torch.isfinite(rows)).any(dim=1).nonzero().flatten()
    where = f"in {len(bad)} rows, the first is row {before + int(bad[0])}" if len(bad) else "in their sum"
    raise NonFiniteError(f"activations are NaN or infinite {where}; numbers of ordinary size are needed")
