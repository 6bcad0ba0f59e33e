"""What the task is made of, as data: which shapes, textures and colours, how large, how turned, how many pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heldout.errors import ConfigError, unknown
from heldout.tasks.features.heads import Heads
from heldout.tasks.images.render import COLOURS
from heldout.tasks.images.shapes import SHAPES
from heldout.tasks.images.textures import TEXTURES

FEATURES = ("shape", "texture", "colour")
SPLITS = ("train", "val", "test")
SMALLEST = 16  # pixels: below, shapes are blots


@dataclass(frozen=True)
class ImagesSettings:
    """Settings of the task.

    - `size`: pixels of a side; 224 is that of Trifeature (Hermann & Lampinen 2020), whose proportions the others keep.
    - `shapes`, `textures`, `colours`: names out of the ten of each.
    - `outputs`: the features that a network is to answer, in order; the others vary all the same.
    - `train`, `val`, `test`: pictures of each split. The splits that go beyond have as many as ``test``.
    - `rotation`: shapes and, independently, textures are turned by up to so many degrees, either way.
    - `box`: side of the box that a shape fills, and `texture_scale`: side of a cell of the texture, in picture widths.
    - `held_out`: combinations whose numbers of shape, texture and colour sum to a multiple of this are kept for the split
      ``combinations``; every pair of values is still seen. It divides the number of shapes, of textures and of colours,
      so that features stay independent in pairs; 0 keeps nothing back.
    """

    size: int = 64
    shapes: tuple[str, ...] = SHAPES
    textures: tuple[str, ...] = TEXTURES
    colours: tuple[str, ...] = tuple(COLOURS)
    outputs: tuple[str, ...] = ("shape", "colour")
    train: int = 9000
    val: int = 1800
    test: int = 1800
    rotation: float = 45.0
    box: float = 128 / 224
    texture_scale: float = 10 / 224
    held_out: int = 10

    def __post_init__(self) -> None:
        for feature, given, valid in zip(FEATURES, self.values(), (SHAPES, TEXTURES, tuple(COLOURS)), strict=True):
            for name in given:
                if name not in valid:
                    raise ConfigError(f"images: {unknown(feature, str(name), valid)}")
            least = 2 if feature in self.outputs else 1
            if len(set(given)) != len(given) or len(given) < least:
                raise ConfigError(f"images: {feature}s must be {least} or more different names, got {given}")
        for name in self.outputs:
            if name not in FEATURES:
                raise ConfigError(f"images: {unknown('output', str(name), FEATURES)}")
        counts = [len(given) for given in self.values()]
        rules = {
            "outputs": (0 < len(set(self.outputs)) == len(self.outputs), "one or more different features"),
            "size": (self.size >= SMALLEST, f"at least {SMALLEST} pixels"),
            "rotation": (0 <= self.rotation <= 180, "from 0 to 180 degrees"),
            "box": (0 < self.box <= 0.7, "above 0 and at most .7, so that a turned square fits"),
            "texture_scale": (0 < self.texture_scale <= 1, "above 0 and at most 1"),
            "held_out": (
                self.held_out == 0 or (self.held_out > 1 and all(n % self.held_out == 0 for n in counts)),
                f"0, or 2 or more and a divisor of the numbers of shapes, textures and colours ({counts})",
            ),
        }
        rules |= {name: (getattr(self, name) >= 2, "at least 2 pictures") for name in SPLITS}
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ConfigError(f"images: {name} must be {rule}; got {getattr(self, name)!r}")

    def values(self) -> tuple[Sequence[str], ...]:
        """The names of each of `FEATURES` that occur."""
        return self.shapes, self.textures, self.colours

    def heads(self) -> Heads:
        """The outputs that a network for this task has."""
        return Heads([len(self.values()[FEATURES.index(name)]) for name in self.outputs])
