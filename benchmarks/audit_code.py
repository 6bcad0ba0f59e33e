"""What auditing a decoder costs: 8 ranks x 4 layers x 3 splits, with replay against each proxied network in full.

    python benchmarks/audit_code.py [--repeats 3] [--windows 48] [--sizes 64,256,1024]

A 4-layer decoder of width 128 over windows of 128 characters, queries and keys of one layer at a time on their leading
directions. Both sides give the same scores, which is asserted; they run in turns on one compute thread, and the ratio is
taken within each turn, of processor time. Then a part of the audit (two ranks, four layers, one split) over more and more
windows, all above one batch, each in a process of its own: peak memory must not grow with the number of examples.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.scoring import compare
from heldout.analyses.tables import Folder
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import attention_edits
from heldout.proxies.fit import Family
from heldout.tasks.base import Rectangular, Role, Split
from heldout.tasks.code.vocabulary import SIZE
from heldout.training.seeds import initialised

RANKS = (1, 2, 4, 8, 12, 16, 24, 32)
FEW = (4, 16)  # where memory is measured
LAYERS, HEADS, WINDOW, BATCH = 4, 4, 128, 24
SPLITS = ("id", "python_packages", "c_cpp")


def random_split(name: str, role: Role, windows: int, seed: int) -> Split:
    """Windows of random characters: what is computed, and so its cost, does not depend on them."""
    draw = np.random.default_rng(seed)
    tokens = torch.from_numpy(draw.integers(0, SIZE, size=(windows, WINDOW)))
    return Split(name, role, Rectangular(tokens, tokens), units=np.arange(windows) // 4)


def prepared(windows: int, ranks: tuple[int, ...] = RANKS) -> tuple[Subject, list[Split], list[Edit]]:
    network = initialised(lambda: Transformer(SIZE, width=128, layers=LAYERS, heads=HEADS, max_length=WINDOW), 0).eval()
    fit = random_split("fit", "fit", 24, 9)
    edits = [
        edit
        for layer in range(LAYERS)
        for edit in attention_edits(
            network, fit, f"blocks.{layer}.attn", [Family("svd", ranks)], heads=HEADS, batch_size=BATCH
        )
    ]
    return Subject(network), [random_split(n, "test", windows, i) for i, n in enumerate(SPLITS)], edits


def audited(subject: Subject, splits: list[Split], edits: list[Edit], out: Path) -> list[float]:
    """The original once a batch, every edit replayed; agreement by edit and split."""
    with Folder(out) as sink:
        outcome = faithfulness(subject, splits, edits, sink, batch_size=BATCH)
    return [agreement[s.name] for agreement in outcome.agreement for s in splits]


def in_full(subject: Subject, splits: list[Split], edits: list[Edit]) -> list[float]:
    """Each proxied network as one would run it: a full pass, beside a full pass of the original, for every edit."""
    found = []
    for edit in edits:
        for split in splits:
            same = total = 0.0
            for batch in split.batches(BATCH):
                with Tap(subject.network) as tap:
                    network = subject.scoring.predictions(tap(batch).output, batch)
                with Tap(subject.network, edit=edit.functions) as tap:
                    proxy = subject.scoring.predictions(tap(batch).output, batch)
                values = compare(network, proxy)
                same, total = same + float(values["same"].sum()), total + len(network.item)
            found.append(same / total)
    return found


def original_kept(subject: Subject, splits: list[Split], edits: list[Edit]) -> list[float]:
    """The stricter comparison: the original once a batch, each proxied network in a full pass."""
    same, total = np.zeros((len(edits), len(splits))), np.zeros(len(splits))
    for at, split in enumerate(splits):
        for batch in split.batches(BATCH):
            with Tap(subject.network) as tap:
                original = subject.scoring.predictions(tap(batch).output, batch)
            total[at] += len(original.item)
            for i, edit in enumerate(edits):
                with Tap(subject.network, edit=edit.functions) as tap:
                    proxy = subject.scoring.predictions(tap(batch).output, batch)
                same[i, at] += float(compare(original, proxy)["same"].sum())
    return [float(v) for v in (same / total).ravel()]


def peak(windows: int) -> float:
    """Peak resident memory of one audit in a process of its own, MiB."""
    command = [sys.executable, __file__, "--memory", str(windows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--windows", type=int, default=48, help="of each split")
    parser.add_argument("--sizes", default="64,256,1024", help="windows at which memory is measured; none where empty")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        with TemporaryDirectory() as out:
            subject, splits, edits = prepared(given.memory, FEW)
            audited(subject, splits[:1], edits, Path(out))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    subject, splits, edits = prepared(given.windows)
    names = ("replayed", "in full, original kept", "in full")
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(given.repeats):
        results = {}
        for name in names if turn % 2 else names[::-1]:
            start = time.process_time()
            if name == "replayed":
                with TemporaryDirectory() as out:
                    results[name] = audited(subject, splits, edits, Path(out))
            elif name == "in full":
                results[name] = in_full(subject, splits, edits)
            else:
                results[name] = original_kept(subject, splits, edits)
            times[name].append(time.process_time() - start)
        assert all(np.allclose(results[name], results["replayed"], atol=1e-12) for name in names)
    for name in names[1:]:
        ratios = sorted(full / mine for full, mine in zip(times[name], times["replayed"], strict=True))
        print(
            f"8 ranks x 4 layers x 3 splits, {given.windows} windows each: replayed "
            f"{statistics.median(times['replayed']):.2f} s, {name} {statistics.median(times[name]):.2f} s; "
            f"{statistics.median(ratios):.2f} times faster ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    print(f"load average {', '.join(f'{x:.1f}' for x in os.getloadavg())} on {os.cpu_count()} processors")
    for size in map(int, filter(None, given.sizes.split(","))):
        print(f"peak memory: {peak(size):.0f} MiB with {size} windows")


if __name__ == "__main__":
    main()
