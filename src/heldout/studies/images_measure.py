"""One network of the images study measured: what it answers, and how loud each feature is along the way, held out.

Two views of every stage's maps (B, C, H, W). *Each position* of each picture is a row of C channels: what the stage has
before any pooling. *Mean over positions*: one row a picture; behind the last stage this is what the readout reads. Maps are
fitted on val and scored on test, behind the last stage also on the splits that go beyond. As initialised and as trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments
from heldout.analyses.features.principal import effective_dimension
from heldout.analyses.features.variance import explained, fit_map
from heldout.networks.resnet import ResNet
from heldout.runs import StepContext
from heldout.studies.images import settings_from
from heldout.studies.images_train import WEIGHTS, answered, built, passes
from heldout.tasks.images import FEATURES, Images
from heldout.training.checkpoints import load_weights

VALUES = "values.parquet"
POSITIONS, MEAN = "each position", "mean over positions"
INITIAL, TRAINED = "initial", "trained"
ALL = "all"  # features together
FLOOR = 1e-12  # variance below which a map is taken for constant


class Value(NamedTuple):
    """One number of one network. `stage` counts from 0, the stem; -1 where the number is of the answers."""

    when: str
    split: str
    stage: int
    view: str
    quantity: str
    feature: str
    value: float


Moments = dict[tuple[int, str], JointMoments]  # stage, view


def measure_network(ctx: StepContext) -> None:
    s = ctx.settings
    task = Images(settings_from(s["task"]), seed=s["seed"], keep=True)
    found: list[Value] = []
    for i, when in enumerate((INITIAL, TRAINED)):
        ctx.progress(i, 2, when)
        network = built(s)
        if when == TRAINED:
            load_weights(network, ctx.inputs["weights"] / WEIGHTS)
        network.to(ctx.device).eval()
        if when == TRAINED:
            found += answers(network, task, ctx.device)
        found += loudness(network, task, when, draws=s["band_draws"], seed=s["seed"], device=ctx.device)
    pd.DataFrame(found, columns=list(Value._fields)).to_parquet(ctx.out / VALUES, index=False)


def answers(network: ResNet, task: Images, device: str) -> Iterator[Value]:
    """Accuracy and cross-entropy of each output on each split but train."""
    for name in task.splits:
        if name == "train":
            continue
        right, losses = answered(network, task, name, device)
        for f, feature in enumerate(task.outputs):
            yield Value(TRAINED, name, -1, "", "accuracy", feature, float(right[:, f].mean()))
            yield Value(TRAINED, name, -1, "", "cross_entropy", feature, float(losses[:, f].mean()))


def loudness(network: ResNet, task: Images, when: str, *, draws: int, seed: int, device: str) -> Iterator[Value]:
    """Variance explained by each feature and by all, at every stage in both views; more of it where the readout reads."""
    tables = {name: table(task, name) for name in task.splits}
    coding = Coding.fit(tables["val"], dict.fromkeys(tables["val"], "categorical"))
    last = len(network.stages)
    fit = gather(network, task, "val", coding.encode(tables["val"]), device)
    for name, split in task.splits.items():
        if split.role != "test" or (name != "test" and when == INITIAL):
            continue
        test = gather(network, task, name, coding.encode(tables[name]), device, only=None if name == "test" else last)
        for (stage, view), moments in test.items():
            if float(fit[stage, view].variances.sum()) <= FLOOR:  # dead: nothing to explain
                continue
            for feature in (*coding.names, ALL):
                columns = coding.columns(*(coding.names if feature == ALL else [feature]))
                r2 = explained(fit_map(fit[stage, view], columns), moments).pooled
                yield Value(when, name, stage, view, "variance_explained", feature, r2)
        if name == "test" and when == TRAINED:
            yield from _where_it_is_read(fit[last, MEAN], test[last, MEAN], coding, last, draws=draws, seed=seed)


def _where_it_is_read(
    fit: JointMoments, test: JointMoments, coding: Coding, stage: int, *, draws: int, seed: int
) -> Iterator[Value]:
    """The band of each feature under changes that leave the function as it is, and the number of dimensions."""
    for feature, band in bands(fit, test, coding, seed=seed, draws=draws).items():
        for quantity, value in (
            ("band_low", band.low),
            ("band_high", band.high),
            ("zscored", band.zscored),
            ("whitened", band.whitened),
        ):
            yield Value(TRAINED, "test", stage, MEAN, quantity, feature, float(value))
    yield Value(
        TRAINED, "test", stage, MEAN, "effective_dimension", ALL, effective_dimension(np.linalg.eigvalsh(test.xx))
    )


def table(task: Images, split: str) -> dict[str, NDArray[np.int64]]:
    """Feature -> (N,) the numbers of its values; a feature that has one value alone is left out."""
    values = task.values[split]
    return {
        name: values[:, i]
        for i, (name, named) in enumerate(zip(FEATURES, task.settings.values(), strict=True))
        if len(named) > 1
    }


def gather(
    network: ResNet, task: Images, split: str, design: NDArray[np.float64], device: str, *, only: int | None = None
) -> Moments:
    """Joint moments of labels `design` (N, q) and maps, by stage (all, or `only` one) and view."""
    found: Moments = {}
    labels = torch.from_numpy(design)
    with torch.no_grad():
        for batch in passes(task, split):
            own = labels[batch.index]
            for stage, maps in enumerate(network.maps(batch.inputs.to(device))):
                if only is not None and stage != only:
                    continue
                places = maps.shape[2] * maps.shape[3]
                rows = maps.movedim(1, -1).reshape(-1, maps.shape[1]).cpu()
                for view, x, b in (
                    (POSITIONS, rows, own.repeat_interleave(places, dim=0)),
                    (MEAN, maps.mean((2, 3)).cpu(), own),
                ):
                    found.setdefault((stage, view), JointMoments(design.shape[1])).update(x, b)
    return found


def read_values(folders: Mapping[str, Any]) -> pd.DataFrame:
    """The values of every measured network, with columns `network` and `seed`; `folders`: "network seed" -> folder."""
    frames = []
    for who, folder in folders.items():
        network, seed = who.rsplit(" ", 1)
        frames.append(pd.read_parquet(folder / VALUES).assign(network=network, seed=int(seed)))
    return pd.concat(frames, ignore_index=True)
