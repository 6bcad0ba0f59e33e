"""Rows of the matrix that compute with numbers: sums and products, addition modulo p, binding energies."""

from __future__ import annotations

from collections.abc import Sequence

from heldout.analyses.outputs import scoring_of
from heldout.studies.matrix_material import (
    Folders,
    Material,
    Settings,
    Stimuli,
    each,
    networks_of,
    plain,
    scored,
    targets,
)
from heldout.tasks.ragged import at_scored, everywhere

BATCH = 8000  # positions at a time


def arithmetic(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import arithmetic_train
    from heldout.studies.arithmetic import length_split

    kind = arithmetic_train.kind_of(s)
    task = arithmetic_train.task_of(kind)
    shifted = length_split(kind.longer[0])
    splits = {name: at_scored(task.splits[name], keep=()) for name in ("id_select", "id", shifted)}
    networks = networks_of(lambda seed: arithmetic_train.build_network(s, task, seed), each(folders, seeds), device)
    layers = len(networks.trained[0].get_submodule("blocks")._modules)

    def stimuli(name: str) -> Stimuli:
        return scored(
            task.splits[name], lambda target, strata: {"units digit": target}, **{"units digit": "categorical"}
        )

    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=f"blocks.{layers - 1}",
        splits=splits | {"train": everywhere(task.splits["train"])},
        fit="train",
        select="id_select",
        shifted=shifted,
        stimuli={"fit": stimuli("train"), "id": stimuli("id")},
        batch_size=BATCH,
        device=device,
    )


def modular(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import degeneracy_modular
    from heldout.training.seeds import initialised

    splits = degeneracy_modular.task_of(s).splits
    networks = networks_of(
        lambda seed: initialised(lambda: degeneracy_modular.network_of(s), seed), each(folders, seeds), device
    )
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site="mlp",
        splits=splits,
        fit="train",
        select="select",
        shifted="corner" if "corner" in splits else "id",
        stimuli={
            name: plain(splits[of], {"sum": targets(splits[of])}, sum="categorical")
            for name, of in (("fit", "train"), ("id", "id"))
        },
        device=device,
    )


def nuclear(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies import nuclear_train
    from heldout.studies.nuclear_measure import PENULTIMATE

    task = nuclear_train.task_of(s, nuclear_train.Trained.named(s["network"]))

    def stimuli(name: str) -> Stimuli:
        z, n = nuclear_train.nuclei(task, name)
        labels = {"nucleons": z + n, "even protons": (z + 1) % 2, "even neutrons": (n + 1) % 2}
        return plain(task.splits[name], labels, nucleons="continuous")

    networks = networks_of(
        lambda seed: nuclear_train.network_of({**s, "seed": seed}, task), each(folders, seeds), device
    )
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=PENULTIMATE,
        splits=task.splits,
        fit="train",
        select="select",
        shifted="id",
        stimuli={"fit": stimuli("train"), "id": stimuli("id")},
        scoring=scoring_of("regression"),
        device=device,
    )
