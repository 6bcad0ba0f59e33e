from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.activations.tap import Tap
from heldout.errors import CheckpointError, ConfigError, NetworkError, SplitError
from heldout.networks.token_mlp import BASE_WIDTH, TokenMLP
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.loop import train
from heldout.training.losses import squared_error
from heldout.training.optimizers import optimizer_of, set_rate
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

SIZES = (12, 20)
INSIDE = ["embeddings.1", "act", "blocks.0", "blocks.1", "readout"]
SETTINGS = TrainSettings(4, 1e-2, "constant", weight_decay=0.1, clip=None)


def made(width: int = 64, *, seed: int = 0, sizes: tuple[int, ...] = SIZES, **given: object) -> TokenMLP:
    return initialised(lambda: TokenMLP(sizes, width=width, **given), seed)  # type: ignore[arg-type]


def pairs() -> Tensor:
    return torch.cartesian_prod(*(torch.arange(n) for n in SIZES))


def curved(role: str = "fit") -> Split:
    """All pairs, with a target that is a smooth function of both tokens, in large units."""
    tokens = pairs()
    z, n = tokens.double().T
    targets = 8000 - 3.0 * (z - n / 2) ** 2 - 40 * (n - 9).abs()
    return Split("train", role, Rectangular(tokens, targets.float()[:, None]))  # type: ignore[arg-type]


@pytest.mark.parametrize("parametrisation", ["mup", "standard"])
def test_it_is_its_equation(parametrisation: str) -> None:
    network = made(96, blocks=2, parametrisation=parametrisation)
    network.fit_outputs(curved())
    w, tokens = network.state_dict(), pairs()
    x = torch.cat([w[f"embeddings.{c}.weight"][tokens[:, c]] for c in (0, 1)], 1)
    x = x @ w["into.weight"].T + w["into.bias"]
    x = x * torch.sigmoid(x)
    for i in (0, 1):
        inner = F.relu(x @ w[f"blocks.{i}.first.weight"].T + w[f"blocks.{i}.first.bias"])
        x = x + F.relu(inner @ w[f"blocks.{i}.second.weight"].T + w[f"blocks.{i}.second.bias"])
    x = x / 3 if parametrisation == "mup" else x
    y = w["shift"] + w["scale"] * (x @ w["readout.weight"].T + w["readout.bias"])
    torch.testing.assert_close(network(tokens), y)
    assert network(tokens).shape == (240, 1)


@pytest.mark.parametrize("width", [32, 128, 512])
def test_initial_values_are_uniform_within_the_bounds_of_each_group(width: int) -> None:
    network, m = made(width, blocks=2, sizes=(300, 300)), width / 32
    bounds = {"into.weight": 1 / math.sqrt(2 * width), "into.bias": math.sqrt(m / (2 * width))}
    for name, parameter in network.named_parameters():
        kind = "weight" if name.endswith("weight") else "bias"
        default = (
            1 / math.sqrt(32) if kind == "bias" or "embeddings" in name or name == "readout.weight" else width**-0.5
        )
        bound = bounds.get(name, default)
        assert parameter.abs().max() <= bound
        if parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
            assert parameter.abs().max() > 0.98 * bound
        elif parameter.numel() > 30:
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.4), name


def test_rates_and_decays_of_each_group() -> None:
    network = made(128)  # m = 4
    optimizer = optimizer_of(network, SETTINGS)
    set_rate(optimizer, 0.01)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in network.named_parameters():
        rate, decay = of.pop(id(parameter))
        if name.endswith("bias"):
            assert (rate, decay) == (0.01, 0.0)
        elif name.startswith(("embeddings", "readout")):
            assert (rate, decay) == (0.01, 0.1)
        else:
            assert (rate, decay) == (pytest.approx(0.0025), pytest.approx(0.4))
            assert rate * decay == pytest.approx(0.01 * 0.1)  # what is taken off in a step is the same at all widths
    assert not of


def test_at_the_base_width_both_parametrisations_are_one() -> None:
    networks = [made(BASE_WIDTH, parametrisation=p) for p in ("mup", "standard")]
    for network in networks:
        train(network, shuffled(curved(), 60, seed=0), squared_error(), settings=SETTINGS)
    for a, b in zip(*(n.state_dict().values() for n in networks), strict=True):
        assert torch.equal(a, b)


