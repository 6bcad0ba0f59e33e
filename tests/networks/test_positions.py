from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heldout.activations.tap import Tap
from heldout.errors import ConfigError
from heldout.networks.positions import Abacus, Alibi, Rotary, alibi_slopes
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch
from heldout.training.seeds import initialised


def make(positions: str, **given: Any) -> Transformer:
    settings: dict[str, Any] = {"width": 24, "layers": 2, "heads": 3, "max_length": 40, "positions": positions, **given}
    return initialised(lambda: Transformer(9, **settings), 0).eval()


def tokens(n: int = 5, t: int = 12) -> Tensor:
    return torch.randint(9, (n, t), generator=torch.Generator().manual_seed(1))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class Moved(nn.Module):
    """Positions that stand `by` further along."""

    def __init__(self, inner: nn.Module, by: int) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, *arguments: Tensor) -> Any:
        return self.inner(*(x if x.is_floating_point() else x + self.by for x in arguments))


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
@pytest.mark.parametrize("causal", [True, False])
def test_moving_all_positions_changes_nothing_where_they_are_relative(positions: str, causal: bool) -> None:
    network = make(positions, causal=causal)
    before = network(tokens())
    for block in network.blocks:
        setattr(block.attn, positions, Moved(getattr(block.attn, positions), 17))
    # Differences of whole numbers are exact; rotations add up to the same angle to rounding only.
    torch.testing.assert_close(network(tokens()), before, rtol=0, atol=2e-6 if positions == "rotary" else 0.0)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_moving_all_positions_changes_the_answer_where_they_are_absolute(positions: str) -> None:
    network = make(positions)
    before = network(tokens())
    network.positions = Moved(network.positions, 17)
    assert (network(tokens()) - before).abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_relative_positions_know_the_order(positions: str) -> None:
    network, x = make(positions, layers=1), tokens(t=6)
    assert not torch.allclose(network(x)[:, -1], network(x[:, [2, 0, 1, 3, 4, 5]])[:, -1])


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_logits_at_some_positions_of_each_item(positions: str) -> None:
    network = make(positions)
    at = torch.randint(12, (5, 4), generator=torch.Generator().manual_seed(2))
    full = network(tokens())
    expected = full[torch.arange(5)[:, None], at]
    torch.testing.assert_close(network(tokens(), at), expected, rtol=1e-4, atol=1e-6)


def test_rotary_is_the_rotation_of_a_well_known_library() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(hidden_size=24, num_attention_heads=3, max_position_embeddings=40)
    q, k = normal(2, 3, 12, 8).float(), normal(2, 3, 12, 8).flip(0).float()
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, torch.arange(12)[None])
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    rotary = Rotary(40, 8)
    for x, y in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rotary(x, torch.arange(12)), y, rtol=1e-5, atol=1e-5)


def test_rotary_keeps_lengths_and_products_know_differences_only() -> None:
    rotary, x, y = Rotary(64, 8), normal(1, 1, 64, 8), normal(1, 1, 64, 8)
    x, y = x[:, :, :1].expand_as(x), y[:, :, :1].expand_as(y)  # the same vectors at every position
    here = torch.arange(64)
    torch.testing.assert_close(rotary(x, here).norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    products = (rotary(x, here) @ rotary(y, here).transpose(-1, -2))[0, 0]
    for offset in (-9, 0, 1, 30):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=3e-6)
    torch.testing.assert_close(rotary(x[:, :, :3], here[None, [5, 5, 7]])[0, 0, 2], rotary(x, here)[0, 0, 7])


