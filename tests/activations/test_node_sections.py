"""Node layers and sections: the rows they give, the positions that count, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.activations.capture import capture
from heldout.activations.jacobians import jacobian_grams
from heldout.activations.layers import NodeLayer
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections, chain
from heldout.activations.streams import residual_stream
from heldout.activations.tap import Tap
from heldout.errors import ConfigError, NonFiniteError, SiteError
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch, Rectangular, Split


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def fit(inputs: Any, **given: Any) -> Split:
    return Split("fit", "fit", Rectangular(inputs, **given))


def transformer(**given: Any) -> nn.Module:
    return seeded(lambda: Transformer(9, width=8, layers=2, heads=2, max_length=8, **given))


TOKENS = torch.randint(0, 9, (5, 7), generator=torch.Generator().manual_seed(1))
PADDING = torch.arange(7) < torch.tensor([7, 5, 3, 7, 4])[:, None]


# --- what a crossing holds --------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_float64_network_and_the_network_stays_as_it_is() -> None:
    network = transformer()
    before = {k: (v.clone(), v.dtype) for k, v in network.state_dict().items()}
    layers = ["blocks.0:input", "blocks.0", "blocks.1", "."]
    split = fit(TOKENS, mask=PADDING)
    sections = Sections(network, layers)
    crossing = sections.cross(sections.prepared(split.items.take(range(5))), 0, 3)
    double = transformer().double()
    with Tap(double, read=layers) as tap:
        reading = tap(Batch(TOKENS, torch.arange(5), mask=PADDING))
    for site, rows in zip(layers, crossing.rows, strict=True):
        assert rows.dtype == torch.float64
        torch.testing.assert_close(rows.detach(), reading[site], rtol=0, atol=1e-14)
    assert all(torch.equal(c, PADDING) for c in crossing.counted)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.dtype == before[name][1]
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_decoder_layers_from_stream_to_stream_with_their_own_arguments(kind: str) -> None:
    """The Jacobian of a decoder layer equals that of the model's tail, differentiated by hand from its input on."""
    transformers = pytest.importorskip("transformers")
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        network = seeded(lambda: transformers.GPT2LMHeadModel(config))
        layers = ["transformer.h.1:input", "transformer.h.1", "lm_head"]
    else:
        config = transformers.LlamaConfig(
            vocab_size=9, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=8,
        )  # fmt: skip
        network = seeded(lambda: transformers.LlamaForCausalLM(config))
        layers = ["model.layers.1:input", "model.layers.1", "lm_head"]
    mask = torch.arange(4) < torch.tensor([4, 3])[:, None]
    inputs = {"input_ids": TOKENS[:2, :4], "attention_mask": mask.long()}
    sections = Sections(network, layers)
    (gram, _) = jacobian_grams(sections, fit(inputs, mask=mask), 0, 2, probes=Probes("exact"))

    double = sections.network
    with Tap(double, read=[layers[0]]) as tap:
        start = tap(Batch(inputs, torch.arange(2), mask=mask))[layers[0]]

    def tail(x: Tensor) -> Tensor:
        with Tap(double, read=["lm_head"], edit={layers[0]: lambda rows, mask: x.clone()}, grad=True) as tap:
            return tap(Batch(inputs, torch.arange(2), mask=mask))["lm_head"]

    whole = torch.autograd.functional.jacobian(tail, start)  # (B, T, V, B, T, D)
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for item in range(2):
        own = whole[item][mask[item]][:, :, item][:, :, mask[item]]
        expected += torch.einsum("tvsd,tvse->de", own, own)
    torch.testing.assert_close(
        gram.matrix(), expected / mask.sum(), rtol=1e-6 if kind == "llama" else 1e-10, atol=1e-12
    )


def test_a_chain_of_modules_and_functions() -> None:
    linear = seeded(lambda: nn.Linear(4, 3))
    sections = Sections(chain(linear, torch.tanh, lambda x: x[:, :2] ** 2), [".:input", "0", "1", "2"])
    batch = sections.prepared(Batch(draw(6, 4), torch.arange(6)))
    rows = sections.cross(batch, 0, 3).rows
    torch.testing.assert_close(rows[3][:, 0], torch.tanh(rows[1])[:, 0, :2] ** 2, rtol=0, atol=0)
    assert [r.shape for r in rows] == [(6, 1, 4), (6, 1, 3), (6, 1, 3), (6, 1, 2)]


def test_a_network_that_changes_rows_in_place_is_differentiated_right() -> None:
    network = nn.Sequential(seeded(lambda: nn.Linear(3, 5)), nn.ReLU(inplace=True), seeded(lambda: nn.Linear(5, 2)))
    plain = nn.Sequential(network[0], nn.ReLU(), network[2])
    for layers in (["0", "2"], ["0", "1", "2"]):
        found = jacobian_grams(Sections(network, layers), fit(draw(9, 3)), 0, len(layers) - 1)
        expected = jacobian_grams(Sections(plain, layers), fit(draw(9, 3)), 0, len(layers) - 1)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.matrix(), b.matrix())


def test_convolutions_have_one_position_a_pixel() -> None:
    network = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2)))
    sections = Sections(network, ["0", "2"])
    crossing = sections.cross(sections.prepared(Batch(draw(5, 2, 6, 6), torch.arange(5))), 0, 1)
    assert [r.shape for r in crossing.rows] == [(5, 16, 3), (5, 9, 4)]


