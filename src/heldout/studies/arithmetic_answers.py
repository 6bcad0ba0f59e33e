"""What a network of the arithmetic study answers on every split, and the rule that its answers reveal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from heldout.analyses.equivalence.answers import GREEDY, Answers, add_scores, answer_values, shuffled_null
from heldout.analyses.equivalence.discovery import discover_rule
from heldout.analyses.equivalence.divergence import divergence
from heldout.analyses.equivalence.found import Relation
from heldout.analyses.tables import Folder
from heldout.evidence import Cell
from heldout.runs import StepContext
from heldout.studies.arithmetic import Trained, length_split
from heldout.studies.arithmetic_train import (
    answers_of,
    build_network,
    by_rule,
    kind_of,
    labels_of,
    load_network,
    low_parts,
    sequences,
    task_of,
    truth,
)
from heldout.tasks.arithmetic import Arithmetic, Pairs

RULES, EXAMPLES = "rules.json", "examples.json"
UNTRAINED, SHUFFLED, TRAINED = "untrained network", "shuffled answers", "trained network"
SHOWN = 500  # pairs of each split whose answers are kept for the page


def examine_answers(ctx: StepContext) -> None:
    """Scores of every split, the rule behind the answers to longer operands, and the same for two controls."""
    s, kind = ctx.settings, kind_of(ctx.settings)
    task = task_of(kind)
    network = load_network(s, ctx.inputs["weights"], ctx.device)
    names = ("id", *(length_split(lengths) for lengths in kind.lengths))
    given: dict[str, Answers] = {}
    with Folder(ctx.out) as folder:
        for i, name in enumerate(names):
            ctx.progress(i, len(names) + 1, name)
            given[name] = answers_of(network, task, task.pairs[name])
            values = measure(network, task, name, given[name], s, device=ctx.device)
            add_scores(folder, Cell("arithmetic", kind.name, s["seed"], name, GREEDY), labels_of(task, name), values)
    untrained = build_network(s, task, s["seed"]).to(ctx.device).eval()
    (ctx.out / RULES).write_text(json.dumps(rules(task, kind, given, untrained, s["seed"])))
    examples(task, given).to_json(ctx.out / EXAMPLES, orient="records")


def measure(
    network: nn.Module, task: Arithmetic, split: str, answers: Answers, s: Mapping[str, Any], *, device: str
) -> dict[str, np.ndarray]:
    """Everything that is scored of each pair of a split, (N,) each."""
    pairs = task.pairs[split]
    low = low_parts(task, pairs)
    right, rule = truth(task, pairs), by_rule(task, pairs)
    partner = answers_of(network, task, low)
    values = answer_values(answers, right, rule, partner)
    rng = np.random.default_rng([s["seed"], len(split), *split.encode()])
    values["shuffled"] = shuffled_null(answers, rule, draws=s["null_draws"], rng=rng).matches
    values["predicted"] = (right == rule).all(axis=1)  # where the rule happens to be right: what the theory counts
    # Both prompts are given the network's own answer to x: the least margin is then that of its greedy tokens.
    own = sequences(task, pairs, answers.digits)
    soft = divergence(network, own, sequences(task, low, answers.digits).tokens, device=device)
    return values | {name: soft[name] for name in ("kl", "margin", "probability")}


def rules(
    task: Arithmetic, kind: Trained, given: Mapping[str, Answers], untrained: nn.Module, seed: int
) -> dict[str, Any]:
    """What the grammar makes of the answers to operands that are longer than trained, by who gave them."""
    near = [length_split(lengths) for lengths in kind.longer]
    far = [length_split(lengths) for lengths in kind.farther]
    pairs = joined(task, near)
    answers = _joined([given[name] for name in near])
    deal = np.random.default_rng(seed).permutation(len(pairs.a))
    others = answers_of(untrained, task, pairs)
    found = {
        TRAINED: discover(kind, pairs, answers, seed),
        SHUFFLED: discover(kind, pairs, Answers(answers.digits[deal], answers.parsable[deal]), seed),
        UNTRAINED: discover(kind, pairs, others, seed),
    }
    record: dict[str, Any] = {who: outline(relation) for who, relation in found.items()}
    if far:
        record["farther"] = outline(discover(kind, joined(task, far), _joined([given[n] for n in far]), seed))
    return record


def discover(kind: Trained, pairs: Pairs, answers: Answers, seed: int) -> Relation:
    """`discover_rule` on answers as digits; those that are no number are given as such."""
    values: Any = answers.digits
    if not answers.parsable.all():
        values = [list(row) if ok else None for row, ok in zip(answers.digits, answers.parsable, strict=True)]
    return discover_rule(pairs.a, pairs.b, values, operation=kind.operation, modulus=kind.modulus, seed=seed)


def outline(relation: Relation) -> dict[str, Any]:
    """A relation as the page shows it: rules and how they held, and what the answers are made of."""
    best, mixture = relation.best, relation.mixture
    return {
        "found": relation.found,
        "names": list(relation.names[:8]),
        "count": len(relation.names),
        "reason": relation.reason,
        "pairs": relation.pairs,
        "tried": relation.tried,
        "best": best.names[0],
        "heldout": list(best.heldout),
        "low": best.low,
        "threshold": relation.threshold,
        "truth": relation.truth,
        "components": list(mixture.components),
        "weights": mixture.weights.tolist(),
        "strata": [list(lengths) for lengths in mixture.strata],
        "by_stratum": mixture.by_stratum.tolist(),
    }


def joined(task: Arithmetic, names: Sequence[str]) -> Pairs:
    return Pairs(*(np.concatenate([task.pairs[name][i] for name in names]) for i in range(2)))


def _joined(parts: Sequence[Answers]) -> Answers:
    return Answers(np.concatenate([p.digits for p in parts]), np.concatenate([p.parsable for p in parts]))


def examples(task: Arithmetic, given: Mapping[str, Answers]) -> Any:
    """The first pairs of each split: operands, answer, truth and what the rule says, as text and to read."""
    import pandas as pd

    from heldout.tasks.arithmetic.numerals import to_text

    frames = []
    for name, answers in given.items():
        n = min(SHOWN, len(answers))
        pairs = task.pairs[name].take(np.arange(n))
        said = [t if ok else None for t, ok in zip(to_text(answers.digits[:n]), answers.parsable[:n], strict=True)]
        columns = {"a": to_text(pairs.a), "b": to_text(pairs.b), "answer": said}
        columns |= {"truth": to_text(truth(task, pairs)), "rule": to_text(by_rule(task, pairs))}
        frames.append(pd.DataFrame(columns).assign(split=name))
    return pd.concat(frames, ignore_index=True)
