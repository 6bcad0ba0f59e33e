"""What an engine costs, and what it brings: seconds to start, milliseconds a step, and many seeds on two workers.

    python benchmarks/engines.py [--steps 100] [--seeds 8] [--updates 300] [--repeats 3] [--engines inline,local,ray]

*Overhead*: a step that does nothing, run by a study's driver: its place in the store, its record, its files made durable,
and the way to a worker and back; beside it a bare call through the engine. Engines take turns; median and least of all
turns are given, since what others do on the machine can only add. *Throughput*: updates of the nano transformer (batches
of 64 sums of three-digit numbers, width 5, as long as the `arithmetic` study's), one call a seed, with one worker and with
two, in turns, timed once the workers have imported everything. The target is a median ratio of at least 1.8. Workers have
one compute thread each.

On a machine that is not idle the ratio says little of the engine, so three figures stand beside it. *Held*: the processor
time of the calls over the time that passed, which is how many processors the workers were given. *A seed*: its processor
time with two workers over that with one, which is what they cost each other (memory, a core's two threads). *Busy*: the
share of the time that workers were at a call; the rest is what the engine, and an uneven end, lost. On an idle machine the
ratio is 2 x busy (two workers) / busy (one) / a seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from heldout.networks.gpt import mingpt
from heldout.runs.engine import Engine, make_engine
from heldout.runs.run import _drive, _job  # the driver alone, without the start of its engine
from heldout.runs.steps import Step, StepContext, check_steps, step_keys
from heldout.runs.store import Store
from heldout.training.seeds import initialised

TOKENS, BATCH = 15, 64


def nothing(ctx: StepContext) -> None:
    """A step with nothing to do."""


def ready(seconds: float) -> int:
    """Import what a step and `train_seed` need and keep the worker, so that the next call falls to another one."""
    train_seed(0, 1)
    time.sleep(seconds)
    return os.getpid()


def train_seed(seed: int, updates: int) -> tuple[float, float]:
    """Train one network; the seconds that it took, and those of processor time."""
    started = time.perf_counter(), time.process_time()
    network = initialised(lambda: mingpt(10, "nano", max_length=TOKENS), seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        tokens = torch.randint(10, (BATCH, TOKENS + 1), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def milliseconds_of_steps(engine: Engine, steps: int) -> list[float]:
    """Of each step but the first, from the end of the one before it to its own."""
    with tempfile.TemporaryDirectory() as folder:
        order = check_steps([Step(f"s{i}", nothing, {"i": i}) for i in range(steps)])
        keys, store = step_keys(order), Store(Path(folder) / "store")
        store.prepare()
        engine.share(store)
        jobs = {step.name: _job(step, keys, store, "cpu", replace=False) for step in order}
        ends: list[float] = []

        def heard(event: str, **details: object) -> None:
            if event == "finished":
                ends.append(time.perf_counter())

        _drive(order, jobs, engine, store, False, heard)
        return [1e3 * (later - earlier) for earlier, later in pairwise(ends)]


class Overhead(NamedTuple):
    """Seconds until the first call is answered, and milliseconds of calls and of empty steps."""

    start: float
    calls: list[float]
    steps: list[float]


def overhead(name: str, steps: int) -> Overhead:
    started = time.perf_counter()
    with make_engine(name, 1) as engine:
        engine.submit(int).result()
        start = time.perf_counter() - started
        engine.submit(ready, 0.0).result()
        calls = []
        for _ in range(steps):
            started = time.perf_counter()
            engine.submit(int).result()
            calls.append(1e3 * (time.perf_counter() - started))
        return Overhead(start, calls, milliseconds_of_steps(engine, steps))


class Seeds(NamedTuple):
    """Seconds that all seeds took, the processors that they held meanwhile, seconds of processor time of one of them, and
    the share of the time that workers were at them, 0 to 1."""

    wall: float
    held: float
    each: float
    busy: float


def seconds_for_seeds(name: str, workers: int, seeds: int, updates: int) -> Seeds:
    with make_engine(name, workers) as engine:
        list(engine.map(ready, [1.0] * workers))
        started = time.perf_counter()
        took = list(engine.map(train_seed, range(seeds), [updates] * seeds))
        wall = time.perf_counter() - started
    within, used = (sum(part) for part in zip(*took, strict=True))
    return Seeds(wall, used / wall, used / seeds, within / (workers * wall))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", default="inline,local,ray")
    args = parser.parse_args()
    names = args.engines.split(",")
    turns = [{name: overhead(name, args.steps) for name in names} for _ in range(args.repeats)]
    for name in names:
        calls = [took for turn in turns for took in turn[name].calls]
        steps = [took for turn in turns for took in turn[name].steps]
        print(
            f"{name:7s} starts in {min(turn[name].start for turn in turns):5.2f} s; a call takes "
            f"{statistics.median(calls):6.2f} ms (least {min(calls):.2f}), a step {statistics.median(steps):6.2f} ms (least "
            f"{min(steps):.2f}); load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    for name in (n for n in names if n != "inline"):
        ratios = []
        for turn in range(args.repeats):
            order = (1, 2) if turn % 2 else (2, 1)
            took = {workers: seconds_for_seeds(name, workers, args.seeds, args.updates) for workers in order}
            one, two = took[1], took[2]
            ratios.append(one.wall / two.wall)
            print(
                f"{name:7s} turn {turn}: one worker {one.wall:.1f} s, two {two.wall:.1f} s: {ratios[-1]:.2f} times "
                f"the throughput; held {one.held:.2f} and {two.held:.2f} processors; a seed took {two.each / one.each:.2f} "
                f"times as much; workers busy {one.busy:.1%} and {two.busy:.1%}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(
            f"{name:7s} {args.seeds} seeds x {args.updates} updates: two workers have {statistics.median(ratios):.2f} times "
            f"the throughput of one ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    import engines  # under its own name, so that workers can import its steps

    engines.main()
