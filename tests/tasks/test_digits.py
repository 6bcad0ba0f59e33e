"""The digits: who is in which split, and that changed images are changed as is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from heldout.errors import ConfigError
from heldout.tasks.base import Split
from heldout.tasks.digits import CLASSES, SHAPE, DigitsSettings, digits

SPLITS = digits()
CHANGED = ("rotated", "shifted", "noisy", "erased")


def images(split: Split) -> np.ndarray:
    return split.items.take(np.arange(len(split))).inputs[:, 0].numpy()


def labels(split: Split) -> np.ndarray:
    targets = split.items.take(np.arange(len(split))).targets
    assert targets is not None
    return targets.numpy()


def keys(name: str) -> set[int]:
    found = SPLITS[name].keys
    assert found is not None
    return set(found.tolist())


def test_roles() -> None:
    assert {name: s.role for name, s in SPLITS.items()} == {
        "train": "fit",
        "fit": "fit",
        "id_select": "select",
        **dict.fromkeys(("id", *CHANGED, "unseen_classes"), "test"),
    }
    assert all(s.note for s in SPLITS.values())


def test_every_image_is_used_and_none_on_both_sides() -> None:
    parts = [keys(n) for n in ("train", "id_select", "id", "unseen_classes")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(load_digits().images)
    assert keys("fit") < keys("train")
    assert 880 < len(keys("train")) < 910
    assert len(keys("id_select")) == (len(keys("id_select")) + len(keys("id"))) // 4


def test_images_are_the_real_ones_with_their_labels() -> None:
    data = load_digits()
    for name in ("train", "fit", "id_select", "id", "unseen_classes"):
        split = SPLITS[name]
        assert split.keys is not None
        np.testing.assert_allclose(images(split), data.images[split.keys] / 16, rtol=1e-6)
        np.testing.assert_array_equal(labels(split), data.target[split.keys])
    batch = SPLITS["train"].items.take(np.arange(3))
    assert tuple(batch.inputs.shape) == (3, *SHAPE)


def test_classes_left_out_are_in_training_and_nowhere_that_proxies_see() -> None:
    assert set(labels(SPLITS["train"])) == set(range(CLASSES))
    assert set(labels(SPLITS["unseen_classes"])) == {8, 9}
    for name in ("fit", "id_select", "id", *CHANGED):
        assert set(labels(SPLITS[name])) == set(range(8)), name


@pytest.mark.parametrize("name", CHANGED)
def test_an_image_and_its_change_are_one_unit(name: str) -> None:
    for attribute in ("keys", "units"):
        np.testing.assert_array_equal(getattr(SPLITS[name], attribute), getattr(SPLITS["id"], attribute))
    np.testing.assert_array_equal(labels(SPLITS[name]), labels(SPLITS["id"]))
    assert not np.array_equal(images(SPLITS[name]), images(SPLITS["id"]))


def test_shifted_is_moved_by_one_pixel_and_blank_behind() -> None:
    counts = np.zeros(4, dtype=int)
    for before, after in zip(images(SPLITS["id"]), images(SPLITS["shifted"]), strict=True):
        right = np.pad(before, 1)
        ways = [right[1:-1, :-2], right[1:-1, 2:], right[:-2, 1:-1], right[2:, 1:-1]]
        counts += np.array([np.array_equal(after, way) for way in ways])
    assert counts.sum() >= len(SPLITS["id"])
    assert counts.min() > len(SPLITS["id"]) / 8


def test_a_shift_of_two_is_two_shifts() -> None:
    two = digits(DigitsSettings(shift=2))["shifted"]
    for before, after in zip(images(SPLITS["id"]), images(two), strict=True):
        wide = np.pad(before, 2)
        ways = [wide[2:-2, :-4], wide[2:-2, 4:], wide[:-4, 2:-2], wide[4:, 2:-2]]
        assert any(np.array_equal(after, way) for way in ways)
    still = digits(DigitsSettings(shift=0))["shifted"]
    np.testing.assert_array_equal(images(still), images(SPLITS["id"]))


def test_erased_has_one_half_blank_and_the_other_as_it_was() -> None:
    before, after = images(SPLITS["id"]), images(SPLITS["erased"])
    upper, lower = after[:, :4].any(axis=(1, 2)), after[:, 4:].any(axis=(1, 2))
    assert (upper ^ lower).all()
    np.testing.assert_array_equal(after[upper][:, :4], before[upper][:, :4])
    np.testing.assert_array_equal(after[lower][:, 4:], before[lower][:, 4:])
    assert 0.4 < upper.mean() < 0.6


def test_rotated_is_turned_by_the_angle_one_way_or_the_other() -> None:
    found = []
    for before, after in zip(images(SPLITS["id"]), images(SPLITS["rotated"]), strict=True):
        ways = [rotate(before, sign * 30.0, reshape=False, order=1) for sign in (-1, 1)]
        found.append([np.allclose(after, way, atol=1e-6) for way in ways])
    assert np.sum(found, axis=1).tolist() == [1] * len(found)
    assert 0.4 < np.mean(found, axis=0)[0] < 0.6


def test_noisy_has_noise_of_the_standard_deviation_and_stays_within_range() -> None:
    before, after = images(SPLITS["id"]), images(SPLITS["noisy"])
    assert (after.min(), after.max()) == (0.0, 1.0)
    middle = (before > 0.45) & (before < 0.55)  # where clipping at two deviations takes little
    assert (after - before)[middle].std() == pytest.approx(0.25, rel=0.1)


def test_the_same_settings_give_the_same_splits_and_another_seed_others() -> None:
    again, other = digits(DigitsSettings()), digits(DigitsSettings(seed=1))
    for name, split in SPLITS.items():
        np.testing.assert_array_equal(images(again[name]), images(split))
        np.testing.assert_array_equal(again[name].keys, split.keys)
    assert set(other["train"].keys.tolist()) != keys("train")  # type: ignore[union-attr]


def test_other_classes_can_be_left_out() -> None:
    other = digits(DigitsSettings(left_out=(0,)))
    assert set(labels(other["unseen_classes"])) == {0}
    assert set(labels(other["fit"])) == set(range(1, 10))
    assert other["unseen_classes"].note.startswith("held-out images of the classes 0,")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"left_out": ()}, "one to nine classes"),
        ({"left_out": tuple(range(10))}, "one to nine classes"),
        ({"left_out": (10,)}, "from 0 to 9, got (10,)"),
        ({"shift": 8}, "0 to 7 pixels, got 8"),
        ({"shift": -1}, "got -1"),
        ({"noise": -0.1}, "not negative, got -0.1"),
        ({"noise": float("nan")}, "finite and not negative, got nan"),
        ({"rotation": float("inf")}, "finite number of degrees, got inf"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        DigitsSettings(**settings)
    assert words in str(error.value)
