"""A self-test of a device: does it compute what the CPU computes in float64?

Devices have been wrong in silence. A few operations that every analysis rests on are run in float32 on the device and
compared with float64 on the CPU; the largest relative error of each is shown beside what rounding explains.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from heldout.errors import ConfigError

LIMIT = 2e-4  # relative; float32 sums of a few thousand terms stay below


def _attention(x: Tensor) -> Tensor:
    q = x.reshape(2, 4, -1, 16)
    return F.scaled_dot_product_attention(q, q.flip(2), q, is_causal=True)


CHECKS: dict[str, Callable[[Tensor], Tensor]] = {
    "matrix product": lambda x: x @ x.T,
    "Gram matrix": lambda x: x.T @ x,
    "softmax": lambda x: torch.softmax(4 * x, dim=-1),
    "log-softmax": lambda x: F.log_softmax(4 * x, dim=-1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "causal attention": _attention,
    "convolution": lambda x: F.conv2d(x.reshape(2, 4, 32, -1), x[:36].reshape(-1)[: 4 * 4 * 9].reshape(4, 4, 3, 3)),
    "GELU": F.gelu,
    "gather of the largest": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
}


def examine(device: str) -> tuple[list[str], bool]:
    """Lines to print, and whether every check passed. Raises `ConfigError` for a device that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(128, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        there = x.float().to(device)
        there.cpu()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used here: {str(error).splitlines()[0]}; try --device cpu"
        ) from None
    lines = [f"python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"]
    lines.append(f"device {device}" + (f": {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""))
    healthy = True
    for name, check in CHECKS.items():
        exact, found = check(x), check(there).double().cpu()
        worst = float((exact - found).abs().max() / exact.abs().max())
        passed = worst <= LIMIT
        healthy &= passed
        lines.append(f"  {name:<22} relative error {worst:.1e}  {'ok' if passed else 'WRONG'}")
    return lines, healthy
