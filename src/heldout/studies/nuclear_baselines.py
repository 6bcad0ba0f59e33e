"""What needs no network, on the same nuclei: mass formulas as published and refitted, neighbours, and a kernel method."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from heldout.analyses.baselines import Baseline, kernel_regression, nearest_neighbours
from heldout.runs import StepContext
from heldout.studies.nuclear_train import Trained, formula_of, nuclei, task_of
from heldout.tasks.nuclear import Nuclear
from heldout.tasks.nuclear.formulas import BW2, SEMF

PREDICTED, CHOSEN, COMPOSITION = "predictions.parquet", "chosen.json", "composition.json"
FORMULA, EXTENDED = "formula", "extended formula"
BASELINES = (FORMULA, EXTENDED, "neighbours", "kernel")
REMEMBER = ("neighbours", "kernel")  # predict a training nucleus from itself: no error to be shown
PUBLISHED = ("published formula", "published extended formula")


def predict_without(ctx: StepContext) -> None:
    """Energies, keV, that each baseline predicts for the nuclei of every split; all of it is fitted on train.

    Reads the data's settings, `vintage` and `kernels`. Formulas: the terms of the five-term and of the extended one,
    refitted. ``neighbours`` and ``kernel`` predict what the refitted five-term formula leaves, in the plane of Z and N.
    Their hyperparameters are those with the least error of one training nucleus from all others, or by vintage of one
    isotopic chain from all others, because new nuclei lie beyond the chains' ends.
    """
    import pandas as pd

    s = ctx.settings
    task = task_of(s, Trained(vintage=s["vintage"]))
    formulas = {FORMULA: formula_of(task, SEMF), EXTENDED: formula_of(task, BW2)}
    formulas |= dict(zip(PUBLISHED, (SEMF, BW2), strict=True))
    frames = []
    for name, rows in task.rows.items():
        z, n = nuclei(task, name)
        shared = {"split": name, "z": z, "n": n, "unit": rows.unit, "region": task.regions(rows.key)}
        measured = {"value": rows.value * (z + n), "uncertainty": rows.uncertainty * (z + n)}
        frames.append(pd.DataFrame(shared | measured | {label: f.binding(z, n) for label, f in formulas.items()}))
    table = pd.concat(frames, ignore_index=True)
    chosen: dict[str, Any] = {}
    methods: dict[str, Callable[..., Baseline]] = {
        "neighbours": nearest_neighbours,
        "kernel": partial(kernel_regression, kernels=s["kernels"]),
    }
    for i, (label, method) in enumerate(methods.items()):
        ctx.progress(i, len(methods), label)
        found = method(*training(task, s["vintage"]), table[["z", "n"]].to_numpy(dtype=np.float64))
        table[label] = table[FORMULA] + found.predictions
        chosen[label] = {**found.chosen, "at_edge": list(found.at_edge), "score": found.score}
    chosen |= {label: dict(zip(f.terms, f.coefficients, strict=True)) for label, f in formulas.items()}
    table.to_parquet(ctx.out / PREDICTED, index=False)
    (ctx.out / CHOSEN).write_text(json.dumps(chosen))
    (ctx.out / COMPOSITION).write_text(json.dumps(composition(task)))


def training(task: Nuclear, vintage: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (N, 2), residuals (N,) keV and groups (N,) of the training nuclei."""
    z, n = nuclei(task, "train")
    rows = task.rows["train"]
    residuals = rows.value * (z + n) - formula_of(task).binding(z, n)
    return np.stack([z, n], axis=1).astype(np.float64), residuals, rows.unit if vintage else rows.key


def composition(task: Nuclear) -> dict[str, Any]:
    """What the splits are made of, and which nuclei no network can score."""
    lost = {name: [[int(z), int(n)] for z, n in rows.tokens[:, :2]] for name, rows in task.unscorable.items()}
    found: dict[str, Any] = {"splits": task.composition(), "unscorable": lost}
    if task.newer is not None:
        found["dropped"] = len(task.dropped.z)
    return found
