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
    assert [w.divergence for w in worst] == sorted((w.divergence for w in worst), reverse=True)
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


class Sum(nn.Module):
    """One number an item, and with `wide` the two features themselves as an embedding."""

    def __init__(self, *, wide: bool) -> None:
        super().__init__()
        self.carry, self.wide = nn.Identity(), wide

    def forward(self, x: Tensor) -> Tensor:
        carried = self.carry(x)
        return carried if self.wide else carried.sum(dim=1)


def test_numbers_are_the_same_within_a_share_of_their_scale():
    """Removing the second feature changes the sum by that feature: the share of items where it is within the tolerance,
    the mean square and R^2 follow from the data alone."""
    data = [s if s.role == "fit" else heldout.split(s.name, "test", s.items.inputs) for s in splits(1.0)]
    result = heldout.check(Sum(wide=False), heldout.Edit.keep("carry", [0]), data, scoring="regression", null_draws=2)
    for name, seed, second in (("id", 1, 0.05), ("moved", 2, 1.0)):
        x, _ = draw(300, second=second, seed=seed)
        scale = draw(300, second=0.05, seed=1)[0].sum(dim=1).double().std()
        off = x[:, 1].double() / scale
        assert result["same_prediction", name].value == pytest.approx(float((off.abs() <= 0.1).double().mean()))
        assert result["mean_squared", name].value == pytest.approx(float((off**2).mean()), rel=1e-5)
    assert result["r_squared", "id"].value > 0.99
    assert result["gap", "moved"].low > 0.5
    assert "no targets" in str(result)
    with pytest.raises(ConfigError, match="no estimate"):
        result["accuracy_network", "id"]
    worst = result.worst("moved", 3)
    x, _ = draw(300, second=1.0, seed=2)
    assert [w.item for w in worst] == x[:, 1].abs().argsort(descending=True)[:3].tolist()
    assert worst[0].network == pytest.approx(float(x[worst[0].item].sum()), rel=1e-5)


def test_targets_of_numbers_are_accuracies_within_the_tolerance():
    data = [heldout.split(s.name, s.role, s.items.inputs, s.items.inputs.sum(dim=1)) for s in splits(1.0)]
    how = heldout.Regression(tolerance=0.5)
    result = heldout.check(Sum(wide=False), heldout.Edit.keep("carry", [0]), data, scoring=how, null_draws=2)
    assert result["accuracy_network", "moved"].value == 1.0
    assert result["accuracy_edited", "moved"].value == result["same_prediction", "moved"].value < 1


def test_embeddings_keep_their_neighbours_or_do_not():
    result = heldout.check(Sum(wide=True), {"carry": heldout.SVD(2)}, splits(1.0), scoring="embedding", null_draws=2)
    assert result["neighbour_agreement", "moved"].value == 1.0
    assert result["cosine", "moved"].value == pytest.approx(1.0)
    cut = heldout.check(Sum(wide=True), {"carry": heldout.SVD(1)}, splits(1.0), scoring="embedding", null_draws=2)
    assert cut["neighbour_agreement", "moved"].value < 0.5
    assert cut.worst("moved", 2)[0].target is None


def test_next_tokens_are_targets_where_there_are_none():
    """A network that answers with the token itself is right where a token repeats."""

    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding.from_pretrained(5 * torch.eye(7))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.embed(tokens)

    def tokens(seed: int) -> Tensor:
        return torch.randint(0, 7, (40, 9), generator=torch.Generator().manual_seed(seed))

    data = [heldout.split(n, r, tokens(i)) for i, (n, r) in enumerate((("fit", "fit"), ("id", "test"), ("b", "test")))]
    result = heldout.check(Repeats(), {"embed": heldout.SVD(7)}, data, scoring="next_token", null_draws=2)
    repeats = tokens(2)[:, 1:] == tokens(2)[:, :-1]
    assert result["accuracy_network", "b"].value == pytest.approx(float(repeats.double().mean()))


def test_an_unknown_scoring_names_the_others():
    with pytest.raises(ConfigError, match="regression"):
        heldout.check(Decides(), {"carry": heldout.SVD(1)}, splits(1.0), scoring="regresion")


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
