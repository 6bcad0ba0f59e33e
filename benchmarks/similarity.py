"""Cost of similarity with its statistics: CKA against its floor, RDMs and the dual bootstrap against rsatoolbox.

    python benchmarks/similarity.py

1. Debiased CKA of 4 000 x 128 activations beside the least that any linear CKA through the units must do: centre, and the
   three products X^T Y, X^T X, Y^T Y. Target: at most 2 floors.
2. The correlation-distance RDM of 2 000 x 256 activations. Target: 5 times faster than rsatoolbox.
3. The dual bootstrap of a model against 100 conditions x 10 RDMs, noise ceilings in every draw, as rsatoolbox computes them;
   draws for both are the same. Target: 10 times faster.

Each repeat runs both sides one after the other, on one thread; ratios are of one repeat. The largest difference between the
two results stands beside them. Without rsatoolbox (a dependency of the tests only) its rows are left out.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from heldout.analyses.similarity.cka import cka
from heldout.analyses.similarity.dual import dual_bootstrap, of_counts
from heldout.analyses.similarity.rdm import rdm

REPEATS, CONDITIONS, SUBJECTS, DRAWS = 7, 100, 10, 100


def main() -> None:
    print(f"one thread; medians of {REPEATS} repeats (least to greatest)")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alignment()
        try:
            import rsatoolbox
        except ImportError:
            print("rsatoolbox is not installed: its comparisons are left out")
            return
        distances(rsatoolbox)
        bootstrap(rsatoolbox)


def alignment() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 4000, 128))
    pairs = [(seconds(lambda: floor(x, y)), seconds(lambda: cka(x, y))) for _ in range(3 * REPEATS)]
    told("debiased CKA, 4 000 x 128", "floor", pairs, [ours / least for least, ours in pairs], "floors")


def floor(x: np.ndarray, y: np.ndarray) -> float:
    """Biased CKA, with nothing checked."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    xy, xx, yy = (float(np.vdot(m, m)) for m in (x.T @ y, x.T @ x, y.T @ y))
    return xy / (xx * yy) ** 0.5


def distances(toolbox: Any) -> None:
    x = np.random.default_rng(1).normal(size=(2000, 256))
    data = toolbox.data.Dataset(x)

    def theirs() -> np.ndarray:
        return toolbox.rdm.calc_rdm(data, method="correlation").dissimilarities[0]

    gap = np.abs(theirs() - rdm(x)).max()
    pairs = [(seconds(theirs), seconds(lambda: rdm(x))) for _ in range(REPEATS)]
    told(
        "correlation RDM, 2 000 x 256",
        "rsatoolbox",
        pairs,
        [a / b for a, b in pairs],
        f"times faster, equal to {gap:.0e}",
    )


def bootstrap(toolbox: Any) -> None:
    from rsatoolbox.inference import evaluate

    rng = np.random.default_rng(2)
    common = rng.normal(size=(CONDITIONS, 30))
    model = rdm(common)
    subjects = np.stack([rdm(common + rng.normal(size=common.shape)) for _ in range(SUBJECTS)])
    data, fixed = toolbox.rdm.RDMs(subjects), toolbox.model.ModelFixed("model", model)
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    sample = evaluate.bootstrap_sample

    def recorded(*args: Any, **kwargs: Any) -> Any:
        found = sample(*args, **kwargs)
        drawn.append(found[1:])
        return found

    evaluate.bootstrap_sample = recorded
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        pairs, gaps = [], []
        for _ in range(3):
            drawn.clear()
            start = time.perf_counter()
            theirs = toolbox.inference.eval_dual_bootstrap(fixed, data, method="corr", N=DRAWS)
            middle = time.perf_counter()
            dual_bootstrap(model[None], subjects, draws=DRAWS, rng=rng, ceilings=True)
            pairs.append((middle - start, time.perf_counter() - middle))
            stimuli, of_subjects = (
                np.stack([np.bincount(d[k], minlength=size) for d in drawn]).astype(float)
                for k, size in ((1, CONDITIONS), (0, SUBJECTS))
            )
            ours = of_counts(model[None], subjects, "pearson", stimuli, np.ones((DRAWS, 1)), of_subjects, ceilings=True)
            gaps += [np.abs(ours.values - theirs.evaluations[:, 0, 0, 0]).max()]
            gaps += [np.abs(a - b[:, 0]).max() for a, b in zip(ours[1:], theirs.noise_ceiling, strict=True)]
    evaluate.bootstrap_sample = sample
    told(
        f"dual bootstrap, {CONDITIONS} conditions x {SUBJECTS} RDMs, {DRAWS} draws",
        "rsatoolbox",
        pairs,
        [a / b for a, b in pairs],
        f"times faster, equal to {max(gaps):.0e}",
    )


def told(what: str, other: str, pairs: list[tuple[float, float]], ratios: list[float], unit: str) -> None:
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{what}: {other} {theirs * 1e3:.1f} ms, heldout {ours * 1e3:.1f} ms, "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) {unit}"
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
