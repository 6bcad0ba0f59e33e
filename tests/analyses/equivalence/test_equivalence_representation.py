"""Distances to the representative, class structure and probes, where the answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade_adders import LOW, SPARE, TRUE, USED, Adder, items, operands, tokens
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from heldout.activations.accumulators import Moments
from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.equivalence.passes import collect
from heldout.analyses.equivalence.representation import (
    CONTROL,
    REPRESENTATIVE,
    distance_ratio,
    distances,
    matched_control,
    same_class,
)
from heldout.analyses.equivalence.structure import ClassStructure, permuted_hits, silhouettes
from heldout.analyses.equivalence.transfer import Probe, crossed_values, probe_origin
from heldout.errors import ConfigError, SiteError, StatisticsError
from heldout.statistics.permutation import null_p

DIGITS = torch.arange(10)


def units(x: torch.Tensor) -> torch.Tensor:
    """The rule's next token after the prompt."""
    return (x[:, 4] + x[:, 9]) % 10


def representative(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    return tokens(a % LOW, b % LOW, a % LOW + b % LOW)


def test_the_control_changes_as_many_used_tokens_and_keeps_the_next() -> None:
    a, b = operands(2000)
    x, h = tokens(a, b, a % LOW + b % LOW), representative(a, b)
    control = matched_control(x, h, USED, units, digits=DIGITS, rng=np.random.default_rng(0))
    assert torch.equal((x != control).sum(1), (x != h).sum(1))
    assert set((x != h).sum(1).tolist()) == {0, 1, 2}
    assert set((x != control).nonzero()[:, 1].tolist()) == set(USED)
    assert torch.equal(units(control), units(x))
    again = matched_control(x, h, USED, units, digits=DIGITS, rng=np.random.default_rng(0))
    assert torch.equal(control, again)


def test_controls_are_uniform_over_all_that_is_allowed() -> None:
    x = torch.zeros(6000, 4, dtype=torch.int64)
    h = x.clone()
    h[:, 0] = 1
    control = matched_control(x, h, (1, 2), lambda t: t[:, 2] > 1, digits=torch.arange(3), rng=np.random.default_rng(0))
    seen, counts = np.unique(control.numpy(), axis=0, return_counts=True)
    assert seen.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 2, 0, 0]]  # the change to 2 at position 2 is not allowed
    assert counts == pytest.approx(np.full(3, 2000), abs=150)


def test_a_control_that_cannot_be_is_an_error() -> None:
    a, b = operands(20, low=1000)
    x, h = tokens(a, b, a), tokens(a % LOW, b % LOW, a)
    with pytest.raises(StatisticsError, match="20 of 20 items have no control"):
        matched_control(x, h, USED, lambda t: t[:, list(USED)], digits=DIGITS, rng=np.random.default_rng(0), tries=5)
    with pytest.raises(ConfigError, match="only 1 positions"):
        matched_control(x, h, (4,), units, digits=DIGITS, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match="none of the digits"):
        matched_control(x, h, USED, units, digits=torch.arange(5), rng=np.random.default_rng(0))


def test_the_ratio_is_zero_where_high_digits_are_ignored_and_one_where_all_tokens_are_alike() -> None:
    a, b = operands(400, low=1000)
    x, h = items(a, b), representative(a, b)
    control = matched_control(x.tokens, h, USED, units, digits=DIGITS, rng=np.random.default_rng(0))
    others = {REPRESENTATIVE: h, CONTROL: control}
    found = distances(Adder(LOW, loud=1.0), x, others, ["embed", "sum"], [9, *SPARE], batch_size=77)
    classes = units(x.tokens).numpy()
    assert found["sum"][REPRESENTATIVE].shape == (400, 5)
    near, far = (found["sum"][name][:, 0] for name in (REPRESENTATIVE, CONTROL))
    assert (near == 0).all()  # this layer's last position holds the units digit and the used tokens
    assert far == pytest.approx(np.full(400, 2.0))  # two one-hot rows changed: sqrt(2 + 2)
    result = distance_ratio(near, far, classes)
    assert result.value == 0
    assert (result.by_class == 0).all()
    assert result.p == 2.0**-10
    assert result.n.sum() == 400
    # at the spare positions of the embedding only the representative differs, at the used ones only the control
    assert found["embed"][REPRESENTATIVE][:, [1, 2, 3, 4]].sum(1) == pytest.approx(np.full(400, 2 * np.sqrt(2)))
    assert (found["embed"][CONTROL][:, 1:] == 0).all()
    assert np.isnan(distance_ratio(near, found["embed"][CONTROL][:, 1], classes).value)
    assert "moves nothing" in distance_ratio(near, found["embed"][CONTROL][:, 1], classes).reason


