"""The training loop: an optimiser, a schedule, clipping, curves, and checkpoints from which it goes on exactly.

    network = initialised(lambda: MLP((64, 128, 10)), seed=0)
    settings = TrainSettings(steps=1000, evaluate_every=100)
    history = train(network, shuffled(task["train"], 128, seed=0), cross_entropy, settings=settings)

Everything that varies from step to step (batch, learning rate, dropout noise) is a function of the step number, so a
checkpoint needs only weights, moments and that number. Interrupted and resumed, the weights are bit-identical on one
machine, build and thread count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.errors import NetworkError, NonFiniteError
from heldout.tasks.base import Batch
from heldout.training.history import BATCH_LOSS, History
from heldout.training.optimizers import optimizer_of, set_rate
from heldout.training.resume import load_state, save_state
from heldout.training.seeds import stream
from heldout.training.settings import TrainSettings

Loss = Callable[[Any, Batch], Tensor]
Evaluate = Callable[[nn.Module], Mapping[str, float]]
Progress = Callable[[int, int, float], None]
Until = Callable[[History], bool]

DEFERRED = 50  # losses looked at together on an accelerator, where looking at each would stall it


def train(
    network: nn.Module,
    batches: Callable[[int], Batch],
    loss: Loss,
    *,
    settings: TrainSettings,
    checkpoint: Path | None = None,
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    until: Until | None = None,
) -> History:
    """Train `network` in place, on its own device, and return its curves; it is left in evaluation mode.

    - `batches`: step (0 to steps - 1) -> batch; a pure function, or a resumed run is another run. See `shuffled`.
    - `loss`: (outputs, batch) -> scalar to lower. See `cross_entropy`.
    - `checkpoint`: a file to write every `settings.checkpoint_every` updates and at the end. Where it exists, training
      goes on from it; made with other settings or for another network, it is refused with `CheckpointError`.
    - `evaluate`: network -> {"split/metric": value}, called in evaluation mode without gradients before the first
      update, every `settings.evaluate_every` updates and after the last.
    - `until`: asked about the curves after every row that follows an update; where it says yes, training ends there. It
      is to be a pure function of the curves, so that a resumed run ends where an uninterrupted one does.
    - `progress`: called with (updates made, steps, loss of the last batch) about ten times a second.

    Raises `NonFiniteError`, naming the update, where loss or weights become NaN or infinite; a checkpoint never holds
    such weights. PyTorch's global generator is left as it was found.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise NetworkError(f"{type(network).__name__} has no parameters to train; all are frozen or there are none")
    optimizer = optimizer_of(network, settings)
    history, running, start = History(), Running(), 0
    if checkpoint is not None and checkpoint.exists():
        start, history, (running.total, running.count) = load_state(checkpoint, network, optimizer, settings)

    device = parameters[0].device
    on_cpu = device.type == "cpu"
    noise = int(stream(settings.seed, "noise").generate_state(1, np.uint32)[0])
    seed_noise = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    shown = time.monotonic()

    with torch.random.fork_rng(devices=[] if on_cpu else range(torch.cuda.device_count())):
        if start == 0:
            record(history, 0, network, evaluate, {})
        network.train()
        ended = until is not None and len(history) > 0 and history.rows[-1][0] > 0 and until(history)
        for step in range(start, start if ended else settings.steps):
            seed_noise((noise + step) % 2**32)
            batch = batches(step) if on_cpu else batches(step).to(device)
            args, kwargs = batch.arguments()
            with settings.casting(device):
                value = loss(network(*args, **kwargs), batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if settings.clip is not None:
                nn.utils.clip_grad_norm_(parameters, settings.clip)
            set_rate(optimizer, settings.rate(step))
            optimizer.step()

            done = step + 1
            last = done == settings.steps
            row_due = last or _due(done, settings.evaluate_every)
            save_due = checkpoint is not None and (last or _due(done, settings.checkpoint_every))
            running.pending.append(value.detach())
            if on_cpu or row_due or save_due or len(running.pending) >= DEFERRED:
                running.take(done, settings)
                if progress is not None and (last or time.monotonic() - shown > 0.1):
                    shown = time.monotonic()
                    progress(done, settings.steps, running.latest)
            if row_due or save_due:
                _require_finite(network, done, settings)
            if row_due:
                record(history, done, network, evaluate, {BATCH_LOSS: running.mean()})
                network.train()
                last = last or (until is not None and until(history))
            if checkpoint is not None and (save_due or last):
                save_state(checkpoint, network, optimizer, settings, done, history, (running.total, running.count))
            if last:
                break
    network.eval()
    return history


class Running:
    """The losses since the last row: some not yet looked at, the others summed."""

    def __init__(self) -> None:
        self.pending: list[Tensor] = []
        self.total, self.count, self.latest = 0.0, 0, math.nan

    def take(self, done: int, settings: TrainSettings) -> None:
        """Look at the pending losses, the last of which belongs to update `done`."""
        values = [self.pending[0].item()] if len(self.pending) == 1 else torch.stack(self.pending).tolist()
        for update, value in enumerate(values, start=done - len(values) + 1):
            if not math.isfinite(value):
                raise NonFiniteError(advice(f"the training loss is {value} at update {update}", settings))
            self.total += value
        self.count += len(values)
        self.latest = values[-1]
        self.pending.clear()

    def mean(self) -> float:
        """Mean of the losses since the last call; NaN-free because a row follows at least one update."""
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        return mean


def record(
    history: History, done: int, network: nn.Module, evaluate: Evaluate | None, values: Mapping[str, float]
) -> None:
    """Append one row: `values` and what `evaluate` measures."""
    if evaluate is not None:
        network.eval()
        with torch.no_grad():
            values = {**values, **evaluate(network)}
    if values:
        history.add(done, values)


def _due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0


def _require_finite(network: nn.Module, done: int, settings: TrainSettings) -> None:
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteError(advice(f"{name} is NaN or infinite after update {done}", settings))


def advice(problem: str, settings: TrainSettings) -> str:
    clip = "is off" if settings.clip is None else f"is {settings.clip:g}"
    return (
        f"{problem} of {settings.steps}. Try a lower learning_rate (it is {settings.learning_rate:g}), a longer warmup "
        f"(it is {settings.warmup}) or a smaller clip (it {clip}), and check that the inputs are finite"
    )
