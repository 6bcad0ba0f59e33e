from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Batch, Rectangular, Role, Split
from heldout.training.batching import shuffled


class Sized:
    """Items that have nothing but lengths."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: np.ndarray) -> Batch:
        return Batch(inputs=None, index=torch.as_tensor(index))


def images(n: int, role: Role = "fit") -> Split:
    return Split("train", role, Rectangular(torch.arange(n)))


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=400),
    size=st.integers(40, 300),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_every_item_once_within_the_budget(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    sizes = np.array(lengths)
    plan = shuffled(Split("train", "fit", Sized(sizes)), size, seed=seed).plan(epoch)
    np.testing.assert_array_equal(np.sort(np.concatenate(plan)), np.arange(len(sizes)))
    assert all(sizes[batch].max() * len(batch) <= size for batch in plan)


def test_a_batch_is_a_function_of_the_step_however_it_is_reached() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    split = Split("train", "fit", Sized(lengths))
    forward = shuffled(split, 400, seed=1)
    seen = [forward.index(step) for step in range(200)]
    again = shuffled(split, 400, seed=1)
    for step in (150, 3, 199, 0, 77):
        np.testing.assert_array_equal(again.index(step), seen[step])
    assert len({tuple(index) for index in seen}) > 190, "epochs must differ"


def test_bucketing_keeps_padding_small_on_heavy_tailed_lengths() -> None:
    lengths = np.minimum(1 + np.random.default_rng(0).pareto(0.8, 20_000) * 8, 256).astype(np.int64)
    plan = shuffled(Split("train", "fit", Sized(lengths)), 4_000, seed=0).plan(0)
    padded = sum(lengths[batch].max() * len(batch) for batch in plan)
    assert padded < 1.1 * lengths.sum()


def test_items_of_one_size_are_cut_from_one_permutation() -> None:
    batches = shuffled(images(10), 4, seed=0)
    epoch = [batches(step).index.tolist() for step in range(3)]
    assert [len(b) for b in epoch] == [4, 4, 2]
    assert sorted(i for batch in epoch for i in batch) == list(range(10))
    assert batches(3).index.tolist() != epoch[0]
    assert torch.equal(batches(0).inputs, batches(0).index)


def test_aligned_batches_have_one_shape_for_all_seeds_and_items_of_their_own() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 3_000)
    split = Split("train", "fit", Sized(lengths))
    a, b, again = (shuffled(split, 400, seed=seed, aligned=True) for seed in (0, 1, 0))
    shapes = [[(len(i := batches.index(step)), int(lengths[i].max())) for step in range(500)] for batches in (a, b)]
    assert shapes[0] == shapes[1]
    assert len(set(shapes[0][:20])) > 10, "long and short sentences must follow each other"
    epoch = len(a.plan(0))
    assert shapes[0][:epoch] != shapes[0][epoch : 2 * epoch]
    assert not any(np.array_equal(np.sort(a.index(step)), np.sort(b.index(step))) for step in range(200))
    assert np.array_equal(a.index(177), again.index(177))
    np.testing.assert_array_equal(np.sort(np.concatenate(b.plan(1))), np.arange(len(lengths)))
    own = shuffled(split, 400, seed=1)
    assert [len(own.index(step)) for step in range(200)] != [n for n, _ in shapes[1][:200]]


def test_seeds_give_other_orders() -> None:
    a, b = (shuffled(images(64), 64, seed=seed).index(0) for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_only_a_fit_split_is_trained_on() -> None:
    with pytest.raises(SplitError, match="role is 'test'"):
        shuffled(images(4, "test"), 2, seed=0)


def test_a_batch_too_small_for_the_longest_item_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"longest item of split 'train' \(30\); give a size of at least 30"):
        shuffled(Split("train", "fit", Sized(np.array([3, 30]))), 20, seed=0)
