"""The training loop's own checkpoint: weights, optimiser moments, step and curves in one safetensors file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heldout.errors import CheckpointError
from heldout.training.checkpoints import fit_state, read_tensors, write_tensors
from heldout.training.history import History
from heldout.training.settings import TrainSettings

FORMAT = 1
_WEIGHTS, _MOMENTS = "weights/", "moments/"
_FREE = {"checkpoint_every"}  # may change between an interrupted run and the one that goes on


def save_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    done: int,
    history: History,
    running: tuple[float, int],
) -> None:
    """Write the state after `done` updates; `running` is the sum and number of losses since the last row."""
    # Cloned, because a safetensors file refuses tensors that share memory and tied weights do.
    tensors = {_WEIGHTS + name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{_MOMENTS}{kind}/{name}"] = tensor
    record = {
        "format": FORMAT,
        "kind": "training",
        "step": done,
        "settings": _comparable(settings),
        "rows": history.rows,
        "running": running,
    }
    write_tensors(path, tensors, record)


def load_state(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainSettings
) -> tuple[int, History, tuple[float, int]]:
    """Put a saved state back; returns the number of updates made, the curves, and the running loss."""
    tensors, record = read_tensors(path)
    if record.get("kind") != "training" or record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no training checkpoint that this version reads (format {FORMAT}). Give another checkpoint "
            "path, or move the file away to train from the start"
        )
    # A setting that is younger than the checkpoint had its default.
    made, wanted = {**_comparable(TrainSettings(steps=1)), **record["settings"]}, _comparable(settings)
    changed = [f"{k}: {made[k]!r} -> {v!r}" for k, v in wanted.items() if made[k] != v]
    if changed:
        raise CheckpointError(
            f"{path} was made with other settings ({', '.join(changed)}) and cannot be continued with these. "
            "Restore the settings, or move the file away to train from the start"
        )
    weights = {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
    fit_state(network, weights, path)
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_MOMENTS):
            kind, _, name = key.removeprefix(_MOMENTS).partition("/")
            moments.setdefault(name, {})[kind] = tensor
    for name, parameter in network.named_parameters():
        if name in moments:
            optimizer.state[parameter] = {
                kind: t if kind == "step" and not _on_device(optimizer) else t.to(parameter.device)
                for kind, t in moments[name].items()
            }
    total, count = record["running"]
    rows = [(int(step), dict(values)) for step, values in record["rows"]]
    return int(record["step"]), History(rows), (float(total), int(count))


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    """The settings that make a run what it is, as JSON gives them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items() if k not in _FREE}


def _on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether step counters live beside the parameters (fused) or on the CPU."""
    return bool(optimizer.defaults.get("fused"))
