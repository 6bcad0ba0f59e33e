"""Errors with components kept: exact at full width, known where the network is linear, summed by unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from token_networks import TokenNet, split_of
from torch import nn

from heldout.analyses.geometry.kept import FULL, fit_rows, fit_table, keeping, kept
from heldout.analyses.geometry.passes import embedded, errors, predict, rows_at, truth
from heldout.analyses.geometry.squares import squares
from heldout.errors import ConfigError, NetworkError, NonFiniteError, ProxyError, SiteError, SplitError, StatisticsError
from heldout.proxies.svd import SVD
from heldout.statistics.bootstrap import bootstrap_totals
from heldout.tasks.base import Rectangular, Split

SIZES, WIDTH = (9, 11), 16


@pytest.fixture(scope="module")
def network() -> TokenNet:
    return TokenNet(SIZES, WIDTH)


@pytest.fixture(scope="module")
def splits(network: TokenNet) -> tuple[Split, Split]:
    return split_of(network, SIZES, 300, 1, role="fit", name="train"), split_of(network, SIZES, 90, 2)


def test_every_component_kept_is_the_network_itself(network: TokenNet, splits: tuple[Split, Split]) -> None:
    train, held = splits
    bases = {
        "readout:input": fit_rows(network, train, "readout:input"),
        "embeddings.0": fit_table(network.embeddings[0].weight),
        "embeddings.1": fit_table(network.embeddings[1].weight),
    }
    for sites in (["readout:input"], ["embeddings.0"], list(bases)):
        functions = {p: f for s in sites for p, f in keeping(s, bases[s], WIDTH).functions.items()}
        assert np.array_equal(predict(network, held, functions), predict(network, held))
        curve = kept(network, held, {s: bases[s] for s in sites}, (0, 4, WIDTH))
        assert np.array_equal(curve.squares.sums[:, 2], curve.squares.sums[:, 3])
        assert curve.rms[0] > curve.rms[2]


def test_kept_rows_are_the_projection(network: TokenNet, splits: tuple[Split, Split]) -> None:
    train, held = splits
    pca, rows = fit_rows(network, train, "readout:input"), rows_at(network, held, "readout:input")
    readout = network.readout
    for rank in (0, 3, 10):
        edit = keeping("readout:input", pca, rank)
        cut = pca.at(rank).reconstruct(torch.from_numpy(rows))
        with torch.no_grad():
            wanted = readout(cut.float())[:, 0]
        np.testing.assert_allclose(predict(network, held, edit.functions), wanted, atol=1e-5)


def test_sums_by_unit_are_those_of_the_errors(network: TokenNet, splits: tuple[Split, Split]) -> None:
    train, held = splits
    pca = fit_rows(network, train, "readout:input")
    scale = np.linspace(1, 3, len(held))
    curve = kept(network, held, {"readout:input": pca}, (1, 2, 8), scale=scale)
    plain = scale * (predict(network, held) - truth(held))
    assert curve.squares.rms(FULL) == pytest.approx(np.sqrt(np.mean(plain**2)))
    for at, unit in enumerate(curve.squares.units):
        mine = held.unit_ids() == unit
        assert curve.squares.n[at] == mine.sum()
        assert curve.squares.sums[at, -1] == pytest.approx((plain[mine] ** 2).sum())
    totals = bootstrap_totals(curve.squares.table, draws=200, rng=np.random.default_rng(0))
    ratio = curve.squares.log_ratio("8", FULL)
    exact = ratio(curve.squares.table.sum(axis=0)[None])
    assert exact[0] == pytest.approx(np.log(curve.rms[2] / curve.squares.rms(FULL)))
    assert abs(np.median(ratio(totals)) - exact[0]) < 0.2
    assert curve.best(8) == (1, 2, 8)[int(curve.rms.argmin())]
    assert curve.best(2) == (1, 2)[int(curve.rms[:2].argmin())]


def test_small_components_may_matter_most() -> None:
    """Variance orders the components; a readout that reads the smallest one alone needs them all."""
    table = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 5.0, 2.0, 0.1])
    reads = nn.Sequential(nn.Embedding.from_pretrained(table), nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        reads[2].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 10.0]]))
        reads[2].bias.zero_()
    tokens = torch.arange(40)[:, None]
    split = Split("held", "test", Rectangular(tokens, reads(tokens).detach()))
    curve = kept(reads, split, {"0@flat": fit_table(table)}, (1, 2, 3, 4))
    spread = 10 * float(table[:, 3].std(unbiased=False))
    assert curve.rms[3] == 0
    assert curve.rms[2] > 0.9 * spread
    assert curve.rms[2] < 1.1 * spread


def test_a_table_put_in_place_of_another(network: TokenNet, splits: tuple[Split, Split]) -> None:
    _, held = splits
    before = network.embeddings[1].weight.detach().clone()
    assert np.array_equal(predict(network, held, embedded("embeddings.1", 1, before)), predict(network, held))
    other = TokenNet(SIZES, WIDTH)
    new = torch.randn(SIZES[1], WIDTH, generator=torch.Generator().manual_seed(9))
    other.embeddings[1].weight.data = new
    assert np.array_equal(predict(network, held, embedded("embeddings.1", 1, new)), predict(other, held))
    assert torch.equal(network.embeddings[1].weight, before)
    with pytest.raises(ConfigError, match="is not in a table of 3"):
        predict(network, held, embedded("embeddings.1", 1, new[:3]))
    with pytest.raises(ConfigError, match="column 5"):
        predict(network, held, embedded("embeddings.1", 5, new))


def test_batches_change_nothing(network: TokenNet, splits: tuple[Split, Split]) -> None:
    _, held = splits
    np.testing.assert_allclose(predict(network, held, batch_size=7), predict(network, held), atol=1e-6)
    np.testing.assert_allclose(
        rows_at(network, held, "readout:input", batch_size=7), rows_at(network, held, "readout:input"), atol=1e-6
    )


def test_what_cannot_be_run_is_refused(network: TokenNet, splits: tuple[Split, Split]) -> None:
    train, held = splits
    pca = fit_rows(network, train, "readout:input")
    with pytest.raises(SplitError, match="may not be fitted"):
        fit_rows(network, held, "readout:input")
    with pytest.raises(ConfigError, match="ranks that increase"):
        kept(network, held, {"readout:input": pca}, (4, 2))
    with pytest.raises(ProxyError, match="rank 17"):
        kept(network, held, {"readout:input": pca}, (17,))
    with pytest.raises(ProxyError, match="centred"):
        keeping("readout", SVD().fit(torch.eye(3)), 1)
    with pytest.raises(ConfigError, match="scale"):
        errors(network, held, scale=[1.0])
    with pytest.raises(ConfigError, match="no rank of at most 1"):
        kept(network, held, {"readout:input": pca}, (2,)).best(1)
    with pytest.raises(StatisticsError, match="nothing varies"):
        fit_table(np.ones((4, 3)))
    with pytest.raises(NetworkError, match="one number an item"):
        predict(nn.Embedding(20, 3), held)
    with pytest.raises(SplitError, match="targets None"):
        truth(Split("bare", "test", Rectangular(torch.zeros(3, 2, dtype=torch.int64))))
    with pytest.raises(SiteError):
        rows_at(network, held, "embeddings.2")
    broken = TokenNet(SIZES, WIDTH)
    broken.embeddings[0].weight.data[4] = torch.nan
    first = int((held.items.take(np.arange(len(held))).inputs[:, 0] == 4).nonzero()[0])
    with pytest.raises(NonFiniteError, match=f"for item {first} of split 'held'"):
        predict(broken, held)


def test_squares_check_what_they_are_given() -> None:
    two = squares({"a": [3.0, 4.0, 0.0], "b": [1.0, 1.0, 1.0]}, [7, 7, 8])
    assert two.table.tolist() == [[2, 25, 2], [1, 0, 1]]
    assert two.rms("a") == pytest.approx(np.sqrt(25 / 3))
    assert np.isnan(two.log_ratio("a", "b")(two.table)[1])
    with pytest.raises(StatisticsError, match="unknown predictor 'c'"):
        two.rms("c")
    with pytest.raises(StatisticsError, match="have shape"):
        squares({"a": [1.0]}, [1, 2])
    with pytest.raises(NonFiniteError, match="item 1"):
        squares({"a": [1.0, np.inf]}, [1, 2])
    with pytest.raises(StatisticsError, match="one predictor and one item"):
        squares({}, [1])
