"""What the task is made of, as data: which features, in which order they are answered, how many rows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from heldout.errors import ConfigError, unknown
from heldout.tasks.sequences.library import SequenceFeature, sequence_feature

Arrangement = Literal["moved", "fixed"]
ARRANGEMENTS: tuple[Arrangement, ...] = ("moved", "fixed")
MOST_BITS = 62  # a row's identity is one 64-bit number


@dataclass(frozen=True)
class SequencesSettings:
    """Settings of the task.

    - `features`: as `library` writes them, F of them; those written alike are called ``phrase@0``, ``phrase@1``. Each
      reads a stretch of `stretch` tokens of its own `alphabet`, so that no two features share a token.
    - `order`: the features by number in the order in which they are answered (default: as listed).
    - `arrangement`: the stretches stand in a random order in each sequence (``moved``), or always as listed (``fixed``).
    - `train`, `val`, `test`: rows of each split.
    """

    features: tuple[str, ...] = ("phrase",) * 4
    order: tuple[int, ...] | None = None
    stretch: int = 4
    alphabet: int = 8
    arrangement: Arrangement = "moved"
    train: int = 16_384
    val: int = 2048
    test: int = 2048

    def __post_init__(self) -> None:
        if self.arrangement not in ARRANGEMENTS:
            raise ConfigError(f"sequences: {unknown('arrangement', str(self.arrangement), ARRANGEMENTS)}")
        if not self.features:
            raise ConfigError("sequences: give at least one feature, as in ('phrase', 'parity')")
        found = self.found()
        if sorted(self.answered) != list(range(len(found))):
            raise ConfigError(
                f"sequences: order must name each of the {len(found)} features once, by number from 0; got {self.order}"
            )
        if len(found) * math.log2(self.alphabet**self.stretch) > MOST_BITS:
            raise ConfigError(
                f"sequences: {len(found)} stretches of {self.stretch} tokens below {self.alphabet} do not fit into "
                f"{MOST_BITS} bits; give fewer features, shorter stretches or smaller alphabets"
            )
        for split in ("train", "val", "test"):
            if getattr(self, split) < 2:
                raise ConfigError(f"sequences: {split} must be at least 2 rows, got {getattr(self, split)}")

    @property
    def answered(self) -> tuple[int, ...]:
        """(F,) the feature that is answered at each place."""
        return tuple(range(len(self.features))) if self.order is None else self.order

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, as listed."""
        times = Counter(self.features)
        return tuple(w if times[w] == 1 else f"{w}@{i}" for i, w in enumerate(self.features))

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return len(self.features) * self.stretch

    @property
    def vocabulary(self) -> int:
        """Tokens there are."""
        return len(self.features) * self.alphabet

    def found(self) -> tuple[SequenceFeature, ...]:
        return tuple(sequence_feature(w, self.stretch, self.alphabet) for w in self.features)


def latin_square(features: int) -> tuple[tuple[int, ...], ...]:
    """F orders of F features, cyclic: every feature stands once at every place, so that the two are not confounded.

    In a cyclic square a feature always follows the same one; what follows what is not balanced.
    """
    return tuple(tuple((start + place) % features for place in range(features)) for start in range(features))
