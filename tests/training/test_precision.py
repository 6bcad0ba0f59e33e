"""Mixed precision: matrix products in bfloat16, everything that is kept in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from heldout.errors import ConfigError
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Batches, Stack, train_stacked

SETTINGS = TrainSettings(steps=1, learning_rate=1.0, schedule="constant", optimizer="sgd", weight_decay=0.0, clip=None)
MIXED = replace(SETTINGS, precision="bfloat16")


class Product(nn.Module):
    """y = x w, with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1 + 2**-10]]))  # 1 in bfloat16, which has 8 significant bits

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def square(outputs: Tensor, batch: Batch) -> Tensor:
    return outputs.float().square().sum()


def one(step: int) -> Batch:
    return Batch(torch.tensor([[3.0]]), torch.arange(1))


@pytest.mark.parametrize("stacked", [False, True])
def test_products_are_rounded_and_weights_are_not(stacked: bool) -> None:
    """d(xw)^2/dw = 2 x^2 w, with w rounded to 1: the update is 18 exactly; in float32 it is 18 (1 + 2^-10)."""
    found = {}
    for settings in (SETTINGS, MIXED):
        network: nn.Module = Product()
        if stacked:
            stack = Stack([network, network])
            train_stacked(stack, one, square, settings=settings)
            network = stack.network(1)
        else:
            train(network, one, square, settings=settings)
        (weight,) = network.parameters()
        assert weight.dtype == torch.float32
        found[settings.precision] = float(weight.detach())
    start = 1 + 2**-10
    assert found["bfloat16"] == start - 18
    assert found["float32"] == pytest.approx(start - 18 * start, abs=1e-5)


def make() -> Transformer:
    return Transformer(7, width=16, layers=1, heads=2, max_length=6)


def batches() -> Batches:
    tokens = torch.randint(7, (40, 7), generator=torch.Generator().manual_seed(0))
    return shuffled(Split("train", "fit", Rectangular(tokens[:, :-1], tokens[:, 1:])), 60, seed=0)


def test_it_is_torchs_autocast_bit_for_bit_and_looks_are_in_float32() -> None:
    settings = replace(MIXED, steps=20, learning_rate=0.05, evaluate_every=5)
    ours, theirs = initialised(make, 0), initialised(make, 0)
    order = batches()
    seen: list[torch.dtype] = []

    def look(network: nn.Module) -> dict[str, float]:
        seen.append(network(order(0).inputs).dtype)
        return {}

    train(ours, order, cross_entropy, settings=settings, evaluate=look)
    assert set(seen) == {torch.float32}
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, fused=True)
    theirs.train()
    for step in range(20):
        batch = order(step)
        assert batch.targets is not None
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = theirs(batch.inputs)
            assert logits.dtype == torch.bfloat16
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_stack_in_mixed_precision_is_its_networks_to_bfloat16s_rounding() -> None:
    settings = replace(MIXED, steps=20, learning_rate=0.05)
    stack = Stack([initialised(make, seed) for seed in range(3)])
    histories = train_stacked(stack, batches(), cross_entropy, settings=settings)
    for seed, history in enumerate(histories):
        network, plain = initialised(make, seed), initialised(make, seed)
        alone = train(network, batches(), cross_entropy, settings=settings)
        exact = train(plain, batches(), cross_entropy, settings=replace(settings, precision="float32"))
        assert history.last("batch/loss") == pytest.approx(alone.last("batch/loss"), rel=2**-8)
        assert alone.last("batch/loss") != exact.last("batch/loss")


def test_precisions_that_are_not_accepted() -> None:
    with pytest.raises(ConfigError, match="unknown precision 'float16'; choose from float32, bfloat16"):
        replace(SETTINGS, precision="float16")  # type: ignore[arg-type]
