"""Attention in the open equals the kernels, and its parts are what the formula says."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from networks_zoo import batch, build, draw, padding, plain, tokens
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.activations.attention import Call, attend
from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.errors import SiteError
from heldout.networks.transformer import Transformer

EXPLICIT = Call(lambda part, tensor: tensor, True)
NOTHING_ALLOWED = torch.ones(5, 7, dtype=torch.bool).index_fill(0, torch.tensor([2]), False)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"is_causal": True},
        {"scale": 0.2},
        {"attn_mask": draw(5, 7) > 0},
        {"attn_mask": NOTHING_ALLOWED},
        {"attn_mask": draw(5, 7)},
        {"attn_mask": draw(2, 1, 5, 7, seed=3), "scale": 1.5},
        {"attn_mask": draw(2, 1, 1, 7, seed=3) > -0.5},
        {"attn_mask": torch.zeros(5, 7).masked_fill(draw(5, 7) > 0.5, -math.inf)},
        {"enable_gqa": True},
        {"enable_gqa": True, "is_causal": True, "scale": 0.3},
        {"enable_gqa": True, "attn_mask": draw(2, 4, 5, 7) > 0},
    ],
    ids=lambda given: "+".join(f"{k}" for k in given) or "plain",
)
def test_explicit_attention_equals_the_kernel(given: dict[str, Any]) -> None:
    heads = 2 if given.get("enable_gqa") else 4
    q, k, v = draw(2, 4, 5, 3).double(), draw(2, heads, 7, 3, seed=2).double(), draw(2, heads, 7, 6, seed=4).double()
    given = {n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in given.items()}
    expected = F.scaled_dot_product_attention(q, k, v, **given)
    assert torch.allclose(attend(EXPLICIT, q, k, v, **given), expected, atol=1e-12)
    assert torch.equal(attend(Call(EXPLICIT.visit, False), q, k, v, **given), expected)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("mask", [None, "bool", "float", "per head"])
def test_multi_head_attention_equals_pytorchs(weights: bool, average: bool, single: bool, mask: str | None) -> None:
    module = nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True).double().eval()
    items = 1 if single else 3
    q, k, v = draw(items, 4, 8).double(), draw(items, 6, 5).double(), draw(items, 6, 6).double()
    pad = torch.arange(6) >= torch.tensor([6, 4, 3])[:items, None]
    masks = {
        None: None,
        "bool": torch.ones(4, 6, dtype=torch.bool).triu(2),
        "float": draw(4, 6).double(),
        "per head": draw(items * 2, 4, 6).double(),
    }
    call = {"need_weights": weights, "average_attn_weights": average, "attn_mask": masks[mask]}
    call["key_padding_mask"] = pad if masks[mask] is None or masks[mask].dtype == torch.bool else pad.double() * -9
    if single:
        q, k, v, call["key_padding_mask"] = q[0], k[0], v[0], call["key_padding_mask"][0]
    expected, pattern = module(q, k, v, **call)
    edit = Edit.identity([f"attn@attn.{p}" for p in ("query", "key", "value")]).functions
    network = nn.ModuleDict({"attn": module})
    network.forward = lambda *args, **kwargs: module(*args, **kwargs)  # type: ignore[method-assign]
    with Tap(network, edit=edit, read=["attn@attn.scores"]) as tap:
        got, got_pattern = tap(batch({"query": q, "key": k, "value": v, **call}, n=items)).output
    assert torch.allclose(got, expected, atol=1e-12)
    assert (got_pattern is None) == (pattern is None) == (not weights)
    if weights:
        assert got_pattern.shape == pattern.shape
        assert torch.allclose(got_pattern, pattern, atol=1e-12)


def test_multi_head_attention_that_is_not_covered_says_so() -> None:
    for given in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        module = nn.MultiheadAttention(8, 2, batch_first=True, **given)
        with pytest.raises(SiteError, match="add_bias_kv, add_zero_attn"), Tap(module, read=[".@attn.query"]) as tap:
            tap(batch((draw(3, 4, 8),) * 3))


def test_operands_are_the_projections() -> None:
    network = Transformer(9, width=8, layers=2, heads=2, max_length=12).eval()
    data = batch(tokens(3, 6))
    owner = "blocks.1.attn"
    parts = ("query", "key", "value")
    with Tap(network, read=["blocks.1.norm1", *(f"{owner}@attn.{p}" for p in (*parts, "scores", "pattern"))]) as tap:
        reading = tap(data)
    x, weights = reading["blocks.1.norm1"], network.state_dict()
    by_hand = {}
    for part in parts:
        flat = x @ weights[f"{owner}.{part}.weight"].T + weights[f"{owner}.{part}.bias"]
        by_hand[part] = torch.stack(flat.chunk(2, dim=-1), dim=1)
        assert torch.allclose(reading[f"{owner}@attn.{part}"], by_hand[part], atol=1e-6)
    scores = by_hand["query"] @ by_hand["key"].mT / 2 + torch.full((6, 6), -math.inf).triu(1)
    assert torch.allclose(reading[f"{owner}@attn.scores"], scores, atol=1e-5)
    assert torch.allclose(reading[f"{owner}@attn.pattern"], scores.softmax(-1), atol=1e-6)
    with Tap(network, read=[f"{owner}@attn.key[1]", f"{owner}@attn.pattern[-1]"]) as tap:
        reading = tap(data)
    assert torch.allclose(reading[f"{owner}@attn.key[1]"], by_hand["key"][:, 1], atol=1e-6)
    assert torch.allclose(reading[f"{owner}@attn.pattern[-1]"], scores.softmax(-1)[:, 1], atol=1e-6)


def test_operands_of_gpt2() -> None:
    case = build("gpt2 sdpa")
    owner = "transformer.h.1.attn"
    with Tap(
        case.network, read=["transformer.h.1.ln_1", *(f"{owner}@attn.{p}" for p in ("query", "key", "value"))]
    ) as tap:
        reading = tap(case.batch)
    conv = case.network.get_submodule(f"{owner}.c_attn")
    flat = reading["transformer.h.1.ln_1"] @ conv.weight.detach() + conv.bias.detach()
    for part, by_hand in zip(("query", "key", "value"), flat.chunk(3, dim=-1), strict=True):
        expected = by_hand.unflatten(-1, (2, 4)).transpose(1, 2)
        assert torch.allclose(reading[f"{owner}@attn.{part}"], expected, atol=1e-5)


def test_queries_of_llama_are_read_after_the_rotation() -> None:
    from_llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="transformers is not installed")
    case = build("llama sdpa")
    attn = case.network.model.layers[0].self_attn
    with Tap(case.network, read=["model.layers.0.input_layernorm", "model.layers.0.self_attn@attn.query"]) as tap:
        reading = tap(case.batch)
    x = reading["model.layers.0.input_layernorm"]
    with torch.no_grad():
        q = attn.q_proj(x).unflatten(-1, (4, 2)).transpose(1, 2)
        rotation = case.network.model.rotary_emb(x, torch.arange(6)[None])
        rotated, _ = from_llama.apply_rotary_pos_emb(q, q, *rotation)
    assert torch.allclose(reading["model.layers.0.self_attn@attn.query"], rotated, atol=1e-5)
    assert not torch.allclose(q, rotated, atol=1e-2)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_linear_edit_equals_other_weights(part: str) -> None:
    """Multiplying keys by M (and nothing else) is the network whose key weights are M W, head by head."""
    network = Transformer(9, width=8, layers=2, heads=2, max_length=12).eval()
    data, m = batch(tokens(3, 6), mask=None), draw(4, 4, seed=7)
    site = f"blocks.1.attn@attn.{part}"
    with Tap(network, edit={site: lambda rows, mask: rows @ m.T}) as tap:
        both = tap(data).output
    with Tap(network, edit={f"{site}[1]": lambda rows, mask: rows @ m.T}) as tap:
        second = tap(data).output
    other = deepcopy(network)
    linear = other.get_submodule(f"blocks.1.attn.{part}")
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    for heads, edited in (((0, 1), both), ((1,), second)):
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
            for h in heads:
                linear.weight[4 * h : 4 * h + 4] = m @ weight[4 * h : 4 * h + 4]
                linear.bias[4 * h : 4 * h + 4] = m @ bias[4 * h : 4 * h + 4]
            assert torch.allclose(edited, other(data.inputs), atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "gpt2 sdpa", "mha", "mha padding"])
def test_one_head_is_edited_and_no_other(name: str) -> None:
    case = build(name)
    owner = case.attention[-1]
    for part in ("query", "key", "value", "pattern"):
        site = f"{owner}@attn.{part}"
        with Tap(case.network, read=[site]) as tap:
            before = tap(case.batch)[site]
        with Tap(case.network, read=[site], edit={f"{site}[1]": lambda rows, mask: rows + 1}) as tap:
            after = tap(case.batch)[site]
        data = (
            torch.ones(before.shape[0], before.shape[2], 1) if case.batch.mask is None else case.batch.mask[..., None]
        )
        assert torch.allclose(after[:, 1], before[:, 1] + data, atol=1e-5)
        assert torch.allclose(after[:, 0], before[:, 0], atol=1e-6)


def test_a_pattern_put_in_by_hand_is_the_pattern_used() -> None:
    """With uniform attention every position reads the mean value."""
    network = Transformer(9, width=8, layers=1, heads=2, max_length=12, causal=False).eval()
    data = batch(tokens(3, 6))
    owner = "blocks.0.attn"
    with Tap(
        network,
        read=[f"{owner}@attn.value", f"{owner}.out:input"],
        edit={f"{owner}@attn.pattern": lambda rows, mask: torch.full_like(rows, 1 / 6)},
    ) as tap:
        reading = tap(data)
    mean = reading[f"{owner}@attn.value"].mean(2, keepdim=True).expand(3, 2, 6, 4)
    assert torch.allclose(reading[f"{owner}.out:input"], mean.transpose(1, 2).flatten(2), atol=1e-6)


def test_forbidden_positions_read_minus_infinity_and_stay_forbidden() -> None:
    case = build("transformer")
    site = "blocks.0.attn@attn.scores"
    with Tap(case.network, read=[site, "blocks.0.attn@attn.pattern"], edit={site: lambda rows, mask: rows * 2}) as tap:
        reading = tap(case.batch)
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    assert bool((reading[site][:, :, later] == -math.inf).all())
    assert bool((reading["blocks.0.attn@attn.pattern"][:, :, later] == 0).all())


def test_calls_in_one_module_are_counted() -> None:
    class TwoCalls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x) + 10 * F.scaled_dot_product_attention(-x, x, x)

    network, data = TwoCalls().eval(), batch(draw(3, 2, 5, 4))
    x = data.inputs
    with Tap(network, read=[".#0@attn.query", ".#1@attn.query"]) as tap:
        reading = tap(data)
    assert torch.equal(reading[".#0@attn.query"], x)
    assert torch.equal(reading[".#1@attn.query"], -x)
    with Tap(network, edit={".#1@attn.value": lambda rows, mask: rows * 0}) as tap:
        assert torch.allclose(tap(data).output, F.scaled_dot_product_attention(x, x, x), atol=1e-6)
    with pytest.raises(SiteError, match="runs more than once"), Tap(network, read=[".@attn.query"]) as tap:
        tap(data)


def test_padding_masks_of_the_kernel_are_kept() -> None:
    """Keys that a mask hides have no weight in the pattern that is read."""
    for name in ("mha padding", "encoder", "bert sdpa", "bert eager", "gpt2 eager"):
        case = build(name)
        with Tap(case.network, read=[f"{o}@attn.pattern" for o in case.attention]) as tap:
            reading = tap(case.batch)
        for values in reading.values.values():
            pattern = values[0]
            hidden = ~padding()[:, None, None, :].expand(pattern.shape)
            assert float(pattern[hidden].abs().max()) == 0.0
            rows = pattern.sum(-1)[padding()[:, None].expand(pattern.shape[:3])]
            assert torch.allclose(rows, torch.ones_like(rows))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain(case), plain(case), strict=True))


def test_an_error_that_the_network_survives_does_not_mix_up_owners() -> None:
    class Survives(nn.Module):
        class Fails(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise ValueError(F.scaled_dot_product_attention(x, x, x).shape)

        def __init__(self) -> None:
            super().__init__()
            self.attn = Survives.Fails()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.attn(x)
            except ValueError:
                return F.scaled_dot_product_attention(2 * x, x, x)  # not a call of attn's

    data = batch(draw(3, 2, 5, 4))
    with Tap(Survives().eval(), read=["attn@attn.query"]) as tap:
        assert torch.equal(tap(data)["attn@attn.query"], data.inputs)


def test_a_key_head_of_grouped_queries_is_the_same_one_with_and_without_padding():
    """Hugging Face repeats keys only where there is a mask; an edit of one head must not notice."""
    case = build("llama sdpa")
    owner, inputs = case.attention[0], case.batch.inputs
    whole = batch({"input_ids": inputs["input_ids"][:, :3]})
    padded = batch({"input_ids": inputs["input_ids"], "attention_mask": (torch.arange(6) < 3).long().expand(3, 6)})
    found = []
    for given in (whole, padded):
        with Tap(case.network, read=[f"{owner}@attn.key", f"{owner}@attn.value[1]"]) as tap:
            reading = tap(given)
        keys = reading[f"{owner}@attn.key"]
        assert keys.shape[1] == 2
        with Tap(case.network, edit={f"{owner}@attn.key[1]": lambda rows, mask: 0.5 * rows}) as tap:
            edited = tap(given).output["logits"][:, :3]
        found.append([keys[:, :, :3], reading[f"{owner}@attn.value[1]"][:, :3], edited])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
