"""Rows of the matrix that compute Boolean features of a row of bits: MLPs of the features and of the similarity study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from heldout.studies.matrix_joint import Joint
from heldout.studies.matrix_material import Folders, Material, Settings, halves, networks_of, plain, together
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.features import Features
from heldout.tasks.features.sampling import row_keys

ONES = 0.9  # share of bits that are set in the shifted rows; in all others, half


def features(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies.features import condition_from
    from heldout.studies.features_training import network_of
    from heldout.training.seeds import initialised

    condition = condition_from(s["condition"])
    task = Features(condition.task, seed=s["data_seed"])
    half = halves(task.splits["test"])
    splits = {"val": task.splits["val"], "dense": dense(task)}
    splits |= {name: task.splits["test"].subset(at, name=name) for name, at in half.items()}
    networks = networks_of(
        lambda seed: initialised(lambda: network_of(condition), seed), together(folders, seeds), device
    )
    values = {"fit": task.values["val"], "id": task.values["test"][half["id"]]}
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=f"hidden.{len(condition.hidden) - 1}",
        splits=splits,
        fit="val",
        select="select",
        shifted="dense",
        stimuli={
            name: plain(splits[of], {f: values[name][:, i] for i, f in enumerate(task.names)})
            for name, of in (("fit", "val"), ("id", "id"))
        },
        scoring=Joint(heads=task.heads),
        device=device,
    )


def dense(task: Features) -> Split:
    """As many rows as test has in which bits are set with chance `ONES`, none of them in another split, with the labels that
    they have. The task has no shift of its own; features are the same functions of such rows."""
    n, bits = len(task.values["test"]), task.settings.bits
    rows = (np.random.default_rng(0).random((n, bits)) < ONES).astype(np.uint8)
    rows = rows[~np.isin(row_keys(rows), np.concatenate([row_keys(r) for r in task.rows.values()]))]
    values = np.stack([planted.of(rows) for planted in task.planted], axis=1)
    inputs = rows.astype(np.float32) if task.settings.coding == "01" else rows.astype(np.float32) * 2 - 1
    keys = row_keys(rows)
    taken = max(int(split.unit_ids().max()) for split in task.splits.values()) + 1
    items = Rectangular(torch.from_numpy(inputs), torch.from_numpy(values.astype(np.int64)))
    note = f"rows of which {ONES:g} of the bits are set"
    units = np.unique(keys, return_inverse=True)[1].astype(np.int64) + taken
    return Split("dense", "test", items, note, keys=keys, units=units)
