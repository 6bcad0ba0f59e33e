"""What an engine costs, and what it brings: seconds to start, milliseconds a step, and many seeds on two workers.

    python benchmarks/engines.py [--steps 100] [--seeds 8] [--updates 300] [--repeats 3] [--engines inline,local,ray]

*Overhead*: a step that does nothing, run by a study's driver: its place in the store, its record, its files made durable,
and the way to a worker and back; beside it a bare call through the engine. *Throughput*: updates of the nano transformer
(batches of 64 sums of three-digit numbers, width 5, as long as the `arithmetic` study's), one call a seed, with one
worker and with two, in turns, timed once the workers have imported everything. The target is a median ratio of at least
1.8. Workers have one compute thread each. The load stands beside every line: with other work on the processors the ratio
says little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

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
    """Import what `train_seed` needs and keep the worker, so that the next call falls to another one."""
    train_seed(0, 1)
    time.sleep(seconds)
    return os.getpid()


def train_seed(seed: int, updates: int) -> float:
    """Train one network; the last loss."""
    network = initialised(lambda: mingpt(10, "nano", max_length=TOKENS), seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for _ in range(updates):
        tokens = torch.randint(10, (BATCH, TOKENS + 1), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def milliseconds_a_step(engine: Engine, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        order = check_steps([Step(f"s{i}", nothing, {"i": i}) for i in range(steps)])
        keys, store = step_keys(order), Store(Path(folder) / "store")
        store.prepare()
        engine.share(store)
        jobs = {step.name: _job(step, keys, store, "cpu", replace=False) for step in order}
        started = time.perf_counter()
        _drive(order, jobs, engine, store, False, lambda event, **details: None)
        return 1e3 * (time.perf_counter() - started) / steps


def seconds_for_seeds(engine: Engine, seeds: int, updates: int) -> float:
    list(engine.map(ready, [1.0] * engine.workers))
    started = time.perf_counter()
    list(engine.map(train_seed, range(seeds), [updates] * seeds))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", default="inline,local,ray")
    args = parser.parse_args()
    for name in args.engines.split(","):
        started = time.perf_counter()
        with make_engine(name, 1) as engine:
            engine.submit(int).result()
            start = time.perf_counter() - started
            calls = []
            for _ in range(args.steps):
                started = time.perf_counter()
                engine.submit(int).result()
                calls.append(1e3 * (time.perf_counter() - started))
            step = milliseconds_a_step(engine, args.steps)
        print(
            f"{name:7s} starts in {start:5.2f} s; {statistics.median(calls):6.2f} ms a call, {step:6.2f} ms a step; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    for name in set(args.engines.split(",")) - {"inline"}:
        ratios, each = [], []
        for _ in range(args.repeats):
            took = []
            for workers in (1, 2):
                with make_engine(name, workers) as engine:
                    took.append(seconds_for_seeds(engine, args.seeds, args.updates))
            ratios.append(took[0] / took[1])
            each.append(took[1])
        print(
            f"{name:7s} {args.seeds} seeds x {args.updates} updates: two workers {statistics.median(each):.1f} s, "
            f"{statistics.median(ratios):.2f} times the throughput of one ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    import engines  # under its own name, so that workers can import its steps

    engines.main()
