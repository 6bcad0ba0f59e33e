"""The list of sites: every one of them can be read, with the shape that it is listed with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import heldout
from heldout.activations.tap import Tap
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch


def batch_of(x: object) -> Batch:
    return Batch(inputs=x, index=torch.arange(2))


CASES = {
    "transformer": (lambda: Transformer(11, width=8, heads=2, max_length=9), torch.arange(10).reshape(2, 5)),
    "lstm": (lambda: nn.Sequential(nn.LSTM(3, 4, batch_first=True)), torch.randn(2, 5, 3)),
    "encoder": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        torch.randn(2, 5, 8),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_listed_site_can_be_read(case):
    make, x = CASES[case]
    with torch.random.fork_rng():
        network = make()
    listed = [s for s in heldout.sites(network, batch_of(x)) if not s.unavailable]
    assert listed
    for entry in listed:
        name = entry.site if entry.calls == 1 else f"{entry.site}#0"
        with Tap(network, read=[name]) as tap:
            assert tuple(tap(batch_of(x))[name].shape) == entry.shape


def test_nested_outputs_and_attention_are_listed():
    make, x = CASES["lstm"]
    names = {s.site for s in heldout.sites(make(), batch_of(x))}
    assert {"0[0]", "0[1][0]", "0[1][1]"} <= names
    make, x = CASES["transformer"]
    names = {s.site for s in heldout.sites(make(), x)}
    assert {f"blocks.1.attn@attn.{p}" for p in ("query", "key", "value", "scores", "pattern")} <= names


def test_a_module_that_runs_twice_says_so():
    relu = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu)
    calls = {s.site: s.calls for s in heldout.sites(network, torch.randn(2, 3))}
    assert calls["1"] == 2 or calls["3"] == 2


def test_training_flags_are_put_back():
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()
    heldout.sites(network, torch.randn(2, 3))
    assert all(m.training for m in network.modules())