def test_slopes_of_alibi() -> None:
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(4) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]
    # The published code's values for 3, 6 and 12 heads: the lower power of two, then every other of the upper one.
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]
    assert alibi_slopes(6) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(12)[8:] == [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    assert alibi_slopes(1) == [2.0**-8]


def test_alibi_is_minus_slope_times_distance() -> None:
    bias = Alibi(2)(torch.arange(4), torch.arange(4))
    assert bias.shape == (1, 2, 4, 4)
    for head, slope in enumerate([2.0**-4, 2.0**-8]):
        expected = [[-slope * abs(i - j) for j in range(4)] for i in range(4)]
        assert bias[0, head].tolist() == expected
    some = Alibi(2)(torch.tensor([[3, 0], [1, 1]]), torch.arange(4))
    assert torch.equal(some[0], bias[0, :, [3, 0]])
    assert torch.equal(some[1], bias[0, :, [1, 1]])


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_sites_inside_attention_see_what_the_product_sees(positions: str) -> None:
    network, x = make(positions), tokens()
    inside = [f"blocks.1.attn@attn.{part}" for part in ("query", "key", "value", "scores", "pattern")]
    outer = [f"blocks.1.attn.{part}" for part in ("query", "key", "value", "out")]
    with Tap(network, read=[*inside, *outer]) as tap:
        reading = tap(Batch(x, torch.arange(5)))
    query, key, value, scores, pattern = (reading[site] for site in inside)

    def heads(y: Tensor) -> Tensor:
        return y.view(5, 12, 3, 8).transpose(1, 2)

    here = torch.arange(12)
    plain = [heads(reading[site]) for site in outer[:3]]
    if positions == "rotary":
        expected = [Rotary(40, 8)(plain[0], here), Rotary(40, 8)(plain[1], here), plain[2]]
        bias = torch.zeros(12, 12)
    else:
        expected = plain
        bias = torch.tensor(alibi_slopes(3))[:, None, None] * (here - here[:, None])
    for got, wanted in zip((query, key, value), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    by_hand = (expected[0] @ expected[1].transpose(-1, -2) / 8**0.5 + bias).masked_fill(
        here > here[:, None], -torch.inf
    )
    torch.testing.assert_close(scores, by_hand, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pattern, by_hand.softmax(-1), rtol=1e-5, atol=1e-6)
    mixed = (by_hand.softmax(-1) @ expected[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(network.blocks[1].attn.out(mixed), reading[outer[3]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reading.output, network(x), rtol=1e-5, atol=1e-5)


def test_places_of_the_abacus_are_counted_within_each_number() -> None:
    abacus = Abacus(12, 40, 4, range(10), offsets=100).eval()
    sentence = torch.tensor([[1, 2, 3, 10, 4, 5, 11, 6], [10, 11, 0, 0, 0, 0, 0, 0]])
    assert abacus.places(sentence).tolist() == [[1, 2, 3, 0, 1, 2, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert torch.equal(abacus(sentence), abacus.table.weight[abacus.places(sentence)])


def test_the_abacus_moves_all_numbers_together_while_training() -> None:
    abacus = Abacus(12, 40, 4, range(10), offsets=5).train()
    with torch.no_grad():
        abacus.table.weight[:] = torch.arange(45.0)[:, None]
    sentence = torch.tensor([[1, 2, 3, 10, 4, 5, 11, 6]] * 3)
    seen = set()
    for _ in range(200):
        index = abacus(sentence)[..., 0]
        first = int(index[0, 0])
        assert (index == torch.tensor([first, first + 1, first + 2, 0, first, first + 1, 0, first])).all()
        seen.add(first)
    assert seen == {1, 2, 3, 4, 5}


def test_digits_at_equal_places_have_equal_embeddings_whatever_stands_between() -> None:
    network = make("abacus", digits=range(7), causal=True)
    a, b = torch.tensor([[1, 2, 7, 3, 4]]), torch.tensor([[5, 5, 5, 7, 3, 4]])
    first, second = network.positions(a), network.positions(b)  # type: ignore[misc]
    assert torch.equal(first[:, 3:], second[:, 4:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"positions": "abacus"}, r"need the token ids of the digits, below 9, got \[\]"),
        ({"positions": "abacus", "digits": (3, 9)}, r"below 9, got \[3, 9\]"),
        ({"positions": "abacus", "digits": (3,), "offsets": 0}, "offsets must be at least 1, got 0"),
        ({"positions": "rotary", "width": 9, "heads": 3}, "rotary positions need an even width of a head, got 3"),
        ({"positions": "absolute"}, "unknown kind of positions 'absolute'; choose from learned"),
    ],
)
def test_positions_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**given)


@pytest.mark.parametrize("positions", ["rotary", "alibi", "sinusoidal", "none"])
def test_positions_without_parameters_store_none(positions: str) -> None:
    stored = {
        name for name in make(positions).state_dict() if "positions" in name or "rotary" in name or "alibi" in name
    }
    assert stored == set()
