"""Replacing activations by a copy of themselves changes nothing, at any site of any network."""

from __future__ import annotations

import pytest
import torch
from networks_zoo import ZOO, build, module_sites, plain, tensors
from torch import nn

from heldout.activations.edits import Edit
from heldout.activations.sites import ATTENTION_PARTS
from heldout.activations.tap import Tap


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_at_any_module_changes_no_bit(name: str) -> None:
    case = build(name)
    expected = plain(case)
    sites = module_sites(case)
    assert len(sites) >= 4
    for site in set(sites) - set(case.in_place):
        with Tap(case.network, read=[site], edit=Edit.identity([site]).functions) as tap:
            reading = tap(case.batch)
        got = tensors(reading.output)
        assert len(got) == len(expected)
        # Of three equal inputs one is now a copy, and PyTorch's own attention then multiplies in another order.
        split = site.endswith("attn:input") and isinstance(case.network.get_submodule(site[:-6]), nn.MultiheadAttention)
        tolerance = 1e-6 if split else 0.0
        assert all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(got, expected, strict=True)), site
        assert reading[site].numel() > 0


@pytest.mark.parametrize("name", [n for n in ZOO if build(n).attention])
@pytest.mark.parametrize("part", ATTENTION_PARTS)
def test_a_copy_inside_attention_changes_at_most_rounding(name: str, part: str) -> None:
    case = build(name)
    expected = plain(case)
    tolerance = case.attention_tolerance if part in ("query", "key", "value") else 1e-6
    for owner in case.attention:
        site = f"{owner}@attn.{part}"
        with Tap(case.network, edit=Edit.identity([site]).functions) as tap:
            got = tensors(tap(case.batch).output)
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=tolerance), f"{site}: {(a - b).abs().max()}"


@pytest.mark.parametrize("name", [n for n in ZOO if build(n).attention and "eager" not in n])
def test_reading_operands_changes_no_bit(name: str) -> None:
    case = build(name)
    expected = plain(case)
    sites = [f"{owner}@attn.{part}" for owner in case.attention for part in ("query", "key", "value")]
    with Tap(case.network, read=sites) as tap:
        got = tensors(tap(case.batch).output)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", [n for n in ZOO if build(n).attention])
def test_a_changed_value_changes_the_output(name: str) -> None:
    """The other side of the identity: the edit does reach the network."""
    case = build(name)
    expected = plain(case)
    for part in ATTENTION_PARTS:
        with Tap(case.network, edit={f"{case.attention[-1]}@attn.{part}": lambda rows, mask: rows * 0.5}) as tap:
            got = tensors(tap(case.batch).output)
        assert any(not torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(got, expected, strict=True)), part


def test_the_fast_path_of_pytorch_agrees_to_rounding() -> None:
    case = build("encoder layer")
    with torch.no_grad():
        fast = case.network(case.batch.inputs)
    assert torch.allclose(plain(case)[0], fast, atol=1e-6)
