"""heldout.check on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import heldout
from heldout.errors import ConfigError, ProxyError, SplitError


class Decides(nn.Module):
    """Class 1 where the sum of two features is positive; `carry` is the site between input and decision."""

    def __init__(self) -> None:
        super().__init__()
        self.carry = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        total = self.carry(x).sum(dim=1)
        return torch.stack([torch.zeros_like(total), 4 * total], dim=1)


def draw(n: int, *, second: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features whose second coordinate has the given spread; the label is the network's own answer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator) * torch.tensor([1.0, second])
    return x, (x.sum(dim=1) > 0).long()


def splits(second: float) -> list[heldout.Split]:
    """The second feature hardly varies where the proxy is fitted, and varies as `second` says on ``moved``."""
    return [
        heldout.split("fit", "fit", *draw(300, second=0.05, seed=0)),
        heldout.split("id", "test", *draw(300, second=0.05, seed=1)),
        heldout.split("moved", "test", *draw(300, second=second, seed=2)),
    ]


def test_a_direction_that_did_not_vary_is_missed_out_of_distribution():
    result = heldout.check(Decides(), {"carry": heldout.SVD(rank=1)}, splits(3.0))
    assert result.reference == "id"
    assert result["same_prediction", "id"].value > 0.95
    gap, excess = result["gap", "moved"], result["excess_gap", "moved"]
    assert gap.low > 0.2
    assert excess.low > 0  # noise as long as the error is missed too, but less often
    assert result["accuracy_network", "moved"].value == 1.0
    assert result["accuracy_edited", "moved"].value == result["same_prediction", "moved"].value


def test_no_gap_where_nothing_moved():
    result = heldout.check(Decides(), {"carry": heldout.SVD(rank=1)}, splits(0.05))
    assert abs(result["gap", "moved"].value) < 0.05
    assert result["gap", "moved"].low < 0 < result["gap", "moved"].high


def test_full_rank_changes_nothing():
    result = heldout.check(Decides(), {"carry": heldout.SVD(rank=2)}, splits(3.0), null_draws=2)
    assert result["same_prediction", "moved"].value == 1.0
    assert result["kl", "moved"].value < 1e-6
    assert result.identity.difference == 0.0


def test_worst_comes_in_order_and_decoded():
    result = heldout.check(Decides(), {"carry": heldout.SVD(rank=1)}, splits(3.0), null_draws=2)
    worst = result.worst("moved", 12, decode=lambda label: ["no", "yes"][label])
    assert [w.network != w.edited for w in worst] == [True] * 12
    assert [w.kl for w in worst] == sorted((w.kl for w in worst), reverse=True)
    assert {w.network for w in worst} <= {"no", "yes"}
    x, _ = draw(300, second=3.0, seed=2)
    assert all((x[w.item].sum() > 0) == (w.network == "yes") for w in worst)


def test_functions_edits_and_several_sites():
    given = splits(3.0)
    zero = heldout.check(Decides(), {"carry": lambda rows, mask: rows * torch.tensor([1.0, 0.0])}, given, null_draws=2)
    kept = heldout.check(Decides(), heldout.Edit.keep("carry", [0]), given, null_draws=2)
    assert zero["gap", "moved"].value == kept["gap", "moved"].value
    two = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    both = heldout.check(two, {"0": heldout.SVD(rank=3), "1": heldout.Mean()}, given, null_draws=2)
    assert both.edit.origin.site == "0 + 1"
    assert both["accuracy_edited", "id"].value in (pytest.approx(0.5, abs=0.2),)


def test_the_same_twice():
    results = [heldout.check(Decides(), {"carry": heldout.KMeans(4)}, splits(3.0), null_draws=3) for _ in range(2)]
    assert str(results[0]) == str(results[1])
    assert results[0].estimates == results[1].estimates


@pytest.mark.parametrize(
    ("reading", "which", "error", "says"),
    [
        ({}, slice(None), ConfigError, "empty"),
        ({"cary": heldout.SVD(1)}, slice(None), heldout.HeldoutError, "carry"),
        ({"carry": heldout.SVD(3)}, slice(None), ProxyError, "choose from 0 to 2"),
        ({"carry": heldout.KMeans(301)}, slice(None), ProxyError, "at most 300"),
        ({"carry": "svd"}, slice(None), ConfigError, "accepted are a proxy"),
        ({"carry": heldout.SVD(1)}, slice(1, None), SplitError, "role is 'fit'"),
        ({"carry": heldout.SVD(1)}, slice(0, 1), SplitError, "role 'test'"),
    ],
)
def test_bad_input(reading, which, error, says):
    with pytest.raises(error, match=says):
        heldout.check(Decides(), reading, splits(1.0)[which])


def test_shared_items_are_refused():
    x, y = draw(50, second=1.0, seed=0)
    with pytest.raises(SplitError, match="share 50"):
        heldout.check(
            Decides(),
            {"carry": heldout.SVD(1)},
            [heldout.split("fit", "fit", x, y), heldout.split("id", "test", x, y)],
        )


def test_an_unknown_split_or_reference_names_the_nearest():
    result = heldout.check(Decides(), {"carry": heldout.SVD(rank=1)}, splits(1.0), null_draws=2)
    with pytest.raises(SplitError, match="moved"):
        result.worst("mved")
    with pytest.raises(ConfigError, match="gap on moved"):
        result["gap", "mvoed"]
    with pytest.raises(SplitError, match="not a test split"):
        heldout.check(Decides(), {"carry": heldout.SVD(rank=1)}, splits(1.0), reference="fit")
