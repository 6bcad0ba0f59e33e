"""Windows of text as arrays: what a split of the code task is kept as, N windows of T characters."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heldout.errors import SplitError, unknown
from heldout.tasks.base import Rectangular, Role, Split
from heldout.tasks.code.breakdown import labels
from heldout.tasks.code.vocabulary import PAD, decode, shifted


@dataclass(frozen=True, eq=False)
class Windows:
    """`targets` (N, T) uint8, padded on the right; `keys` (N,) the file's content hash; `units` (N,) int64, numbered across
    the task; `labels` axis -> (N, T) uint8 (see `heldout.tasks.code.breakdown`)."""

    name: str
    role: Role
    note: str
    targets: np.ndarray
    keys: np.ndarray
    units: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def split(self, axes: Collection[str] = ()) -> Split:
        """The windows as a split whose inputs are BOS and all but the last character; `axes` are carried as strata."""
        for axis in axes:
            if axis not in self.labels:
                raise SplitError(f"split {self.name!r}: {unknown('axis', axis, self.labels)}")
        targets = torch.from_numpy(self.targets.astype(np.int64))
        mask = targets != PAD
        items = Rectangular(
            torch.from_numpy(shifted(self.targets).astype(np.int64)),
            targets,
            mask=None if bool(mask.all()) else mask,
            strata={axis: torch.from_numpy(self.labels[axis].astype(np.int64)) for axis in axes},
        )
        return Split(self.name, self.role, items, self.note, keys=self.keys, units=self.units)

    def take(self, index: np.ndarray, name: str, note: str) -> Windows:
        """Some of the windows, under another name and in the same role."""
        labels = {axis: values[index] for axis, values in self.labels.items()}
        return Windows(name, self.role, note, self.targets[index], self.keys[index], self.units[index], labels)

    def labelled(self) -> Windows:
        """The same windows with the labels that their own text gives (all but ``role``)."""
        each = [labels(text) for text in self.texts()]
        width = self.targets.shape[1]
        padded = {a: np.stack([np.pad(e[a], (0, width - len(e[a]))) for e in each]) for a in each[0]}
        return replace(self, labels=padded)

    def texts(self) -> list[str]:
        """The text of every window."""
        return [decode(row) for row in self.targets]

    def describe(self) -> dict[str, Any]:
        """Plain data for a manifest: sizes, and a hash that changes with any character."""
        digest = hashlib.sha256(self.targets.tobytes())
        digest.update(self.units.tobytes())
        return {
            "split": self.name,
            "role": self.role,
            "note": self.note,
            "windows": len(self),
            "characters": int((self.targets != PAD).sum()),
            "files": len(np.unique(self.keys)),
            "units": len(np.unique(self.units)),
            "hash": digest.hexdigest()[:16],
        }

    def save(self, folder: Path) -> None:
        """Write ``NAME.npz``; only arrays of numbers and text, nothing that needs unpickling."""
        arrays: dict[str, Any] = {f"label/{axis}": values for axis, values in self.labels.items()}
        arrays |= {"head": np.array([self.name, self.role, self.note]), "targets": self.targets}
        np.savez_compressed(folder / f"{self.name}.npz", keys=self.keys, units=self.units, **arrays)

    @staticmethod
    def load(path: Path) -> Windows:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            name, role, note = (str(v) for v in file["head"])
            axes = {key.removeprefix("label/"): file[key] for key in file.files if key.startswith("label/")}
            return Windows(name, role, note, file["targets"], file["keys"], file["units"], axes)  # type: ignore[arg-type]
