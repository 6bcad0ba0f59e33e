"""The matched-damage null: the right length, the right agreement, and a reason where there is no match."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import small
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.analyses.damage import MISMATCH, matched_damage, noise
from heldout.analyses.faithfulness import faithfulness
from heldout.analyses.tables import Memory
from heldout.evidence import Origin

NETWORK = small.Linear2().eval()
SUBJECT = small.subject(NETWORK)
REFERENCE = small.split("id", 400)
MATRIX = small.projector(5, 3)
EDIT = Edit({"first": lambda x, mask: x @ MATRIX}, Origin("svd", "first", "fit", 3))


def agreements(edits: tuple[Edit, ...]) -> list[float]:
    return [a["id"] for a in faithfulness(SUBJECT, [REFERENCE], edits, Memory()).agreement]


def test_noise_is_scale_times_the_edits_error_row_by_row() -> None:
    x = torch.randn(50, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    error = (EDIT.functions["first"](x, None) - x).norm(dim=-1)
    moved = noise(EDIT, scale=0.7, seed=0, draw=0).functions["first"](x, None) - x
    torch.testing.assert_close(moved.norm(dim=-1), 0.7 * error, rtol=1e-12, atol=0)


def test_directions_are_uniform() -> None:
    """The mean direction of n is of length 1/sqrt(n), its second moment 1/D in every direction."""
    one = Edit({"first": lambda x, mask: x + torch.eye(5)[0]}, EDIT.origin)
    moved = noise(one, scale=1.0, seed=0, draw=0).functions["first"](torch.zeros(40_000, 5), None)
    assert moved.mean(0).norm() < 4 / 200
    torch.testing.assert_close(moved.T @ moved / 40_000, torch.eye(5) / 5, atol=0.01, rtol=0)


def test_where_the_edit_changes_nothing_neither_does_the_noise() -> None:
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    same = noise(Edit.identity(["first"]), scale=5.0, seed=0, draw=0).functions["first"](x, None)
    torch.testing.assert_close(same, x, rtol=0, atol=0)


def test_agreement_on_the_reference_is_the_proxys() -> None:
    matched = matched_damage(SUBJECT, REFERENCE, EDIT, seed=0, draws=20)
    (target,) = agreements((EDIT,))
    assert matched.target == target
    assert 0.3 < target < 0.98
    assert abs(matched.agreement - target) <= MISMATCH
    assert matched.reason == ""
    assert np.mean(agreements(matched.edits)) == pytest.approx(target, abs=0.02)  # fresh draws, not those calibrated on
    assert len(matched.edits) == 20
    assert {e.origin.label for e in matched.edits} == {"svd+null-3"}
    assert len({str(e.origin) for e in matched.edits}) == 1
    assert (matched.edits[0].origin.site, matched.edits[0].origin.fit_split) == ("first", "fit")


def test_draws_differ_and_a_seed_gives_the_same_ones() -> None:
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def drawn(seed: int) -> list[Tensor]:
        edits = matched_damage(SUBJECT, REFERENCE, EDIT, seed=seed, draws=3).edits
        return [e.functions["first"](x, None) for e in edits]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(first))
    assert not torch.equal(first[0], other[0])


def test_noise_that_cannot_match_is_reported_with_the_reason() -> None:
    """An edit that flips every prediction: no noise gets every prediction wrong."""
    with torch.no_grad():
        worst = Edit({"first": lambda x, mask: -x}, Origin("flip", "first"))
    matched = matched_damage(SUBJECT, REFERENCE, worst, seed=0, draws=2)
    assert matched.target < 0.05
    assert matched.agreement - matched.target > MISMATCH
    assert matched.reason.startswith("no noise matches: agreement")
    assert f"against {matched.target:.3f}" in matched.reason


def test_an_edit_that_loses_nothing_is_matched() -> None:
    matched = matched_damage(SUBJECT, REFERENCE, Edit.identity(["first"]), seed=0, draws=1)
    assert (matched.target, matched.agreement, matched.reason) == (1.0, 1.0, "")


class Aside(nn.Module):
    """Hands something on beside its output: a pass that leaves it out is another pass."""

    def __init__(self, box: list[Tensor]) -> None:
        super().__init__()
        self.box = box

    def forward(self, x: Tensor) -> Tensor:
        self.box.append(x[:, :3])
        return x


class Whispering(small.Linear2):
    def __init__(self) -> None:
        super().__init__()
        self.box: list[Tensor] = []
        self.aside = Aside(self.box)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(self.aside(x))
        return logits + (self.box.pop() if self.box else 0.0)


def test_where_passes_cannot_be_replayed_full_ones_are_made() -> None:
    matched = matched_damage(small.subject(Whispering()), REFERENCE, EDIT, seed=0, draws=1)
    outcome = faithfulness(small.subject(Whispering()), [REFERENCE], [EDIT], Memory())
    assert outcome.check.replay.startswith("not used: a replayed pass differs")
    assert matched.target == outcome.agreement[0]["id"]
