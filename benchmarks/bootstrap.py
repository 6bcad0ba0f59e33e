"""Cost of the crossed bootstrap against one matrix product of the size of a naive one.

    python benchmarks/bootstrap.py

A naive bootstrap multiplies a (draws, units) matrix of counts with the (units, columns) sums, and must first make the
matrix. Here both run one after the other in each repeat, on one thread. Target for counts: at most 3 products.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from heldout.statistics.bootstrap import bootstrap_totals

DRAWS, UNITS, SEEDS, REPEATS = 10_000, 20_000, 5, 7


def main() -> None:
    rng = np.random.default_rng(0)
    counts = (rng.random((UNITS, SEEDS)) < 0.8).astype(np.float64)
    continuous = rng.normal(size=(UNITS, SEEDS))
    weights = rng.random((DRAWS, UNITS))
    product = rng.random((UNITS, SEEDS))

    print(f"{DRAWS:,} resamples of {UNITS:,} units for {SEEDS} seeds; one thread; medians of {REPEATS} repeats")
    with threadpool_limits(1):
        for name, sums, repeats in [("counts", counts, REPEATS), ("continuous", continuous, 3)]:
            pairs = [(seconds(lambda: weights @ product), seconds(lambda s=sums: resample(s))) for _ in range(repeats)]
            ratios = [ours / theirs for theirs, ours in pairs]
            theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"{name:>10}: product {theirs:.3f} s, bootstrap {ours:.3f} s, "
                f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
                f"peak memory {peak(sums) / 2**20:.1f} MiB (naive: {weights.nbytes / 2**20:.0f} MiB)"
            )


def resample(sums: np.ndarray) -> None:
    bootstrap_totals(sums, draws=DRAWS, rng=np.random.default_rng(1))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(sums: np.ndarray) -> int:
    """Bytes held at most by the bootstrap, over its input."""
    tracemalloc.start()
    resample(sums)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


if __name__ == "__main__":
    main()
