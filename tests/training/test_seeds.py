from __future__ import annotations

import numpy as np
import torch
from torch import nn

from heldout.training.seeds import PURPOSES, generator, initialised, stream


def make() -> nn.Linear:
    return nn.Linear(5, 3)


def test_initial_weights_are_a_function_of_the_seed_alone() -> None:
    torch.rand(7)  # the global state must not matter
    a = initialised(make, 4)
    torch.rand(7)
    b, other = initialised(make, 4), initialised(make, 5)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, other.weight)


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    initialised(make, 0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_purposes_and_paths_have_streams_of_their_own() -> None:
    words = {
        tuple(stream(seed, purpose, *path).generate_state(4))
        for seed in (0, 1)
        for purpose in PURPOSES
        for path in ((), (0,), (1,), (0, 1))
    }
    assert len(words) == 2 * len(PURPOSES) * 4
    np.testing.assert_array_equal(generator(3, "order", 2).random(4), generator(3, "order", 2).random(4))
