"""What replay saves: a grid of 8 ranks x 4 sites x 6 splits, with replay and with full passes.

    python benchmarks/replay.py [--repeats 5]

Both sides run the original network once on every split and then every edit; their outputs are equal to the bit, which
is asserted. They run in turns on one compute thread; the ratio is taken within each turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.activations.tap import Tap
from heldout.evidence import Origin
from heldout.networks.transformer import Transformer
from heldout.proxies.svd import SVD
from heldout.tasks.base import Batch

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
SITES = [f"blocks.{i}.mlp" for i in range(4)]

Grid = Mapping[str, list[Edit]]


def with_replay(network: Transformer, splits: list[Batch], grid: Grid) -> list[Tensor]:
    outputs = []
    replay = Replay(network, SITES)
    for batch in splits:
        outputs.append(replay.record(batch).output)
        outputs += [replay.run(batch, edit.functions).output for edits in grid.values() for edit in edits]
    return outputs


def with_full_passes(network: Transformer, splits: list[Batch], grid: Grid) -> list[Tensor]:
    outputs = []
    for batch in splits:
        with Tap(network) as tap:
            outputs.append(tap(batch).output)
        for edits in grid.values():
            for edit in edits:
                with Tap(network, edit=edit.functions) as tap:
                    outputs.append(tap(batch).output)
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    network = Transformer(43, width=128, layers=4, heads=4, max_length=64).eval()
    splits = [Batch(torch.randint(43, (16, 64), generator=draw), torch.arange(16)) for _ in range(6)]
    grid = {}
    with Tap(network, read=SITES) as tap:
        reading = tap(splits[0])
    for site in SITES:
        fit = SVD().fit(reading[site].flatten(0, 1))
        grid[site] = [Edit.from_proxy(site, fit.at(rank), Origin("svd", parameter=rank)) for rank in RANKS]
    assert Replay(network, SITES).check(splits[0]) == 0.0

    times: dict[str, list[float]] = {"replay": [], "full": []}
    sides = [("replay", with_replay), ("full", with_full_passes)]
    for turn in range(repeats):
        outputs = []
        for side, function in sides if turn % 2 else sides[::-1]:
            start = time.process_time()
            outputs.append(function(network, splits, grid))
            times[side].append(time.process_time() - start)
        assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    ratios = sorted(a / b for a, b in zip(times["replay"], times["full"], strict=True))
    print(
        f"8 ranks x 4 sites x 6 splits, width 128, 4 layers: replay {statistics.median(times['replay']):.2f} s, full "
        f"passes {statistics.median(times['full']):.2f} s; ratio: median {statistics.median(ratios):.3f}, from "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f}; outputs equal to the bit"
    )


if __name__ == "__main__":
    main()
