"""Two networks for two tasks that have nothing to do with each other: one in two blocks, one that joins everything.

Inputs are two independent halves, and so are targets: each is a fixed nonlinear function (the teacher, a small random tanh
network) of its own half alone. ``block`` is two MLPs side by side, one a half; ``dense`` is one MLP that sees all, as wide
as brings its number of parameters nearest to that of ``block``. Both are trained until the training loss is the same. Which
has fewer effective parameters at a cut-off? In ``block`` no direction of one half touches the other output.

theta within a seed is log N_eff(dense) - log N_eff(block) at one cut-off: a ratio, so that it has the units of other
counts. Counts at other cut-offs stand beside it, and so does 2 x LLC. One task, one size, one shape of network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.curvature import curvature
from heldout.analyses.degeneracy.llc import learning_coefficient
from heldout.errors import ConfigError, NetworkError, unknown
from heldout.networks.mlp import MLP
from heldout.runs import StepContext
from heldout.studies.degeneracy_population import SMALL, coefficient_row, sampling_of
from heldout.studies.seeds import SeedTheta
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.matched import loss_on, train_to
from heldout.training.seeds import generator, initialised
from heldout.training.settings import TrainSettings

BLOCK, DENSE = "block", "dense"
NETWORKS = (BLOCK, DENSE)
HALVES = 2
TRAINED, MEASURED = "trained.json", "blocks.parquet"
COUNTS = ("quadratic", "n_eff", "untrained")  # the first is the claim's
Settings = Mapping[str, Any]


class Blocks(nn.Module):
    """MLPs side by side, each with its own part of the inputs and of the outputs: (B, parts x I) -> (B, parts x O)."""

    def __init__(self, parts: Iterable[MLP]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(own) for part, own in zip(self.parts, x.chunk(len(self.parts), 1), strict=True)], dim=1)


# -- task and networks -----------------------------------------------------------------------------------------------


def squared_error(outputs: Tensor, batch: Batch) -> Tensor:
    """The mean over items of the squared error summed over outputs (each target has variance 1)."""
    if batch.targets is None or batch.targets.shape != outputs.shape:
        raise NetworkError(f"a squared error needs a target for each output of shape {tuple(outputs.shape)}")
    return (outputs - batch.targets).square().sum(1).mean()


def splits_of(s: Settings) -> dict[str, Split]:
    """``train`` and ``held``, of `items` and `held_items`: inputs (B, 2 `inputs`) standard normal, targets (B, 2).

    Target h is the seed's teacher h (one hidden layer of `teacher` tanh units, weights normal) on half h, with mean 0 and
    variance 1 over ``train``.
    """
    rng = generator(s["seed"], "data")
    x = rng.standard_normal((s["items"] + s["held_items"], HALVES * s["inputs"]))
    columns = []
    for half in np.split(x, HALVES, axis=1):
        into = rng.standard_normal((s["inputs"], s["teacher"]))
        out = rng.standard_normal(s["teacher"])
        columns.append(np.tanh(half @ into) @ out)
    y = np.stack(columns, axis=1)
    y = (y - y[: s["items"]].mean(0)) / y[: s["items"]].std(0)
    inputs, targets = (torch.from_numpy(a.astype(np.float32)) for a in (x, y))
    cut = s["items"]
    return {
        "train": Split("train", "fit", Rectangular(inputs[:cut], targets[:cut]), "trains, and is what is counted on"),
        "held": Split("held", "test", Rectangular(inputs[cut:], targets[cut:]), "fresh items, for the loss alone"),
    }


def network_of(name: str, s: Settings) -> nn.Module:
    """``block`` or ``dense``, freshly initialised from the seed; blocks start from weights of their own."""
    if name not in NETWORKS:
        raise ConfigError(unknown("network", name, NETWORKS))
    if name == DENSE:
        width = [dense_width(s)] * s["layers"]
        return initialised(lambda: MLP((HALVES * s["inputs"], *width, HALVES), s["activation"]), s["seed"])
    width = [s["width"]] * s["layers"]
    return initialised(lambda: Blocks(MLP((s["inputs"], *width, 1), s["activation"]) for _ in range(HALVES)), s["seed"])


def dense_width(s: Settings) -> int:
    """The width of ``dense`` with the number of parameters nearest to that of ``block`` (the smaller of two as near)."""
    wanted = HALVES * parameters(s["inputs"], s["width"], s["layers"], 1)
    candidates = range(1, HALVES * s["width"] + 1)
    return min(candidates, key=lambda w: abs(parameters(HALVES * s["inputs"], w, s["layers"], HALVES) - wanted))


def parameters(inputs: int, width: int, layers: int, outputs: int) -> int:
    """Of an MLP with `layers` >= 1 hidden layers of one width, biases included."""
    return (inputs + 1) * width + (layers - 1) * (width + 1) * width + (width + 1) * outputs


# -- steps -----------------------------------------------------------------------------------------------------------


def train_blocks(ctx: StepContext) -> None:
    """One seed: both networks, trained to the training loss `level`.

    Reads `seed`; `inputs`, `teacher`, `items`, `held_items` of the task; `width`, `layers`, `activation` of a block; and
    `optimizer`, `learning_rate`, `batch`, `steps` (the most updates), `level`, `tolerance` (a share of the level).
    """
    s = ctx.settings
    train = splits_of(s)["train"]
    settings = TrainSettings(
        steps=s["steps"],
        optimizer=s["optimizer"],
        learning_rate=s["learning_rate"],
        schedule="constant",
        weight_decay=0.0,
        clip=None,
        seed=s["seed"],
    )
    ended = {}
    for i, name in enumerate(NETWORKS):
        ctx.progress(i, len(NETWORKS), name)
        network = network_of(name, s)
        found = train_to(
            network, train, squared_error, s["level"], batch=s["batch"], settings=settings, tolerance=s["tolerance"]
        )
        save_weights(network, ctx.out / f"{name}.safetensors", {"network": name, "seed": s["seed"]})
        ended[name] = asdict(found)
    (ctx.out / TRAINED).write_text(json.dumps(ended))


def measure_blocks(ctx: StepContext) -> None:
    """One seed: the counts of both networks on the training inputs, one row a network.

    Reads the task's and networks' settings (see `train_blocks`), `sampling` (see `sampling_of`; its cut-off is the claim's),
    `cuts` (further cut-offs for the quadratic count) and the input ``weights``. The loss is the behavioural one, mse.
    """
    import pandas as pd

    s, folder = ctx.settings, ctx.inputs["weights"]
    splits = splits_of(s)
    trained = json.loads((folder / TRAINED).read_text())
    rows = []
    for i, name in enumerate(NETWORKS):
        ctx.progress(i, len(NETWORKS), name)
        network = network_of(name, s).eval()
        untrained = curvature(BehaviouralLoss(network, splits["train"], dtype=torch.float64), small=SMALL)
        load_weights(network, folder / f"{name}.safetensors")
        found = learning_coefficient(network, splits["train"], sampling=sampling_of(s), small=SMALL)
        rows.append(
            {
                "seed": s["seed"],
                "network": name,
                "parameters": found.parameters,
                "train_loss": trained[name]["loss"],
                "held_loss": loss_on(network, splits["held"], squared_error),
                "updates": trained[name]["updates"],
                **coefficient_row(found),
                "untrained": untrained.effective(found.cut)[0],
                **{f"quadratic@{cut:g}": found.curvature.effective(cut)[0] for cut in s["cuts"]},
                "unmatched": trained[name]["reason"],
                "reason": found.reason,
            }
        )
    pd.DataFrame(rows).to_parquet(ctx.out / MEASURED, index=False)


# -- the claim -------------------------------------------------------------------------------------------------------


def blocks_theta(folders: Iterable[Path], *, count: str = "quadratic") -> list[SeedTheta]:
    """log N_eff(dense) - log N_eff(block) of each seed, from the outputs of `measure_blocks`; the claim predicts above 0.

    `count`: ``quadratic``, ``n_eff`` (2 x LLC), ``quadratic@<cut>``, or ``untrained``, the quadratic count of the networks
    as they were initialised: what that shows is the architecture's and was not learnt. A seed has no value where a network
    has not reached the training loss, or has no such count.
    """
    import pandas as pd

    return [_theta(pd.read_parquet(folder / MEASURED), count) for folder in folders]


def _theta(rows: Any, count: str) -> SeedTheta:
    choices = [c for c in rows if c in COUNTS or c.startswith("quadratic@")]
    if count not in choices:
        raise ConfigError(unknown("count", count, choices))
    seed, by_name = int(rows["seed"].iloc[0]), rows.set_index("network")
    columns = ["unmatched", "reason"] if count == "n_eff" else ["unmatched"]
    why = [f"{name}: {by_name.loc[name, c]}" for name in NETWORKS for c in columns if by_name.loc[name, c]]
    if why:
        return SeedTheta(seed, math.nan, len(NETWORKS) - len(why), "; ".join(why))
    found = {name: float(by_name.loc[name, count]) for name in NETWORKS}
    if min(found.values()) <= 0:
        return SeedTheta(seed, math.nan, len(NETWORKS), f"a count is not positive: {found}")
    return SeedTheta(seed, math.log(found[DENSE] / found[BLOCK]), len(NETWORKS))
