"""Training one condition: its seeds side by side, their weights, and their accuracies along the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.studies.features_conditions import FULL_BATCH, Condition
from heldout.tasks.base import Batch, Rectangular
from heldout.tasks.features import Features
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.loop import Progress
from heldout.training.seeds import generator, initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Stack, train_stacked

if TYPE_CHECKING:
    import pandas as pd

CURVES = "curves.parquet"
MEASURED = ("val", "test")  # accuracies are taken on both; claims read `test`


@dataclass(frozen=True)
class Seeds:
    """What each source of chance is seeded with.

    - `initialisation`: one for each network.
    - `data`: of the rows, which all networks share.
    - `order`: of the batches, and of noise in inputs and dropout; None gives each network an order of its own, seeded
      as its weights are (dropout is then seeded by the first).
    """

    initialisation: tuple[int, ...]
    data: int = 0
    order: int | None = 0

    def __post_init__(self) -> None:
        if not self.initialisation or min(self.initialisation) < 0 or len(set(self.initialisation)) < len(self):
            raise ConfigError(f"features: give one or more different seeds from 0 upward, got {self.initialisation}")

    def __len__(self) -> int:
        return len(self.initialisation)


def train_condition(
    condition: Condition, seeds: Seeds, folder: Path, *, progress: Progress | None = None
) -> pd.DataFrame:
    """Train every seed of `condition`; weights go to `folder`, and the curves are returned and written there.

    ``seed-<s>.safetensors`` are the final weights, ``step-<updates>/seed-<s>.safetensors`` those along the way where
    the condition keeps its trajectory; see `trained_network`. The curves have one row a step, seed, split, feature and
    metric (``accuracy``; ``cross_entropy`` in nats), and the mean training loss under the split ``batch``.
    """
    task = Features(condition.task, seed=seeds.data)
    stack = Stack([initialised(lambda: network_of(condition), s) for s in seeds.initialisation])

    def save(at: Path, done: int) -> None:
        for i, seed in enumerate(seeds.initialisation):
            record = {"condition": condition.name, "seed": seed, "updates": done}
            save_weights(stack.network(i), at / f"seed-{seed}.safetensors", record)

    def look(done: int, stack: Stack) -> dict[str, Sequence[float]]:
        if condition.trajectory:
            save(folder / f"step-{done:06d}", done)
        return {name: values for split in MEASURED for name, values in scores(stack, task, split).items()}

    if condition.steps:
        settings = TrainSettings(
            steps=condition.steps,
            optimizer=condition.optimizer,
            learning_rate=condition.learning_rate,
            schedule="constant",
            momentum=condition.momentum,
            weight_decay=condition.weight_decay,
            clip=None,
            seed=seeds.initialisation[0] if seeds.order is None else seeds.order,
        )
        orders = seeds.initialisation if seeds.order is None else (seeds.order,)
        batches = [scheduled(condition, task, order) for order in orders]
        loss = task.heads.loss(condition.smoothing)
        histories = train_stacked(
            stack,
            batches if seeds.order is None else batches[0],
            loss,
            settings=settings,
            evaluate=look,
            at=moments(condition),
            progress=progress,
        )
        rows = [(seed, *row) for seed, h in zip(seeds.initialisation, histories, strict=True) for row in h]
    else:
        stack.train(False)
        with torch.no_grad():
            found = look(0, stack)
        rows = [(s, 0, {k: v[i] for k, v in found.items()}) for i, s in enumerate(seeds.initialisation)]
    save(folder, condition.steps)
    curves = _frame(rows)
    curves.to_parquet(folder / CURVES, index=False)
    return curves


def network_of(condition: Condition) -> MLP:
    """A network of the condition's shape, freshly initialised from PyTorch's generator."""
    return MLP(
        (condition.task.bits, *condition.hidden, condition.task.heads().width),
        condition.activation,
        norm=condition.norm,
        dropout=condition.dropout,
        init=condition.init,
        gain=condition.gain,
    )


def trained_network(condition: Condition, folder: Path, seed: int, updates: int | None = None) -> MLP:
    """A network that `train_condition` saved, in evaluation mode: the final one, or that after `updates`."""
    network = network_of(condition)
    at = folder if updates is None else folder / f"step-{updates:06d}"
    load_weights(network, at / f"seed-{seed}.safetensors")
    return network.eval()


def kept_moments(folder: Path) -> list[int]:
    """The numbers of updates after which `folder` holds weights, ascending."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if path.is_dir())


