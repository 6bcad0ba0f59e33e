"""What training many seeds side by side saves over training them one after another.

    python benchmarks/stacked.py [--seeds 16] [--repeats 9]

The network is the `features` study's (32-256-128-64-64-2, batches of 256), the batches are the same for all seeds, and
all ways do the same updates. They run in turns on one compute thread; the ratio is taken within each turn, because the
machine's speed drifts between turns, and time is that of the processor. The target is a median of at least 1.5 over
`train`, one seed after another. Beside it stand a minimal loop written by hand, and the stack by `torch.func.vmap`
alone, without the MLP's own batched forward pass. Then come the parts: the matrix products are a floor that nothing
but fewer or faster products can lower.

Last are transformers of several sizes, through `train_together` (AdamW, clipped, 8 seeds): where stacking stops to pay
on a CPU. What ``auto`` chooses stands beside.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch
from heldout.tasks.features import Features, FeaturesSettings
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.optimizers import optimizer_of
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Stack, train_stacked
from heldout.training.together import How, train_together

WIDTHS, ROWS, STEPS = (32, 256, 128, 64, 64, 2), 256, 30
HOW = {
    "SGD": TrainSettings(STEPS, 0.1, "constant", optimizer="sgd", weight_decay=0.0, clip=None),
    "SGD, clipped": TrainSettings(STEPS, 0.1, "constant", optimizer="sgd", weight_decay=0.0),
    "AdamW, clipped": TrainSettings(STEPS, 1e-3, "constant"),
}


TRANSFORMER_SEEDS, TRANSFORMER_STEPS = 8, 10
TRANSFORMERS = {  # width, layers, heads, vocabulary, positions, items a batch
    "width 16, 256 tokens": (16, 2, 1, 12, 8, 32),
    "width 32, 768 tokens": (32, 2, 2, 12, 12, 64),
    "width 64, 320 tokens": (64, 2, 1, 43, 20, 16),
    "width 64, 2 560 tokens (dyck smoke)": (64, 2, 1, 43, 40, 64),
    "width 64, 8 000 tokens (dyck laptop)": (64, 2, 1, 43, 40, 200),
    "width 128, 1 500 tokens (modular)": (128, 1, 4, 114, 3, 500),
}


class Plain(nn.Module):
    """The same network behind a face that does not say how it is stacked."""

    def __init__(self, network: MLP) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


def ways(task: Features, settings: TrainSettings, seeds: int) -> dict[str, Callable[[], object]]:
    split, loss = task.splits["train"], task.heads.loss()

    def networks() -> list[MLP]:
        return [initialised(lambda: MLP(WIDTHS), seed) for seed in range(seeds)]

    def by_hand() -> None:
        for network in networks():
            optimizer = optimizer_of(network, settings)
            batches = shuffled(split, ROWS, seed=0)
            for step in range(settings.steps):
                batch = batches(step)
                value = loss(network(batch.inputs), batch)
                optimizer.zero_grad()
                value.backward()
                if settings.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                optimizer.step()

    def one_by_one() -> None:
        for network in networks():
            train(network, shuffled(split, ROWS, seed=0), loss, settings=settings)

    def stacked(stack: Stack) -> None:
        train_stacked(stack, shuffled(split, ROWS, seed=0), loss, settings=settings)

    return {
        "stacked": lambda: stacked(Stack(networks())),
        "stacked by vmap alone": lambda: stacked(Stack([Plain(n) for n in networks()])),
        "train, one by one": one_by_one,
        "by hand, one by one": by_hand,
    }


def measure(run: Callable[[], object]) -> float:
    """Processor seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(title: str, runs: Mapping[str, Callable[[], object]], repeats: int, unit: float) -> None:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name in sorted(runs, key=lambda name: hash((turn, name)) if turn else 0):
            seconds = measure(runs[name])
            if turn:  # the first turn warms up
                times[name].append(seconds)
    print(f"\n{title}: {repeats} turns")
    ours = times["stacked"]
    for name, seconds in times.items():
        ratios = sorted(theirs / own for own, theirs in zip(ours, seconds, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"  {name:24s} {1e3 * statistics.median(seconds) / unit:7.2f} ms a step of all seeds   "
            f"it / stacked: median {statistics.median(ratios):.2f}, quartiles {low:.2f} to {high:.2f}"
        )


def products(seeds: int) -> Callable[[], object]:
    """The matrix products of one step and nothing else."""
    sizes = list(pairwise(WIDTHS))
    tensors = [(torch.randn(seeds, ROWS, i), torch.randn(seeds, o, i), torch.randn(seeds, ROWS, o)) for i, o in sizes]

    def run() -> None:
        for layer, (x, weight, gradient) in enumerate(tensors):
            torch.bmm(x, weight.mT)
            torch.bmm(gradient.mT, x)
            if layer:  # nothing asks for the gradient of the inputs
                torch.bmm(gradient, weight)

    return run


def transformer(sizes: tuple[int, ...]) -> Callable[[How], str]:
    """A run of all seeds that answers how it was trained."""
    width, layers, heads, vocabulary, positions, items = sizes
    tokens = torch.randint(vocabulary, (items, positions + 1), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[:, :-1], torch.arange(items), tokens[:, 1:])
    settings = TrainSettings(TRANSFORMER_STEPS, 1e-3, "constant")

    def run(how: How) -> str:
        def make() -> Transformer:
            return Transformer(vocabulary, width=width, layers=layers, heads=heads, max_length=positions)

        seeds = range(TRANSFORMER_SEEDS)
        return train_together(make, seeds, lambda step: batch, cross_entropy, settings=settings, how=how).how

    return run


def transformers(repeats: int) -> None:
    print(f"\n{TRANSFORMER_SEEDS} transformers, one by one / stacked: {repeats} turns")
    for name, sizes in TRANSFORMERS.items():
        run = transformer(sizes)
        both = partial(run, "stacked"), partial(run, "one by one")
        turns = [[measure(way) for way in both] for _ in range(repeats + 1)]
        ratios = sorted(single / stacked for stacked, single in turns[1:])  # the first turn warms up
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"  {name:38s} median {statistics.median(ratios):.2f}, quartiles {low:.2f} to {high:.2f}; auto: {run('auto')}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = Features(FeaturesSettings())
    for name, settings in HOW.items():
        compare(f"{arguments.seeds} seeds, {name}", ways(task, settings, arguments.seeds), arguments.repeats, STEPS)
    run = products(arguments.seeds)
    floor = statistics.median(measure(lambda: [run() for _ in range(STEPS)]) for _ in range(arguments.repeats))
    print(f"\nmatrix products alone: {1e3 * floor / STEPS:.2f} ms a step of all seeds")
    settings = HOW["SGD"]
    stack = Stack([initialised(lambda: MLP(WIDTHS), seed) for seed in range(arguments.seeds)])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train_stacked(stack, shuffled(task.splits["train"], ROWS, seed=0), task.heads.loss(), settings=settings)
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
    transformers(arguments.repeats)


if __name__ == "__main__":
    main()
