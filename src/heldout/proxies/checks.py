"""The battery that every proxy runs through; yours can too.

    check_proxy(lambda: MyProxy(rank=4), width=16)
    check_nested(lambda rank: MyProxy(rank=rank), width=16)

Each function raises `AssertionError` with the property that failed and by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from heldout.proxies.base import Proxy


def sample(rows: int, width: int, *, seed: int = 0) -> Tensor:
    """(rows, width) float32 with a mean, correlations, and a spectrum that falls: what activations look like."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -1.5, width)[:, None]
    return torch.randn(rows, width, generator=generator) @ mixing + torch.randn(width, generator=generator)


def check_proxy(make: Callable[[], Proxy], *, width: int = 16, rows: int = 400, tolerance: float = 1e-5) -> None:
    """Shape, dtype and device are kept; fits and reconstructions are deterministic; each row is treated on its own, so
    that batch size, order and padding change nothing; the argument is left as it was."""
    x = sample(rows, width)
    proxy = make().fit(x)
    before = x.clone()
    y = proxy.reconstruct(x)
    assert y.shape == x.shape, f"reconstruct changed the shape {tuple(x.shape)} to {tuple(y.shape)}"
    assert y.dtype == x.dtype, f"reconstruct changed the dtype {x.dtype} to {y.dtype}"
    assert torch.equal(x, before), "reconstruct changed its argument in place"
    assert torch.equal(y, proxy.reconstruct(x)), "reconstruct is not deterministic"
    again = make().fit(x).reconstruct(x)
    assert torch.equal(y, again), f"two fits differ by {_gap(y, again):.3g}"
    scale = float(x.abs().max())
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
    shuffled = proxy.reconstruct(x[order])
    assert _gap(y[order], shuffled) <= tolerance * scale, f"order matters by {_gap(y[order], shuffled):.3g}"
    single = torch.cat([proxy.reconstruct(row[None]) for row in x[:20]])
    assert _gap(y[:20], single) <= tolerance * scale, f"the batch matters by {_gap(y[:20], single):.3g}"
    padded = proxy.reconstruct(torch.cat([x[:20], torch.zeros(7, width)]))[:20]
    assert _gap(y[:20], padded) <= tolerance * scale, f"padding matters by {_gap(y[:20], padded):.3g}"


def check_nested(make: Callable[[int], Proxy], *, width: int = 16, rows: int = 400, tolerance: float = 1e-4) -> None:
    """Full rank is the identity; error falls as rank grows; reconstructing at rank r and then at s gives min(r, s)."""
    x = sample(rows, width)
    fits = {rank: make(rank).fit(x) for rank in (1, 2, width // 2, width)}
    scale = float(x.abs().max())
    full = fits[width].reconstruct(x)
    assert _gap(x, full) <= tolerance * scale, f"full rank differs from the identity by {_gap(x, full):.3g}"
    errors = [float(((x - p.reconstruct(x)).double() ** 2).sum()) for p in fits.values()]
    assert all(b <= a * (1 + 1e-6) + 1e-9 for a, b in pairwise(errors)), f"error rises: {errors}"
    low, high = fits[2], fits[width // 2]
    for first, second in ((low, high), (high, low)):
        twice = second.reconstruct(first.reconstruct(x))
        gap = _gap(twice, low.reconstruct(x))
        assert gap <= tolerance * scale, f"ranks do not nest: {gap:.3g}"


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
