"""Modular addition as the nuclear study's primer: a sweep fixed in advance, and the algorithm of each of its networks.

A cell is one modulus, pooling, width and weight decay; its networks, one for each share of the pairs and each seed, are
trained side by side, all for the same number of updates, and none is left out. The seed draws the initial weights and,
within a share, the pairs to train on. Where all pairs are trained on there are none unseen, and accuracies are those on
training pairs (`all_pairs`).

The ``mean`` of two embeddings leaves a network pizzas and lookups; with ``concat`` clocks are possible too. So the
claim that one task is learnt by different algorithms is judged where nothing rules one out, and the other pooling
stands beside it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from heldout.analyses.geometry.algorithms import ENOUGH, LABELS, Algorithm, classify, unseen
from heldout.networks.pooled import PooledMLP
from heldout.networks.pooled_planted import planted, planted_lookup
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.studies.nuclear_claims import ANSWERED, KNOWN_RIGHT
from heldout.studies.seeds import SeedTheta
from heldout.tasks.base import Batch
from heldout.tasks.modular import Modular, ModularSettings
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import IGNORED, cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Batches, Stack, train_stacked

if TYPE_CHECKING:
    import pandas as pd

MEASURED, CIRCLES, KNOWN = "networks.parquet", "circles.parquet", "known.json"
BETAS = (0.9, 0.98)
FEWEST = 5  # named networks of a seed, below which shares say nothing
Settings = Mapping[str, Any]
Mask = NDArray[np.bool_]


# -- networks and data -----------------------------------------------------------------------------------------------


def task_of(s: Settings, seed: int, share: float = 0.5) -> Modular:
    """Pairs without an equals sign; the split of `share` that `seed` draws."""
    return Modular(ModularSettings(modulus=s["modulus"], share=share, corner=0, equals=False), seed=seed)


def trained_pairs(s: Settings, share: float, seed: int) -> Mask:
    """(p, p): the pairs that a network sees in training, all of them where `share` is 1."""
    if share == 1:
        return np.ones((s["modulus"], s["modulus"]), dtype=bool)
    return ~unseen(task_of(s, seed, share))


def network_of(s: Settings, seed: int) -> PooledMLP:
    """Freshly initialised; the same weights for every share."""
    return initialised(
        lambda: PooledMLP(s["modulus"], width=s["width"], hidden=s["hidden"], pooling=s["pooling"]), seed
    )


def networks_of(s: Settings) -> list[tuple[float, int]]:
    """(share, seed) of the networks of a cell, in the order of its stack."""
    return [(share, seed) for share in s["shares"] for seed in s["seeds"]]


def weights_name(share: float, seed: int) -> str:
    return f"share-{share:g}-seed-{seed}.safetensors"


# -- steps -----------------------------------------------------------------------------------------------------------


def train_cell(ctx: StepContext) -> None:
    """All networks of a cell, by AdamW on full batches with a cosine schedule.

    Reads `modulus`, `pooling`, `width`, `hidden`, `weight_decay`, `shares`, `seeds`, `steps` and `learning_rate`.
    Writes the weights of each network. Every pair goes through every network; those that are not trained on carry no
    loss.
    """
    s = ctx.settings
    batches = []
    for share, seed in networks_of(s):
        batch = every_pair(s["modulus"])
        assert batch.targets is not None
        held = torch.from_numpy(~trained_pairs(s, share, seed).ravel())
        batches.append(Batch(batch.inputs, batch.index, batch.targets.masked_fill(held, IGNORED)))
    stack = Stack([network_of(s, seed) for _, seed in networks_of(s)])
    settings = TrainSettings(
        steps=s["steps"],
        learning_rate=s["learning_rate"],
        weight_decay=s["weight_decay"],
        betas=BETAS,
        clip=None,
    )
    train_stacked(
        stack,
        [constant(batch) for batch in batches],
        cross_entropy,
        settings=settings,
        progress=lambda done, total, loss: ctx.progress(done, total, f"loss {loss:.3f}"),
    )
    for i, (share, seed) in enumerate(networks_of(s)):
        save_weights(stack.network(i), ctx.out / weights_name(share, seed), {"share": share, "seed": seed})


def constant(batch: Batch) -> Batches:
    """The same batch at every step."""
    return lambda step: batch


def every_pair(p: int) -> Batch:
    """All p^2 pairs of tokens, the first operand slowest, and their sums."""
    a, b = (torch.arange(p).repeat_interleave(p), torch.arange(p).repeat(p))
    return Batch(torch.stack([a, b], dim=1), torch.arange(p * p), (a + b) % p)


def measure_cell(ctx: StepContext) -> None:
    """The algorithm of every network of a cell.

    Reads what `train_cell` reads and the input ``weights``. Writes `MEASURED`, one row a network, and `CIRCLES`, one
    row a network and frequency.
    """
    import pandas as pd

    s = ctx.settings
    rows, circles = [], []
    cell = {name: s[name] for name in ("modulus", "pooling", "width", "weight_decay")}
    for i, (share, seed) in enumerate(networks_of(s)):
        ctx.progress(i, len(networks_of(s)), f"share {share:g}, seed {seed}")
        network = network_of(s, seed).eval()
        load_weights(network, ctx.inputs["weights"] / weights_name(share, seed))
        seen = trained_pairs(s, share, seed)
        found = classify(network, task_of(s, seed), scored=seen if seen.all() else ~seen)
        with torch.no_grad():
            batch = every_pair(s["modulus"])
            right = (network(batch.inputs).argmax(-1) == batch.targets).numpy()
        key = {**cell, "share": share, "seed": seed}
        rows.append(
            {**key, "all_pairs": bool(seen.all()), "train_accuracy": right[seen.ravel()].mean(), **row_of(found)}
        )
        circles += [{**key, "used": c.frequency in found.used, **asdict(c)} for c in found.circles]
    pd.DataFrame(rows).to_parquet(ctx.out / MEASURED, index=False)
    pd.DataFrame(circles).to_parquet(ctx.out / CIRCLES, index=False)


def row_of(found: Algorithm) -> dict[str, Any]:
    """One network's row: what `Algorithm` has, with its circles counted by how they are read."""
    ways = Counter(c.reads for c in found.circles if c.frequency in found.used)
    record = {k: v for k, v in vars(found).items() if k not in ("circles", "used")}
    coherence = max(c.coherence for c in found.circles)
    return {
        **record,
        "coherence": coherence,
        **{f"{way}s": ways[way] for way in ("pizza", "clock")},
        "mixed": ways["mixed"],
    }


