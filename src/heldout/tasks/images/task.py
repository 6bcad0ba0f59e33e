"""The splits of the `images` task: pictures of one shape each, whose shape, texture and colour vary independently."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from heldout.tasks.base import Batch, Role, Split, check_disjoint
from heldout.tasks.features.sampling import balanced
from heldout.tasks.images.render import BACKGROUND, COLOURS, Scenes, render
from heldout.tasks.images.settings import FEATURES, ImagesSettings
from heldout.tasks.images.shapes import SHAPES, extent
from heldout.tasks.images.textures import TEXTURES

_STREAMS = ("train", "val", "test", "combinations", "turned", "small")  # positions are spawn keys: append only


class Images:
    """The task: `settings`, `heads`, `values` (N, 3) and `scenes` by split, and `splits` by name.

    ================  ====  =====================================================================================
    ``train``         fit   to train on
    ``val``           fit   fresh pictures of the same combinations: readings are fitted here
    ``test``          test  fresh pictures of the same combinations: readings are tested here
    ``combinations``  test  combinations of shape, texture and colour that were kept back (where any are)
    ``turned``        test  shapes and textures turned further than in training (where there is further)
    ``small``         test  shapes half as large
    ================  ====  =====================================================================================

    Inputs are (B, 3, size, size) float32, (level - 128) / 128, so that the background is 0; targets (B, outputs) int64.
    Strata are the number of each feature's value among those chosen. Every combination is equally frequent in a split, up
    to one picture. The unit of resampling is the picture, and its key is made of what it is rendered from.

    `seed` draws the pictures and nothing else. They are rendered when they are taken; with `keep`, once.
    """

    def __init__(self, settings: ImagesSettings, seed: int = 0, *, keep: bool = False) -> None:
        self.settings, self.seed = settings, seed
        self.outputs, self.heads = settings.outputs, settings.heads()
        self.values: dict[str, NDArray[np.int64]] = {}
        self.scenes: dict[str, Scenes] = {}
        self.splits: dict[str, Split] = {}
        self._keep, self._units = keep, 0
        s = settings
        seen, kept = combinations(s)
        within = (0.0, s.rotation)
        fresh = "fresh pictures of the same combinations"
        self._add("train", "fit", s.train, seen, within, s.box, "the pictures to train on")
        self._add("val", "fit", s.val, seen, within, s.box, fresh)
        self._add("test", "test", s.test, seen, within, s.box, fresh)
        if len(kept):
            note = "combinations of shape, texture and colour that train, val and test do not have"
            self._add("combinations", "test", s.test, kept, within, s.box, note)
        if s.rotation < 180:
            note = f"turned by more than {s.rotation:g} degrees"
            self._add("turned", "test", s.test, seen, (s.rotation, 180.0), s.box, note)
        self._add("small", "test", s.test, seen, within, s.box / 2, "shapes half as large, textures as they are")
        check_disjoint(list(self.splits.values()))

    def pictures(self, split: str) -> Pictures:
        """The items of a split, whose `levels` are the pictures as bytes."""
        items = self.splits[split].items
        assert isinstance(items, Pictures)
        return items

    def _add(
        self,
        name: str,
        role: Role,
        n: int,
        among: NDArray[np.int64],
        turned: tuple[float, float],
        box: float,
        note: str,
    ) -> None:
        draw = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, _STREAMS.index(name))))
        values = among[balanced(n, len(among), draw)]
        scenes = drawn(self.settings, values, turned, box, draw)
        self.values[name], self.scenes[name] = values, scenes
        items = Pictures(scenes, values, self.settings, keep=self._keep)
        units = self._units + np.arange(n, dtype=np.int64)
        self._units += n
        self.splits[name] = Split(name, role, items, note, keys=scenes.keys(), units=units)


class Pictures:
    """Pictures as items of a split; with `keep`, each stays as bytes once it is rendered."""

    def __init__(
        self, scenes: Scenes, values: NDArray[np.int64], settings: ImagesSettings, *, keep: bool = False
    ) -> None:
        self.scenes, self.values, self.settings = scenes, torch.from_numpy(values), settings
        side = settings.size
        self._kept = np.empty((len(scenes), 3, side, side), dtype=np.uint8) if keep else None
        self._there = np.zeros(len(scenes), dtype=bool)

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self), dtype=np.int64)

    def levels(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 3, size, size) from 0 to 255."""
        if self._kept is None:
            return self._render(index)
        missing = np.unique(index[~self._there[index]])
        if len(missing):
            self._kept[missing] = self._render(missing)
            self._there[missing] = True
        return np.asarray(self._kept[index])

    def _render(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return render(self.scenes.take(index), size=self.settings.size, texture_scale=self.settings.texture_scale)

    def take(self, index: np.ndarray) -> Batch:
        at = np.asarray(index, dtype=np.int64)
        values = self.values[torch.from_numpy(at)]
        columns = [FEATURES.index(name) for name in self.settings.outputs]
        return Batch(
            inputs=(torch.from_numpy(self.levels(at)).float() - BACKGROUND) / BACKGROUND,
            index=torch.from_numpy(at),
            targets=values[:, columns],
            strata={name: values[:, i] for i, name in enumerate(FEATURES)},
        )


def combinations(settings: ImagesSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(M, 3) the numbers of shape, texture and colour that are seen, and those kept back."""
    every = np.stack(np.meshgrid(*(np.arange(len(v)) for v in settings.values()), indexing="ij"), -1).reshape(-1, 3)
    kept = every.sum(1) % settings.held_out == 0 if settings.held_out else np.zeros(len(every), dtype=bool)
    return every[~kept], every[kept]


def drawn(
    settings: ImagesSettings,
    values: NDArray[np.int64],
    turned: tuple[float, float],
    box: float,
    draw: np.random.Generator,
) -> Scenes:
    """Parameters of pictures with `values` (N, 3): shape and texture turned by `turned` degrees (least, most) either way,
    the place uniform among those at which the whole shape is in the picture."""
    n = len(values)
    names = zip(settings.values(), (SHAPES, TEXTURES, tuple(COLOURS)), values.T, strict=True)
    shape, texture, colour = (np.array([every.index(v) for v in some])[own] for some, every, own in names)
    low, high = turned
    angle, texture_angle = draw.choice([-1.0, 1.0], size=(2, n)) * draw.uniform(low, high, size=(2, n))
    x, y = draw.random((2, n))
    for i, (number, degrees) in enumerate(zip(shape.tolist(), angle.tolist(), strict=True)):
        radians = math.radians(degrees)
        left, right, lowest, highest = extent(SHAPES[number], math.cos(radians), math.sin(radians))
        half = box / 2
        x[i] = -left * half + x[i] * (1 - (right - left) * half)
        y[i] = -lowest * half + y[i] * (1 - (highest - lowest) * half)
    return Scenes(shape, texture, colour, angle, texture_angle, x, y, np.full(n, box))
