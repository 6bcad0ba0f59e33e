"""Splits, batches and roles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heldout.errors import SplitError
from heldout.tasks.base import Batch, Rectangular, Split, check_disjoint, require_fit

N = 7


class Lengths:
    """Items of given lengths, and nothing in them."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: np.ndarray) -> Batch:
        return Batch(torch.zeros(len(index), int(self.lengths[index].max())), torch.as_tensor(index))


def rectangle(n: int = N) -> Rectangular:
    return Rectangular(torch.arange(n * 2).reshape(n, 2), torch.arange(n), strata={"kind": torch.arange(n) % 2})


def split(name: str = "s", role: Any = "test", n: int = N, **more: Any) -> Split:
    return Split(name, role, rectangle(n), **more)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 30))
def test_batches_hold_each_item_once_and_keep_to_the_size(lengths: list[int], size: int) -> None:
    cuts = Split("s", "test", Lengths(lengths)).batch_indices(size)
    items = np.concatenate(cuts)
    assert sorted(items) == list(range(len(lengths)))
    assert [lengths[i] for i in items] == sorted(lengths)  # shortest first
    for cut in cuts:
        assert len(cut) == 1 or len(cut) * max(lengths[i] for i in cut) <= size
    for cut, after in itertools.pairwise(cuts):  # and no batch ends early
        assert (len(cut) + 1) * lengths[after[0]] > size


def test_items_of_one_size_keep_their_order() -> None:
    batches = list(split().batches(3))
    assert [b.index.tolist() for b in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches[1].inputs.tolist() == [[6, 7], [8, 9], [10, 11]]
    assert batches[1].targets is not None
    assert batches[1].targets.tolist() == [3, 4, 5]
    assert batches[2].strata["kind"].tolist() == [0]


def test_an_order_replaces_the_own_one() -> None:
    assert [b.index.tolist() for b in split().batches(2, order=np.array([5, 0, 3]))] == [[5, 0], [3]]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(SplitError, match="at least 1, got 0"):
        list(split().batches(0))


def test_a_subset_keeps_what_belongs_to_its_items() -> None:
    whole = split(keys=np.array(list("abcdefg")), units=np.arange(N) // 2 + 50, note="as they are")
    part = whole.subset(np.array([5, 1]), name="part", role="fit").subset(np.array([1]))
    assert (part.name, part.role, part.note, len(part)) == ("part", "fit", "as they are", 1)
    assert part.keys is not None
    assert (part.keys.tolist(), part.unit_ids().tolist()) == (["b"], [50])
    (batch,) = part.batches(9)
    assert (batch.index.tolist(), batch.inputs.tolist()) == ([0], [[2, 3]])


def test_without_units_an_item_is_one_and_stays_it_in_a_subset() -> None:
    assert split().unit_ids().tolist() == list(range(N))
    assert split().subset(np.array([4, 2])).unit_ids().tolist() == [4, 2]


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (torch.zeros(N, 2), 1, []),
        ((torch.zeros(N, 2), torch.ones(N)), 2, []),
        ({"input_ids": torch.zeros(N, 2), "use_cache": False}, 0, ["input_ids", "use_cache"]),
    ],
    ids=["tensor", "tuple", "mapping"],
)
def test_inputs_become_the_arguments_of_the_network(inputs: Any, args: int, kwargs: list[str]) -> None:
    batch = Rectangular(inputs).take(np.array([1, 2])).to("cpu")
    found_args, found_kwargs = batch.arguments()
    assert (len(found_args), list(found_kwargs)) == (args, kwargs)
    tensors = [v for v in (*found_args, *found_kwargs.values()) if isinstance(v, torch.Tensor)]
    assert all(len(v) == 2 for v in tensors)
    assert len(batch) == 2


def test_a_batch_moves_whole() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    inputs = {"a": torch.zeros(2), "b": (torch.zeros(2), 3)}
    batch = Batch(inputs, torch.arange(2), torch.zeros(2), mask, mask, {"kind": torch.zeros(2)})
    moved = batch.to("meta")
    tensors = [moved.inputs["a"], moved.inputs["b"][0], moved.index, moved.targets, moved.mask, moved.scored]
    assert {t.device.type for t in [*tensors, moved.strata["kind"]] if t is not None} == {"meta"}
    assert moved.inputs["b"][1] == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: split(role="tests"), ["split 's'", "role 'tests'", "fit, select, test"]),
        (lambda: Split("s", "test", rectangle(0)), ["'s' is empty"]),
        (lambda: split(keys=np.arange(3)), ["keys has 3 entries for 7 items"]),
        (lambda: split(units=np.arange(8)), ["units has 8 entries for 7 items"]),
        (lambda: Rectangular(torch.zeros(3), torch.zeros(4)), ["targets has 4", "inputs has 3"]),
        (lambda: Rectangular((torch.zeros(3), torch.zeros(4))), ["inputs[0] has 3", "inputs[1] has 4"]),
        (lambda: Rectangular({"x": torch.zeros(3)}, strata={"k": torch.zeros(2)}), ["inputs['x'] has 3", "k has 2"]),
        (lambda: Rectangular("text"), ["at least one tensor"]),
    ],
)
def test_what_is_no_split_is_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(SplitError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)


def keyed(name: str, role: Any, keys: list[str]) -> Split:
    return Split(name, role, rectangle(len(keys)), keys=np.array(keys))


@pytest.mark.parametrize(("a", "b"), [("fit", "test"), ("fit", "select"), ("select", "test")])
def test_splits_of_other_roles_share_nothing(a: str, b: str) -> None:
    splits = [keyed("one", a, ["x", "y"]), keyed("two", b, ["z", "y"])]
    with pytest.raises(SplitError, match=rf"'one' \({a}\) and 'two' \({b}\) share 1 of their items, for example.*y"):
        check_disjoint(splits)
    with pytest.raises(SplitError, match="share 1"):
        check_disjoint(splits[::-1])


def test_splits_of_one_role_or_without_keys_may() -> None:
    check_disjoint([keyed("one", "test", ["x"]), keyed("two", "test", ["x"]), keyed("three", "fit", ["y"])])
    check_disjoint([keyed("one", "test", ["x"]), split("two", "fit")])


def test_only_a_fit_split_is_fitted_on() -> None:
    assert require_fit(fit := split("f", "fit"), "svd") is fit
    for role in ("select", "test"):
        with pytest.raises(SplitError, match=f"svd may not be fitted on split 's': its role is '{role}'.*oracle=True"):
            require_fit(split(role=role), "svd")
