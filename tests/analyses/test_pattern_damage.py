"""Noise on an attention pattern: still a pattern, as long as asked for where nothing is clipped, and no later position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.analyses.damage import noise
from heldout.evidence import Origin

SITE = "blocks.1.attn@attn.pattern[0]"


def causal(n: int = 40) -> Tensor:
    scores = torch.randn(2, n, n, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(n, n).triu(1) > 0, -torch.inf).softmax(-1)


def edit(error: Tensor) -> Edit:
    return Edit({SITE: lambda rows, mask: rows + error}, Origin("onehot", "blocks.1.attn"))


def test_what_comes_out_is_a_pattern() -> None:
    rows = causal()
    for scale in (0.1, 1.0, 50.0):
        moved = noise(edit(torch.ones(40)), scale=scale, seed=0, draw=0).functions[SITE](rows, None)
        assert moved.min() >= 0
        torch.testing.assert_close(moved.sum(-1), torch.ones(2, 40))
        assert (moved[rows == 0] == 0).all()
        assert not torch.allclose(moved[:, 20:], rows[:, 20:], atol=1e-3)
    assert (moved[:, 0, 0] == 1).all()  # the first query has one place to look at


def test_no_scale_or_no_error_changes_nothing() -> None:
    rows = causal()
    for given in (
        noise(edit(torch.ones(40)), scale=0.0, seed=0, draw=0),
        noise(edit(torch.zeros(40)), scale=3.0, seed=0, draw=0),
    ):
        torch.testing.assert_close(given.functions[SITE](rows, None), rows)


def test_length_before_rescaling_is_that_of_the_error() -> None:
    rows = torch.full((1, 500, 64), 1 / 64)  # far from zero, so that nothing is clipped
    error = torch.zeros(64)
    error[0] = 1e-3
    moved = noise(edit(error), scale=2.0, seed=1, draw=0).functions[SITE](rows, None)
    # Rescaling takes away the part along the rows' sum: one direction of 64.
    assert float((moved - rows).norm(dim=-1).square().mean().sqrt()) == pytest.approx(2e-3 * (63 / 64) ** 0.5, rel=0.02)


def test_draws_differ_and_repeat() -> None:
    rows, made = causal(), edit(torch.ones(40))
    a, b, c = (noise(made, scale=1.0, seed=0, draw=d).functions[SITE](rows, None) for d in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
