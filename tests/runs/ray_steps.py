"""Steps and calls whose worker is watched from outside, and shards; what a Ray worker can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heldout.activations.accumulators import Moments
from heldout.activations.jacobians import JacobianGram, jacobian_grams
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.runs import StepContext
from heldout.tasks.base import Rectangular, Split


def watched(ctx: StepContext) -> None:
    """Say which process this is in the file ``place``; the first ``times`` times, then wait to be killed."""
    place = Path(ctx.settings["place"])
    pids = place.read_text().split() if place.exists() else []
    announce(place, [*pids, str(os.getpid())])
    if len(pids) < ctx.settings["times"]:
        time.sleep(120)
    (ctx.out / "answer.bin").write_bytes(b"42")


def train(ctx: StepContext) -> None:
    """A few updates of a small network: products that depend on the number of threads in their last digits."""
    torch.manual_seed(ctx.settings["seed"])
    x, network = torch.randn(4096, 64), nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for i in range(10):
        optimizer.zero_grad()
        loss = (network(x) - x.norm(dim=1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        ctx.progress(i + 1, 10)
    parameters = torch.cat([p.detach().flatten() for p in network.parameters()])
    (ctx.out / "parameters.bin").write_bytes(parameters.numpy().tobytes())


def announce(place: Path, pids: list[str]) -> None:
    """Write process ids so that a reader sees all or none."""
    temporary = place.with_suffix(".new")
    temporary.write_text(" ".join(pids))
    temporary.replace(place)


def hold(place: Path) -> None:
    """Say which process this is, and stay."""
    announce(place, [str(os.getpid())])
    time.sleep(120)


def surroundings() -> dict[str, Any]:
    """What this process computes with and what it was told."""
    told = {name: value for name, value in os.environ.items() if name.endswith("_THREADS") or "proxy" in name}
    return {"torch": torch.get_num_threads(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")} | told


def rows() -> torch.Tensor:
    """Activations (1000, 12), far from zero, where sums lose digits."""
    return 100 + torch.randn(1000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def moments_of(shard: tuple[int, int]) -> Moments:
    """Moments of the rows from the first number up to the second, in chunks of 50."""
    moments = Moments()
    for chunk in rows()[slice(*shard)].split(50):
        moments.update(chunk)
    return moments


def jacobian_gram_of(shard: tuple[int, int]) -> JacobianGram:
    """The Jacobian Gram of a small network on the rows from the first number up to the second."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 3)).double()
    split = Split("fit", "fit", Rectangular(rows()[slice(*shard)] - 100))
    (gram,) = jacobian_grams(Sections(network, [".:input", "."]), split, 0, 1, probes=Probes("exact"))
    return gram
