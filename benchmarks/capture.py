"""What reading activations costs beside hooks written by hand.

    python benchmarks/capture.py [--repeats 15]

Two questions, each with its target:

- four sites of a transformer of width 128 on 32 sentences of 64 tokens: reading, and updating float64 moments with what
  was read, at most 1.05 x forward hooks that do the same;
- the fixed cost of one call on a 3-layer MLP and four items: opening a tap on two sites, one pass, closing it, at most
  1.5 x registering two hooks by hand, one pass, removing them.

Both sides run in turns on one compute thread, in processor time; the ratio is taken within each turn, as speed drifts
between turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.activations.capture import capture
from heldout.activations.tap import Tap
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch, Rectangular, Split

SITES = [f"blocks.{i}" for i in range(4)]


def by_hand(network: nn.Module, sites: list[str], inputs: list[Tensor]) -> list[Tensor]:
    """Forward hooks that keep what they see."""
    kept: list[Tensor] = []
    handles = [
        network.get_submodule(site).register_forward_hook(lambda module, args, output: kept.append(output))
        for site in sites
    ]
    try:
        with torch.no_grad():
            for x in inputs:
                kept.clear()
                network(x)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def moments_by_hand(network: nn.Module, sites: list[str], inputs: list[Tensor]) -> dict[str, Moments]:
    """Forward hooks that update moments with what they see."""
    moments = {site: Moments() for site in sites}
    handles = []
    for site in sites:

        def hook(module: nn.Module, args: object, output: Tensor, m: Moments = moments[site]) -> None:
            m.update(output.flatten(0, -2))

        handles.append(network.get_submodule(site).register_forward_hook(hook))
    try:
        with torch.no_grad():
            for x in inputs:
                network(x)
    finally:
        for handle in handles:
            handle.remove()
    return moments


def tapped(network: nn.Module, sites: list[str], batches: list[Batch]) -> list[Tensor]:
    with Tap(network, read=sites) as tap:
        for batch in batches:
            reading = tap(batch)
    return [reading[site] for site in sites]


def captured(network: nn.Module, sites: list[str], split: Split, size: int) -> dict[str, Moments]:
    moments = {site: Moments() for site in sites}
    capture(network, split, {site: [m] for site, m in moments.items()}, batch_size=size)
    return moments


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], *, target: float, calls: int, repeats: int
) -> None:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(repeats + 1):
        pair = [("ours", ours), ("theirs", theirs)]
        for side, function in pair if turn % 2 else pair[::-1]:
            start = time.process_time()
            for _ in range(calls):
                function()
            if turn:  # the first turn warms up
                times[side].append((time.process_time() - start) / calls)
    ratios = sorted(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(
        f"{name:42s} heldout {1e6 * statistics.median(times['ours']):9.0f} us, by hand "
        f"{1e6 * statistics.median(times['theirs']):9.0f} us; ratio: median {statistics.median(ratios):.3f}, quartiles "
        f"{low:.3f} to {high:.3f} (target {target})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)

    network: nn.Module = Transformer(43, width=128, layers=4, heads=4, max_length=64).eval()
    tokens = torch.randint(43, (96, 64), generator=draw)
    split = Split("fit", "fit", Rectangular(tokens))
    batches = list(split.batches(32))
    inputs = [batch.inputs for batch in batches]
    for a, b in zip(tapped(network, SITES, batches), by_hand(network, SITES, inputs), strict=True):
        assert torch.equal(a, b)
    compare(
        "transformer, four sites, reading",
        lambda: tapped(network, SITES, batches),
        lambda: by_hand(network, SITES, inputs),
        target=1.05,
        calls=1,
        repeats=repeats,
    )
    compare(
        "transformer, four sites, moments",
        lambda: captured(network, SITES, split, 32),
        lambda: moments_by_hand(network, SITES, [batch.inputs for batch in split.batches(32)]),
        target=1.05,
        calls=1,
        repeats=repeats,
    )
    small: nn.Module = MLP((16, 32, 32, 8)).eval()
    few = Batch(torch.randn(4, 16, generator=draw), torch.arange(4))
    sites = ["hidden.0", "hidden.1"]
    compare(
        "3-layer MLP, one call from open to close",
        lambda: tapped(small, sites, [few]),
        lambda: by_hand(small, sites, [few.inputs]),
        target=1.5,
        calls=300,
        repeats=repeats,
    )


if __name__ == "__main__":
    main()