def name_known(ctx: StepContext) -> None:
    """What `classify` calls closed-form networks; reads `modulus` and writes `KNOWN`, network -> label and what is
    right."""
    p = ctx.settings["modulus"]
    task = task_of(ctx.settings, 0)
    sums = np.add.outer(np.arange(p), np.arange(p)) % p
    networks = {
        "pizza": (planted(p, {1: 0, 2: 0}), "pizza"),
        "pizza of the mean": (planted(p, {2: 0}, pooling="mean"), "pizza"),
        "clock": (planted(p, {1: 1, 2: 1}), "clock"),
        "a pizza and a clock": (planted(p, {1: 0, 2: 1}), "both"),
        "half of each on one circle": (planted(p, {1: 0.5}), "mixed"),
        "all pairs by heart": (planted_lookup(sums), "unclear"),
        "training pairs by heart": (planted_lookup(np.where(unseen(task), (sums + 1) % p, sums)), "unclear"),
        "untrained": (initialised(lambda: PooledMLP(p, width=16, hidden=64, pooling="concat"), 0), "unclear"),
    }
    found = {
        name: {"label": classify(network, task).label, "right": right} for name, (network, right) in networks.items()
    }
    (ctx.out / KNOWN).write_text(json.dumps(found))


# -- the claim -------------------------------------------------------------------------------------------------------


def primer_networks(folders: Iterable[Path]) -> pd.DataFrame:
    """One row a network of all cells, from the outputs of `measure_cell`."""
    import pandas as pd

    return pd.concat([pd.read_parquet(folder / MEASURED) for folder in folders], ignore_index=True)


