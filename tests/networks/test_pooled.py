"""The pooled network: what it can see, many of it at once; and networks whose logits are known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from heldout.errors import ConfigError, NetworkError
from heldout.networks.pooled import POOLINGS, PooledMLP, Pooling
from heldout.networks.pooled_planted import planted, planted_lookup
from heldout.training.seeds import initialised
from heldout.training.stacked import Stack


def pairs(p: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(p), torch.arange(p))


def logits_of(network: PooledMLP, p: int) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(network(pairs(p)).numpy().reshape(p, p, p))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_forward_pass_is_the_formula(pooling: Pooling) -> None:
    network = initialised(lambda: PooledMLP(5, width=3, hidden=8, pooling=pooling, classes=4), 100).double()
    e = {name: w.detach().numpy() for name, w in network.named_parameters()}
    a, b = e["embed.weight"][1], e["embed.weight"][4]
    x = (a + b) / 2 if pooling == "mean" else np.concatenate([a, b])
    hidden = np.maximum(e["up.weight"] @ x + e["up.bias"], 0)
    with torch.no_grad():
        found = network(torch.tensor([[1, 4]])).numpy()
    assert found.shape == (1, 4)
    np.testing.assert_allclose(found[0], e["readout.weight"] @ hidden + e["readout.bias"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_stack_computes_what_each_network_does(pooling: Pooling) -> None:
    def make() -> PooledMLP:
        return PooledMLP(7, width=3, hidden=8, pooling=pooling).double()

    networks = [initialised(make, seed) for seed in (100, 101, 102)]
    stack = Stack(networks)
    shared, own = pairs(7), torch.stack([pairs(7)[i : i + 9] for i in range(3)])
    state: dict[str, Any] = {**stack.parameters}
    for i, network in enumerate(networks):
        found = networks[0].forward_stacked(state, shared, own=False)[i]
        torch.testing.assert_close(found, network(shared), rtol=0, atol=1e-13)
        found = networks[0].forward_stacked(state, own, own=True)[i]
        torch.testing.assert_close(found, network(own[i]), rtol=0, atol=1e-13)
    gradient = torch.autograd.grad(
        networks[0].forward_stacked(state, shared, own=False).square().sum(), state["embed.weight"]
    )
    for i, network in enumerate(networks):
        (alone,) = torch.autograd.grad(network(shared).square().sum(), network.embed.weight)
        torch.testing.assert_close(gradient[0][i], alone, rtol=0, atol=1e-12)


def test_the_mean_knows_no_order_and_nothing_but_the_average() -> None:
    mean = initialised(lambda: PooledMLP(6, width=2, hidden=16), 100).double()
    torch.testing.assert_close(mean(pairs(6)), mean(pairs(6).flip(1)), rtol=0, atol=0)
    with torch.no_grad():
        mean.embed.weight.copy_(torch.arange(6.0)[:, None].expand(6, 2))
    torch.testing.assert_close(mean(torch.tensor([[0, 4]])), mean(torch.tensor([[1, 3]])), rtol=0, atol=0)
    concat = initialised(lambda: PooledMLP(6, width=2, hidden=16, pooling="concat"), 100)
    assert not torch.equal(concat(pairs(6)), concat(pairs(6).flip(1)))


def test_settings_and_inputs_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="choose from mean, concat"):
        PooledMLP(5, width=2, hidden=4, pooling="conact")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1, got 5, 0, 4 and 5"):
        PooledMLP(5, width=0, hidden=4)
    with pytest.raises(NetworkError, match=r"\(3, 3\)"):
        PooledMLP(5, width=2, hidden=4)(torch.zeros(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("p", [5, 11])
@pytest.mark.parametrize("clocks", [{1: 0.0}, {2: 1.0}, {1: 0.0, 2: 1.0}, {2: 0.3}])
def test_planted_logits_are_the_closed_form(p: int, clocks: dict[int, float]) -> None:
    a, b, c = np.meshgrid(*[np.arange(p)] * 3, indexing="ij")
    right = np.zeros((p, p, p))
    for k, s in clocks.items():
        w = 2 * np.pi * k / p
        right += (s + (1 - s) * np.abs(np.cos(w * (a - b) / 2))) * np.cos(w * (a + b - c))
    found = logits_of(planted(p, clocks), p)
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)
    assert (found.argmax(-1) == (a + b)[:, :, 0] % p).all()


def test_a_pizza_of_the_mean_is_that_of_both_embeddings() -> None:
    clocks = {1: 0, 3: 0}
    np.testing.assert_allclose(
        logits_of(planted(7, clocks, pooling="mean"), 7), logits_of(planted(7, clocks), 7), rtol=0, atol=1e-12
    )


def test_a_lookup_answers_whatever_it_is_given() -> None:
    rng = np.random.default_rng(3)
    answers = np.triu(rng.integers(0, 9, (9, 9)))
    answers = answers + np.triu(answers, 1).T
    state = torch.get_rng_state()
    found = logits_of(planted_lookup(answers, seed=1), 9)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_allclose(found, np.eye(9)[answers], rtol=0, atol=1e-9)


def test_what_cannot_be_planted_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd"):
        planted(8, {1: 0})
    with pytest.raises(ConfigError, match="from 1 to 3"):
        planted(7, {4: 0})
    with pytest.raises(ConfigError, match="no clock"):
        planted(7, {1: 0.5}, pooling="mean")
    with pytest.raises(ConfigError, match="symmetric"):
        planted_lookup(np.arange(9).reshape(3, 3))
