"""Seeds side by side, mixed precision and the interaction basis on an accelerator.

    python benchmarks/accelerator.py --device cuda [--seeds 64] [--modulus 113] [--repeats 5]

First the `dyck` study's network (laptop preset, aligned batches of 8 000 positions): all seeds in one stack, and one after
another, in float32 and in bfloat16. The ways run in turns; the ratio is taken within each turn. One after another is
timed on 8 of the seeds and scaled up. A way's time includes what it waits for (the clock, not the processor), because an
accelerator works beside the processor.

Then the interaction basis of the `degeneracy` study's transformer for addition modulo p, freshly initialised: bases and
edges of all its sections on all training pairs, on the device and on the CPU, and how far they differ.

To try it anywhere: ``--device cpu --seeds 3 --steps 2 --modulus 29 --repeats 2``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch

from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.studies import degeneracy, dyck
from heldout.studies.degeneracy_kept import bases_of
from heldout.studies.degeneracy_modular import LAYERS, network_of, task_of
from heldout.studies.dyck_audit import dyck as sentences
from heldout.studies.dyck_audit import made_network
from heldout.studies.running import pick_device
from heldout.training.batching import shuffled
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import PRECISIONS, Precision, TrainSettings
from heldout.training.together import How, train_together

ALONE = 8  # networks that are timed one after another


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(device: str, run: Callable[[], object]) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def quartiles(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"median {middle:.2f}, quartiles {low:.2f} to {high:.2f}"


def stacks(device: str, seeds: int, steps: int, repeats: int, sentences_drawn: int) -> None:
    config, _ = dyck.STUDY.configure("laptop", {"batches": "aligned", "train_sentences": sentences_drawn})
    s = dyck.step_settings(config)  # type: ignore[arg-type]
    train = sentences(s["task"]).splits["train"]
    orders = [shuffled(train, s["batch"], seed=seed, aligned=True) for seed in range(seeds)]
    for order in orders:
        order(0)  # planning an epoch is not what is measured

    def run(how: How, precision: Precision) -> None:
        settings = TrainSettings(steps, s["learning_rate"], precision=precision)
        few = range(seeds if how == "stacked" else min(seeds, ALONE))
        batches = [orders[seed] for seed in few]
        train_together(lambda: made_network(s), few, batches, cross_entropy, settings=settings, device=device, how=how)

    ways: tuple[How, ...] = ("stacked", "one by one")
    scale = {"stacked": 1.0, "one by one": seeds / min(seeds, ALONE)}
    times: dict[tuple[How, Precision], list[float]] = {way: [] for way in product(ways, PRECISIONS)}
    memory: dict[Precision, int] = {}
    for turn in range(repeats + 1):
        for how, precision in times:
            if device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats(device)
            taken = seconds(device, lambda how=how, precision=precision: run(how, precision)) * scale[how]  # type: ignore[misc]
            if turn:  # the first turn warms up
                times[how, precision].append(taken)
            if how == "stacked" and device.startswith("cuda"):
                memory[precision] = torch.cuda.max_memory_allocated(device)
    print(f"\n{seeds} Dyck transformers on {device}, {steps} updates, {repeats} turns")
    for precision in PRECISIONS:
        pairs = list(zip(times["stacked", precision], times["one by one", precision], strict=True))
        peak = f"; stack holds {memory[precision] / 2**30:.1f} GiB" if precision in memory else ""
        stacked, alone = (1e3 * statistics.median(each) / steps for each in zip(*pairs, strict=True))
        print(
            f"  {precision:9s} one by one {alone:9.1f} ms an update of all seeds, stacked {stacked:9.1f}; "
            f"ratio {quartiles([b / a for a, b in pairs])}{peak}"
        )
    for how in ways:
        ratios = [a / b for a, b in zip(times[how, "float32"], times[how, "bfloat16"], strict=True)]
        print(f"  {how:10s} float32 / bfloat16: {quartiles(ratios)}")


def basis(device: str, modulus: int, repeats: int) -> None:
    config, _ = degeneracy.STUDY.configure("paper", {"modulus": modulus})
    s = config.model_dump(mode="json")
    network = initialised(lambda: network_of(s), 0).eval()
    split = task_of(s).splits["train"]

    def run(place: str) -> list[torch.Tensor]:
        sections = Sections(network, LAYERS, device=place)
        bases = bases_of("lib", sections, split, batch_size=len(split))
        return [edge_matrix(sections, bases, split, i).squares for i in range(len(sections))]

    found: dict[str, Any] = {}
    times: dict[str, list[float]] = {"cpu": [], device: []}
    for turn in range(repeats + 1):
        for place, taken in times.items():
            now = seconds(place, lambda place=place: found.update({place: run(place)}))  # type: ignore[misc]
            if turn:
                taken.append(now)
    print(f"\ninteraction basis and edges modulo {modulus}, {len(split)} pairs, float64, {repeats} turns")
    for place, taken in times.items():
        print(f"  {place:5s} {statistics.median(taken):8.2f} s ({min(taken):.2f} to {max(taken):.2f})")
    for i, (here, there) in enumerate(zip(found["cpu"], found[device], strict=True)):
        gap = float((here - there).abs().max() / here.abs().max())
        print(f"  section {i}: squared edges differ by {gap:.1e} of the largest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sentences", type=int, default=20_000, help="training sentences, 3 000 or more")
    parser.add_argument("--modulus", type=int, default=113)
    parser.add_argument("--repeats", type=int, default=5, help="turns, 2 or more")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error("--repeats must be at least 2: quartiles are of several turns")
    device = pick_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "this processor"
    print(f"{name}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    stacks(device, arguments.seeds, arguments.steps, arguments.repeats, arguments.sentences)
    basis(device, arguments.modulus, arguments.repeats)


if __name__ == "__main__":
    main()