def test_moments_are_those_of_capture() -> None:
    network = seeded(lambda: MLP((4, 6, 3))).double()
    split = fit(draw(50, 4).double())
    gathered = Sections(network, [".:input", "hidden.0", "."]).moments(split, batch_size=16)
    captured = Moments()
    capture(network, split, {"hidden.0": [captured]}, batch_size=7)
    torch.testing.assert_close(gathered[1].scatter(), captured.scatter(), rtol=1e-12, atol=1e-12)
    assert [m.count for m in gathered] == [50, 50, 50]


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi", "abacus", "none"])
def test_a_residual_stream_is_its_transformer(norm: str, positions: str) -> None:
    network = transformer(norm=norm, positions=positions, digits=range(5) if positions == "abacus" else ())
    stream = residual_stream(network)
    with torch.no_grad():
        assert torch.equal(stream(TOKENS), network(TOKENS))
    assert [name for name, _ in stream.named_children()] == ["embed", "attn0", "mlp0", "attn1", "mlp1", "readout"]


def test_layers_that_do_not_hold_everything_are_told_from_those_that_do() -> None:
    network, batch = transformer(), Batch(TOKENS, torch.arange(5))
    assert Sections(network, ["blocks.0:input", "blocks.0", "blocks.1"]).bypass(batch, 1) == 0.0
    assert Sections(residual_stream(network), ["attn0", "mlp0"]).bypass(batch, 0) == 0.0
    assert Sections(network, ["blocks.1.norm2", "blocks.1"]).bypass(batch, 0) > 0.1  # the stream goes round the norm


# --- which positions count --------------------------------------------------------------------------------------------

SCORED = torch.tensor([[0, 1, 0, 1, 0, 0, 1]] * 5, dtype=torch.bool) & PADDING


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", [7, 5, 3, 7, 4]),
        ("last", [1, 1, 1, 1, 1]),
        ("1:", [6, 4, 2, 6, 3]),
        ("-2:", [2, 2, 2, 2, 2]),
        ("1:-3", [3, 1, 0, 3, 0]),
        (":2", [2, 2, 2, 2, 2]),
        ("scored", [3, 2, 1, 3, 2]),
    ],
)
def test_positions(positions: str, expected: list[int]) -> None:
    counted = NodeLayer.parse(("0", positions)).counted(PADDING, SCORED)
    assert counted.sum(dim=1).tolist() == expected
    assert not bool((counted & ~PADDING).any())
    if ":" in positions:  # as Python cuts a list
        cut = slice(*(int(x) if x else None for x in positions.split(":")))
        for item, length in enumerate(PADDING.sum(dim=1).tolist()):
            assert counted[item].nonzero()[:, 0].tolist() == list(range(length))[cut]


def test_positions_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="choose from 'all', 'scored', 'last' or a slice"):
        NodeLayer.parse(("0", "first"))
    with pytest.raises(SiteError, match="no position of a batch counts under '9:'"):
        NodeLayer("0", "9:").counted(PADDING, None)
    with pytest.raises(SiteError, match="the batch scores None"):
        NodeLayer("0", "scored").counted(PADDING, None)


# --- what is refused --------------------------------------------------------------------------------------------------


class Averaging(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).sqrt() * 0 + x.sign() * x.abs().sqrt()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([nn.Identity(), lambda x: x.detach() * 2], "no differentiable path"),
        ([nn.Identity(), lambda x: torch.zeros_like(x)], "no differentiable path"),
        ([nn.Identity(), lambda x: (x > 0).to(x)], "no differentiable path"),
        ([nn.Identity(), lambda x: x.mean(dim=0, keepdim=True)], r"shape \(1, 3\) for a batch of 8"),
        ([nn.Identity(), lambda x: x.argmax(dim=1, keepdim=True)], "of which there is no derivative"),
        ([nn.Identity(), Averaging()], "items of a batch influence each other"),
    ],
)
def test_sections_without_a_jacobian(steps: list[Any], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        jacobian_grams(Sections(chain(*steps), ["0", "1"]), fit(draw(8, 3)), 0, 1)


def test_a_layer_that_another_branch_goes_round_and_one_that_leads_nowhere() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.a(x)
            return self.b(x)

    with pytest.raises(SiteError, match="no differentiable path joins the two layers"):
        jacobian_grams(Sections(Branches(), ["a", "b"]), fit(draw(8, 3)), 0, 1)


def test_jacobians_that_are_not_finite() -> None:
    data = draw(8, 3)
    data[5, 1] = 0
    with pytest.raises(NonFiniteError, match=r"section 0 -> 1: derivatives are NaN or infinite on items \[4, 5\]"):
        jacobian_grams(Sections(chain(nn.Identity(), Cube()), ["0", "1"]), fit(data), 0, 1, batch_size=2)
    data[5, 1] = torch.inf
    with pytest.raises(NonFiniteError, match="activations at 0 are NaN or infinite"):
        jacobian_grams(Sections(chain(nn.Identity(), Cube()), ["0", "1"]), fit(data), 0, 1)


def test_layers_that_cannot_be_used() -> None:
    network = seeded(lambda: MLP((4, 6, 5, 3)))
    for layers, message in (
        (["hidden.0"], "two or more different node layers"),
        (["hidden.0", "hidden.0"], "two or more different node layers"),
    ):
        with pytest.raises(ConfigError, match=message):
            Sections(network, layers)
    with pytest.raises(SiteError, match=r"unknown module 'hidden\.7'"):
        Sections(network, ["hidden.0", "hidden.7"])
    with pytest.raises(ConfigError, match=r"no node layer 'hidden\.0'"):
        Sections(network, ["hidden.1", "."]).number("hidden.0")
    backwards = Sections(network, ["hidden.1", "hidden.0"])
    with pytest.raises(SiteError, match=r"hidden\.0 is reached before hidden\.1; give layers in the order"):
        jacobian_grams(backwards, fit(draw(8, 4)), 0, 1)
    with pytest.raises(SiteError, match="begin behind the embedding"):
        jacobian_grams(Sections(transformer(), [".:input", "blocks.0"]), fit(TOKENS), 0, 1)
