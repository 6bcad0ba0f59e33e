"""Rows of the matrix that look at pictures: both networks of the digits study, and the CNN of the images study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from heldout.networks.resnet import ResNet
from heldout.studies.matrix_joint import Joint
from heldout.studies.matrix_material import (
    Folders,
    Material,
    Networks,
    Settings,
    Stimuli,
    each,
    halves,
    networks_of,
    plain,
    targets,
)
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.images import FEATURES, Images

LAST = {"mlp": "hidden.1", "cnn": "gather"}  # what the digits study's readouts read
PASS = 128  # pictures at a time


def digits(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    from heldout.studies.digits import network_of, task_splits

    splits = task_splits(s["task"])
    networks = networks_of(lambda seed: network_of(s["network"], seed), each(folders, seeds), device)
    return Material(
        row=row,
        seeds=seeds,
        networks=networks,
        site=LAST[s["network"]],
        splits=splits,
        fit="fit",
        select="id_select",
        shifted="rotated",
        stimuli={
            name: plain(splits[of], {"digit": targets(splits[of])}, digit="categorical")
            for name, of in (("fit", "fit"), ("id", "id"))
        },
        device=device,
    )


def images(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    """Networks of all seeds look at the pictures of the first one; each was trained on others of the same combinations."""
    from heldout.studies.images import settings_from
    from heldout.studies.images_measure import table
    from heldout.studies.images_train import built

    task = Images(settings_from(s["task"]), seed=seeds[0], keep=True)
    pictures = Pictures(task, ("val", "test", "combinations"))
    val, test, combinations = pictures.numbered
    half = halves(test)
    splits = {"val": val, "combinations": combinations}
    splits |= {name: test.subset(at, name=name) for name, at in half.items()}
    trained, untrained = networks_of(lambda seed: built({**s, "seed": seed}), each(folders, seeds), device)
    labels = {"fit": table(task, "val")}
    labels["id"] = {name: values[half["id"]] for name, values in table(task, "test").items()}

    def behind(networks: list[nn.Module]) -> list[nn.Module]:
        return [Behind(network, pictures, device).eval() for network in networks]

    def stimuli(name: str, of: str) -> Stimuli:
        return plain(splits[of], labels[name], **dict.fromkeys(labels[name], "categorical"))

    return Material(
        row=row,
        seeds=seeds,
        networks=Networks(behind(trained), behind(untrained)),
        site="pool",
        splits=splits,
        fit="val",
        select="select",
        shifted="combinations",
        stimuli={"fit": stimuli("fit", "val"), "id": stimuli("id", "id")},
        scoring=Joint(heads=task.heads),
        device=device,
    )


class Pictures:
    """Splits of pictures that are called by their number: `numbered` are the same splits, the inputs (B,) int64."""

    def __init__(self, task: Images, names: Sequence[str]) -> None:
        self.splits = [task.splits[name] for name in names]
        self.starts = np.cumsum([0, *map(len, self.splits)])
        answered = [FEATURES.index(name) for name in task.outputs]
        self.numbered: list[Split] = []
        for start, split in zip(self.starts, self.splits, strict=False):
            known = torch.from_numpy(task.values[split.name][:, answered])
            self.numbered.append(replace(split, items=Rectangular(torch.arange(start, start + len(split)), known)))

    def take(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(numbers, pictures), `PASS` at a time; `numbers` ascend."""
        for start, split in zip(self.starts, self.splits, strict=False):
            own = numbers[(numbers >= start) & (numbers < start + len(split))]
            for cut in range(0, len(own), PASS):
                some = own[cut : cut + PASS]
                yield some, split.items.take(some - start).inputs


class Behind(nn.Module):
    """A network on pictures as the function of their numbers that it is: `pool` looks up what the last stage makes of each,
    computed once; `readout` is its own. An examination of `pool` sees each picture hundreds of times."""

    def __init__(self, network: nn.Module, pictures: Pictures, device: str) -> None:
        super().__init__()
        self.pool = _Rows(network, pictures, device)
        self.readout = network.get_submodule("readout")

    def forward(self, numbers: Tensor) -> Tensor:
        out: Tensor = self.readout(self.pool(numbers))
        return out


class _Rows(nn.Module):
    """(B,) numbers -> (B, D) rows behind `pool`."""

    def __init__(self, network: nn.Module, pictures: Pictures, device: str) -> None:
        super().__init__()
        assert isinstance(network, ResNet)
        self.stages = (
            network,
        )  # no submodule: it stays in its own precision where what is behind it is taken to another
        self.pictures, self.device = pictures, device
        self.rows: Tensor
        self.register_buffer("rows", torch.zeros(int(pictures.starts[-1]), network.readout.in_features, device=device))
        self.there = np.zeros(len(self.rows), dtype=bool)

    def forward(self, numbers: Tensor) -> Tensor:
        (network,), wanted = self.stages, np.unique(numbers.cpu().numpy())
        with torch.no_grad():
            for some, pictures in self.pictures.take(wanted[~self.there[wanted]]):
                rows = network.pool(network.maps(pictures.to(self.device))[-1])
                self.rows[torch.from_numpy(some)] = rows.to(self.rows)
                self.there[some] = True
        return self.rows[numbers]
