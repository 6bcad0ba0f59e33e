"""Weights on disk: safetensors, written whole or not at all, checked against the network before anything is loaded.

Nothing is ever unpickled: a ``.pt``, ``.pth`` or ``.bin`` file goes through ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from heldout.errors import CheckpointError, StoreError

KEY = "heldout"  # the one metadata entry; one, because a file with several has them in no fixed order


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write parameters and buffers to `path` with `metadata` (anything JSON can hold).

    Weights that are tied (one tensor under several names) are written once and their other names noted.
    """
    first = _first_names(network)
    state = network.state_dict()
    tied = {name: kept for name, kept in first.items() if name != kept}
    record = {"tied": tied, "metadata": dict(metadata or {})}
    write_tensors(path, {name: state[name] for name in first if name not in tied}, record)


def load_weights(network: nn.Module, path: Path) -> dict[str, Any]:
    """Load `path` into `network` and return its metadata ({} for a file made elsewhere).

    Names and shapes must match exactly, or `CheckpointError` lists what is missing, left over or of another shape and
    the network stays as it was. A name that is missing but tied to one that is there is filled from it. Values are
    converted to the network's dtype and device.
    """
    tensors, record = _read_any(path)
    for name, kept in record.get("tied", {}).items():
        tensors.setdefault(name, tensors[kept])
    fit_state(network, tensors, path)
    metadata = record.get("metadata", {})
    return dict(metadata)


def fit_state(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load a state dict into `network` if every name and shape fits; raise and change nothing otherwise."""
    first = _first_names(network)
    group: dict[str, list[str]] = {}
    for name, kept in first.items():
        group.setdefault(kept, []).append(name)
    for names in group.values():
        given = [name for name in names if name in tensors]
        if any(not torch.equal(tensors[given[0]], tensors[name]) for name in given[1:]):
            raise CheckpointError(
                f"{path}: {' and '.join(given)} are one tied weight in this network but differ in the file. "
                "Build the network without tying them, or make the file's values equal"
            )
        for name in names:
            if given and name not in tensors:
                tensors[name] = tensors[given[0]]
    own = network.state_dict()
    shapes = [
        f"{name} (file {tuple(tensors[name].shape)}, network {tuple(own[name].shape)})"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = {
        "missing from the file": [name for name in own if name not in tensors],
        "in the file but not in the network": sorted(name for name in tensors if name not in own),
        "of another shape": shapes,
    }
    found = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"{path} does not fit the network ({type(network).__name__}): {'; '.join(found)}. "
            "Build the network with the settings that the file was saved with"
        )
    network.load_state_dict(tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record to `path` through a temporary name, so that `path` is always whole."""
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={KEY: json.dumps(record, sort_keys=True)},
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose a directory that can be "
            "written; a checkpoint that was there before is untouched"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, on the CPU, and its JSON record ({} where another program wrote it)."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            raw = (file.metadata() or {}).get(KEY, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            record: dict[str, Any] = json.loads(raw)
            return tensors, record
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}). Restore a copy, or delete it to start afresh"
        ) from error


def _read_any(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix not in {".pt", ".pth", ".bin"}:
        return read_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except Exception as error:  # torch.load raises whatever its unpickler met
        raise CheckpointError(
            f"{path} cannot be loaded with weights_only=True ({type(error).__name__}), and nothing is unpickled here. "
            "Where you trust it, load it yourself and save its state_dict() as safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        held = f"a mapping with {_some(map(str, state))}" if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(f"{path} holds {held}, not a state dict (name -> tensor). Save the state dict alone")
    return dict(state), {}


def _first_names(network: nn.Module) -> dict[str, str]:
    """Each name of the state dict -> the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(t), name) for name, t in network.state_dict(keep_vars=True).items()}


def _some(names: Iterable[str], n: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (f", and {len(names) - n} more" if len(names) > n else "")
