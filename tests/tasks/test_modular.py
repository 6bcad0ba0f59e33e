"""The modular task: answers, splits that share no pair, the corner, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heldout.errors import ConfigError
from heldout.tasks.base import Rectangular, check_disjoint
from heldout.tasks.modular import Modular, ModularSettings


def rows(task: Modular, split: str) -> tuple[np.ndarray, np.ndarray]:
    items = task.splits[split].items
    assert isinstance(items, Rectangular)
    assert items.targets is not None
    return items.inputs.numpy(), items.targets.numpy()


@pytest.mark.parametrize(
    ("operation", "of"),
    [("add", lambda a, b: a + b), ("subtract", lambda a, b: a - b), ("multiply", lambda a, b: a * b)],
)
def test_every_pair_is_in_one_split_with_its_answer(operation: Any, of: Any) -> None:
    task = Modular(ModularSettings(modulus=13, operation=operation, corner=3), seed=1)
    check_disjoint(list(task.splits.values()))
    seen = []
    for name in ("train", "select", "id", "corner"):
        tokens, targets = rows(task, name)
        assert (tokens[:, 2] == 13).all()
        for (a, b, _), answer in zip(tokens.tolist(), targets.tolist(), strict=True):
            assert answer == of(a, b) % 13
            assert (min(a, b) >= 10) == (name == "corner")
            seen.append((a, b))
    assert sorted(seen) == [(a, b) for a in range(13) for b in range(13)]


@pytest.mark.parametrize(("operation", "together"), [("add", True), ("multiply", True), ("subtract", False)])
def test_swapped_pairs_go_together_where_the_operation_cannot_tell_them(operation: Any, together: bool) -> None:
    task = Modular(ModularSettings(modulus=23, operation=operation), seed=0)
    home = {tuple(row[:2]): name for name in task.splits for row in rows(task, name)[0].tolist()}
    apart = sum(home[a, b] != home[b, a] for a, b in home)
    assert (apart == 0) == together


def test_shares_and_seeds() -> None:
    settings = ModularSettings(modulus=53, share=0.3, corner=0, equals=False)
    one, same, other = Modular(settings, 3), Modular(settings, 3), Modular(settings, 4)
    assert set(one.splits) == {"train", "select", "id"}
    assert len(one.splits["train"]) == pytest.approx(0.3 * 53**2, rel=0.02)
    assert abs(len(one.splits["select"]) - len(one.splits["id"])) <= 0.05 * 53**2
    assert rows(one, "train")[0].shape[1] == 2
    assert np.array_equal(rows(one, "id")[0], rows(same, "id")[0])
    assert not np.array_equal(rows(one, "id")[0], rows(other, "id")[0])
    assert (settings.vocabulary, settings.length) == (53, 2)
    assert (ModularSettings().vocabulary, ModularSettings().length) == (54, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"operation": "divide"}, "choose from|nearest"),
        ({"modulus": 2}, "from 3 to"),
        ({"share": 1.0}, "strictly between"),
        ({"corner": 53}, "below the modulus"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ModularSettings(**given)


def test_a_split_without_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no pair"):
        Modular(ModularSettings(modulus=3, share=0.9, corner=1))