def scheduled(condition: Condition, task: Features, seed: int) -> Callable[[int], Batch]:
    """Step -> batch: shuffled epochs in which the labels of features that are not in play are withheld."""
    split = task.splits["train"]
    order = shuffled(split, len(split) if condition.batch == FULL_BATCH else condition.batch, seed=seed)
    ends = np.cumsum([phase.steps for phase in condition.phases])

    def batch(step: int) -> Batch:
        found = order(step)
        phase = condition.phases[int(np.searchsorted(ends, step, side="right"))]
        if phase.trains is not None or phase.interleaved:
            assert found.scored is not None
            trains = phase.trains if phase.trains is not None else tuple(range(found.scored.shape[1]))
            if phase.interleaved:
                trains = (trains[step % len(trains)],)
            in_play = torch.zeros(found.scored.shape[1], dtype=torch.bool)
            in_play[list(trains)] = True
            found = replace(found, scored=found.scored & in_play)
        if condition.flip:
            flips = generator(seed, "noise", step).random(tuple(found.inputs.shape)) < condition.flip
            turned = 1 - found.inputs if condition.task.coding == "01" else -found.inputs
            found = replace(found, inputs=torch.where(torch.from_numpy(flips), turned, found.inputs))
        return found

    return batch


def moments(condition: Condition) -> list[int]:
    """When a condition is looked at: before the first update, at the end of each phase, and `looks` times between."""
    ends = np.cumsum([phase.steps for phase in condition.phases]).tolist()
    return sorted({0, *ends, *log_spaced(condition.steps, condition.looks)})


def log_spaced(last: int, n: int) -> list[int]:
    """`n` different whole numbers from 1 to `last`, as evenly spaced in the logarithm as whole numbers can be; all of
    them where there are no more than `n`."""
    if n >= last:
        return list(range(1, last + 1))
    found = [1] if n else []
    while len(found) < n:  # the low ones crowd together, so each one that is placed spreads the rest anew
        ratio = (last / found[-1]) ** (1 / (n - len(found)))
        found.append(max(found[-1] + 1, round(found[-1] * ratio)))
    return found


def scores(stack: Stack, task: Features, split: str, size: int = 1024) -> dict[str, list[float]]:
    """``split/metric:feature`` -> one value a network, of every output."""
    items = task.splits[split].items
    assert isinstance(items, Rectangular)
    right = torch.zeros(len(stack), len(task.outputs), dtype=torch.float64)
    losses = torch.zeros_like(right)
    for batch in task.splits[split].batches(size):
        assert batch.targets is not None
        outputs = stack(batch)
        right += (task.heads.predictions(outputs) == batch.targets).double().sum(1)
        losses += torch.stack([task.heads.losses(out, batch.targets).double().sum(0) for out in outputs])
    columns = {}
    for f, name in enumerate(task.outputs):
        columns[f"{split}/accuracy:{name}"] = (right[:, f] / len(items)).tolist()
        columns[f"{split}/cross_entropy:{name}"] = (losses[:, f] / len(items)).tolist()
    return columns


def _frame(rows: Sequence[tuple[int, int, dict[str, float]]]) -> pd.DataFrame:
    import pandas as pd

    def flat() -> Iterator[tuple[int, int, str, str, str, float]]:
        for seed, step, values in rows:
            for name, value in values.items():
                split, _, rest = name.partition("/")
                metric, _, feature = rest.partition(":")
                yield step, seed, split, feature, metric, value

    return pd.DataFrame(list(flat()), columns=["step", "seed", "split", "feature", "metric", "value"])
