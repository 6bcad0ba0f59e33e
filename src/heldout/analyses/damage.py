"""The matched-damage null: random perturbations that hurt as much in distribution as the proxy does.

Agreement with *any* perturbation falls out of distribution, because the network's margins shrink there. So beside a proxy's
gap stands the gap of noise at the same site. Each row is moved in a random direction by `scale` times the length of the
proxy's own error on that row, and one `scale` is chosen so that agreement on the reference split is the proxy's.

An attention pattern stays a pattern: noise moves the entries that are not zero (a forbidden position stays at zero), what
falls below zero is set to zero, and rows are rescaled to their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.activations.sites import Site
from heldout.activations.tap import EditFunction
from heldout.analyses.faithfulness import Subject
from heldout.evidence import Origin
from heldout.tasks.base import Split

DRAWS = 20
NULL = "null"  # what a null's origin is called: the proxy's name with this behind it


@dataclass(frozen=True)
class Matched:
    """The draws of one edit's null and how well they match: agreement on the reference split, the proxy's and theirs.

    `reason` says why there is no match, where the two differ by more than `MISMATCH`.
    """

    edits: tuple[Edit, ...]
    scale: float
    target: float
    agreement: float
    reason: str = ""


MISMATCH = 0.01


def matched_damage(
    subject: Subject,
    reference: Split,
    edit: Edit,
    *,
    seed: int,
    draws: int = DRAWS,
    calibration_draws: int = 4,
    batch_size: int = 256,
) -> Matched:
    """Calibrate noise to `edit` on `reference` and return its draws, all under one origin (``svd-8`` -> ``svd+null-8``).

    Bisection over the logarithm of the scale, with the same noise at every scale; agreement falls as scale grows. The
    draws that calibrate are not those that are returned.
    """
    replay = Replay(subject.network, edit.functions)
    replay.check(next(reference.batches(batch_size)).to(subject.device))
    target = _agreements(subject, replay, reference, [edit], batch_size)[0]

    def agreement(scale: float, first: int, count: int) -> float:
        trial = [noise(edit, scale=scale, seed=seed, draw=first + d) for d in range(count)]
        values = _agreements(subject, replay, reference, trial, batch_size)
        return sum(values) / len(values)

    low, high = 2.0**-6, 2.0**4
    for _ in range(12):
        middle = (low * high) ** 0.5
        if agreement(middle, 1_000_000, calibration_draws) >= target:
            low = middle
        else:
            high = middle
    scale = (low * high) ** 0.5
    reached = agreement(scale, 1_000_000, calibration_draws)
    reason = ""
    if abs(reached - target) > MISMATCH:
        reason = f"no noise matches: agreement {reached:.3f} at the nearest scale ({scale:.3g}) against {target:.3f}"
    edits = tuple(noise(edit, scale=scale, seed=seed, draw=d) for d in range(draws))
    return Matched(edits, scale, target, reached, reason)


def noise(edit: Edit, *, scale: float, seed: int, draw: int) -> Edit:
    """`edit` replaced by noise of `scale` times its own length, row by row, in uniformly random directions.

    The noise is drawn as passes go, so one returned edit serves one sweep over the data, in a fixed order.
    """
    functions: dict[str, EditFunction] = {}
    for number, (site, function) in enumerate(edit.functions.items()):
        generator = torch.Generator().manual_seed(_seed(seed, draw, number))
        perturb = _perturb_pattern if Site.parse(site).part == "pattern" else _perturb
        functions[site] = perturb(function, scale, generator)
    settings = {**edit.origin.settings, "scale": scale, "seed": seed}
    return Edit(functions, replace(edit.origin, name=null_name(edit.origin), settings=settings))


def null_name(origin: Origin) -> str:
    """The family name of an edit's null."""
    return f"{origin.name}+{NULL}"


def _perturb(function: EditFunction, scale: float, generator: torch.Generator) -> EditFunction:
    def perturbed(rows: Tensor, mask: Tensor | None) -> Tensor:
        length = (function(rows, mask) - rows).norm(dim=-1, keepdim=True)
        direction = torch.randn(rows.shape, generator=generator).to(rows)
        moved: Tensor = rows + scale * length * direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return moved

    return perturbed


def _perturb_pattern(function: EditFunction, scale: float, generator: torch.Generator) -> EditFunction:
    """Noise on the simplex: see the module's text. A row that noise would leave without weight keeps its own."""

    def perturbed(rows: Tensor, mask: Tensor | None) -> Tensor:
        length = (function(rows, mask) - rows).norm(dim=-1, keepdim=True)
        direction = torch.randn(rows.shape, generator=generator).to(rows) * (rows > 0)
        moved = rows + scale * length * direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        moved = moved.clamp(min=0)
        total = moved.sum(dim=-1, keepdim=True)
        whole = rows.sum(dim=-1, keepdim=True)
        return torch.where(total > 1e-12, moved * (whole / total.clamp(min=1e-12)), rows)

    return perturbed


def _seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _agreements(subject: Subject, replay: Replay, split: Split, edits: Sequence[Edit], batch_size: int) -> list[float]:
    """The share of scored predictions on which each edit keeps the network's prediction."""
    same, total = [0] * len(edits), 0
    for batch in split.batches(batch_size):
        batch = batch.to(subject.device)
        original = subject.scoring.predictions(replay.record(batch).output, batch)
        total += len(original.top)
        for i, edit in enumerate(edits):
            proxied = subject.scoring.predictions(replay.run(batch, edit.functions).output, batch)
            same[i] += int(original.same(proxied).sum())
    return [s / total for s in same]
