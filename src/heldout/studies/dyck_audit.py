"""Training one transformer, and examining it in the second layer: the grid, the choice, the nulls and the oracles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, Wanted, audit
from heldout.analyses.faithfulness import Subject
from heldout.analyses.scoring import Scoring
from heldout.analyses.tables import Folder
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import attention_edits
from heldout.proxies.fit import Family
from heldout.runs import StepContext
from heldout.studies.audited import AUDIT
from heldout.studies.dyck import DATA, FAMILIES, NETWORK, TESTS, THRESHOLD
from heldout.studies.side_by_side import trained
from heldout.tasks.base import Batch, Split
from heldout.tasks.dyck import Dyck, DyckSettings
from heldout.tasks.ragged import at_scored, everywhere
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

BATCH = 8_000  # positions a batch where nothing is trained
DEEP = "deep"  # stratum: 1 where the bracket is deeper than the training language
CURVE_SENTENCES = 300  # of each split, behind the training curves


def train_network(ctx: StepContext) -> None:
    """One network on the training sentences."""
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    s, device = contexts[0].settings, contexts[0].device
    task = dyck(s["task"])
    test = {n: some(at_scored(task.splits[n]), CURVE_SENTENCES) for n in ("id", *TESTS)}
    scoring = Scoring(candidates=candidates(task))

    def accuracies(net: nn.Module) -> dict[str, float]:
        found = {}
        for name, split in test.items():
            right, total = 0, 0
            for batch in split.batches(BATCH):
                batch = batch.to(device)
                predictions = scoring.predictions(net(**batch.inputs), batch)
                right, total = right + int(predictions.correct.sum()), total + len(predictions.item)
            found[f"{name}/accuracy"] = right / total
        return found

    settings = TrainSettings(
        steps=s["training_steps"],
        learning_rate=s["learning_rate"],
        warmup=s["warmup"],
        betas=(0.9, 0.98),
        evaluate_every=max(50, s["training_steps"] // 15),
        precision=s.get("precision", "float32"),
    )
    aligned = s.get("batches") == "aligned"
    for ctx, network, history in trained(
        contexts,
        lambda: made_network(s),
        [shuffled(task.splits["train"], s["batch"], seed=c.settings["seed"], aligned=aligned) for c in contexts],
        cross_entropy,
        settings=settings,
        evaluate=accuracies,
    ):
        save_weights(
            network, ctx.out / "weights.safetensors", {"network": dict(s["network"]), "seed": ctx.settings["seed"]}
        )
        history.frame().to_parquet(ctx.out / "history.parquet", index=False)


def audit_network(ctx: StepContext) -> None:
    """One trained network, simplified in its last layer."""
    s = ctx.settings
    subject = load_subject(s, ctx.inputs["weights"], s["seed"], ctx.device)

    def build(subject: Subject, split: Split, oracle: bool, wanted: Wanted | None) -> list[Edit]:
        families = head_families(s, wanted)
        return module_edits(subject, split, module(s, -1), families, s, oracle=oracle) if families else []

    with Folder(ctx.out) as sink:
        record = audit(subject, splits(s["task"]), plan(s), build, sink, seed=s["seed"], progress=ctx.progress)
    (ctx.out / AUDIT).write_text(json.dumps(record, sort_keys=True))


def plan(s: Mapping[str, Any]) -> Plan:
    return Plan(
        reference="id",
        tests=TESTS,
        also=("train",),
        families=FAMILIES,
        oracles=DATA,
        threshold=THRESHOLD,
        refined=("svd", "weights"),
        null_draws=s["null_draws"],
        batch_size=BATCH,
    )


@lru_cache(maxsize=1)
def _dyck(settings: DyckSettings) -> Dyck:
    return Dyck(settings)


def dyck(task: Mapping[str, Any]) -> Dyck:
    """The task of a step's settings; drawn once a process."""
    names = {"brackets", "depth", "deeper", "cap", "structure", "sentences", "scored"}
    return _dyck(DyckSettings(train=task["train_sentences"], **{name: task[name] for name in names}))