def primer_theta(folders: Iterable[Path], *, poolings: Sequence[str] = ("concat",)) -> list[SeedTheta]:
    """How common the rarer of two algorithms is among each seed's networks, from the outputs of `measure_cell`.

    Theta is the least of two shares of the seed's named networks (label not "unclear") over all hyperparameters: of
    those with at least one loud circle that is read as a pizza, and of those with one that is read as a clock. Mixed
    circles count for neither, and a network that has both counts for both. From 0, where one algorithm is all there is,
    to 1, where every network has both; the claim of at least two classes predicts theta above its delta, and a sweep of
    one class, or of mixtures alone, refutes it. By default networks of `poolings` where both algorithms are possible:
    the mean of two embeddings has no clocks, whatever is trained, so that networks of both poolings together would have
    two classes by construction. A seed with fewer than 5 named networks has no value.

    A share of networks depends on the sweep: theta is of these hyperparameters, not of networks in general.
    """
    table = primer_networks(folders)
    table = table[table["pooling"].isin(list(poolings))]
    return [_theta(int(seed), rows) for seed, rows in table.groupby("seed")]


def both_shares(folders: Iterable[Path]) -> pd.DataFrame:
    """Of the named networks of each seed and pooling: their number, and the shares that have pizzas and clocks side by
    side (`both`) or at least one circle between the two (`mixed`). What Zhong et al. call parallel algorithms is the
    first."""
    import pandas as pd

    named = _named(primer_networks(folders))
    rows = []
    for (seed, pooling), group in named.groupby(["seed", "pooling"]):
        both, mixed = (group["label"] == "both").mean(), (group["mixed"] > 0).mean()
        rows.append({"seed": seed, "pooling": pooling, "networks": len(group), "both": both, "mixed": mixed})
    return pd.DataFrame(rows, columns=["seed", "pooling", "networks", "both", "mixed"])


def class_table(folders: Iterable[Path]) -> pd.DataFrame:
    """One row a cell and share: `networks`, how many `answer` (accuracy at least .95 on unseen pairs or, with a share
    of 1, on training pairs), have `one_circle`, and bear each label."""
    table = primer_networks(folders)
    keys = ["modulus", "pooling", "width", "weight_decay", "share"]
    counted = table.assign(answer=table["accuracy"] >= ENOUGH, networks=1)
    for label in LABELS:
        counted[label] = table["label"] == label
    return counted.groupby(keys)[["networks", "answer", "one_circle", *LABELS]].sum().reset_index()


def primer_gates(folders: Iterable[Path], known: Path, *, poolings: Sequence[str] = ("concat",)) -> tuple[Gate, Gate]:
    """Whether closed-form networks are named right, and whether in every seed some network of `poolings` answers pairs
    that it has not seen: a sweep of memorising networks could show no algorithm."""
    names = json.loads((known / KNOWN).read_text())
    wrong = [f"{name} called {found['label']}" for name, found in names.items() if found["label"] != found["right"]]
    table = primer_networks(folders)
    table = table[table["pooling"].isin(list(poolings)) & ~table["all_pairs"]]
    answered = {int(seed): int((rows["accuracy"] >= ENOUGH).sum()) for seed, rows in table.groupby("seed")}
    fewest = min(answered.values(), default=0)
    return (
        Gate(KNOWN_RIGHT, not wrong, "; ".join(wrong) or f"all {len(names)}"),
        Gate(ANSWERED, fewest > 0, f"at least {fewest} networks of every seed answer {ENOUGH:.0%} of unseen pairs"),
    )


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["label"] != "unclear"]


def _theta(seed: int, rows: pd.DataFrame) -> SeedTheta:
    named = _named(rows)
    if len(named) < FEWEST:
        return SeedTheta(
            seed, math.nan, len(named), f"{len(named)} of {len(rows)} networks are named; {FEWEST} are needed"
        )
    shares = [float((named[way] > 0).mean()) for way in ("pizzas", "clocks")]
    return SeedTheta(seed, min(shares), len(named))