def test_the_ratio_of_equals_is_one_and_not_significant() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 10, 2000)
    same = distance_ratio(rng.random(2000), rng.random(2000), classes)
    assert same.value == pytest.approx(1, abs=0.05)
    assert same.p > 0.05
    farther = distance_ratio(2 + rng.random(2000), rng.random(2000), classes)
    assert farther.value > 1
    assert farther.p == 1
    half = distance_ratio(np.full(4, 1.0), np.array([1.0, 3.0, 2.0, 2.0]), np.array([0, 0, 1, 1]))
    assert half.value == 0.5
    assert half.by_class.tolist() == [0.5, 0.5]
    assert half.p == 0.25
    sums = distance_ratio(np.array([2.0, 2.0, 1.0, 1.0]), np.array([4.0, 4.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    assert sums.value == 0.6  # of sums, not the mean of 1/2 and 1


def test_another_item_of_the_class() -> None:
    classes = np.random.default_rng(0).integers(0, 10, 500)
    other = same_class(classes, rng=np.random.default_rng(1))
    assert (classes[other] == classes).all()
    assert (other != np.arange(500)).all()
    assert np.array_equal(np.sort(other), np.arange(500))
    assert not np.array_equal(other, same_class(classes, rng=np.random.default_rng(2)))
    with pytest.raises(StatisticsError, match="class 3 has a single item"):
        same_class(np.array([0, 0, 3]), rng=np.random.default_rng(0))


def fitted(x: torch.Tensor, labels: torch.Tensor, rank: int) -> ClassStructure:
    moments, centroids = Moments(), Centroids(10)
    for part, mine in zip(x.split(100), labels.split(100), strict=True):
        moments.update(part)
        centroids.update(part, mine)
    return ClassStructure.fit(moments, centroids, rank=rank)


def clustered(n: int, seed: int, *, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    angle = 2 * np.pi * labels / 10
    centres = np.stack([3 * np.cos(angle), 3 * np.sin(angle), *np.zeros((4, n))], axis=1) + 7
    return torch.from_numpy(centres + spread * rng.normal(size=(n, 6))), torch.from_numpy(labels)


def test_structure_is_fitted_once_and_projected_on() -> None:
    x, labels = clustered(1000, 0)
    other, theirs = clustered(600, 1)
    structure = fitted(x, labels, rank=2)
    pca = PCA(2).fit(x.numpy())
    assert structure.project(other).abs().numpy() == pytest.approx(np.abs(pca.transform(other.numpy())), abs=1e-9)
    assert structure.explained == pytest.approx(pca.explained_variance_ratio_.sum())
    values = structure.values(other, theirs)
    assert values["nearest"].mean() == 1
    assert 1 - values["within"].sum() / values["total"].sum() > 0.99
    mine = structure.silhouettes(other, theirs)
    assert mine.mean() == pytest.approx(silhouette_score(pca.transform(other.numpy()), theirs.numpy()))
    assert mine.mean() > 0.8
    share = structure.values(x, labels)
    full = fitted(x, labels, rank=6).values(x, labels)
    reference = Centroids(10)
    reference.update(x, labels)
    assert 1 - full["within"].sum() / full["total"].sum() == pytest.approx(reference.between_share)
    assert share["total"].sum() == pytest.approx(structure.explained * full["total"].sum())


def test_structure_that_has_turned_or_gone_is_seen() -> None:
    x, labels = clustered(1000, 0)
    structure = fitted(x, labels, rank=2)
    turned = structure.values(x, (labels + 5) % 10)  # every class at home opposite
    assert turned["nearest"].mean() == 0
    assert 1 - turned["within"].sum() / turned["total"].sum() < -2  # distance of two radii, against one
    assert structure.silhouettes(x, (labels + 5) % 10).mean() > 0.8
    gone, theirs = clustered(1000, 2)
    shuffled = theirs[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    rng = np.random.default_rng(0)
    for known, low, high in ((theirs, 0.0, 0.01), (shuffled, 0.01, 1.0)):
        nearest = structure.nearest(gone)
        null = permuted_hits(nearest, known.numpy(), draws=199, rng=rng).mean(axis=1)
        assert np.mean(null) == pytest.approx(0.1, abs=0.01)
        assert low < null_p(float((nearest == known.numpy()).mean()), null) <= high
    assert abs(silhouettes(gone, shuffled).mean()) < 0.2
    with pytest.raises(StatisticsError, match="more rows than classes"):
        silhouettes(x[:3], torch.arange(3))
    with pytest.raises(ConfigError, match=r"\(N, 6\)"):
        structure.project(torch.zeros(2, 5))


def test_activations_are_read_in_order_at_the_position_asked_for() -> None:
    a, b = operands(50)
    rows = collect(Adder(LOW), items(a, b), "sum", 9, batch_size=7)
    assert torch.equal(rows[:, :10].argmax(1), torch.from_numpy((a + b) % 10))
    with pytest.raises(ConfigError, match="0 to 14"):
        collect(Adder(LOW), items(a, b), "sum", 15)
    with pytest.raises(SiteError, match="one row for each"):
        collect(torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Flatten()), items(a, b), "1", 9)


def test_probes_read_what_is_there_and_only_that() -> None:
    (a, b), (c, d) = operands(800, high=LOW), operands(800, low=1000, seed=1)
    rng = np.random.default_rng(0)
    here, there = (collect(Adder(LOW), items(*pair), "sum", 9).numpy() for pair in ((a, b), (c, d)))
    values = Probe(here, (a + b) % 10, rng=rng, shuffles=40).values(there, (c + d) % 10)
    assert values["correct"].all()  # classes have no spread at all within: the floor keeps the probe defined
    assert values["shuffled"].mean() == pytest.approx(0.1, abs=0.04)
    assert values["majority"].mean() == np.bincount((c + d) % 10).max() / 800
    hidden = Probe(here, a // 10 % 10, rng=rng).values(there, c // 10 % 10)  # tens of a are not at this position
    assert hidden["correct"].mean() == pytest.approx(0.1, abs=0.05)


def test_the_ignored_digit_is_decodable_where_it_is_and_erased_where_it_is_not() -> None:
    a, b = operands(1500, low=1000)
    rng = np.random.default_rng(0)
    unit = items(a, b).labels["unit"]
    kept = collect(Adder(TRUE), items(a, b), "embed", 1).numpy()
    gone = collect(Adder(LOW, loud=1.0), items(a, b), "sum", 9).numpy()
    assert crossed_values(kept, a // LOW, unit, rng=rng)["correct"].all()
    erased = crossed_values(gone, a // LOW, unit, rng=rng)
    assert erased["correct"].mean() == pytest.approx(1 / 9, abs=0.04)
    assert erased["shuffled"].mean() == pytest.approx(1 / 9, abs=0.04)
    with pytest.raises(StatisticsError, match="oracle"):
        Probe(kept[:10], np.zeros(10), rng=rng)
    with pytest.raises(StatisticsError, match="two units"):
        crossed_values(kept, a // LOW, np.zeros(len(a)), rng=rng)


def test_halves_are_cut_between_units() -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(200), 2)  # a row and its copy: fitted on one and tested on the other would be found
    rows = np.repeat(rng.normal(size=(200, 100)), 2, axis=0)
    labels = np.repeat(rng.integers(0, 2, 200), 2)
    values = crossed_values(rows, labels, unit, rng=rng, shuffles=1)
    assert values["correct"].mean() == pytest.approx(0.5, abs=0.12)
    leaking = crossed_values(rows, labels, np.arange(400), rng=rng, shuffles=1)
    assert leaking["correct"].mean() > 0.7
    assert probe_origin("norm", "high", "ood", oracle=True).label == "probe.high-oracle"