def candidates(task: Dyck) -> tuple[int, int]:
    """Closing brackets: what a scored prediction is chosen from."""
    return task.closers.start, task.closers.stop


def splits(task: Mapping[str, Any]) -> dict[str, Split]:
    """What analyses look at: the test splits and some training sentences at their scored positions, and ``fit`` whole.

    The first sentences of the training sample (which has no order) are fitted on, others are looked at as ``train``.
    """
    made = dyck(task)
    first, shown = task["fit_sentences"], task["sentences"]

    def deep(batch: Batch) -> Tensor:
        beyond: Tensor = batch.strata["query_depth"] > int(task["depth"])
        return beyond.long()

    options: dict[str, Any] = {"keep": (), "strata": {DEEP: deep}}
    found = {name: at_scored(made.splits[name], **options) for name in ("id_select", "id", *TESTS)}
    whole = made.splits["train"]
    found["train"] = at_scored(whole.subset(np.arange(first, first + shown)), **options)
    return found | {"fit": whole.subset(np.arange(first), name="fit")}


def build_network(s: Mapping[str, Any], seed: int) -> Transformer:
    """The untrained network of a seed."""
    return initialised(lambda: made_network(s), seed)


def made_network(s: Mapping[str, Any]) -> Transformer:
    task, shape = s["task"], dict(s["network"])
    return Transformer(2 * task["brackets"] + 3, max_length=task["cap"] + 2, **shape)


def load_subject(s: Mapping[str, Any], folder: Any, seed: int, device: str) -> Subject:
    """A trained network with how its predictions are read."""
    network = build_network(s, seed)
    load_weights(network, folder / "weights.safetensors")
    k = s["task"]["brackets"]
    return Subject(network.to(device).eval(), "dyck", NETWORK, seed, Scoring(candidates=(k, 2 * k)), device=device)


def module(s: Mapping[str, Any], layer: int) -> str:
    """The path of a layer's attention; layers count from 0, -1 is the last."""
    return f"blocks.{layer % s['network']['layers']}.attn"


def grid(s: Mapping[str, Any]) -> dict[str, tuple[float | None, ...]]:
    """Family -> sizes of the headline."""
    ranks = tuple(s["ranks"])
    sizes: dict[str, tuple[float | None, ...]] = {"svd": ranks, "kmeans": tuple(s["clusters"]), "weights": ranks}
    sizes |= {"onehot": (None,), "topk": tuple(s["top_k"]), "haar": tuple(s["haar_ranks"]), "mean": (None,)}
    return {family: parameters for family, parameters in sizes.items() if parameters}


def head_families(s: Mapping[str, Any], wanted: Wanted | None) -> list[Family]:
    """The families of the headline with their draws; of what is `wanted`, one draw each."""
    families = []
    for name, sizes in grid(s).items():
        here = [p for p in wanted or () if p[:2] == (module(s, -1), name)]
        kept = (
            list(sizes) if wanted is None else [size for _, _, size in here]
        )  # a choice may lie between two of the grid
        draws = {"kmeans": s["kmeans_draws"], "haar": s["haar_draws"]}.get(name, 1) if wanted is None else 1
        options = {"restarts": s["kmeans_restarts"]} if name == "kmeans" else {}
        if kept:
            numbers = tuple(int(p) for p in kept if p is not None)
            families += [Family(name, numbers, draw=d, options=options) for d in range(draws)]
    return families


def module_edits(
    subject: Subject, split: Split, path: str, families: Sequence[Family], s: Mapping[str, Any], *, oracle: bool = False
) -> list[Edit]:
    """Edits of one layer's attention, fitted on every position of `split`."""
    return attention_edits(
        subject.network,
        everywhere(split),
        path,
        families,
        heads=s["network"]["heads"],
        basis=s["basis"],
        centred=s["centred"],
        oracle=oracle,
        sample=s["kmeans_sample"],
        batch_size=BATCH,
        device=subject.device,
    )


def some(split: Split, sentences: int) -> Split:
    """`sentences` of a split, evenly over it, or all there are."""
    n = min(sentences, len(split))
    return split.subset(np.linspace(0, len(split) - 1, n).astype(np.int64))
