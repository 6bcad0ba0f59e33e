"""Scores of patterns made by hand, and of a network whose attention copies by construction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.analyses.heads import (
    HeadScore,
    head_scores,
    induction_and_random,
    induction_score,
    previous_token_score,
    repeated_strings,
)
from heldout.errors import ConfigError

LENGTH, BOS = 8, 40
POSITIONS = 1 + 2 * LENGTH


def looks_back(distance: int) -> Tensor:
    """(T, T): each position looks `distance` back, the first ones at position 0."""
    return F.one_hot((torch.arange(POSITIONS) - distance).clamp(min=0), POSITIONS).float()


def test_a_previous_token_pattern_scores_one_and_no_induction() -> None:
    assert previous_token_score(looks_back(1)) == 1
    assert induction_score(looks_back(1), LENGTH) == 0


def test_a_perfect_induction_pattern_scores_one() -> None:
    assert induction_score(looks_back(LENGTH - 1), LENGTH) == 1
    assert previous_token_score(looks_back(LENGTH - 1)) == pytest.approx(1 / (POSITIONS - 1))  # position 1 looks at 0


def test_looking_at_the_earlier_occurrence_itself_is_not_induction() -> None:
    assert induction_score(looks_back(LENGTH), LENGTH) == 0


def test_even_attention_scores_its_share() -> None:
    even = torch.ones(POSITIONS, POSITIONS).tril()
    even = even / even.sum(-1, keepdim=True)
    expected = sum(1 / (t + 1) for t in range(LENGTH + 1, 2 * LENGTH)) / (LENGTH - 1)
    assert float(induction_score(even, LENGTH)) == pytest.approx(expected, rel=1e-6)


def test_scores_keep_leading_dimensions() -> None:
    pattern = looks_back(1).expand(3, 2, -1, -1)
    assert previous_token_score(pattern).shape == (3, 2)
    assert induction_score(pattern, LENGTH).shape == (3, 2)


def test_strings_stand_twice_without_a_repeat() -> None:
    strings = repeated_strings(range(30), length=LENGTH, bos=BOS, count=5, seed=0)
    assert strings.shape == (5, POSITIONS)
    assert (strings[:, 0] == BOS).all()
    assert (strings[:, 1 : 1 + LENGTH] == strings[:, 1 + LENGTH :]).all()
    assert all(len(set(row[1 : 1 + LENGTH].tolist())) == LENGTH for row in strings)
    assert torch.equal(strings, repeated_strings(range(30), length=LENGTH, bos=BOS, count=5, seed=0))


class Copier(nn.Module):
    """Two heads on (token, previous token): one looks for keys whose *previous* token is the current one, one at its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Identity()
        self.attend = Attend()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attend(tokens)


class Attend(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        now = F.one_hot(tokens, 64).float()
        before = torch.cat([torch.zeros_like(now[:, :1]), now[:, :-1]], 1)
        query = torch.stack([now, now], 1) * 400
        key = torch.stack([before, now], 1)
        return F.scaled_dot_product_attention(query, key, key, is_causal=True).flatten(2)


def test_a_network_that_copies_by_construction_is_an_induction_head() -> None:
    copier, itself = head_scores(Copier(), ["attend"], range(30), bos=BOS, length=LENGTH, count=4)
    assert copier.induction == pytest.approx(1, abs=1e-6)
    assert itself.induction == pytest.approx(0, abs=1e-6)
    assert (copier.module, copier.head, itself.head) == ("attend", 0, 1)


def made(*values: float) -> list[HeadScore]:
    return [HeadScore("m", i, 0.0, v) for i, v in enumerate(values)]


def test_the_highest_heads_and_random_sets_of_the_others() -> None:
    scores = made(0.1, 0.9, 0.2, 0.8, 0.3, 0.0)
    top, sets = induction_and_random(scores, count=2, draws=50, seed=0)
    assert [h.head for h in top] == [1, 3]
    assert all(len(s) == 2 and s[0].head != s[1].head for s in sets)
    assert {h.head for s in sets for h in s} == {0, 2, 4, 5}
    assert sets == induction_and_random(scores, count=2, draws=50, seed=0)[1]


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose 1 to 1"):
        induction_and_random(made(0.1, 0.2), count=2, draws=1, seed=0)
    with pytest.raises(ConfigError, match="over 17 positions"):
        induction_score(torch.eye(5), LENGTH)
    with pytest.raises(ConfigError, match="cannot be drawn from 3"):
        repeated_strings(range(3), length=4, bos=9, count=1, seed=0)
    with pytest.raises(ConfigError, match="at least 2"):
        induction_score(torch.eye(3), 1)
    assert math.isfinite(float(induction_score(torch.eye(5), 2)))
