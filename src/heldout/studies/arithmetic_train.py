"""The networks of the arithmetic study: their tasks, how they are built and trained, and their answers as sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heldout.analyses.equivalence.answers import Answers
from heldout.analyses.equivalence.passes import Sequences, forced
from heldout.networks.decoding import greedy
from heldout.networks.gpt import mingpt
from heldout.networks.transformer import Transformer
from heldout.runs import StepContext
from heldout.studies.arithmetic import SETTLED, Trained, length_split
from heldout.studies.side_by_side import trained
from heldout.tasks.arithmetic import Arithmetic, ArithmeticSettings, Cell, Pairs, numerals
from heldout.tasks.arithmetic.numerals import Digits, Signed
from heldout.tasks.ragged import at_scored
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.settling import settled

WATCHED = 500  # pairs a split behind the training curves
POINTS = 24  # of a training curve
ASIDE = "id_select"  # decides when training ends; no test pair is in it


def train_network(ctx: StepContext) -> None:
    """One network on its law of operands, as Xu et al. train theirs; the seed draws weights, order and dropout."""
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    s, device = contexts[0].settings, contexts[0].device
    kind = kind_of(s)
    task = task_of(kind)
    split = at_scored(task.splits["train"], keep=())
    watched = {name: first_of(task, name) for name in (ASIDE, "id", *(length_split(pair) for pair in kind.longer[:1]))}

    def exact(net: nn.Module) -> dict[str, float]:
        found = {}
        for name, pairs in watched.items():
            for what, answers in (("truth", truth(task, pairs)), ("equivalence", by_rule(task, pairs))):
                found[f"{name}/{what}"] = float(np.mean(exactly(net, sequences(task, pairs, answers), device)))
        return found

    for ctx, network, history in trained(
        contexts,
        lambda: made_network(s, task),
        [shuffled(split, s["batch"], seed=ctx.settings["seed"]) for ctx in contexts],
        cross_entropy,
        settings=train_settings(
            kind, kind.steps, evaluate_every=max(15, kind.steps // POINTS), precision=s.get("precision", "float32")
        ),
        evaluate=exact,
        until=settled(kind.settled, f"{ASIDE}/truth", least=SETTLED, right_at_end=True),
    ):
        save_weights(network, ctx.out / "weights.safetensors", {"kind": kind.name, "seed": ctx.settings["seed"]})
        history.frame().to_parquet(ctx.out / "history.parquet", index=False)


def train_settings(kind: Trained, steps: int, seed: int = 0, **more: Any) -> TrainSettings:
    """The first paper's optimiser: AdamW with decay on linear maps alone; a cosine ends at a tenth, as the follow-up's."""
    return TrainSettings(
        steps=steps,
        learning_rate=kind.learning_rate,
        schedule=kind.schedule,
        final=0.1,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        decay="linear",
        seed=seed,
        **more,
    )


@lru_cache(maxsize=2)
def task_of(kind: Trained) -> Arithmetic:
    """The task of one kind of network. All training seeds share its pairs: they differ in weights, order and dropout."""
    return Arithmetic(
        ArithmeticSettings(
            operation=kind.operation,
            law=f"{kind.law} {kind.digits}",
            modulus=kind.modulus,
            width=kind.width,
            train=kind.pairs,
            select=min(kind.test_pairs, WATCHED),
            held_out=kind.test_pairs,
            tests=tuple(Cell(*lengths) for lengths in kind.lengths),
            per_test=kind.test_pairs,
            train_share=kind.share,
        )
    )


def build_network(s: Mapping[str, Any], task: Arithmetic, seed: int) -> Transformer:
    """The untrained network of a seed."""
    return initialised(lambda: made_network(s, task), seed)


def made_network(s: Mapping[str, Any], task: Arithmetic) -> Transformer:
    layout = task.layout
    return mingpt(layout.vocabulary, s["size"], max_length=layout.longest - 1, dropout=kind_of(s).dropout)


def load_network(s: Mapping[str, Any], folder: Path, device: str) -> Transformer:
    task = task_of(kind_of(s))
    network = build_network(s, task, s["seed"])
    load_weights(network, folder / "weights.safetensors")
    return network.to(device).eval()


def kind_of(s: Mapping[str, Any]) -> Trained:
    return Trained(**s["kind"])


def truth(task: Arithmetic, pairs: Pairs) -> Digits:
    """(N, A) the true answers."""
    return task.answers(*pairs).digits


def by_rule(task: Arithmetic, pairs: Pairs, digits: int | None = None) -> Digits:
    """(N, A) what the rule says: the true answers to the operands' lowest `digits` digits, by default n."""
    return truth(task, low_parts(task, pairs, digits))


def low_parts(task: Arithmetic, pairs: Pairs, digits: int | None = None) -> Pairs:
    n = task.settings.digits if digits is None else digits
    return Pairs(*(numerals.resize(numerals.low(x, n), task.layout.width) for x in pairs))


def sequences(
    task: Arithmetic, pairs: Pairs, answers: Digits, labels: Mapping[str, np.ndarray] | None = None
) -> Sequences:
    """Problems with `answers` (N, A) behind them, whatever these are."""
    written = task.layout.write(*pairs, Signed(np.zeros(len(answers), dtype=bool), answers))
    tokens = torch.from_numpy(written.tokens.astype(np.int64).reshape(len(answers), -1))
    prompt = int(written.prompts[0])
    return Sequences(tokens, tuple(range(prompt - 1, tokens.shape[1] - 1)), dict(labels or {}))


def labels_of(task: Arithmetic, split: str) -> dict[str, np.ndarray]:
    """The unit of each pair of a split, for the scores."""
    return {"unit": task.splits[split].unit_ids()}


def answers_of(network: nn.Module, task: Arithmetic, pairs: Pairs) -> Answers:
    """What a network answers, greedily."""
    prompts, lengths = task.layout.prompts(*pairs)
    tokens = greedy(network, torch.from_numpy(prompts), task.layout.steps, lengths=torch.from_numpy(lengths))
    parsed = task.layout.read(tokens.numpy())
    return Answers(parsed.digits, parsed.parsable)


def exactly(network: nn.Module, given: Sequences, device: str, *, batch_size: int = 1000) -> np.ndarray:
    """(N,) whether the network's greedy answer is the one that is given, in one pass over each."""
    found = []
    with torch.no_grad():
        for cut in given.slices(batch_size):
            tokens = given.tokens[cut].to(device)
            found.append(forced(network(tokens[:, : given.fed]), tokens, given.steps).exact.cpu().numpy())
    return np.concatenate(found)


def first_of(task: Arithmetic, split: str, n: int = WATCHED) -> Pairs:
    return task.pairs[split].take(np.arange(min(n, len(task.pairs[split].a))))
