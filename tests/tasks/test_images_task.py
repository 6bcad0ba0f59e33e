"""The images task: splits, balance, and what its settings refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from heldout.errors import ConfigError
from heldout.tasks.base import check_disjoint
from heldout.tasks.features.sampling import largest_correlation
from heldout.tasks.images import FEATURES, Images, ImagesSettings
from heldout.tasks.images.render import BACKGROUND
from heldout.tasks.images.shapes import SHAPES, area
from heldout.tasks.images.task import combinations

SMALL = ImagesSettings(
    size=32,
    shapes=("square", "circle", "star", "plus"),
    textures=("solid", "grid"),
    colours=("red", "green", "blue", "white"),
    train=480,
    val=240,
    test=240,
    held_out=2,
)


@pytest.fixture(scope="module")
def task() -> Images:
    return Images(SMALL, seed=100, keep=True)


def test_splits_have_their_roles_and_share_nothing(task: Images) -> None:
    sizes = {name: (split.role, len(split)) for name, split in task.splits.items()}
    assert sizes == {
        "train": ("fit", 480),
        "val": ("fit", 240),
        "test": ("test", 240),
        "combinations": ("test", 240),
        "turned": ("test", 240),
        "small": ("test", 240),
    }
    check_disjoint(list(task.splits.values()))
    keys = [set(split.keys.tolist()) for split in task.splits.values() if split.keys is not None]
    units = [set(split.unit_ids().tolist()) for split in task.splits.values()]
    for sets in (keys, units):
        assert len(set.union(*sets)) == sum(map(len, sets)) == 6 * 240 + 240


def test_combinations_are_balanced_and_features_independent_in_pairs(task: Images) -> None:
    seen, kept = combinations(SMALL)
    assert len(seen) == len(kept) == 16
    assert not {tuple(v) for v in seen.tolist()} & {tuple(v) for v in kept.tolist()}
    for name, values in task.values.items():
        rows = {tuple(v) for v in values.tolist()}
        assert rows == {tuple(v) for v in (kept if name == "combinations" else seen).tolist()}
        counts = np.unique(values, axis=0, return_counts=True)[1]
        assert counts.max() - counts.min() <= 1
        assert largest_correlation(values, [4, 2, 4]) < 1e-12  # balanced cells: not just about independent


@pytest.mark.parametrize("held_out", [0, 2, 5, 10])
def test_every_pair_of_values_is_equally_frequent_whatever_is_held_out(held_out: int) -> None:
    seen, kept = combinations(ImagesSettings(held_out=held_out))
    assert len(seen) + len(kept) == 1000
    assert len(kept) == (1000 // held_out if held_out else 0)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        counts = np.unique(seen[:, [a, b]], axis=0, return_counts=True)[1]
        assert counts.tolist() == [len(seen) // 100] * 100


def test_shapes_lie_wholly_in_the_picture_and_are_turned_as_the_split_says(task: Images) -> None:
    covered = {}
    for name, split in task.splits.items():
        values, scenes = task.values[name], task.scenes[name]
        red = np.flatnonzero((values[:, 1] == 0) & (values[:, 2] == 0))  # and solid: all of the shape is drawn
        drawn = split.items.take(red).inputs[:, 0].sum((1, 2)).double().numpy() / (127 / BACKGROUND)
        side = (SMALL.box / 2 if name == "small" else SMALL.box) / 2 * SMALL.size
        expected = [area(SHAPES[number]) * side**2 for number in scenes.shape[red]]
        assert drawn == pytest.approx(expected, rel=0.06), name  # what reached over the edge would be missing
        covered[name] = (drawn / expected).mean()
        angles = np.abs([scenes.angle, scenes.texture_angle])
        assert (angles.min() >= 45) if name == "turned" else (angles.max() <= 45)
        assert min(scenes.x.min(), scenes.y.min()) > 0
        assert max(scenes.x.max(), scenes.y.max()) < 1
    assert list(covered.values()) == pytest.approx([1.0] * 6, abs=0.01)


def test_pictures_do_not_depend_on_batches_or_on_being_kept(task: Images) -> None:
    other = Images(SMALL, seed=100)
    for name, split in task.splits.items():
        whole = split.items.take(np.arange(60)).inputs
        again = torch.cat([b.inputs for b in other.splits[name].subset(np.arange(60)).batches(7)])
        assert torch.equal(whole, again)
        assert torch.equal(split.items.take(np.array([5, 3, 5])).inputs, whole[[5, 3, 5]])
    assert Images(SMALL, seed=101).scenes["test"].keys()[0] != task.scenes["test"].keys()[0]


def test_a_batch_says_what_is_in_the_picture(task: Images) -> None:
    batch = task.splits["test"].items.take(np.arange(50))
    assert batch.inputs.shape == (50, 3, 32, 32)
    assert batch.inputs.dtype == torch.float32
    assert batch.targets is not None
    assert {name: batch.strata[name].tolist() for name in FEATURES} == {
        name: task.values["test"][:50, i].tolist() for i, name in enumerate(FEATURES)
    }
    assert batch.targets.tolist() == task.values["test"][:50][:, [0, 2]].tolist()
    assert task.heads.classes == (4, 4)
    solid_red = (task.values["test"][:, [1, 2]] == 0).all(1)
    first = task.splits["test"].items.take(np.flatnonzero(solid_red)[:1]).inputs[0]
    assert first.amax((1, 2)).tolist() == [127 / BACKGROUND, 0, 0]
    assert first.amin((1, 2)).tolist() == [0, -1, -1]


def test_textures_can_be_an_output_too() -> None:
    task = Images(ImagesSettings(size=16, outputs=("texture", "shape"), train=20, val=20, test=20, rotation=180))
    assert "turned" not in task.splits
    targets = task.splits["val"].items.take(np.arange(20)).targets
    assert targets is not None
    assert targets.tolist() == task.values["val"][:, [1, 0]].tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shapes": ("square", "cirle")}, "unknown shape 'cirle'; nearest: circle"),
        ({"colours": ("red", "red")}, "colours must be 2 or more different names"),
        ({"shapes": ("star",)}, "shapes must be 2 or more different names"),
        ({"outputs": ("color",)}, "unknown output 'color'; choose from shape, texture, colour"),
        ({"outputs": ()}, "outputs must be one or more"),
        ({"size": 8}, "size must be at least 16 pixels; got 8"),
        ({"rotation": 200.0}, "rotation must be from 0 to 180"),
        ({"box": 0.9}, "box must be above 0 and at most .7"),
        ({"texture_scale": 0.0}, "texture_scale must be above 0"),
        ({"held_out": 3}, r"held_out must be 0, or 2 or more and a divisor .*\[10, 10, 10\]"),
        ({"held_out": 1}, "held_out must be 0, or 2"),
        ({"test": 1}, "test must be at least 2 pictures; got 1"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImagesSettings(**given)
