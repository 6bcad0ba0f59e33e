from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError, NonFiniteError
from heldout.networks.mlp import MLP
from heldout.networks.stacked import stacked_linear
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Stack, _require_finite, train_stacked

SGD = TrainSettings(200, 0.05, "constant", optimizer="sgd", weight_decay=0.0, clip=None)
ADAMW = TrainSettings(200, 3e-3, "cosine", warmup=10, weight_decay=0.1)
SEEDS = (0, 1, 2)


class Plain(nn.Module):
    """An MLP that does not say how it is stacked, so that it goes by vmap alone."""

    def __init__(self, network: MLP) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


class Tied(nn.Module):
    """Embedding and readout are one weight, and a buffer is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.middle = nn.Linear(8, 8)
        self.readout = nn.Linear(8, 11, bias=False)
        self.readout.weight = self.embed.weight
        self.register_buffer("scale", torch.full((8,), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(torch.tanh(self.middle(self.embed(x))) * self.scale)
        return out


def blobs() -> Split:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(100) % 4
    return Split("train", "fit", Rectangular(F.one_hot(y, 6) * 2.0 + torch.randn(100, 6, generator=draw), y))


def sentences() -> Split:
    tokens = torch.randint(11, (60, 9), generator=torch.Generator().manual_seed(0))
    return Split("train", "fit", Rectangular(tokens[:, :-1], tokens[:, 1:]))


def stack_of(make: Callable[[], nn.Module]) -> Stack:
    return Stack([initialised(make, seed) for seed in SEEDS])


def furthest(stack: Stack, i: int, network: nn.Module) -> float:
    """The largest difference between any two weights."""
    ours, theirs = stack.state(i), network.state_dict()
    assert ours.keys() == theirs.keys()
    return max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in theirs)


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        (SGD, False),
        (SGD, True),
        (ADAMW, False),
        (ADAMW, True),
        (replace(SGD, steps=50, momentum=0.9, weight_decay=0.01), False),
        (replace(ADAMW, steps=50, optimizer="adam", clip=None), False),
        (replace(ADAMW, steps=50, optimizer="rmsprop", learning_rate=1e-3, clip=0.5), False),
    ],
    ids=["sgd", "sgd-vmap", "adamw", "adamw-vmap", "momentum", "adam", "rmsprop"],
)
def test_a_stack_is_its_networks_trained_one_by_one(settings: TrainSettings, plain: bool) -> None:
    def make() -> nn.Module:
        network = MLP((6, 16, 16, 4))
        return Plain(network) if plain else network

    stack = stack_of(make)
    histories = train_stacked(stack, shuffled(blobs(), 16, seed=1), cross_entropy, settings=settings)
    moved = furthest(stack, 0, initialised(make, 0))
    assert moved > 0.05
    for i, seed in enumerate(SEEDS):
        network = initialised(make, seed)
        history = train(network, shuffled(blobs(), 16, seed=1), cross_entropy, settings=settings)
        # Float rounding, and what Adam's division by small second moments makes of it over 200 updates.
        assert furthest(stack, i, network) < 2e-5
        assert histories[i].last("batch/loss") == pytest.approx(history.last("batch/loss"), abs=1e-6)
    assert len({history.last("batch/loss") for history in histories}) == len(SEEDS)


def test_each_network_may_have_its_own_order() -> None:
    def make() -> MLP:
        return MLP((6, 16, 4))

    stack = stack_of(make)
    orders = [shuffled(blobs(), 16, seed=10 + s) for s in SEEDS]
    settings = replace(ADAMW, steps=40)
    train_stacked(stack, orders, cross_entropy, settings=settings)
    for i, seed in enumerate(SEEDS):
        network = initialised(make, seed)
        train(network, shuffled(blobs(), 16, seed=10 + seed), cross_entropy, settings=settings)
        assert furthest(stack, i, network) < 2e-5
    with pytest.raises(ConfigError, match="a stack of 3 networks needs as many orders of batches, got 2"):
        train_stacked(stack, orders[:2], cross_entropy, settings=ADAMW)
    uneven = [shuffled(blobs(), 15 + s, seed=s) for s in SEEDS]
    with pytest.raises(ConfigError, match=r"step 0 have different sizes, .*\(15, 6\).* and .*\(16, 6\)"):
        train_stacked(stack, uneven, cross_entropy, settings=ADAMW)


def test_a_transformer_can_be_stacked() -> None:
    def make() -> Transformer:
        return Transformer(11, width=16, layers=2, heads=2, max_length=8)

    stack = stack_of(make)
    # Not Adam: the bias of keys has no gradient but rounding, which Adam would scale up to whole steps.
    settings = replace(SGD, steps=20, clip=1.0)
    start = initialised(make, 2)
    train_stacked(stack, shuffled(sentences(), 10, seed=1), cross_entropy, settings=settings)
    assert furthest(stack, 2, start) > 0.01
    network = initialised(make, 2)
    train(network, shuffled(sentences(), 10, seed=1), cross_entropy, settings=settings)
    assert furthest(stack, 2, network) < 2e-5


def test_tied_weights_stay_tied() -> None:
    stack = stack_of(Tied)
    settings = replace(ADAMW, steps=20, warmup=2)
    train_stacked(stack, shuffled(sentences(), 10, seed=1), cross_entropy, settings=settings)
    network = initialised(Tied, 1)
    train(network, shuffled(sentences(), 10, seed=1), cross_entropy, settings=settings)
    ours = stack.network(1)
    assert isinstance(ours, Tied)
    assert ours.readout.weight is ours.embed.weight
    for name, value in network.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=2e-5, rtol=0)


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("own", [False, True])
def test_an_mlps_own_way_is_vmaps(norm: str | None, own: bool) -> None:
    """Outputs, gradients and running statistics; in training mode and in evaluation mode."""

    def make() -> MLP:
        return MLP((6, 8, 8, 3), "gelu", norm=norm, init="he", gain=0.7)  # type: ignore[arg-type]

    ours, theirs = stack_of(make), stack_of(lambda: Plain(make()))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(*([len(SEEDS)] if own else []), 5, 6, generator=draw)
    batch = Batch(x, torch.arange(5))
    for training in (True, False):
        a, b = (stack.train(training)(batch, own=own) for stack in (ours, theirs))
        torch.testing.assert_close(a, b)
    weights = torch.randn(a.shape, generator=draw)
    for stack, out in ((ours, a), (theirs, b)):
        (out * weights).sum().backward()
        assert all(p.grad is not None for p in stack.parameters.values())
    for name, p in ours.parameters.items():
        torch.testing.assert_close(p.grad, theirs.parameters[f"network.{name}"].grad)
    for name, buffer in ours.buffers.items():
        torch.testing.assert_close(buffer, theirs.buffers[f"network.{name}"])
        assert "num_batches" not in name or buffer.tolist() == [1] * len(SEEDS)


@pytest.mark.parametrize("shared", [True, False])
def test_the_stacked_linear_map_has_the_right_gradient(shared: bool) -> None:
    draw = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True)

    x = tensor(4, 3) if shared else tensor(2, 4, 3)
    weight, bias = tensor(2, 5, 3), tensor(2, 5)
    each = [F.linear(x if shared else x[s], weight[s], bias[s]) for s in range(2)]
    torch.testing.assert_close(stacked_linear(x, weight, bias), torch.stack(each))
    assert torch.autograd.gradcheck(stacked_linear, (x, weight, bias))


@pytest.mark.parametrize("plain", [False, True], ids=["own", "vmap"])
def test_dropout_is_drawn_for_each_network_apart_and_the_same_each_time(plain: bool) -> None:
    def make() -> nn.Module:
        network = MLP((6, 64, 2), dropout=0.5)
        return Plain(network) if plain else network

    one = initialised(make, 0)
    stack = Stack([one, one, one]).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = stack(Batch(torch.ones(4, 6), torch.arange(4)))
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[1], out[2])
    out = stack.train(False)(Batch(torch.ones(4, 6), torch.arange(4)))
    assert torch.equal(out[0], out[1])

    before = torch.get_rng_state()
    runs = [stack_of(make) for _ in range(3)]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        settings = replace(ADAMW, steps=15, seed=seed)
        train_stacked(run, shuffled(blobs_of_two(), 16, seed=0), cross_entropy, settings=settings)
    assert torch.equal(torch.get_rng_state(), before)
    states = [run.state(1) for run in runs]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def blobs_of_two() -> Split:
    split = blobs()
    assert isinstance(split.items, Rectangular)
    assert split.items.targets is not None
    return Split("train", "fit", Rectangular(split.items.inputs, split.items.targets % 2))


def test_what_is_seen_on_the_way(tmp_path: Path) -> None:
    def make() -> MLP:
        return MLP((6, 16, 4))

    batch = next(blobs().batches(100))
    seen: list[tuple[int, list[float]]] = []

    def evaluate(done: int, stack: Stack) -> dict[str, list[float]]:
        assert not torch.is_grad_enabled()
        for i, seed in enumerate(SEEDS):
            save_weights(stack.network(i), tmp_path / f"{done}-{seed}.safetensors", {"seed": seed})
        found = (stack(batch).argmax(-1) == batch.targets).double().mean(1).tolist()
        seen.append((done, found))
        return {"train/accuracy": found}

    stack, shown = stack_of(make), []
    histories = train_stacked(
        stack,
        shuffled(blobs(), 16, seed=0),
        cross_entropy,
        settings=replace(ADAMW, steps=40, warmup=0, learning_rate=1e-2),
        evaluate=evaluate,
        at=[0, 3, 10],
        progress=lambda *given: shown.append(given),
    )
    assert [done for done, _ in seen] == [0, 3, 10, 40]
    assert shown[-1][:2] == (40, 40)
    for i, history in enumerate(histories):
        assert history.curve("train/accuracy") == [(done, found[i]) for done, found in seen]
        assert [step for step, _ in history.curve("batch/loss")] == [3, 10, 40]
        assert history.last("train/accuracy") > 0.5
    # A file holds one network, in the form that any other is saved in.
    network = make()
    assert load_weights(network, tmp_path / "40-2.safetensors") == {"seed": 2}
    assert furthest(stack, 2, network) == 0
    assert torch.equal(network(batch.inputs), stack.network(2)(batch.inputs))
    assert not stack.network(2).training
    with pytest.raises(ConfigError, match="0 to 200 updates to evaluate after, got 201"):
        train_stacked(stack, shuffled(blobs(), 16, seed=0), cross_entropy, settings=ADAMW, at=[201])


def test_evaluation_is_every_so_often_where_nothing_else_is_said() -> None:
    steps: list[int] = []

    def evaluate(done: int, stack: Stack) -> dict[str, list[float]]:
        steps.append(done)
        return {}

    settings = replace(SGD, steps=7, evaluate_every=3)
    train_stacked(
        stack_of(lambda: MLP((6, 4))),
        shuffled(blobs(), 16, seed=0),
        cross_entropy,
        settings=settings,
        evaluate=evaluate,
    )
    assert steps == [0, 3, 6, 7]


def test_frozen_parameters_stay() -> None:
    def make() -> MLP:
        network = MLP((6, 16, 4))
        network.hidden.requires_grad_(False)
        return network

    stack = stack_of(make)
    start = stack.state(1)
    train_stacked(stack, shuffled(blobs(), 16, seed=0), cross_entropy, settings=replace(SGD, steps=5))
    end = stack.state(1)
    changed = {k for k in start if not torch.equal(start[k], end[k])}
    assert changed == {"readout.weight", "readout.bias"}
    frozen = Stack([initialised(make, 0).requires_grad_(False)])
    with pytest.raises(NetworkError, match="no parameters to train"):
        train_stacked(frozen, shuffled(blobs(), 16, seed=0), cross_entropy, settings=SGD)


def test_networks_of_different_shape_do_not_stack() -> None:
    with pytest.raises(NetworkError, match="network 1 of a stack has another architecture"):
        Stack([MLP((6, 5, 4)), MLP((6, 7, 4))])
    with pytest.raises(NetworkError, match="at least one network"):
        Stack([])


def test_a_network_that_diverges_is_named() -> None:
    networks = [initialised(lambda: MLP((6, 16, 4)), s) for s in SEEDS]
    with torch.no_grad():
        networks[2].readout.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="loss of network 2 of the stack is NaN or infinite at update 1 of 200"):
        train_stacked(Stack(networks), shuffled(blobs(), 16, seed=0), cross_entropy, settings=SGD)


def test_losses_looked_at_together_name_the_first_update_that_went_wrong() -> None:
    """As on an accelerator, where fifty are; of networks that have ended nothing counts."""
    losses = torch.ones(4, 3)
    losses[1:, 2] = torch.nan
    losses[2, 0] = torch.inf
    settings, called = replace(SGD, steps=100), [f"network {i} of the stack" for i in range(3)]
    with pytest.raises(NonFiniteError, match="of network 2 of the stack is NaN or infinite at update 48 of 100"):
        _require_finite(losses, 50, settings, (), called)
    with pytest.raises(NonFiniteError, match="of network 0 of the stack is NaN or infinite at update 49 of 100"):
        _require_finite(losses, 50, settings, {2}, called)
    _require_finite(losses, 50, settings, {0, 2}, called)


def test_weights_that_become_infinite_are_refused_as_one_network_s_are() -> None:
    """One update of a rate that float32 cannot hold, after a loss that is finite."""
    settings = replace(SGD, steps=1, learning_rate=1e38, clip=None)
    stack = stack_of(lambda: MLP((6, 16, 4)))
    match = r"of seed 7, seed 8, seed 9 is NaN or infinite after update 1 of 1\. Try a lower learning_rate"
    with pytest.raises(NonFiniteError, match=match):
        train_stacked(
            stack, shuffled(blobs(), 16, seed=0), square, settings=settings, names=["seed 7", "seed 8", "seed 9"]
        )
    with pytest.raises(NonFiniteError, match="is NaN or infinite after update 1 of 1"):
        train(stack_of(lambda: MLP((6, 16, 4))).network(0), shuffled(blobs(), 16, seed=0), square, settings=settings)


def square(outputs: Tensor, batch: Batch) -> Tensor:
    return (1e3 * outputs).square().sum()
