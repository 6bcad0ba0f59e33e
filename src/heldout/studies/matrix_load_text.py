"""Rows of the matrix that read tokens: nested brackets, source code, and sequences with several features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from heldout.analyses.scoring import Scoring
from heldout.studies.matrix_material import (
    Folders,
    Material,
    Settings,
    Stimuli,
    each,
    halves,
    networks_of,
    scored,
    together,
)
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.ragged import everywhere


def dyck(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import dyck_audit
    from heldout.studies.dyck import DEPTH

    task, splits = dyck_audit.dyck(s["task"]), dyck_audit.splits(s["task"])
    k = s["task"]["brackets"]

    def stimuli(split: Split) -> Stimuli:
        return scored(
            split, lambda target, strata: {"type": target - k, "depth": strata["query_depth"]}, depth="continuous"
        )

    networks = networks_of(lambda seed: dyck_audit.build_network(s, seed), each(folders, seeds), device)
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=f"blocks.{s['network']['layers'] - 1}",
        splits=splits | {"fit": everywhere(splits["fit"])},
        fit="fit",
        select="id_select",
        shifted=DEPTH,
        stimuli={"fit": stimuli(splits["fit"]), "id": stimuli(task.splits["id"])},
        scoring=Scoring(candidates=dyck_audit.candidates(task)),
        batch_size=dyck_audit.BATCH,
        device=device,
    )


def code(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import code_audit
    from heldout.tasks.code.breakdown import classes
    from heldout.tasks.code.vocabulary import CHARACTERS

    corpus = folders["corpus"]
    shifted = code_audit.test_names(corpus)[-1]
    splits = {name: code_audit.load_split(corpus, name) for name in ("fit", "id_select", "id", shifted)}

    def stimuli(name: str) -> Stimuli:
        """The middle of each window, labelled with the kind of character that comes next."""
        split = splits[name]
        batch = split.items.take(np.arange(len(split)))
        lengths = np.full(len(split), s["shape"]["window"]) if batch.mask is None else batch.mask.sum(1).numpy()
        at = lengths // 2
        assert batch.targets is not None
        kind = classes(CHARACTERS)[batch.targets.numpy()[np.arange(len(split)), at]]
        return Stimuli(split, at, {"next": kind}, {"next": "categorical"})

    networks = networks_of(lambda seed: code_audit.build_network(s["shape"], seed), each(folders, seeds), device)
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=f"blocks.{s['shape']['layers'] - 1}",
        splits=splits,
        fit="fit",
        select="id_select",
        shifted=shifted,
        stimuli={name: stimuli(name) for name in ("fit", "id")},
        batch_size=code_audit.BATCH,
        device=device,
    )


def sequences(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    """Stimuli are read at the decoder's first place, where no label is given yet."""
    from heldout.studies.sequences_measure import by_place, network_of, task_of
    from heldout.training.seeds import initialised

    task = task_of(s, s["order"])
    half = halves(task.splits["test"])
    splits = {"val": task.splits["val"], "crossed": crossed(task.splits["test"])}
    splits |= {name: task.splits["test"].subset(at, name=name) for name, at in half.items()}
    networks = networks_of(
        lambda seed: initialised(lambda: network_of(s, task), seed), together(folders, seeds), device
    )
    labels = {"fit": by_place(task, "val")}
    labels["id"] = {name: values[half["id"]] for name, values in by_place(task, "test").items()}

    def stimuli(name: str, of: str) -> Stimuli:
        return Stimuli(splits[of], np.zeros(len(splits[of]), dtype=np.int64), labels[name], {})

    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site="decoder_norm",
        splits=splits,
        fit="val",
        select="select",
        shifted="crossed",
        stimuli={"fit": stimuli("fit", "val"), "id": stimuli("id", "id")},
        device=device,
    )


def crossed(test: Split) -> Split:
    """The test sequences, the decoder given the labels of another one. The task has no shift of its own; what should be
    answered is the same, since labels are independent."""
    items = test.items
    assert isinstance(items, Rectangular)
    source, given = items.inputs
    other = torch.from_numpy(np.random.default_rng(0).permutation(len(test)))
    return replace(
        test,
        name="crossed",
        items=Rectangular((source, given[other]), items.targets),
        note="the decoder is given the labels of another sequence",
    )
