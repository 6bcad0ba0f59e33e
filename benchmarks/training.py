"""What the training loop costs beside a minimal loop written by hand.

    python benchmarks/training.py [--repeats 15]

Both loops do the same work: the same batches, AdamW, clipping, a cosine schedule, and a look at each loss. They run in
turns on one compute thread; the ratio is taken within each turn, because the machine's speed drifts between turns, and
time is that of the processor, which others on the machine disturb less. The target is a median ratio of at most 1.05.
The hand-written loop uses PyTorch's default AdamW once and the fused one once: `train` uses the fused one, and the
second comparison leaves that gain out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings


def by_hand(
    network: nn.Module, inputs: Tensor, targets: Tensor, settings: TrainSettings, size: int, fused: bool
) -> None:
    """The minimal loop."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=fused or None)
    draw = np.random.default_rng(0)
    network.train()
    order, at = draw.permutation(len(inputs)), 0
    for step in range(settings.steps):
        if at >= len(inputs):
            order, at = draw.permutation(len(inputs)), 0
        index = torch.from_numpy(order[at : at + size])
        at += size
        loss = F.cross_entropy(network(inputs[index]).flatten(0, -2), targets[index].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimizer.step()
        assert math.isfinite(loss.item())


def compare(name: str, make: Callable[[], nn.Module], split: Split, size: int, steps: int, repeats: int) -> None:
    items = split.items
    assert isinstance(items, Rectangular)
    assert items.targets is not None
    settings = TrainSettings(steps=steps)
    inputs, targets = items.inputs, items.targets

    loops: dict[str, Callable[[nn.Module], object]] = {
        "heldout": lambda net: train(net, shuffled(split, size, seed=0), cross_entropy, settings=settings),
        "by hand": lambda net: by_hand(net, inputs, targets, settings, size, fused=False),
        "by hand, fused AdamW": lambda net: by_hand(net, inputs, targets, settings, size, fused=True),
    }
    times: dict[str, list[float]] = {loop: [] for loop in loops}
    for turn in range(repeats + 1):
        for loop in sorted(loops, key=lambda loop: hash((turn, loop)) if turn else 0):
            network = initialised(make, 0)
            start = time.process_time()
            loops[loop](network)
            if turn:  # the first turn warms up
                times[loop].append((time.process_time() - start) / steps)
    print(f"\n{name}: {repeats} turns of {steps} steps")
    for loop, seconds in times.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(times["heldout"], seconds, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"  {loop:22s} {1e6 * statistics.median(seconds):8.0f} us a step   "
            f"heldout / it: median {statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    images = Rectangular(torch.randn(1437, 64, generator=draw), torch.randint(10, (1437,), generator=draw))
    tokens = torch.randint(43, (2_000, 65), generator=draw)
    sentences = Rectangular(tokens[:, :-1], tokens[:, 1:])
    compare(
        "MLP 64-128-128-128-10, batches of 128",
        lambda: MLP((64, 128, 128, 128, 10)),
        Split("train", "fit", images),
        size=128,
        steps=400,
        repeats=repeats,
    )
    compare(
        "transformer of 2 layers, width 64, 32 sentences of 64 tokens",
        lambda: Transformer(43, width=64, layers=2, heads=1, max_length=64),
        Split("train", "fit", sentences),
        size=32,
        steps=40,
        repeats=repeats,
    )


if __name__ == "__main__":
    main()