def sizes(network: TokenMLP, tokens: Tensor) -> dict[str, Tensor]:
    with Tap(network, read=INSIDE) as tap, torch.no_grad():
        reading = tap(Batch(tokens, torch.arange(len(tokens))))
    return {site: reading[site].double() for site in INSIDE}


def coordinates(parametrisation: str, width: int) -> dict[str, tuple[float, float]]:
    """Site -> root mean square of its activations before training, and of what the first update of AdamW changes."""
    settings, runs = TrainSettings(1, 5e-3, "constant", weight_decay=0.1, clip=None), []
    for seed in range(4):
        network = made(width, seed=seed, parametrisation=parametrisation)
        network.fit_outputs(curved())
        before = sizes(network, pairs())
        train(network, shuffled(curved(), 240, seed=seed), squared_error(), settings=settings)
        after = sizes(network, pairs())
        runs.append([[v.square().mean().item() for v in (before[s], after[s] - before[s])] for s in INSIDE])
    means = np.sqrt(np.mean(runs, 0)).tolist()
    return {site: (start, change) for site, (start, change) in zip(INSIDE, means, strict=True)}


def test_updates_are_as_large_at_every_width_and_are_not_in_the_standard_parametrisation() -> None:
    """The coordinate check of the maximal-update parametrisation, from width 32 to 512."""
    narrow, wide, plain = coordinates("mup", 32), coordinates("mup", 512), coordinates("standard", 512)
    for site in INSIDE:
        if site != "readout":  # whose size before training falls with width, as it should
            assert wide[site][0] == pytest.approx(narrow[site][0], rel=0.2), site
        assert wide[site][1] == pytest.approx(narrow[site][1], rel=0.2), site
    for site in ("act", "blocks.0", "blocks.1", "readout"):
        assert plain[site][1] > 4 * narrow[site][1], site
    assert plain["readout"][1] > 8 * narrow["readout"][1]
    assert plain["readout"][0] < narrow["readout"][0] / 2


def test_the_last_column_names_the_output() -> None:
    tokens = torch.cat([pairs().repeat_interleave(3, 0), torch.arange(3).repeat(240)[:, None]], 1)
    targets = torch.tensor([1.0, 1e4, -5.0])[tokens[:, 2]] * (1 + tokens[:, 0])
    split = Split("train", "fit", Rectangular(tokens, targets[:, None]))
    network = made(sizes=(*SIZES, 3), outputs=3)
    network.fit_outputs(split)
    torch.testing.assert_close(network.shift, torch.tensor([1.0, 1e4, -60.0]))
    torch.testing.assert_close(network.scale, torch.tensor([11.0, 11e4, 55.0]))
    with Tap(network, read=["readout"]) as tap, torch.no_grad():
        reading = tap(Batch(tokens, torch.arange(len(tokens))))
    every = network.shift + network.scale * reading["readout"]
    assert torch.equal(reading.output, every[torch.arange(len(tokens)), tokens[:, 2]][:, None])
    network.fit_outputs(split, "standard")
    torch.testing.assert_close(network.scale[1].item(), float(targets[1::3].double().std(correction=0)))


