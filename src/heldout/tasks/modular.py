"""Arithmetic modulo p as pairs of tokens: (a, b) or (a, b, =), and the answer.

    task = Modular(ModularSettings(modulus=53), seed=0)
    task.splits["train"], task.splits["id"], task.splits["corner"]

Unlike the sums of `arithmetic`, operands are single tokens without digits: what a network knows of their order and distance
it has made itself. All p^2 pairs there are belong to one split each, and (a, b) and (b, a) to the same one where the
operation does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from heldout.errors import ConfigError, unknown
from heldout.tasks.base import Rectangular, Role, Split, check_disjoint

Operation = Literal["add", "subtract", "multiply"]
OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
}
COMMUTATIVE = ("add", "multiply")
MOST = 1024  # modulus: all pairs are listed


@dataclass(frozen=True)
class ModularSettings:
    """Settings of the task.

    - `modulus` p, and the `operation` on 0 to p - 1.
    - `share`: of the pairs outside the corner, those that are trained on.
    - `corner`: pairs of which both operands are among the last `corner` numbers are kept out of training, 0 for none.
    - `equals`: whether a third token, p, stands behind the operands.
    """

    modulus: int = 53
    operation: Operation = "add"
    share: float = 0.5
    corner: int = 8
    equals: bool = True

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise ConfigError(f"modular: {unknown('operation', str(self.operation), OPERATIONS)}")
        if not 3 <= self.modulus <= MOST:
            raise ConfigError(f"modular: modulus must be from 3 to {MOST}, got {self.modulus}")
        if not 0 < self.share < 1:
            raise ConfigError(f"modular: share must lie strictly between 0 and 1, got {self.share}")
        if not 0 <= self.corner < self.modulus:
            raise ConfigError(f"modular: corner must be from 0 to below the modulus {self.modulus}, got {self.corner}")

    @property
    def vocabulary(self) -> int:
        """Tokens there are: p, and the equals sign where it is used."""
        return self.modulus + self.equals

    @property
    def length(self) -> int:
        return 2 + self.equals


class Modular:
    """The task: `settings`, and `splits` by name.

    ==========  ======  ==================================================================================
    ``train``   fit     pairs to train on
    ``select``  select  half of the other pairs: for choosing a size or a mask
    ``id``      test    the other half
    ``corner``  test    both operands among the last `corner` numbers: no such pair is trained on (where any)
    ==========  ======  ==================================================================================

    Inputs are (B, 2 or 3) int64 tokens, targets (B,) int64. Strata are ``a`` and ``b``. The key and the unit of resampling
    is the pair, unordered where the operation is commutative. `seed` draws the splits and nothing else.
    """

    def __init__(self, settings: ModularSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        p = settings.modulus
        a, b = (x.reshape(-1) for x in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
        if settings.operation in COMMUTATIVE:
            keys = np.minimum(a, b) * p + np.maximum(a, b)
        else:
            keys = a * p + b
        cornered = np.minimum(a, b) >= p - settings.corner if settings.corner else np.zeros(len(a), dtype=bool)
        free = np.unique(keys[~cornered])
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).permutation(len(free))
        cut = round(settings.share * len(free))
        middle = cut + (len(free) - cut) // 2
        parts: dict[str, tuple[Role, str, np.ndarray]] = {
            "train": ("fit", "pairs to train on", free[order[:cut]]),
            "select": ("select", "half of the pairs that are not trained on", free[order[cut:middle]]),
            "id": ("test", "the other half", free[order[middle:]]),
        }
        if settings.corner:
            note = f"both operands from {p - settings.corner} to {p - 1}: no such pair is trained on"
            parts["corner"] = ("test", note, np.unique(keys[cornered]))
        self.splits: dict[str, Split] = {}
        for name, (role, note, chosen) in parts.items():
            if not len(chosen):
                raise ConfigError(
                    f"modular: split {name!r} has no pair; give a larger modulus, or another share or corner than "
                    f"{settings.share:g} and {settings.corner}"
                )
            at = np.isin(keys, chosen)
            self.splits[name] = self._split(name, role, note, a[at], b[at], keys[at])
        check_disjoint(list(self.splits.values()))

    def answers(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The operation modulo p."""
        return np.asarray(OPERATIONS[self.settings.operation](a, b) % self.settings.modulus)

    def _split(self, name: str, role: Role, note: str, a: np.ndarray, b: np.ndarray, keys: np.ndarray) -> Split:
        columns = [a, b, np.full(len(a), self.settings.modulus)][: self.settings.length]
        tokens = torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
        strata = {"a": torch.from_numpy(a.astype(np.int64)), "b": torch.from_numpy(b.astype(np.int64))}
        items = Rectangular(tokens, torch.from_numpy(self.answers(a, b).astype(np.int64)), strata=strata)
        return Split(name, role, items, note, keys=keys.astype(np.int64), units=keys.astype(np.int64))
