"""Networks of the nuclear study: what they are trained on, and what they predict for every nucleus.

All energies of the page are of whole nuclei, keV: networks predict per nucleon and are multiplied by A, and a network on
residuals has its formula, refitted to the same training nuclei, added back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.analyses.geometry.passes import predict
from heldout.networks.token_mlp import TokenMLP
from heldout.runs import StepContext
from heldout.studies.side_by_side import trained
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.tasks.nuclear import Nuclear, NuclearSettings
from heldout.tasks.nuclear.formulas import SEMF, MassFormula, fit
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import squared_error
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

PREDICTIONS, TABLES, CURVES, WEIGHTS = "predictions.parquet", "tables.npz", "curves.parquet", "weights.safetensors"
COLUMNS = ("z", "n")
SCALE = 1e4  # keV^2 in the loss: (100 keV)^2
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """What a kind of network is trained on: a target of the task, by vintage or at random, and whether the refitted formula
    is taken off first."""

    target: str = "binding"
    vintage: bool = False
    residual: bool = False
    decays: bool = True

    @staticmethod
    def named(name: str) -> Trained:
        return KINDS[name]


KINDS = {
    "binding": Trained(),
    "residual": Trained(residual=True),
    "vintage": Trained(vintage=True),
    "vintage-residual": Trained(vintage=True, residual=True),
    "no-decay": Trained(decays=False),
    "semf": Trained("semf"),
    "asymmetry": Trained("asymmetry"),
    "noise": Trained("control"),
}


# -- data --------------------------------------------------------------------------------------------------------------


def task_of(s: Settings, kind: Trained) -> Nuclear:
    """The split is drawn by `data_seed`: all networks of a kind are tested on the same nuclei."""
    return _task(
        kind.target, kind.vintage, *(s[name] for name in ("table", "old", "new", "above_z", "above_n", "train", "select")),
        s["data_seed"],
    )  # fmt: skip


@lru_cache(maxsize=8)
def _task(
    target: str,
    vintage: bool,
    table: int,
    old: int,
    new: int,
    above_z: int,
    above_n: int,
    train: float,
    select: float,
    seed: int,
) -> Nuclear:
    years: dict[str, Any] = {"kind": "vintage", "vintage": old, "newer": new} if vintage else {"vintage": table}
    shared: dict[str, Any] = {"above_z": above_z, "above_n": above_n, "train": train, "select": select}
    return Nuclear(NuclearSettings(targets=(target,), **years, **shared), seed)


def nuclei(task: Nuclear, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) z and n of the items of a split."""
    z, n = task.rows[split].tokens[:, :2].T
    return z, n


def formula_of(task: Nuclear, formula: MassFormula = SEMF) -> MassFormula:
    """The terms of `formula` refitted to the binding energies of the training nuclei."""
    z, n = nuclei(task, "train")
    return fit(formula.terms, z, n, task.rows["train"].value * (z + n), name=f"{formula.name}, refitted")


def offsets(task: Nuclear, kind: Trained, split: str) -> np.ndarray:
    """(N,) keV per nucleon, what is added to a network's outputs: the refitted formula, or nothing."""
    z, n = nuclei(task, split)
    if not kind.residual:
        return np.zeros(len(z))
    return np.asarray(formula_of(task).binding(z, n) / (z + n))


def split_of(task: Nuclear, kind: Trained, name: str) -> Split:
    """A split with the targets that this kind of network is trained on."""
    split = task.splits[name]
    if not kind.residual:
        return split
    items = split.items
    assert isinstance(items, Rectangular)
    targets = task.rows[name].value - offsets(task, kind, name)
    return replace(
        split, items=Rectangular(items.inputs, torch.from_numpy(targets[:, None]).float(), strata=items.strata)
    )


def network_of(s: Settings, task: Nuclear) -> TokenMLP:
    """Freshly initialised by the seed."""
    return initialised(lambda: made_network(s, task), s["seed"])


def made_network(s: Settings, task: Nuclear) -> TokenMLP:
    return TokenMLP(task.sizes, width=s["width"], blocks=s["blocks"])


# -- step --------------------------------------------------------------------------------------------------------------


