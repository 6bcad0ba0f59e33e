"""What every task is made of: items, splits, batches, and how outputs are scored.

A `Split` is a named set of items with a role. Only a split whose role is ``fit`` may be fitted on; `select` chooses a
parameter; `test` is looked at last. Items are reached through `Items.take`, so that a split may be a rectangle of
tensors (`Rectangular`) or sentences of many lengths (`Ragged`) and nothing else needs to know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from heldout.errors import SplitError, unknown

Role = Literal["fit", "select", "test"]
ROLES: tuple[Role, ...] = ("fit", "select", "test")


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items, ready for a network.

    - `inputs`: what the network is called with: a tuple is spread as positional arguments, a mapping as keyword
      arguments, anything else is the single argument. Tensors have B items first.
    - `index`: (B,) int64, the items' places in their split.
    - `targets`: (B,) or (B, T), or None where there are none.
    - `mask`: (B, T) bool, True where a position holds data and not padding; None where every position does. It says
      which tokens a proxy is fitted on and which are replaced.
    - `scored`: (B, T) bool, True where the prediction counts; None where every unmasked one does.
    - `strata`: name -> (B,) or (B, T) int64 labels carried into the scores table.
    """

    inputs: Any
    index: Tensor
    targets: Tensor | None = None
    mask: Tensor | None = None
    scored: Tensor | None = None
    strata: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.index.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`."""

        def move(x: Any) -> Any:
            if isinstance(x, Tensor):
                return x.to(device)
            if isinstance(x, tuple):
                return tuple(move(v) for v in x)
            if isinstance(x, Mapping):
                return {k: move(v) for k, v in x.items()}
            return x

        return Batch(
            inputs=move(self.inputs),
            index=self.index.to(device),
            targets=move(self.targets),
            mask=move(self.mask),
            scored=move(self.scored),
            strata=move(dict(self.strata)),
        )

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments that the network is called with."""
        if isinstance(self.inputs, tuple):
            return self.inputs, {}
        if isinstance(self.inputs, Mapping):
            return (), dict(self.inputs)
        return (self.inputs,), {}


class Items(Protocol):
    """A collection of N items that can be taken by index."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, the cost of each item in positions; 1 each where items have one size."""
        ...

    def take(self, index: np.ndarray) -> Batch:
        """The items at `index` (B,) as one batch, on the CPU."""
        ...


class Derived(ABC):
    """`Items` made of other `items`, as many and as long: what a subclass has to say is how they are taken."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray:
        return self.items.lengths

    @abstractmethod
    def take(self, index: np.ndarray) -> Batch:
        """See `Items`."""


class Rectangular:
    """Items of one size: tensors whose first dimension is N.

    `inputs` may be a tensor, a tuple of tensors (positional arguments) or a mapping (keyword arguments). See `Batch`
    for `targets`, `mask`, `scored` and `strata`.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        scored: Tensor | None = None,
        strata: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.inputs, self.targets, self.mask, self.scored = inputs, targets, mask, scored
        self.strata = dict(strata or {})
        parts = [("targets", targets), ("mask", mask), ("scored", scored), *self.strata.items()]
        if isinstance(inputs, tuple):
            parts += [(f"inputs[{i}]", x) for i, x in enumerate(inputs)]
        elif isinstance(inputs, Mapping):
            parts += [(f"inputs[{k!r}]", x) for k, x in inputs.items()]
        else:
            parts.append(("inputs", inputs))
        sizes = {name: int(x.shape[0]) for name, x in parts if isinstance(x, Tensor)}
        if not sizes:
            raise SplitError("a split needs at least one tensor of inputs; none was given")
        if len(set(sizes.values())) != 1:
            listed = ", ".join(f"{k} has {v}" for k, v in sizes.items())
            raise SplitError(f"the tensors of one split must hold the same number of items first, but {listed}")
        self._n = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self._n

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(self._n, dtype=np.int64)

    def take(self, index: np.ndarray) -> Batch:
        at = torch.as_tensor(np.asarray(index, dtype=np.int64))

        def pick(x: Any) -> Any:
            if isinstance(x, Tensor):
                return x[at]
            if isinstance(x, tuple):
                return tuple(pick(v) for v in x)
            if isinstance(x, Mapping):
                return {k: pick(v) for k, v in x.items()}
            return x

        return Batch(
            inputs=pick(self.inputs),
            index=at,
            targets=pick(self.targets),
            mask=pick(self.mask),
            scored=pick(self.scored),
            strata=pick(self.strata),
        )


@dataclass(frozen=True, eq=False)
class Split:
    """A named set of items with a role.

    - `name`: how it is called everywhere; `note`: one line that says how it differs from the others.
    - `role`: ``fit``, ``select`` or ``test``.
    - `items`: see `Items`.
    - `keys`: (N,) the task's own identity of each item (a sentence, an unordered pair, a nucleus, a file). Splits with
      different roles must not share a key; `check_disjoint` reads it.
    - `units`: (N,) int64, the smallest independent cluster that each item belongs to, numbered across the *whole task*:
      the same number in two splits is the same unit, and is resampled as one. Default: the items of this split alone.
    """

    name: str
    role: Role
    items: Items
    note: str = ""
    keys: np.ndarray | None = None
    units: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise SplitError(f"split {self.name!r}: {unknown('role', str(self.role), ROLES)}")
        if len(self.items) == 0:
            raise SplitError(f"split {self.name!r} is empty; give it at least one item or leave it out")
        for label, values in (("keys", self.keys), ("units", self.units)):
            if values is not None and len(values) != len(self.items):
                raise SplitError(f"split {self.name!r}: {label} has {len(values)} entries for {len(self.items)} items")

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, size: int, *, order: np.ndarray | None = None) -> Iterator[Batch]:
        """Every item once, in batches of at most `size` positions (items, where items have one size).

        Items are taken shortest first, so that padding stays small; within one length they keep their order. `order`
        (a permutation or subset of the N items) replaces that. A single item longer than `size` is a batch of its own.
        """
        for index in self.batch_indices(size, order=order):
            yield self.items.take(index)

    def batch_indices(self, size: int, *, order: np.ndarray | None = None) -> list[np.ndarray]:
        """The item numbers of each batch of `batches`."""
        if size < 1:
            raise SplitError(f"a batch needs a size of at least 1, got {size}")
        lengths = self.items.lengths
        index = np.argsort(lengths, kind="stable") if order is None else np.asarray(order, dtype=np.int64)
        cuts: list[np.ndarray] = []
        start, longest = 0, 0
        for i, item in enumerate(index):
            longest_now = max(longest, int(lengths[item]))
            if i > start and longest_now * (i + 1 - start) > size:
                cuts.append(index[start:i])
                start, longest_now = i, int(lengths[item])
            longest = longest_now
        cuts.append(index[start:])
        return cuts

    def subset(self, index: np.ndarray, *, name: str | None = None, role: Role | None = None) -> Split:
        """The items at `index` as a split of their own; keys and units travel with them."""
        index = np.asarray(index, dtype=np.int64)
        return Split(
            name=name or self.name,
            role=role or self.role,
            items=_Subset(self.items, index),
            note=self.note,
            keys=None if self.keys is None else self.keys[index],
            units=self.unit_ids()[index],
        )

    def unit_ids(self) -> np.ndarray:
        """(N,) int64: `units`, or the item numbers where no units were given."""
        return np.arange(len(self), dtype=np.int64) if self.units is None else np.asarray(self.units, dtype=np.int64)


class _Subset:
    """Some items of another collection, renumbered from zero."""

    def __init__(self, items: Items, index: np.ndarray) -> None:
        self.items, self.index = items, index

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.items.lengths[self.index])

    def take(self, index: np.ndarray) -> Batch:
        batch = self.items.take(self.index[index])
        return Batch(
            inputs=batch.inputs,
            index=torch.as_tensor(np.asarray(index, dtype=np.int64)),
            targets=batch.targets,
            mask=batch.mask,
            scored=batch.scored,
            strata=batch.strata,
        )


def check_disjoint(splits: Sequence[Split]) -> None:
    """Raise `SplitError` where an item of a `fit` or `select` split is also in a split of another role.

    Compared by the task's own key, not by bytes; splits without keys are not compared. Two test splits may share
    items (the same image, rotated and not): their units are then resampled together.
    """
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            if a.role == b.role or a.keys is None or b.keys is None:
                continue
            shared = np.intersect1d(a.keys, b.keys)
            if len(shared):
                raise SplitError(
                    f"splits {a.name!r} ({a.role}) and {b.name!r} ({b.role}) share {len(shared)} of their items, "
                    f"for example {shared[0]!r}; a reading must not be tested on what it was fitted on. "
                    "Remove the shared items from one of them"
                )


def require_fit(split: Split, what: str) -> Split:
    """`split`, or a `SplitError` where its role is not ``fit`` (an oracle does not come this way)."""
    if split.role != "fit":
        raise SplitError(
            f"{what} may not be fitted on split {split.name!r}: its role is {split.role!r}. Fit on a split whose role "
            "is 'fit', or declare the reading an oracle (oracle=True), and every figure will say so"
        )
    return split
