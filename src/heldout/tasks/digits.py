"""Handwritten digits (scikit-learn's 1 797 real images of 8 x 8 pixels), in distribution and out of it.

Half of the images train the networks. The other half is looked at as it is (`id`, and `id_select` to choose a parameter)
and changed in four ways; image and changed image are one unit, resampled together. Proxies are fitted on training images
without two classes, whose held-out images are `unseen_classes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from heldout.errors import ConfigError
from heldout.tasks.base import Rectangular, Split, check_disjoint

CLASSES = 10
SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class DigitsSettings:
    """How far the changed images are from the real ones: degrees, pixels, standard deviation of pixels that go from 0
    to 1, and the classes left out of the fit."""

    rotation: float = 30.0
    shift: int = 1
    noise: float = 0.25
    left_out: tuple[int, ...] = (8, 9)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < len(set(self.left_out)) < CLASSES or not all(0 <= c < CLASSES for c in self.left_out):
            raise ConfigError(f"left_out must name one to nine classes from 0 to 9, got {self.left_out}")
        if not 0 <= self.shift < SHAPE[1]:
            raise ConfigError(f"shift must be from 0 to {SHAPE[1] - 1} pixels, got {self.shift}")
        if not 0 <= self.noise < math.inf:
            raise ConfigError(f"noise must be finite and not negative, got {self.noise}")
        if not math.isfinite(self.rotation):
            raise ConfigError(f"rotation must be a finite number of degrees, got {self.rotation}")


def digits(settings: DigitsSettings | None = None) -> dict[str, Split]:
    """The splits by name. Inputs (B, 1, 8, 8) float32 from 0 to 1, targets (B,) the digit."""
    from scipy.ndimage import rotate
    from sklearn.datasets import load_digits

    s = settings or DigitsSettings()
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)
    labels = data.target.astype(np.int64)
    rng = np.random.default_rng(s.seed)
    order = rng.permutation(len(images))
    train, rest = np.split(order, [len(order) // 2])
    out = np.isin(labels, s.left_out)
    known, unseen = rest[~out[rest]], rest[out[rest]]
    select, test = np.split(known, [len(known) // 4])

    # Each image is changed in its own direction, drawn once.
    signs = rng.choice([-1.0, 1.0], size=len(images))
    steps = rng.choice(4, size=len(images))
    grain = rng.normal(0.0, s.noise, size=images.shape).astype(np.float32)

    def rotated(i: int) -> np.ndarray:
        return np.asarray(rotate(images[i], signs[i] * s.rotation, reshape=False, order=1))

    def shifted(i: int) -> np.ndarray:
        axis, sign = divmod(int(steps[i]), 2)
        return _move(images[i], s.shift * (1 if sign else -1), axis)

    def noisy(i: int) -> np.ndarray:
        return np.asarray(np.clip(images[i] + grain[i], 0.0, 1.0))

    def erased(i: int) -> np.ndarray:
        half = np.array(images[i])
        half[[slice(0, 4), slice(4, 8)][int(signs[i] > 0)]] = 0.0
        return half

    def split(name: str, role: str, at: np.ndarray, note: str, change: object = None) -> Split:
        pixels = images[at] if change is None else np.stack([change(i) for i in at])  # type: ignore[operator]
        items = Rectangular(torch.from_numpy(pixels[:, None].astype(np.float32)), torch.from_numpy(labels[at]))
        return Split(name, role, items, note, keys=at, units=at)  # type: ignore[arg-type]

    names = " and ".join(map(str, s.left_out))
    way = f"turned by {s.rotation:g} degrees, left or right"
    splits = [
        split("train", "fit", train, "training images of every class; trains the networks"),
        split("fit", "fit", train[~out[train]], f"training images without the classes {names}; fits the proxies"),
        split("id_select", "select", select, "held-out images of the fitted classes; chooses the rank"),
        split("id", "test", test, "held-out images of the fitted classes"),
        split("rotated", "test", test, f"the images of id, {way}", rotated),
        split(
            "shifted", "test", test, f"the images of id, moved by {s.shift} pixel in one of four directions", shifted
        ),
        split("noisy", "test", test, f"the images of id, Gaussian noise of {s.noise:g} added (pixels 0 to 1)", noisy),
        split("erased", "test", test, "the images of id, upper or lower half blank", erased),
        split(
            "unseen_classes", "test", unseen, f"held-out images of the classes {names}, which no proxy was fitted on"
        ),
    ]
    check_disjoint(splits)
    return {each.name: each for each in splits}


def _move(image: np.ndarray, by: int, axis: int) -> np.ndarray:
    """`image` moved by some pixels along `axis`, blank where nothing moved in."""
    moved = np.roll(image, by, axis=axis)
    edge = [slice(None)] * 2
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    if by:
        moved[tuple(edge)] = 0.0
    return moved
