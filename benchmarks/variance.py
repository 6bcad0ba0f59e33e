"""Cost of the measures of representation bias against that of the Gram matrix they are made from.

    python benchmarks/variance.py

100 000 x 512 activations (float32) with eight labels, streamed once: the first half fits, the second is scored. One pass
gives joint moments and every row's errors; from them come variance explained with its intervals, unique and shared parts,
density with its nulls, components and the invariance band. Beside it, in each repeat, the Gram matrix alone: the same
chunks as float64, x^T x summed. Processor time of one thread, which other work on the machine disturbs less than the
clock. Target: at most 2 Gram matrices.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from heldout.analyses.features.density import densities
from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import CHUNK, JointMoments, chunks
from heldout.analyses.features.principal import component_r2, components
from heldout.analyses.features.strength import strength_estimates
from heldout.analyses.features.variance import RowErrors, parts, standard_maps

ROWS, WIDTH, LABELS, REPEATS = 100_000, 512, 8, 5


def main() -> None:
    torch.set_num_threads(1)
    x, table = activations()
    print(
        f"{ROWS:,} x {WIDTH} activations, {LABELS} labels; processor time of one thread; medians of {REPEATS} repeats"
    )
    stages: list[list[float]] = []
    ratios = []
    for _ in range(REPEATS):
        gram = seconds(lambda: form_gram(x))
        parts_of_it = measure(x, table)
        stages.append([gram, *parts_of_it])
        ratios.append(sum(parts_of_it) / gram)
    for name, column in zip(("gram matrix", "one pass", "what is made of it"), zip(*stages, strict=True), strict=True):
        print(f"{name:>18}: {statistics.median(column):6.2f} s ({min(column):.2f} to {max(column):.2f})")
    print(f"{'ratio':>18}: {statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")


def activations() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=(ROWS, LABELS))
    directions = rng.normal(size=(LABELS, WIDTH)) * np.linspace(0.1, 0.0, LABELS)[:, None]
    x = rng.standard_normal(size=(ROWS, WIDTH), dtype=np.float32)
    x += (1.0 + labels @ directions).astype(np.float32)
    return torch.from_numpy(x), {f"f{i}": labels[:, i] for i in range(LABELS)}


def form_gram(x: torch.Tensor) -> torch.Tensor:
    gram = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for rows in torch.split(x, CHUNK):
        rows = rows.double()
        gram += rows.T @ rows
    return gram


def measure(x: torch.Tensor, table: dict[str, np.ndarray]) -> tuple[float, float]:
    """Seconds for the pass over rows, and for what is made of the moments."""
    start = time.process_time()
    half = ROWS // 2
    coding = Coding.fit({name: values[:half] for name, values in table.items()})
    design = coding.encode(table)
    fit, test = JointMoments(coding.width), JointMoments(coding.width)
    for rows, part in chunks(x[:half], design[:half]):
        fit.update(rows, part)
    errors = RowErrors(standard_maps(fit, coding))
    for rows, part in chunks(x[half:], design[half:]):
        test.update(rows, part)
        errors.update(rows, part)
    middle = time.process_time()
    strength_estimates(errors, coding)
    parts(fit, test, coding)
    pca = components(fit)
    densities(test, coding, seed=0)
    bands(fit, test, coding, seed=0)
    for name in coding.names:
        component_r2(pca, test, coding.columns(name))
    return middle - start, time.process_time() - middle


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
