"""Where randomness in training comes from: one integer, split into streams that do not touch each other.

PyTorch's global generator is left as it was found. Changing how data are drawn does not change the initial weights,
and changing the batch size does not change the data, because each purpose has a stream of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

Purpose = Literal["data", "initialisation", "order", "noise"]
PURPOSES: tuple[Purpose, ...] = ("data", "initialisation", "order", "noise")  # positions are spawn keys: append only

Network = TypeVar("Network", bound=nn.Module)


def stream(seed: int, purpose: Purpose, *path: int) -> np.random.SeedSequence:
    """The seed sequence of one purpose, and within it of one `path` (an epoch, a split), of a run with `seed` >= 0."""
    return np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), *path))


def generator(seed: int, purpose: Purpose, *path: int) -> np.random.Generator:
    """A NumPy generator on `stream(seed, purpose, *path)`."""
    return np.random.default_rng(stream(seed, purpose, *path))


def initialised(make: Callable[[], Network], seed: int) -> Network:
    """The network that `make` builds on the CPU, its initial weights a function of `seed` alone.

    Constructors draw their weights from PyTorch's global generator; here it is seeded for the call and put back.

    >>> from heldout.networks.mlp import MLP
    >>> a, b = (initialised(lambda: MLP((64, 32, 10)), seed=3) for _ in range(2))
    >>> bool((a.readout.weight == b.readout.weight).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every accelerator and not be undone.
        torch.default_generator.manual_seed(int(stream(seed, "initialisation").generate_state(1, np.uint64)[0] >> 1))
        return make()