def train_network(ctx: StepContext) -> None:
    """One network; its weights, its embeddings over training, its curves, and what it predicts for every nucleus."""
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    s = contexts[0].settings
    kind = Trained.named(s["network"])
    task = task_of(s, kind)
    split = split_of(task, kind, "train")

    def fitted() -> TokenMLP:
        network = made_network(s, task)
        network.fit_outputs(split)
        return network

    settings = TrainSettings(
        steps=s["steps"],
        learning_rate=s["learning_rate"],
        schedule="cosine",
        weight_decay=s["weight_decay"] if kind.decays else 0.0,
        clip=None,
        evaluate_every=max(1, s["steps"] // s["looks"]),
    )
    tables: list[list[list[np.ndarray]]] = [[] for _ in contexts]

    def look(n: nn.Module, own: list[list[np.ndarray]]) -> dict[str, float]:
        assert isinstance(n, TokenMLP)
        own.append(tables_of(n))
        with torch.no_grad():
            return {f"{name}/rms": rms(n, task, kind, name) for name in ("train", "select")}

    weight = total if s["weighting"] == "total" and kind.target in ("binding", "semf") else None
    made = trained(
        contexts,
        fitted,
        [shuffled(split, min(s["batch"], len(split)), seed=ctx.settings["seed"]) for ctx in contexts],
        squared_error((SCALE,), weight=weight),
        settings=settings,
        evaluate=[partial(look, own=own) for own in tables],
    )
    for (ctx, network, history), own in zip(made, tables, strict=True):
        network.cpu()
        save_weights(network, ctx.out / WEIGHTS, {"network": s["network"], "seed": ctx.settings["seed"]})
        history.frame().to_parquet(ctx.out / CURVES, index=False)
        rows = [step for step, _ in history.rows]
        stacked: dict[str, Any] = {c: np.stack([t[i] for t in own]) for i, c in enumerate(COLUMNS)}
        np.savez_compressed(ctx.out / TABLES, steps=np.array(rows), **stacked)
        predictions(network, task, kind).to_parquet(ctx.out / PREDICTIONS, index=False)


def total(batch: Batch) -> Tensor:
    """(B,) A^2: an error per nucleon counts as that of the whole nucleus."""
    return (batch.strata["z"] + batch.strata["n"]).float().square()


def tables_of(network: TokenMLP) -> list[np.ndarray]:
    """Embeddings of z and of n, each (tokens, D) float32."""
    weights = [e.weight for e in network.embeddings if isinstance(e, nn.Embedding)]
    return [w.detach().cpu().numpy().copy() for w in weights[:2]]


def rms(network: nn.Module, task: Nuclear, kind: Trained, split: str) -> float:
    """Root mean square error of whole nuclei, keV (controls: of the target, in its unit)."""
    items = task.splits[split].items
    assert isinstance(items, Rectangular)
    z, n = nuclei(task, split)
    a = z + n if kind.target in ("binding", "semf") else 1
    inputs = items.inputs.to(next((p.device for p in network.parameters()), items.inputs.device))
    outputs = network(inputs)[:, 0].double().cpu().numpy() + offsets(task, kind, split)
    return float(np.sqrt(np.mean((a * (outputs - task.rows[split].value)) ** 2)))


def predictions(network: nn.Module, task: Nuclear, kind: Trained) -> Any:
    """One row a nucleus of every split: z, n, unit, region, and energies in keV: measured, its uncertainty, predicted."""
    import pandas as pd

    frames = []
    for name, split in task.splits.items():
        rows = task.rows[name]
        z, n = nuclei(task, name)
        a = z + n if kind.target in ("binding", "semf") else np.ones(len(z), dtype=np.int64)
        frames.append(
            pd.DataFrame(
                {
                    "split": name,
                    "z": z,
                    "n": n,
                    "unit": rows.unit,
                    "region": task.regions(rows.key),
                    "value": a * rows.value,
                    "uncertainty": a * rows.uncertainty,
                    "predicted": a * (predict(network, split) + offsets(task, kind, name)),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def loaded(ctx: StepContext, kind: Trained, task: Nuclear) -> TokenMLP:
    """The trained network behind the input ``weights``, ready to be read."""
    network = network_of(ctx.settings, task)
    load_weights(network, ctx.inputs["weights"] / WEIGHTS)
    return network.eval()