def test_an_item_is_answered_the_same_in_any_batch_and_order() -> None:
    network, tokens = made(64), pairs()
    order = torch.randperm(240, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(tokens)
        torch.testing.assert_close(network(tokens[order]), y[order])
        torch.testing.assert_close(network(tokens[7:8]), y[7:8])
        network.shift.add_(5.0)
        network.scale.mul_(3.0)
        torch.testing.assert_close(network(tokens), 5 + 3 * y)


def test_it_learns_in_physical_units() -> None:
    network = made(64)
    network.fit_outputs(curved())
    settings = TrainSettings(400, 1e-2, weight_decay=0.01, clip=None)
    train(network, shuffled(curved(), 120, seed=0), squared_error(), settings=settings)
    items = curved().items
    assert isinstance(items, Rectangular)
    assert items.targets is not None
    with torch.no_grad():
        error = (network(items.inputs) - items.targets).square().mean().sqrt()
    assert error < 0.05 * items.targets.std()


def test_the_outputs_scale_is_that_of_a_fit_split_alone() -> None:
    with pytest.raises(SplitError, match="its role is 'test'"):
        made().fit_outputs(curved("test"))
    constant = Split("train", "fit", Rectangular(pairs(), torch.ones(240, 1)))
    with pytest.raises(NetworkError, match="output 0 has no two different targets on split 'train'"):
        made().fit_outputs(constant)
    with pytest.raises(NetworkError, match="has no targets"):
        made().fit_outputs(Split("train", "fit", Rectangular(pairs())))
    with pytest.raises(ConfigError, match="unknown kind of outputs 'minmax'"):
        made().fit_outputs(curved(), "minmax")  # type: ignore[arg-type]


@pytest.mark.parametrize(("bad", "column", "largest"), [(12, 0, 11), (-1, 0, 11), (20, 1, 19)])
def test_a_token_outside_its_column_is_named(bad: int, column: int, largest: int) -> None:
    tokens = pairs()[:5].clone()
    tokens[3, column] = bad
    with pytest.raises(
        NetworkError, match=rf"item 3 of the batch has token {bad} in column {column}.*0 to {largest}; 1 "
    ):
        made()(tokens)


def test_what_is_no_row_of_tokens() -> None:
    with pytest.raises(NetworkError, match=r"integer tokens of shape \(items, 2\), got \(5, 3\)"):
        made()(torch.zeros(5, 3, dtype=torch.int64))
    with pytest.raises(NetworkError, match=r"got \(5, 2\) of torch.float32"):
        made()(torch.zeros(5, 2))


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    network = made(48, blocks=3)
    network.fit_outputs(curved())
    save_weights(network, tmp_path / "w.safetensors", {"task": "curved"})
    other = made(48, blocks=3, seed=1)
    assert load_weights(other, tmp_path / "w.safetensors") == {"task": "curved"}
    assert torch.equal(other(pairs()), network(pairs()))
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_weights(made(48, blocks=2), tmp_path / "w.safetensors")


def test_sites_read_well() -> None:
    names = {name for name, _ in made(blocks=2).named_modules()}
    assert {"embeddings.0", "embeddings.1", "into", "act", "blocks.1", "blocks.0.first", "readout"} <= names
    network, tokens = made(64, blocks=1), pairs()
    with Tap(network, read=["readout:input", "blocks.0"]) as tap, torch.no_grad():
        reading = tap(Batch(tokens, torch.arange(240)))
    torch.testing.assert_close(reading["readout:input"] * 2, reading["blocks.0"])  # the penultimate layer, divided by m


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sizes": ()}, "sizes must be positive"),
        ({"sizes": (3, 0)}, "sizes must be positive"),
        ({"width": 0}, "got 0, 1, 2"),
        ({"outputs": 3}, "must have as many tokens; its size is 20"),
        ({"parametrisation": "ntk"}, "unknown parametrisation 'ntk'"),
    ],
)
def test_settings_that_make_no_network(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partial(TokenMLP, **{"sizes": SIZES, **given})()  # type: ignore[arg-type]


def test_it_runs_under_vmap_as_alone() -> None:
    from heldout.training.stacked import Stack, train_stacked

    networks = [made(64, seed=s) for s in range(3)]
    stack = Stack(networks)
    histories = train_stacked(stack, shuffled(curved(), 60, seed=0), squared_error(), settings=SETTINGS)
    assert len(histories) == 3
    train(networks[1], shuffled(curved(), 60, seed=0), squared_error(), settings=SETTINGS)
    assert isinstance(stack.network(1), nn.Module)
    torch.testing.assert_close(stack.network(1)(pairs()), networks[1](pairs()), rtol=1e-4, atol=1e-3)


def test_tokens_are_checked_except_under_vmap_where_nothing_may_depend_on_data() -> None:
    network = initialised(lambda: TokenMLP((3, 4), width=8, blocks=1), 0)
    outside = torch.tensor([[[1, 9]], [[2, 1]]])
    with pytest.raises(NetworkError, match="token 9 in column 1"):
        network._check_range(outside[0])
    seen = torch.func.vmap(lambda tokens: network._check_range(tokens) or tokens)(outside)
    assert torch.equal(seen, outside)
