"""From the parts of a spec to networks, splits and scorings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heldout.analyses.outputs import scoring_of
from heldout.analyses.scoring import Scoring
from heldout.audits.parts import Network, ScoringSpec, SplitSpec, Vector
from heldout.audits.sources import resolve
from heldout.errors import CheckpointError, ConfigError, SplitError, unknown
from heldout.networks.load import DTYPES, call, from_function, from_huggingface, import_function
from heldout.tasks.base import Split, check_disjoint
from heldout.tasks.files import Columns, read_split
from heldout.tasks.make import split
from heldout.tasks.targets import with_next_tokens
from heldout.training.checkpoints import load_weights, read_tensors

HEADS = {"next_token": "causal_lm", "classification": "sequence_classification"}  # any other kind: the bare model
GIVEN = ("inputs", "targets", "mask", "scored", "units", "keys", "strata")


def load_network(network: Network, run: int, folder: Path, *, kind: str, field: str = "network") -> nn.Module:
    """One training run of a network, in eval mode."""
    source = network.sources[run]
    if network.huggingface is not None:
        assert source is not None
        head = network.head or HEADS.get(kind, "none")
        path = folder / Path(source).expanduser()
        try:
            return from_huggingface(path, head=head, dtype=network.dtype, field=f"{field}.huggingface")
        except CheckpointError as error:
            if network.head is None and f"another head than {head!r}" in str(error):  # which the user never named
                why = f"it was taken because scoring.kind is {kind}; give that (next_token for a decoder), or {field}.head"
                raise CheckpointError(f"{error}; {why}") from error
            raise
    assert network.from_ is not None
    weights = None if source is None else resolve(folder, source, field=f"{field}.weights")
    if weights is not None and weights.suffix in (".pkl", ".pickle", ".joblib"):
        raise CheckpointError(
            f"{field}.weights: {weights} would need unpickling, which is not done here; save the state_dict() as safetensors"
        )
    made = from_function(network.from_, network.arguments, folder, field=f"{field}.from")
    if weights is not None:
        load_weights(made, weights)
    if network.dtype is not None:
        made = made.to(DTYPES[network.dtype])
    return made


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of every parameter and buffer, by which a function is seen to return another network each time."""
    whole = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            whole.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def load_split(name: str, spec: SplitSpec, folder: Path, *, kind: str) -> Split:
    """One split, with next-token targets where the scoring needs them and there are none."""
    field = f"splits.{name}"
    if spec.file is not None:
        assert spec.inputs is not None
        columns = Columns(
            inputs=spec.inputs,
            **{k: getattr(spec, k) for k in GIVEN[1:]},
            mask_argument=spec.mask_argument,
            padding_argument=spec.padding_argument,
            pad=spec.pad,
        )
        made = read_split(name, spec.role, folder / Path(spec.file).expanduser(), columns, note=spec.note)
    else:
        assert spec.function is not None
        function = import_function(spec.function, folder, field=f"{field}.function")
        returned = call(function, spec.arguments, folder, field=f"{field}.function")
        made = _returned(name, spec, returned, field=f"{field}.function")
    return with_next_tokens(made) if kind == "next_token" else made


def load_splits(splits: Mapping[str, SplitSpec], folder: Path, *, kind: str) -> dict[str, Split]:
    """Every split of a spec. Raises `SplitError` where two of different roles share an item."""
    loaded = {name: load_split(name, spec, folder, kind=kind) for name, spec in splits.items()}
    check_disjoint(list(loaded.values()))
    return loaded


def _returned(name: str, spec: SplitSpec, value: Any, *, field: str) -> Split:
    """A split from what a user's function returned."""
    if isinstance(value, Split):
        return replace(value, name=name, role=spec.role, note=spec.note or value.note)
    if isinstance(value, Mapping):
        for key in value:
            if key not in GIVEN:
                raise SplitError(f"{field} returned a mapping with {unknown('key', str(key), GIVEN)}")
        if "inputs" not in value:
            raise SplitError(f"{field} returned a mapping without inputs; it has {', '.join(map(str, value))}")
        given = dict(value)
    elif isinstance(value, tuple) and len(value) == 2:
        given = {"inputs": value[0], "targets": value[1]}
    else:
        raise SplitError(
            f"{field} returned a {type(value).__name__}; accepted are a heldout.Split, a mapping with "
            f"{', '.join(GIVEN)}, and (inputs, targets)"
        )
    try:
        return split(name, spec.role, note=spec.note, **given)
    except SplitError as error:
        raise SplitError(f"{field}: {error}") from None
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise SplitError(f"{field} returned what is no split: {type(error).__name__}: {error}") from error


def make_scoring(spec: ScoringSpec) -> Scoring:
    """The scoring, not yet calibrated."""
    return scoring_of(**spec.model_dump())


def load_vector(spec: Vector, folder: Path, *, field: str) -> Tensor:
    """The vector (D,) that a safetensors file holds. Raises `ConfigError`, `CheckpointError`."""
    path = resolve(folder, spec.file, field=f"{field}.file")
    if path.suffix != ".safetensors":
        raise ConfigError(f"{field}.file: {path} is no safetensors file; nothing is unpickled here")
    tensors, _ = read_tensors(path)
    if spec.tensor is None and len(tensors) != 1:
        raise ConfigError(f"{field}: {path} holds {len(tensors)} tensors; name one: {_few(list(tensors))}")
    name = spec.tensor or next(iter(tensors))
    if name not in tensors:
        raise ConfigError(f"{field}.tensor: {unknown('tensor', name, tensors)}")
    if tensors[name].ndim != 1 or not bool(tensors[name].isfinite().all()):
        raise ConfigError(f"{field}: {name} has shape {tuple(tensors[name].shape)}; a finite vector (D,) is needed")
    return tensors[name]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
