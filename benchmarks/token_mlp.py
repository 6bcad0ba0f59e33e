"""What the training loop costs a token network beside a minimal loop written by hand.

    python benchmarks/token_mlp.py [--repeats 15] [--steps 60]

Two tokens of 119 and 179 values, 2200 items with the strata of the nuclear task, width 128, two residual blocks, batches
of 512, AdamW with the learning rates and weight decays of the maximal-update parametrisation, a cosine schedule, no
clipping, a look at each loss. The loop by hand has the same network, groups and fused AdamW, and takes its batches from
two plain tensors. They run in turns on one compute thread; the ratio is taken within each turn, because the machine's
speed drifts between turns, and time is that of the processor. The target is a median ratio of at most 1.05.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from heldout.networks.token_mlp import TokenMLP
from heldout.tasks.base import Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import squared_error
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

SIZES, ITEMS, BATCH, SCALE = (119, 179), 2200, 512, 100.0


def made(width: int) -> TokenMLP:
    return initialised(lambda: TokenMLP(SIZES, width=width, blocks=2), 0)


def data() -> Split:
    draw = torch.Generator().manual_seed(0)
    z, n = (torch.randint(size, (ITEMS,), generator=draw) for size in SIZES)
    targets = 8000 - (0.1 * (z - 0.6 * n) ** 2)[:, None] + 10 * torch.randn(ITEMS, 1, generator=draw)
    return Split("train", "fit", Rectangular(torch.stack([z, n], 1), targets, strata={"z": z, "n": n}))


def by_hand(network: TokenMLP, inputs: Tensor, targets: Tensor, settings: TrainSettings) -> None:
    """The minimal loop."""
    hidden, biases, rest = [], [], []
    for name, p in network.named_parameters():
        kind = biases if p.ndim == 1 else hidden if name.startswith(("into", "blocks")) else rest
        kind.append(p)
    m, decay = network.growth, settings.weight_decay
    groups = [(hidden, 1 / m, decay * m), (rest, 1.0, decay), (biases, 1.0, 0.0)]
    optimizer = torch.optim.AdamW([{"params": p, "weight_decay": d} for p, _, d in groups], fused=True)
    draw = np.random.default_rng(0)
    network.train()
    order, at = draw.permutation(ITEMS), 0
    for step in range(settings.steps):
        if at >= ITEMS:
            order, at = draw.permutation(ITEMS), 0
        index = torch.from_numpy(order[at : at + BATCH])
        at += BATCH
        loss = (network(inputs[index]) - targets[index]).square().mean() / SCALE
        optimizer.zero_grad()
        loss.backward()
        rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for group, (_, factor, _) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * factor
        optimizer.step()
        assert math.isfinite(loss.item())


def compare(width: int, steps: int, repeats: int) -> None:
    split = data()
    items = split.items
    assert isinstance(items, Rectangular)
    assert items.targets is not None
    inputs, targets = items.inputs, items.targets
    settings = TrainSettings(steps, 5e-3, weight_decay=0.1, clip=None)
    loops: dict[str, Callable[[TokenMLP], object]] = {
        "heldout": lambda net: train(net, shuffled(split, BATCH, seed=0), squared_error([SCALE]), settings=settings),
        "by hand": lambda net: by_hand(net, inputs, targets, settings),
    }
    times: dict[str, list[float]] = {loop: [] for loop in loops}
    for turn in range(repeats + 1):
        for loop in sorted(loops, reverse=bool(turn % 2)):
            network = made(width)
            network.fit_outputs(split)
            start = time.process_time()
            loops[loop](network)
            if turn:  # the first turn warms up
                times[loop].append((time.process_time() - start) / steps)
    ratios = sorted(ours / theirs for ours, theirs in zip(times["heldout"], times["by hand"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    each = ", ".join(f"{loop} {1e6 * statistics.median(seconds):.0f} us a step" for loop, seconds in times.items())
    print(
        f"width {width}, {repeats} turns of {steps} steps: {each}; heldout / by hand: median "
        f"{statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}, all {ratios[0]:.3f} to {ratios[-1]:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for width in (64, 128):
        compare(width, given.steps, given.repeats)


if __name__ == "__main__":
    main()
