"""Jacobian Grams against a loop of vector-Jacobian products, and the memory that they take.

    python benchmarks/degeneracy.py

Two sections, in float64 on one thread: an MLP with one hidden layer (96-384-96, ReLU) on 128 samples, and self-attention on
the residual stream (32 positions, width 64, 4 heads) on 8 sequences. Beside the library stand three loops, each of one
backward pass an output: `torch.autograd.functional.jacobian` sample by sample, which is what there is to call; the same
loop written out, with nothing in it but the pass and the product; and that loop over outputs with all samples in each
pass, which only a section that treats samples alike allows. Long loops are timed on a part of their outputs and scaled up.
Targets, against the first loop: exact probes 20 times faster (MLP) and 2.5 times (attention), signs over positions 40
times with an error below 6%. In float64 on a processor, exact probes are bound by arithmetic: no batching makes them much
faster than the third loop.

Then the peak memory of a process that does nothing else, over what it held before, for several budgets: the batch itself
and its graph are not in the budget.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from heldout.activations import jacobians
from heldout.activations.jacobians import jacobian_grams
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.networks.transformer import Attention
from heldout.tasks.base import Rectangular, Split

REPEATS = 5
BUDGETS = (64, 128, 256, 512)  # MiB


class Residual(nn.Module):
    """x + attention(x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads, causal=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.attn(x)
        return out


def mlp() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(96, 384), nn.ReLU(), nn.Linear(384, 96)).double()
    return network.requires_grad_(False), torch.randn(128, 96, dtype=torch.float64)


def attention() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Residual(64, 4).double().requires_grad_(False), torch.randn(8, 32, 64, dtype=torch.float64)


def ours(network: nn.Module, x: Tensor, probes: Probes, memory: int = 2**28) -> tuple[Tensor, float]:
    (gram,) = jacobian_grams(
        Sections(network, [".:input", "."]), Split("fit", "fit", Rectangular(x)), 0, 1, probes=probes, memory=memory
    )
    return gram.matrix(), gram.error


def functional_jacobian(network: nn.Module, x: Tensor, samples: int) -> Tensor:
    """PyTorch's own function on the first `samples`."""
    total = torch.zeros(x.shape[-1], x.shape[-1], dtype=torch.float64)
    for sample in x[:samples]:
        jacobian = torch.autograd.functional.jacobian(network, sample[None])
        rows = jacobian.reshape(-1, x.shape[-1])
        total += rows.T @ rows
    return total / x[:samples, ..., 0].numel()


def loop_over_samples(network: nn.Module, x: Tensor, part: int = 1) -> Tensor:
    """One backward pass for each output of each sample; of every `part`-th output only."""
    total = torch.zeros(x.shape[-1], x.shape[-1], dtype=torch.float64)
    for sample in x:
        leaf = sample[None].clone().requires_grad_()
        out = network(leaf)
        total += _rows(
            out, leaf, range(0, out.numel(), part), lambda cotangent, i: cotangent.view(-1).__setitem__(i, 1)
        )
    return total * part / x[..., 0].numel()


def loop_over_outputs(network: nn.Module, x: Tensor, part: int = 1) -> Tensor:
    """One backward pass for each output, over the whole batch."""
    leaf = x.clone().requires_grad_()
    out = network(leaf)
    outputs = range(0, out[0].numel(), part)
    total = _rows(out, leaf, outputs, lambda cotangent, i: cotangent.flatten(1)[:, i].fill_(1))
    return total * part / x[..., 0].numel()


def _rows(out: Tensor, leaf: Tensor, outputs: Iterable[int], mark: Callable[[Tensor, int], object]) -> Tensor:
    total = torch.zeros(leaf.shape[-1], leaf.shape[-1], dtype=torch.float64)
    for i in outputs:
        cotangent = torch.zeros_like(out)
        mark(cotangent, i)
        (gradient,) = torch.autograd.grad(out, leaf, cotangent, retain_graph=True)
        rows = gradient.flatten(0, -2)
        total += rows.T @ rows
    return total


def seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats + 1):  # the first warms up
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def compare(name: str, network: nn.Module, x: Tensor, part: int, kinds: dict[str, float]) -> None:
    """Times of the loops and of each kind of probes, with its target against the first loop."""
    samples = max(1, len(x) // 8)
    loops = (
        seconds(lambda: functional_jacobian(network, x, samples), 3) * len(x) / samples,
        seconds(lambda: loop_over_samples(network, x, 8 * part), 3) * 8 * part,
        seconds(lambda: loop_over_outputs(network, x, part), 3) * part,
    )
    print(f"{name}: loops of one pass an output")
    print("    functional.jacobian {:.2f} s, by hand {:.2f} s, all samples in one pass {:.2f} s".format(*loops))
    exact = loop_over_outputs(network, x)
    for kind, target in kinds.items():
        probes = Probes(kind)  # type: ignore[arg-type]
        took = seconds(lambda probes=probes: ours(network, x, probes))  # type: ignore[misc]
        found, error = ours(network, x, probes)
        faster = ", ".join(f"{loop / took:.1f}" for loop in loops)
        print(
            f"    {kind:9s} {took:7.3f} s: {faster} times faster (target {target:g} against the first); "
            f"differs by {float((found - exact).norm() / exact.norm()):.2g} of the norm (said: {error:.2g})"
        )


def peak(name: str, budget: int) -> None:
    torch.set_num_threads(1)
    jacobians.CACHE = 2**40  # otherwise a processor's cache, and not the budget, sets the chunk
    network, x = mlp() if name == "MLP" else attention()
    x, probes = torch.cat([x] * 8), Probes("exact" if name == "MLP" else "position")
    ours(network, x[:8], probes)  # what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux)
    before = high_water()
    ours(network, x, probes, budget * 2**20)
    print(f"    {name:9s} budget {budget:4d} MiB: peak {high_water() - before:6.1f} MiB more", flush=True)


def high_water() -> float:
    """The largest resident size of this process so far, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    torch.set_num_threads(1)
    compare("MLP 96-384-96, 128 samples", *mlp(), 1, {"exact": 20})
    compare("attention, 32 positions, width 64, 8 sequences", *attention(), 16, {"exact": 2.5, "position": 40})
    print("memory, 8 times the samples in one batch")
    fresh = multiprocessing.get_context("spawn")
    for name in ("MLP", "attention"):
        for budget in BUDGETS:
            process = fresh.Process(target=peak, args=(name, budget))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
