from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError
from heldout.networks.gpt import SIZES, mingpt
from heldout.networks.transformer import NORMS, POSITIONS, Transformer, rows
from heldout.training.seeds import initialised


def make(**given: Any) -> Transformer:
    settings = {"width": 8, "layers": 2, "heads": 2, "max_length": 12, **given}
    if settings.get("positions") == "abacus":
        settings["digits"] = range(7)
    return initialised(lambda: Transformer(9, **settings), 0).eval()


def tokens(n: int = 5, t: int = 12) -> Tensor:
    return torch.randint(9, (n, t), generator=torch.Generator().manual_seed(1))


def by_hand(network: Transformer, x: Tensor, *, heads: int, norm: str, causal: bool) -> Tensor:
    """The transformer from its weights, one head at a time, without modules."""
    w = network.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def layer_norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name: str, x: Tensor) -> Tensor:
        q, k, v = (linear(f"{name}.{part}", x).chunk(heads, -1) for part in ("query", "key", "value"))
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) & causal
        read = []
        for h in range(heads):
            scores = q[h] @ k[h].transpose(-1, -2) / q[h].shape[-1] ** 0.5
            read.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ v[h])
        return linear(f"{name}.out", torch.cat(read, -1))

    x = w["embed.weight"][x] + w["positions.weight"][: x.shape[1]]
    for i in range(2):
        b = f"blocks.{i}"

        def feed(x: Tensor, b: str = b) -> Tensor:
            return linear(f"{b}.mlp.down", F.gelu(linear(f"{b}.mlp.up", x)))

        if norm == "pre":
            x = x + attention(f"{b}.attn", layer_norm(f"{b}.norm1", x))
            x = x + feed(layer_norm(f"{b}.norm2", x))
        elif norm == "post":
            x = layer_norm(f"{b}.norm1", x + attention(f"{b}.attn", x))
            x = layer_norm(f"{b}.norm2", x + feed(x))
        else:
            x = x + attention(f"{b}.attn", x)
            x = x + feed(x)
    return linear("readout", layer_norm("norm", x) if norm == "pre" else x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("heads", "causal"), [(1, True), (2, True), (2, False)])
