"""Faithfulness: does a network with some activations replaced still give the network's answers, split by split?

One pass of the original a batch, then one a edit, replayed where that is exact. What comes out are additive scores; see
`heldout.analyses.estimates` for what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.activations.tap import Reading, Tap
from heldout.analyses.scoring import Predictions, Scoring, compare
from heldout.analyses.tables import Columns, Groups, Sink
from heldout.errors import SiteError, SplitError
from heldout.evidence import Cell
from heldout.tasks.base import Batch, Split

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

Extra = Callable[[Reading, Reading, Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Subject:
    """What is examined: a network with the names under which its numbers are kept."""

    network: nn.Module
    task: str = "task"
    name: str = "network"
    seed: int = 0
    scoring: Scoring = field(default_factory=Scoring)
    device: str = "cpu"


@dataclass(frozen=True)
class Check:
    """What an identity edit at the edited sites changes in the output, and whether passes are replayed.

    `difference` is the largest absolute difference of a scored logit; `tolerance` what rounding may do to logits of this
    size and dtype.
    """

    sites: tuple[str, ...]
    difference: float
    tolerance: float
    replay: str

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Outcome:
    """The identity check, and for each edit, in the order given, how often it kept the network's prediction, by split."""

    check: Check
    agreement: tuple[Mapping[str, float], ...]


def faithfulness(
    subject: Subject,
    splits: Sequence[Split],
    edits: Iterable[Edit],
    sink: Sink,
    *,
    margin_edges: np.ndarray | None = None,
    read: Sequence[str] = (),
    extra: Extra | None = None,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Score every edit on every split into `sink`; an identity edit at the same sites is checked first.

    Edits of one origin (the draws of a random control) add up in one cell, each prediction counted once a draw.

    - `margin_edges`: inner edges of the bins of the network's margin (see `margin_edges`); rows then carry `margin_bin`.
    - `read`, `extra`: sites to read in both passes, and a function (original, proxied, batch) -> metric -> (M,) sums.
    - `batch_size`: positions a batch (items, where items have one size).

    Raises `SiteError` where an identity edit changes the output beyond rounding: then nothing can be judged.
    """
    edits = list(edits)
    sites = sorted({site for edit in edits for site in edit.functions})
    replay = Replay(subject.network, sites)
    check = identity_check(subject, splits[0], replay, batch_size=batch_size)
    plans = [(split, split.batch_indices(batch_size)) for split in splits]
    same = np.zeros((len(edits), len(splits)))
    seen = np.zeros(len(splits))
    done, total = 0, sum(len(cuts) for _, cuts in plans)
    for at, (split, cuts) in enumerate(plans):
        units = split.unit_ids()
        cells = [Cell(subject.task, subject.name, subject.seed, split.name, edit.origin) for edit in edits]
        where = f" on split {split.name!r}"
        for index in cuts:
            batch = split.items.take(index).to(subject.device)
            original = replay.record(batch, read=read)
            network = subject.scoring.predictions(original.output, batch, where=where)
            groups = Groups(_labels(network, units, margin_edges))
            drawn: dict[str, tuple[Cell, list[Columns]]] = {}
            for i, (edit, cell) in enumerate(zip(edits, cells, strict=True)):
                proxied = replay.run(batch, edit.functions, read=read)
                proxy = subject.scoring.predictions(proxied.output, batch, where=f"{where} with {edit.origin.label}")
                values = compare(network, proxy)
                if extra is not None:
                    values |= extra(original, proxied, batch)
                columns = groups.sums(values)
                same[i, at] += columns["same"].sum()
                drawn.setdefault(cell.filename, (cell, []))[1].append(columns)
            for cell, draws in drawn.values():
                sink.add(cell, groups.join(draws))
            seen[at] += len(network.item)
            done += 1
            if progress is not None:
                progress(done, total)
    if not seen.all():
        empty = [split.name for split, n in zip(splits, seen, strict=True) if not n]
        raise SplitError(f"no prediction of split {empty[0]!r} is scored; leave the split out or score other positions")
    names = [split.name for split in splits]
    return Outcome(check, tuple(dict(zip(names, row, strict=True)) for row in (same / seen).tolist()))


def identity_check(subject: Subject, split: Split, replay: Replay, *, batch_size: int = 256) -> Check:
    """Replace each edited site by itself on one batch: the largest change of a scored logit, and whether replay holds."""
    batch = next(split.batches(batch_size)).to(subject.device)
    sites = [str(site) for site in replay.sites]
    with Tap(subject.network) as tap:
        before = subject.scoring.predictions(tap(batch).output, batch).logits
    with Tap(subject.network, edit=Edit.identity(sites).functions) as tap:
        after = subject.scoring.predictions(tap(batch).output, batch).logits
    difference = float((before - after).abs().max()) if before.numel() else 0.0
    scale = max(1.0, float(before.abs().max())) if before.numel() else 1.0
    tolerance = TOLERANCE.get(before.dtype, 1e-4) * scale
    replay.check(batch)
    status = "used, exact" if replay.active else f"not used: {replay.reason}"
    check = Check(tuple(sites), difference, tolerance, status)
    if not check.passed:
        raise SiteError(
            f"replacing {', '.join(sites)} by itself changes the output of {type(subject.network).__name__} by "
            f"{difference:.3g}, more than rounding ({tolerance:.3g}): an edit there cannot be judged. Does the network "
            "compute the same thing twice?"
        )
    return check


def margin_edges(subject: Subject, split: Split, *, bins: int = 10, batch_size: int = 256) -> np.ndarray:
    """Inner edges of bins that hold equally many of the network's margins on `split`; at most `bins` - 1 of them."""
    margins = []
    with Tap(subject.network) as tap:
        for batch in split.batches(batch_size):
            batch = batch.to(subject.device)
            margins.append(subject.scoring.predictions(tap(batch).output, batch).margin.cpu().numpy())
    if not sum(map(len, margins)):
        raise SplitError(f"no prediction of split {split.name!r} is scored; score other positions")
    edges = np.quantile(np.concatenate(margins), np.arange(1, bins) / bins)
    return np.unique(edges)


def _labels(network: Predictions, units: np.ndarray, edges: np.ndarray | None) -> dict[str, np.ndarray]:
    labels = {"unit": units[network.item.cpu().numpy()]}
    labels |= {name: values.cpu().numpy() for name, values in network.strata.items()}
    if edges is not None:
        labels["margin_bin"] = np.searchsorted(edges, network.margin.cpu().numpy(), side="right")
    return labels
