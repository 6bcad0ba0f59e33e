"""Training one network of the images study, and building it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from heldout.networks.resnet import ResNet
from heldout.runs import StepContext
from heldout.studies.images import BLOCKS, settings_from
from heldout.tasks.base import Batch
from heldout.tasks.images import Images
from heldout.training.batching import shuffled
from heldout.training.checkpoints import save_weights
from heldout.training.loop import train
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

WEIGHTS, HISTORY = "weights.safetensors", "history.parquet"
LOOKS = 10  # times that accuracy on val is taken while training
PIXELS = 600_000  # of a pass over pictures: 146 of 64 x 64


def train_network(ctx: StepContext) -> None:
    s = ctx.settings
    task = Images(settings_from(s["task"]), seed=s["seed"], keep=True)
    network = built(s).to(ctx.device)

    def accuracies(net: nn.Module) -> dict[str, float]:
        right, losses = answered(net, task, "val", ctx.device)
        return {
            f"val/{metric}:{name}": float(values[:, f].mean())
            for f, name in enumerate(task.outputs)
            for metric, values in (("accuracy", right), ("cross_entropy", losses))
        }

    settings = TrainSettings(
        steps=s["training_steps"],
        learning_rate=s["learning_rate"],
        optimizer="adam",
        weight_decay=0.0,
        clip=None,
        evaluate_every=max(1, s["training_steps"] // LOOKS),
        seed=s["seed"],
    )
    history = train(
        network,
        shuffled(task.splits["train"], s["batch"], seed=s["seed"]),
        task.heads.loss(),
        settings=settings,
        evaluate=accuracies,
        progress=lambda done, total, loss: ctx.progress(done, total, f"loss {loss:.3f}"),
    )
    save_weights(network, ctx.out / WEIGHTS, {"network": s["network"], "seed": s["seed"]})
    history.frame().to_parquet(ctx.out / HISTORY, index=False)


def built(s: Mapping[str, Any]) -> ResNet:
    """The network that a step's settings describe, initialised from its seed."""
    task, n = settings_from(s["task"]), s["network"]
    shape = (3, task.size, task.size)
    return initialised(
        lambda: ResNet(
            shape,
            task.heads().width,
            residual=n["residual"],
            width=n["width"],
            blocks=BLOCKS[n["depth"]],
        ),
        s["seed"],
    )


def answered(network: nn.Module, task: Images, split: str, device: str) -> tuple[Tensor, Tensor]:
    """(N, F) float64 each: whether each output is right, and its cross-entropy in nats."""
    right, losses = [], []
    with torch.no_grad():
        for batch in passes(task, split):
            assert batch.targets is not None
            outputs = network(batch.inputs.to(device)).cpu()
            right.append((task.heads.predictions(outputs) == batch.targets).double())
            losses.append(task.heads.losses(outputs, batch.targets).double())
    return torch.cat(right), torch.cat(losses)


def passes(task: Images, split: str) -> Iterator[Batch]:
    """A split in batches of about `PIXELS`."""
    return task.splits[split].batches(max(1, PIXELS // task.settings.size**2))
