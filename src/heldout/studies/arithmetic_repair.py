"""Repair of a network of the arithmetic study: how many longer sums does it take until longer sums are right?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from heldout.analyses.equivalence.answers import add_scores
from heldout.analyses.equivalence.repair import Examples, Method, examples, repair_values
from heldout.analyses.tables import Folder
from heldout.evidence import Cell, Origin
from heldout.networks.transformer import Transformer
from heldout.runs import StepContext
from heldout.studies.arithmetic import METHODS, SCRATCH, SETTLED, Trained, length_split
from heldout.studies.arithmetic_train import (
    answers_of,
    build_network,
    by_rule,
    exactly,
    kind_of,
    labels_of,
    load_network,
    sequences,
    task_of,
    train_settings,
    truth,
)
from heldout.tasks.arithmetic import Arithmetic, Pairs
from heldout.tasks.arithmetic.splits import as_items
from heldout.tasks.base import Batch, Split
from heldout.tasks.ragged import at_scored
from heldout.training.loop import Evaluate, train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import generator
from heldout.training.settling import settled

CURVES = "curves.json"
OWN = "own/truth"
LOOK = 250  # updates between two looks at whether a network's own examples are right


def repair_network(ctx: StepContext) -> None:
    """Every method with every number of long examples, scored on the trained and on longer lengths."""
    s, kind = ctx.settings, kind_of(ctx.settings)
    task = task_of(kind)
    short, long = task.splits["train"], long_examples(task, max(s["repair_examples"]), s["seed"])
    runs = [(method, k) for method in METHODS for k in s["repair_examples"]]
    curves = []
    with Folder(ctx.out) as folder:
        for i, (method, k) in enumerate(runs):
            chosen = examples(method, k, short=len(short), long=len(long.split), seed=s["seed"])  # type: ignore[arg-type]
            network = _start(s, task, chosen, ctx)
            steps = s[f"{method}_steps"]

            def report(done: int, total: int, loss: float, at: int = i, name: str = f"{method} {k}") -> None:
                ctx.progress(at + done / total, len(runs), name)

            scratch = method == SCRATCH
            history = train(
                network,
                batches(short, long.split, chosen, s["batch"], seed=s["seed"]),
                cross_entropy,
                settings=train_settings(kind, steps, s["seed"], evaluate_every=LOOK if scratch else None),
                evaluate=own(task, long.pairs.take(chosen.long), ctx.device) if scratch else None,
                progress=report,
                # Alone with its few examples a network has learnt them long before `steps`.
                until=settled(kind.settled, OWN, least=SETTLED) if scratch else None,
            )
            curves.append({"method": method, "k": k, "steps": history.rows[-1][0], "loss": history.last("batch/loss")})
            score(network, task, kind, s["seed"], method, k, folder)
    (ctx.out / CURVES).write_text(json.dumps(curves))


def _start(s: Mapping[str, Any], task: Arithmetic, chosen: Examples, ctx: StepContext) -> Transformer:
    """Initial weights, or the trained network's."""
    if chosen.fresh:
        return build_network(s, task, s["seed"]).to(ctx.device)
    return load_network(s, ctx.inputs["weights"], ctx.device)


def own(task: Arithmetic, pairs: Pairs, device: str) -> Evaluate:
    """Exact match of a network on pairs that it is trained on."""
    given = sequences(task, pairs, truth(task, pairs))
    return lambda network: {OWN: float(exactly(network, given, device).mean())}


class Longer(NamedTuple):
    """Operands one digit longer than trained: the pairs, and the split that they make."""

    pairs: Pairs
    split: Split


def long_examples(task: Arithmetic, count: int, seed: int) -> Longer:
    """Pairs of operands one digit longer than trained whose low parts training has seen; no test pair has those."""
    n, base = task.settings.digits, task.settings.base
    draw = generator(seed, "data", n + 1)
    low = task.pairs["train"].take(draw.permutation(len(task.pairs["train"].a))[:count])
    pairs = Pairs(low.a.copy(), low.b.copy())
    for x in pairs:
        x[:, n] = draw.integers(1, base, size=count, dtype=np.uint8)
    items = as_items(task.layout.write(*pairs, task.answers(*pairs)), {})
    return Longer(pairs, Split("longer", "fit", items, f"operands of exactly {n + 1} digits, low parts from train"))


def batches(short: Split, long: Split, chosen: Examples, size: int, *, seed: int) -> Callable[[int], Batch]:
    """step -> a batch of `size` examples drawn by their weights, as `Examples.batches` says."""
    draw = chosen.batches(size, seed=seed)
    pools = at_scored(short, keep=()), at_scored(long, keep=())
    n = len(chosen.short)

    def batch(step: int) -> Batch:
        places = np.sort(draw(step))
        parts = [chosen.short[places[places < n]], chosen.long[places[places >= n] - n]]
        taken = [pool.items.take(at) for pool, at in zip(pools, parts, strict=True) if len(at)]
        return taken[0] if len(taken) == 1 else _joined(taken)

    return batch


def _joined(parts: list[Batch]) -> Batch:
    import torch

    inputs = {name: torch.cat([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    targets = [part.targets for part in parts if part.targets is not None]
    return Batch(inputs, torch.cat([part.index for part in parts]), torch.cat(targets))


def score(
    network: Transformer, task: Arithmetic, kind: Trained, seed: int, method: Method | str, k: int, folder: Folder
) -> None:
    """Outcomes on operands as long as trained, one digit longer and, where they can be written, two digits longer."""
    n = kind.digits
    for lengths in (kind.trained, kind.longer[0], *kind.farther[:1]):
        name = length_split(lengths)
        pairs = task.pairs[name]
        right, old, new = truth(task, pairs), by_rule(task, pairs), by_rule(task, pairs, n + 1)
        values = repair_values(answers_of(network, task, pairs), right, old, new)
        cell = Cell("arithmetic", kind.name, seed, name, Origin(method, ".", "longer", k))
        add_scores(folder, cell, labels_of(task, name), values)