def test_it_is_its_equations(norm: str, heads: int, causal: bool) -> None:
    network = make(norm=norm, heads=heads, causal=causal)
    expected = by_hand(network, tokens(), heads=heads, norm=norm, causal=causal)
    torch.testing.assert_close(network(tokens()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("causal", [True, False])
def test_logits_at_some_positions_are_those_of_the_full_forward(positions: str, norm: str, causal: bool) -> None:
    network = make(positions=positions, norm=norm, causal=causal)
    at = torch.randint(12, (5, 4), generator=torch.Generator().manual_seed(2))
    full = network(tokens())
    torch.testing.assert_close(network(tokens(), at), rows(full, at), rtol=1e-4, atol=1e-5)


def test_no_position_sees_a_later_one_so_padding_changes_nothing() -> None:
    network = make()
    short = tokens(t=7)
    padded = torch.cat((short, torch.full((5, 5), 8)), 1)
    torch.testing.assert_close(network(padded)[:, :7], network(short), rtol=1e-4, atol=1e-5)
    changed = tokens()
    changed[:, 7:] = 0
    torch.testing.assert_close(network(changed)[:, :7], network(tokens())[:, :7], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(make(causal=False)(padded)[:, :7], make(causal=False)(short))


def test_a_batch_is_its_items_one_by_one() -> None:
    network = make()
    singly = torch.cat([network(row[None]) for row in tokens()])
    torch.testing.assert_close(network(tokens()), singly, rtol=1e-4, atol=1e-5)


def test_without_positions_attention_to_a_set_does_not_know_its_order() -> None:
    network = make(positions="none", layers=1)
    x = tokens(t=6)
    swapped = x[:, [2, 0, 1, 3, 4, 5]]
    torch.testing.assert_close(network(x)[:, -1], network(swapped)[:, -1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(make(layers=1)(x)[:, -1], make(layers=1)(swapped)[:, -1])


def test_sinusoidal_positions_are_fixed_and_shift_by_a_rotation() -> None:
    network = make(positions="sinusoidal", width=8)
    assert not any("positions" in name for name in network.state_dict())
    table = network.positions(torch.arange(12))
    products = table @ table.T
    for offset in range(5):  # p_i . p_j depends on i - j alone
        torch.testing.assert_close(products.diagonal(offset), products[0, offset].expand(12 - offset))
    assert products[0, 0].item() == pytest.approx(4.0)
    assert make(positions="sinusoidal", width=7, heads=1)(tokens()).shape == (5, 12, 9)


def test_attention_goes_through_the_function_that_sites_intercept() -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is F.scaled_dot_product_attention:
                seen.append((tuple(args[0].shape), tuple(args[1].shape)))
            return function(*args, **(kwargs or {}))

    at = torch.zeros(5, 3, dtype=torch.int64)
    with Watch():
        make()(tokens(), at)
    assert seen == [((5, 2, 12, 4), (5, 2, 12, 4)), ((5, 2, 3, 4), (5, 2, 12, 4))]


def test_sites_read_well() -> None:
    names = {name for name, _ in make().named_modules()}
    parts = ("norm1", "attn.query", "attn.key", "attn.value", "attn.out", "norm2", "mlp.up", "mlp.down")
    assert {"embed", "positions", "norm", "readout", *(f"blocks.1.{p}" for p in parts)} <= names


def test_gradients_reach_every_parameter() -> None:
    network = make()
    network(tokens()).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"positions": "rotory"}, "unknown kind of positions 'rotory'; choose from learned"),
        ({"activation": "swish"}, "unknown activation 'swish'; choose from gelu, gelu_tanh, relu"),
        ({"init": "zero"}, "unknown init 'zero'"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
        ({"norm": "rms"}, "unknown norm 'rms'"),
        ({"heads": 3}, "width must be a multiple of heads, got width 8 and 3 heads"),
        ({"layers": 0}, "must be at least 1"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**given)


def test_a_sentence_that_is_too_long_is_refused() -> None:
    with pytest.raises(NetworkError, match="13 positions in a batch, but max_length is 12"):
        make()(tokens(t=13))


def test_the_sizes_of_the_papers_have_their_parameters() -> None:
    counts = {name: sum(p.numel() for p in mingpt(10, name, max_length=15).parameters()) for name in SIZES}
    assert counts["nano"] == 86_592  # addition, width 5: 16 tokens of which 15 are fed
    assert sum(p.numel() for p in mingpt(10, "mini", max_length=19).parameters()) == 2_677_056  # the paper: 2.68M
    assert counts["nano"] < counts["micro"] < counts["mini"]
    with pytest.raises(ConfigError, match="unknown size 'macro'; choose from nano, micro, mini"):
        mingpt(10, "macro", max_length=15)  # type: ignore[arg-type]


def test_initial_weights_of_gpt() -> None:
    network = initialised(lambda: mingpt(10, "mini", max_length=19), 0)
    for name, p in network.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all()
        elif "norm" in name:
            assert (p == 1).all()
        elif p.numel() > 30_000:
            wanted = 0.02 / 12**0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
            assert p.std().item() == pytest.approx(wanted, rel=0.02), name
            assert abs(p.mean().item()) < 0.001


def test_a_tied_readout_is_the_embedding_and_stays_so() -> None:
    network = make(tied=True)
    assert network.readout.weight is network.embed.weight
    network(tokens()).logsumexp(-1).sum().backward()
    with torch.no_grad():
        network.embed.weight += 1.0
    assert torch.equal(network.readout.weight, network.embed.weight)
    assert sum(p.numel() for p in make().parameters()) - sum(p.numel() for p in network.parameters()) == 9 * 8


def test_biases_can_be_left_out() -> None:
    assert not [name for name, _ in make(bias=False).named_parameters() if name.endswith("bias")]
    left = {name for name, _ in make().named_parameters()} - {
        name for name, _ in make(readout_bias=False).named_parameters()
    }
    assert left == {"readout.bias"}


def test_dropout_is_where_gpt_has_it_and_only_in_training() -> None:
    plain, network = make(), make(dropout=0.3)
    assert torch.equal(network(tokens()), plain(tokens()))  # the same weights, evaluation mode
    assert {name for name, _ in network.named_modules()} == {name for name, _ in plain.named_modules()}
    drops: list[str] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function is F.dropout:
                drops.append(f"{kwargs['p']} {kwargs['training']}")
            if function is F.scaled_dot_product_attention:
                drops.append(f"pattern {kwargs['dropout_p']}")
            return function(*args, **kwargs)

    network.train()
    with Watch():
        network(tokens())
    each = ["pattern 0.3", "0.3 True", "0.3 True"]  # attention, what it adds, what the feed-forward adds
    assert drops == ["0.3 True", *each, *each]


def test_gelu_by_tanh_is_near_the_exact_one() -> None:
    exact, near = make()(tokens()), make(activation="gelu_tanh")(tokens())
    assert 0 < (exact - near).abs().max() < 1e-2


def test_relu_is_relu() -> None:
    network = make(activation="relu")
    mlp = network.blocks[0].mlp
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = torch.clamp(x @ mlp.up.weight.T + mlp.up.bias, min=0) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(x), by_hand)
