"""What the task is made of, as data: which features of which bits, how many rows, how often, how predictive."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from heldout.errors import ConfigError, unknown
from heldout.tasks.features.heads import Heads
from heldout.tasks.features.library import feature
from heldout.tasks.features.sampling import Planted

Rarity = Literal["mask", "constant", "base_rate"]
Outputs = Literal["features", "label"]
Coding = Literal["01", "signed"]
RARITIES: tuple[Rarity, ...] = ("mask", "constant", "base_rate")
OUTPUTS: tuple[Outputs, ...] = ("features", "label")
CODINGS: tuple[Coding, ...] = ("01", "signed")
MOST_BITS = 63  # a row's identity is one 64-bit number


@dataclass(frozen=True)
class FeaturesSettings:
    """Settings of the task.

    - `features`: as `library` writes them, F of them. Where two are written alike they are called ``bit@0``, ``bit@1``.
    - `bits`: length of a row; `domains` cuts it into one stretch a feature (default: equal ones), and a feature reads
      the first bits of its own. `reads` names the bits of each feature instead, which may then overlap.
    - `train`, `val`, `test`: rows of each split.
    - `coding`: a bit enters the network as 0 and 1 (``01``) or as -1 and 1 (``signed``).
    - `prevalence`: how present each feature is in ``train``, 0 < pi <= 1 (default: 1). By `rarity`: a share pi of
      the rows has its label (``mask``); a share 1 - pi of the rows has class 0 and the others are balanced
      (``constant``); a share pi / 2 of the rows has class 1 (``base_rate``, so that 1 is balanced). The other splits
      are always balanced and fully labelled.
    - `predictivity`: where given, rows have a hidden balanced label, and each feature equals it with this probability,
      .5 to 1, independently. Otherwise features are balanced and independent of each other.
    - `outputs`: the network is to answer the ``features``, or the ``label`` alone, which needs a predictivity.
    - `weights`: of the outputs in the loss (default: 1 each).
    """

    features: tuple[str, ...] = ("bit", "parity:2")
    bits: int = 32
    domains: tuple[int, ...] | None = None
    reads: tuple[tuple[int, ...], ...] | None = None
    train: int = 8192
    val: int = 4096
    test: int = 4096
    coding: Coding = "01"
    prevalence: tuple[float, ...] | None = None
    rarity: Rarity = "mask"
    predictivity: tuple[float, ...] | None = None
    outputs: Outputs = "features"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for kind, given, valid in (
            ("rarity", self.rarity, RARITIES),
            ("outputs", self.outputs, OUTPUTS),
            ("coding", self.coding, CODINGS),
        ):
            if given not in valid:
                raise ConfigError(f"features: {unknown(kind, str(given), valid)}")
        if not self.features:
            raise ConfigError("features: give at least one feature, as in ('bit', 'parity:2')")
        if not 1 <= self.bits <= MOST_BITS:
            raise ConfigError(f"features: bits must be from 1 to {MOST_BITS}, got {self.bits}")
        for split in ("train", "val", "test"):
            if getattr(self, split) < 2:
                raise ConfigError(f"features: {split} must be at least 2 rows, got {getattr(self, split)}")
        outputs = 1 if self.outputs == "label" else len(self.features)
        for name, values, count, rule, accepted in (
            ("prevalence", self.prevalence, len(self.features), "above 0 and at most 1", lambda p: 0 < p <= 1),
            ("predictivity", self.predictivity, len(self.features), "from .5 to 1", lambda p: 0.5 <= p <= 1),
            ("weights", self.weights, outputs, "positive", lambda w: w > 0),
        ):
            if values is not None and (len(values) != count or not all(map(accepted, values))):
                raise ConfigError(f"features: {name} must be {count} numbers {rule}, got {values}")
        if self.outputs == "label" and self.predictivity is None:
            raise ConfigError(
                "features: outputs='label' needs a predictivity for each feature; without one there is no label"
            )
        if self.prevalence is not None and self.predictivity is not None:
            raise ConfigError("features: give prevalence or predictivity, not both: they fix the same frequencies")
        binary_only = self.predictivity is not None or (self.prevalence is not None and self.rarity == "base_rate")
        if binary_only and (many := [w for w in self.features if feature(w).classes > 2]):
            raise ConfigError(f"features: predictivity and base rates need two classes; {many[0]} has more")
        self.planted()

    def heads(self) -> Heads:
        """The outputs that a network for this task has."""
        classes = [2] if self.outputs == "label" else [feature(w).classes for w in self.features]
        return Heads(classes, self.weights)

    def planted(self) -> tuple[Planted, ...]:
        """The features with their names and bits, in order."""
        times = Counter(self.features)
        names = [w if times[w] == 1 else f"{w}@{i}" for i, w in enumerate(self.features)]
        found = [feature(w) for w in self.features]
        if self.reads is None:
            sizes = self.domains or (self.bits // len(found),) * len(found)
            if len(sizes) != len(found) or sum(sizes) > self.bits or min(sizes) < 0:
                raise ConfigError(
                    f"features: domains must be {len(found)} sizes that sum to at most bits ({self.bits}), got {sizes}"
                )
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            for one, size in zip(found, sizes, strict=True):
                if one.inputs > size:
                    raise ConfigError(
                        f"features: {one.name} reads {one.inputs} bits and its domain has {size}; give domains or more bits"
                    )
            places = [tuple(range(s, s + f.inputs)) for s, f in zip(starts, found, strict=True)]
        else:
            if self.domains is not None:
                raise ConfigError("features: give domains or reads, not both")
            places = list(self.reads)
            if len(places) != len(found):
                raise ConfigError(f"features: reads must name the bits of {len(found)} features, got {len(places)}")
            for one, place in zip(found, places, strict=True):
                if len(place) != one.inputs or len(set(place)) != len(place):
                    raise ConfigError(f"features: {one.name} reads {one.inputs} different bits, got {place}")
                if not all(0 <= b < self.bits for b in place):
                    raise ConfigError(f"features: {one.name} reads bits {place}; there are bits 0 to {self.bits - 1}")
        return tuple(Planted(*parts) for parts in zip(names, found, places, strict=True))


def hermann2020(easy: float = 1.0, hard: float = 0.9, outputs: Outputs = "label") -> FeaturesSettings:
    """The binary task of Hermann & Lampinen 2020: 32 bits in two domains, 256 rows to train on, 512 to test on.

    The easy feature is the first bit of its domain (that it is linear is stated, which linear function is not), the
    hard one the exclusive or of the first two of its own. `hard` is .9 there and `easy` varies from .5 to 1;
    ``outputs="features"`` is the multi-task variant. ``val`` has the 2048 rows that readings are fitted on there.
    """
    return FeaturesSettings(
        features=("bit", "parity:2"),
        bits=32,
        domains=(16, 16),
        train=256,
        val=2048,
        test=512,
        predictivity=(easy, hard),
        outputs=outputs,
    )


PRESETS = {"default": FeaturesSettings(), "hermann2020": hermann2020()}
