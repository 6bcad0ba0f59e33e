"""The dyck study's grid of 7 ranks x 6 splits: replay and scored positions alone, against each proxied network in full.

    python benchmarks/dyck.py [--repeats 5] [--sentences 300]

Both sides run the original network once on every split and then every edit, on the same sentences, and give the predictions
of the same scored brackets, which are compared. They run in turns on one compute thread, in processor time; the ratio is
taken within each turn. Peak memory of the comparison is measured at several numbers of sentences, each in a process of its
own whose C library hands large blocks back at once; left to itself it keeps up to 150 MiB of them in pieces.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.scoring import Scoring
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import attention_edits
from heldout.proxies.fit import Family
from heldout.tasks.base import Split
from heldout.tasks.dyck import Dyck, DyckSettings
from heldout.tasks.ragged import at_scored
from heldout.training.seeds import initialised

RANKS = (1, 2, 4, 8, 16, 32, 64)
SPLITS = ("id", "seen_structure", "unseen_structure_short", "unseen_structure_long", "unseen_depth")
SPLITS = (*SPLITS, "unseen_depth_length_matched")
BATCH = 8_000
SCORING = Scoring(candidates=(20, 40))


def replayed(network: Transformer, splits: Sequence[Split], edits: Sequence[Edit]) -> list[Tensor]:
    """Predictions (M,) of the original and of each edit, split by split."""
    replay = Replay(network, {site for edit in edits for site in edit.functions})
    tops = []
    for split in splits:
        for batch in split.batches(BATCH):
            tops.append(SCORING.predictions(replay.record(batch).output, batch).top)
            tops += [SCORING.predictions(replay.run(batch, e.functions).output, batch).top for e in edits]
    return tops


def in_full(network: Transformer, splits: Sequence[Split], edits: Sequence[Edit]) -> list[Tensor]:
    tops = []
    for split in splits:
        for batch in split.batches(BATCH):
            for functions in ({}, *(edit.functions for edit in edits)):
                with Tap(network, edit=functions) as tap:
                    tops.append(SCORING.predictions(tap(batch).output, batch).top)
    return tops


def with_scored(split: Split) -> Split:
    """The sentences of a split that have a scored bracket, as they were: what `at_scored` keeps."""
    scored = split.items.take(np.arange(len(split))).scored
    assert scored is not None
    return split.subset(np.flatnonzero(scored.any(1).numpy()))


def subject() -> Subject:
    network = initialised(lambda: Transformer(43, width=64, layers=2, heads=1, max_length=258), 0)
    return Subject(network.eval(), "dyck", "transformer", 0, SCORING)


def task(sentences: int) -> Dyck:
    return Dyck(DyckSettings(cap=256, train=20_000, sentences=sentences, scored=sentences))


def edits(made: Dyck, layer: int) -> list[Edit]:
    fit = made.splits["train"].subset(np.arange(200), name="fit")
    families = [Family("svd", RANKS)]
    return attention_edits(subject().network, fit, f"blocks.{layer}.attn", families, heads=1, batch_size=BATCH)


class Discard:
    """A sink that keeps nothing: what is measured is the comparison, not its table."""

    def add(self, cell: object, columns: object) -> None:
        pass


def peak(sentences: int) -> float:
    """MiB by which comparing a grid on one split raises the peak, once a sample of the split has been compared."""
    torch.set_num_threads(1)
    made = task(sentences)
    split, grid = at_scored(made.splits["unseen_depth"]), edits(made, 1)
    longest = np.argsort(split.items.lengths, kind="stable")
    sample = split.subset(np.concatenate([longest[:: len(split) // 200], longest[-100:]]))
    faithfulness(subject(), [sample], grid, Discard(), batch_size=BATCH)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faithfulness(subject(), [split], grid, Discard(), batch_size=BATCH)
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = task(given.sentences)
    whole = [with_scored(made.splits[name]) for name in SPLITS]
    marked = [at_scored(made.splits[name]) for name in SPLITS]
    for layer, name, target in ((1, "second", 4.0), (0, "first", 1.5)):
        grid = edits(made, layer)
        times: dict[str, list[float]] = {"replay": [], "full": []}
        sides = [("replay", replayed, marked), ("full", in_full, whole)]
        for turn in range(given.repeats):
            tops = {}
            for side, function, splits in sides if turn % 2 else sides[::-1]:
                start = time.process_time()
                tops[side] = function(subject().network, splits, grid)
                times[side].append(time.process_time() - start)
            same = [float((a == b).float().mean()) for a, b in zip(tops["replay"], tops["full"], strict=True)]
            assert min(same) > 0.99, "the two sides predict differently"
        ratios = sorted(b / a for a, b in zip(times["replay"], times["full"], strict=True))
        print(
            f"{name} layer, {len(RANKS)} ranks x {len(SPLITS)} splits: replay {statistics.median(times['replay']):.2f} s, "
            f"in full {statistics.median(times['full']):.2f} s; {statistics.median(ratios):.2f} x faster, from "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f} (target {target})"
        )
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # read by the processes that follow
    context = multiprocessing.get_context("spawn")
    for sentences in (500, 2_000, 8_000):
        with context.Pool(1) as pool:
            print(f"{sentences} sentences: {pool.apply(peak, (sentences,)):.0f} MiB more at the peak of the comparison")


if __name__ == "__main__":
    main()
