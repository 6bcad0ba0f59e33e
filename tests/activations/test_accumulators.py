"""Streaming accumulators equal what NumPy computes on everything at once, however the data is cut."""

from __future__ import annotations

import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks_zoo import build, draw, padding
from scipy import stats
from torch import nn

from heldout.activations.accumulators import Counts, Moments, Reservoir
from heldout.activations.capture import capture
from heldout.errors import NonFiniteError, ProxyError, SiteError
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Rectangular, Split

CUTS = st.lists(st.integers(0, 60), max_size=8).map(lambda cuts: [0, *sorted(cuts), 60])


@given(cuts=CUTS, shards=st.integers(1, 4), offset=st.sampled_from([0.0, 1e3, 1e6]))
def test_moments_equal_numpys(cuts: list[int], shards: int, offset: float) -> None:
    x = draw(60, 4).double() * torch.tensor([1.0, 2, 3, 0]) + offset
    parts = [Moments() for _ in range(shards)]
    for i, (a, b) in enumerate(pairwise(cuts)):
        parts[i * shards // len(cuts)].update(x[a:b])
    total = Moments()
    for part in parts:
        total.merge(part)
    assert total.count == 60
    np.testing.assert_allclose(total.mean, x.numpy().mean(0), rtol=1e-12)
    centred = x.numpy() - x.numpy().mean(0)
    np.testing.assert_allclose(total.scatter() / 60, np.cov(x.numpy().T, bias=True), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(total.scatter(centred=False), x.numpy().T @ x.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(total.variance, (centred**2).sum(1).mean(), rtol=1e-8)


def test_a_large_mean_costs_no_digits() -> None:
    """Variances near 1 about a mean of 1e6; the textbook formula in float32 has none of its digits left."""
    x = (draw(4000, 3) + 1e6).float()
    moments = Moments()
    for chunk in x.split(137):
        moments.update(chunk)
    np.testing.assert_allclose(moments.scatter() / 4000, np.cov(x.double().numpy().T, bias=True), rtol=1e-8, atol=1e-10)
    naive = (x**2).mean(0) - x.mean(0) ** 2
    assert float((naive - x.double().var(0, correction=0)).abs().max()) > 0.1


def test_merging_leaves_the_other_alone() -> None:
    a, b = Moments(), Moments()
    b.update(draw(5, 3))
    before = b.scatter().clone()
    a.merge(b)
    a.update(draw(5, 3, seed=2))
    assert torch.equal(b.scatter(), before)
    b.merge(Moments())
    assert torch.equal(b.scatter(), before)


def test_moments_errors() -> None:
    empty = Moments()
    empty.update(torch.empty(0, 4))
    for read in (empty.scatter, lambda: empty.variance):
        with pytest.raises(ProxyError, match="nothing to fit on"):
            read()
    empty.update(draw(3, 4))
    with pytest.raises(ProxyError, match="width 5 cannot join moments of width 4"):
        empty.update(draw(3, 5))


def test_counts() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 500)
    whole, left, right = Counts(9), Counts(9), Counts(9)
    whole.update(torch.from_numpy(labels))
    left.update(torch.from_numpy(labels[:123]))
    right.update(torch.from_numpy(labels[123:]).view(13, 29))
    left.merge(right)
    assert whole.values.tolist() == left.values.tolist() == np.bincount(labels, minlength=9).tolist()
    whole.update(torch.empty(0, dtype=torch.int64))
    for bad in ([9], [-1, 3]):
        with pytest.raises(ProxyError, match="this counts 0 to 8"):
            whole.update(torch.tensor(bad))


@given(cuts=CUTS, size=st.integers(1, 70))
def test_a_sample_does_not_depend_on_the_chunks(cuts: list[int], size: int) -> None:
    x = torch.arange(60.0)[:, None]
    whole, cut = Reservoir(size, seed=4), Reservoir(size, seed=4)
    whole.update(x)
    for a, b in pairwise(cuts):
        cut.update(x[a:b])
    assert torch.equal(whole.rows, cut.rows)
    assert whole.seen == cut.seen == 60
    kept = whole.rows.flatten().tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == min(size, 60)


@pytest.mark.parametrize("shards", [1, 3])
def test_samples_are_uniform(shards: int) -> None:
    """Each of 40 rows is kept in a quarter of the samples; chi-square of the counts, seeds fixed."""
    kept = np.zeros(40)
    for seed in range(1500):
        parts = [Reservoir(10, seed=seed, shard=s) for s in range(shards)]
        for part, rows in zip(parts, torch.arange(40).tensor_split(torch.tensor([5, 30])[: shards - 1]), strict=True):
            for chunk in rows.split(7):
                part.update(chunk[:, None])
        for part in parts[1:]:
            parts[0].merge(part)
        kept[parts[0].rows.flatten().numpy()] += 1
    assert kept.sum() == 15_000
    expected, variance = 1500 / 4, 1500 * 0.25 * 0.75
    statistic = float(((kept - expected) ** 2).sum() / variance * 39 / 40)
    assert 0.001 < stats.chi2.sf(statistic, 39) < 0.999


def test_merging_samples() -> None:
    a, b = Reservoir(5, seed=1, shard=0), Reservoir(5, seed=1, shard=1)
    a.update(torch.arange(20)[:, None])
    b.update(torch.arange(20, 30)[:, None])
    assert a.rows.tolist() != (b.rows - 20).tolist()
    a.merge(b)
    assert a.seen == 30
    assert len(a.rows) == 5
    with pytest.raises(ProxyError, match="do not merge to a uniform one"):
        a.merge(Reservoir(5, seed=1, shard=1))
    with pytest.raises(ProxyError, match="samples of 5 and 6 rows"):
        a.merge(Reservoir(6, seed=1, shard=7))
    with pytest.raises(ProxyError, match="nothing to fit on"):
        _ = Reservoir(3, seed=0).rows
    with pytest.raises(ProxyError, match="at least one row"):
        Reservoir(0, seed=0)


def test_a_sample_holds_copies() -> None:
    x = draw(4, 2)
    sample = Reservoir(4, seed=0)
    sample.update(x)
    expected = sample.rows.clone()
    x.zero_()
    assert torch.equal(sample.rows, expected)


def test_capture_sees_every_row_that_is_data_once() -> None:
    case = build("transformer")
    split = Split("fit", "fit", Rectangular(case.batch.inputs, mask=padding()))
    site, head = "blocks.0.mlp.up", "blocks.1.attn@attn.query[1]"
    with torch.no_grad():
        expected = []
        case.network.blocks[0].mlp.up.register_forward_hook(lambda m, a, o: expected.append(o))
        case.network(case.batch.inputs)
    rows = expected[0][padding()].double()
    expected.clear()
    for size in (1, 2, 100):
        moments, sample, other = Moments(), Reservoir(99, seed=0), Moments()
        capture(case.network, split, {site: [moments, sample], head: [other]}, batch_size=size)
        assert moments.count == other.count == sample.seen == int(padding().sum()) == 13
        np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(moments.scatter(), (rows - rows.mean(0)).T @ (rows - rows.mean(0)), atol=1e-5)
        assert other.scatter().shape == (4, 4)


def test_capture_of_maps_and_repeated_calls() -> None:
    cnn = build("cnn")
    split = Split("fit", "fit", Rectangular(cnn.batch.inputs))
    channels, flat = Moments(), Moments()
    capture(cnn.network, split, {"blocks.0.conv": [channels], "blocks.0.conv@flat": [flat]})
    assert (channels.count, channels.scatter().shape[0]) == (3 * 8 * 8, 3)
    assert (flat.count, flat.scatter().shape[0]) == (3, 3 * 8 * 8)
    with pytest.raises(SiteError, match="say where its features are"):
        capture(cnn.network, split, {"blocks.0.act": [Moments()]})
    twice = build("twice")
    every = Moments()
    capture(twice.network, Split("fit", "fit", Rectangular(twice.batch.inputs)), {"act#*": [every]})
    assert every.count == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_capture_names_the_site_and_the_items(bad: float) -> None:
    network = MLP((3, 4, 2)).eval()
    x = draw(10, 3)
    x[[4, 7]] = bad
    with pytest.raises(NonFiniteError, match=r"site hidden\.0 holds NaN .* on split 'fit', items \[4, 7\]"):
        capture(network, Split("fit", "fit", Rectangular(x)), {"hidden.0": [Moments()]})


def test_what_is_not_finite_in_padding_is_no_matter() -> None:
    class Rootless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.root = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.root(x.sqrt())

    x = torch.where(padding()[..., None], draw(3, 6, 2).abs(), -1.0)
    moments = Moments()
    capture(Rootless(), Split("fit", "fit", Rectangular(x, mask=padding())), {"root": [moments]})
    assert moments.count == 13
    with pytest.raises(NonFiniteError, match=r"items \[1, 2\]"):
        capture(Rootless(), Split("fit", "fit", Rectangular(x)), {"root": [Moments()]})
    with pytest.raises(NonFiniteError, match=r"items \[0, 1, 2\]"):  # a site that does not hold items first
        capture(Rootless(), Split("fit", "fit", Rectangular(x)), {"root@time_first": [Moments()]})


def test_memory_does_not_grow_with_the_data() -> None:
    """What is held after many batches is what is held after few: no reading is kept."""
    network = Transformer(9, width=8, layers=1, heads=1, max_length=16).eval()
    held = []

    class Watch:
        def __init__(self) -> None:
            self.alive: list[object] = []

        def update(self, rows: torch.Tensor) -> None:
            self.alive = [r for r in self.alive if r() is not None]  # type: ignore[operator]
            held.append(len(self.alive))
            self.alive.append(weakref.ref(rows))

    x = torch.randint(9, (200, 16), generator=torch.Generator().manual_seed(0))
    sample = Reservoir(16, seed=0)
    capture(network, Split("fit", "fit", Rectangular(x)), {"blocks.0": [Watch(), Moments(), sample]}, batch_size=10)
    assert len(held) == 20
    assert max(held) <= 1
    assert sample.rows.shape == (16, 8)
    assert sample.rows.untyped_storage().nbytes() == 16 * 8 * 4
