"""Grams, bases and edges of the transformer that adds modulo 113, on two processes' worth of threads.

    python benchmarks/interaction_basis.py

The architecture of the `paper` preset of the degeneracy study (width 128, 4 heads, 512 ReLUs, no norms; weights as they are
initialised, which cost the same as trained ones): three sections, all pairs that are trained on (30% of the unordered ones),
float64, exact Jacobians. Target: two minutes on two cores. Peak memory is what the process took over what it held before.
"""

from __future__ import annotations

import resource
import statistics
import time

import torch

from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.studies.base import find_study
from heldout.studies.degeneracy_kept import bases_of
from heldout.studies.degeneracy_modular import BASES, LAYERS, SECTIONS, network_of, task_of
from heldout.training.seeds import initialised

THREADS, REPEATS = 2, 3


def main() -> None:
    torch.set_num_threads(THREADS)
    config, _ = find_study("degeneracy").configure("paper")
    settings = config.model_dump(mode="json") | {"seed": 100}
    task = task_of(settings)
    train = task.splits["train"]
    network = initialised(lambda: network_of(settings), 100).eval()
    print(f"{len(train)} pairs, {sum(p.numel() for p in network.parameters())} parameters, {THREADS} threads")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in BASES:
        took: dict[str, list[float]] = {"Grams and bases": [], **{f"edges, {name}": [] for name in SECTIONS}}
        for _ in range(REPEATS):
            sections = Sections(network, LAYERS)
            start = time.perf_counter()
            bases = bases_of(kind, sections, train)
            took["Grams and bases"].append(time.perf_counter() - start)
            for number, name in enumerate(SECTIONS):
                start = time.perf_counter()
                edge_matrix(sections, bases, train, number)
                took[f"edges, {name}"].append(time.perf_counter() - start)
        for what, seconds in took.items():
            print(f"{kind:4} {what:22} {statistics.median(seconds):7.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")
        print(f"{kind:4} {'all':22} {sum(statistics.median(s) for s in took.values()):7.1f} s")
    print(f"peak memory: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
