"""What the learning coefficient costs beyond the Langevin steps that it is made of.

    python benchmarks/llc.py [--repeats 5] [--draws 1500] [--cases small middle large]

Four chains with all data in every step. Beside `learning_coefficient`, with everything it does (curvature, automatic step,
seeds by chain, traces, R-hat, effective draws, drift), stand two loops of bare steps on the same loss, with the noise from
one generator and no record: one chain after another, as is written by hand, and all chains in one pass by `torch.func.vmap`.
They run in turns on one compute thread, time is that of the processor, and the ratio is taken within each turn. The
target is at most 1.3 times the first.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from heldout.analyses.degeneracy.llc import learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.networks.mlp import MLP

CHAINS, STEP, LOCALISATION = 4, 1e-4, 1.0
CASES = {"small": ((16, 32, 4), 500), "middle": ((64, 128, 64, 10), 1_000), "large": ((128, 256, 256, 10), 2_000)}


def one_after_another(network: nn.Module, x: Tensor, steps: int) -> None:
    n_beta = len(x) / math.log(len(x))
    with torch.no_grad():
        reference = network(x)
    for _ in range(CHAINS):
        chain = copy.deepcopy(network)
        pairs = list(zip(chain.parameters(), network.parameters(), strict=True))
        for _ in range(steps):
            loss = (chain(x) - reference).square().sum(-1).mean()
            chain.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p, start in pairs:
                    assert p.grad is not None
                    p += -STEP / 2 * (n_beta * p.grad + LOCALISATION * (p - start)) + math.sqrt(
                        STEP
                    ) * torch.randn_like(p)


def all_in_one(network: nn.Module, x: Tensor, steps: int) -> None:
    n_beta = len(x) / math.log(len(x))
    with torch.no_grad():
        reference = network(x)
    state, _ = stack_module_state([network] * CHAINS)
    state = {k: p.detach().requires_grad_() for k, p in state.items()}
    pairs = [(p, p.detach().clone()) for p in state.values()]
    outputs = vmap(lambda state: functional_call(network, state, (x,)))
    for _ in range(steps):
        loss = (outputs(state) - reference).square().sum(-1).mean(-1).sum()
        gradients = torch.autograd.grad(loss, list(state.values()))
        with torch.no_grad():
            for (p, start), g in zip(pairs, gradients, strict=True):
                p += -STEP / 2 * (n_beta * g + LOCALISATION * (p - start)) + math.sqrt(STEP) * torch.randn_like(p)


def measure(run: Callable[[], object]) -> float:
    """Processor seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(name: str, repeats: int, draws: int) -> None:
    widths, n = CASES[name]
    torch.manual_seed(0)
    network, x = MLP(widths), torch.randn(n, widths[0])
    how = Sampling(CHAINS, burn_in=draws // 3, draws=draws, localisation=LOCALISATION, step=STEP)
    steps = draws + draws // 3
    runs: dict[str, Callable[[], object]] = {
        "learning_coefficient": lambda: learning_coefficient(network, x, sampling=how),
        "bare, one after another": lambda: one_after_another(network, x, steps),
        "bare, all in one": lambda: all_in_one(network, x, steps),
    }
    times: dict[str, list[float]] = {k: [] for k in runs}
    for turn in range(repeats + 1):
        for k, run in runs.items():
            seconds = measure(run)
            if turn:  # the first warms up
                times[k].append(seconds)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"\n{name}: {parameters} parameters, {n} items, {CHAINS} chains of {steps} steps, {repeats} turns")
    for k, seconds in times.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(times["learning_coefficient"], seconds, strict=True))
        print(
            f"  {k:24s} {1e3 * statistics.median(seconds) / steps:7.2f} ms a step of all chains   "
            f"learning_coefficient / it: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1_500, help="the default of the library; a third more is burn-in")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.cases:
        compare(name, arguments.repeats, arguments.draws)


if __name__ == "__main__":
    main()
