"""The helix as a proxy: every row of the table goes to its token's point, and nothing else goes anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.errors import NonFiniteError, ProxyError, StatisticsError
from heldout.evidence import Origin
from heldout.proxies.base import Proxy
from heldout.proxies.helix import Helix, drift
from heldout.proxies.svd import SVD
from heldout.tasks.base import Batch


def table(rows: int = 60, width: int = 16, noise: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, rows)
    angle = 2 * torch.pi * 3.6 * t
    curve = torch.stack([angle.cos(), angle.sin(), 4 * t], dim=1)
    frame = torch.linalg.qr(torch.randn(width, 3, generator=generator))[0].T
    return curve @ frame + noise * torch.randn(rows, width, generator=generator)


@pytest.mark.parametrize("rest", [False, True])
def test_the_battery_as_far_as_it_applies(rest: bool) -> None:
    """What `check_proxy` asks, but for padding: a row of zeros is no row of the table."""
    x = table()
    proxy = Helix(rest=rest).fit(x)
    assert isinstance(proxy, Proxy)
    before, y = x.clone(), proxy.reconstruct(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)
    assert torch.equal(y, proxy.reconstruct(x))
    assert torch.equal(y, Helix(rest=rest).fit(x).reconstruct(x))
    order = torch.randint(60, (200,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(proxy.reconstruct(x[order]), y[order])
    assert torch.equal(torch.cat([proxy.reconstruct(row[None]) for row in x]), y)
    assert proxy.reconstruct(x[:0]).shape == (0, 16)


def test_points_lie_on_the_helix() -> None:
    x = table()
    alone, rest = Helix().fit(x), Helix(rest=True).fit(x)
    fit = alone.fit_
    assert fit is not None
    assert fit.turns == pytest.approx(3.6, abs=0.15)
    components, mean = torch.from_numpy(fit.components), torch.from_numpy(fit.mean)
    for proxy in (alone, rest):
        scores = (proxy.reconstruct(x.double()) - mean) @ components.T
        torch.testing.assert_close(scores, torch.from_numpy(fit.fitted.copy()))
    others = torch.eye(16, dtype=torch.float64) - components.T @ components
    torch.testing.assert_close(
        (alone.reconstruct(x.double()) - mean) @ others, torch.zeros(60, 16, dtype=torch.float64)
    )
    torch.testing.assert_close(rest.reconstruct(x.double()) @ others, x.double() @ others)


def test_the_helix_alone_is_no_better_than_its_components() -> None:
    x = table().double()
    pca = SVD(3, centred=True).fit(x).reconstruct(x)
    helix = Helix().fit(x).reconstruct(x)
    assert ((x - pca) ** 2).sum() < ((x - helix) ** 2).sum() < ((x - x.mean(dim=0)) ** 2).sum()
    # The curve lies within the components' plane, so the errors add up (Pythagoras).
    torch.testing.assert_close(((x - helix) ** 2).sum(), ((x - pca) ** 2).sum() + ((pca - helix) ** 2).sum())


def test_tokens_may_come_in_any_order_and_with_gaps() -> None:
    x = table(80)
    kept = torch.arange(80)[torch.rand(80, generator=torch.Generator().manual_seed(2)) < 0.7]
    plain = Helix(kept.tolist()).fit(x[kept])
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(3))
    mixed = Helix(kept[order].tolist()).fit(x[kept][order])
    torch.testing.assert_close(plain.reconstruct(x[kept]), mixed.reconstruct(x[kept]))
    assert plain.fit_ is not None
    assert plain.fit_.tokens.tolist() == kept.tolist()


def test_an_embedding_is_replaced_within_a_network() -> None:
    x = table(60)
    network = nn.Sequential(nn.Embedding.from_pretrained(x, freeze=True), nn.Linear(16, 1))
    proxy = Helix().fit(x)
    edit = Edit.from_proxy("0", proxy, Origin("helix", fit_split="train"))
    tokens = torch.randint(60, (32,), generator=torch.Generator().manual_seed(4))
    with Tap(network, edit=edit.functions) as tap:
        output = tap(Batch(tokens, torch.arange(32))).output
    with torch.no_grad():
        expected = network[1](proxy.reconstruct(x)[tokens])
    torch.testing.assert_close(output, expected)


def test_what_is_no_row_of_the_table_is_refused() -> None:
    x = table()
    proxy = Helix().fit(x)
    with pytest.raises(ProxyError, match="row 1 of 2 is no row of the table of 60 tokens"):
        proxy.reconstruct(torch.stack([x[3], x[3] + 1e-6]))
    with pytest.raises(ProxyError, match="width 16 and got width 15"):
        proxy.reconstruct(x[:, :15])
    with pytest.raises(ProxyError, match="not fitted"):
        Helix().reconstruct(x)


def test_rows_that_rounding_confuses_are_still_found() -> None:
    """Far from the origin, differences of squares lose the digits by which two close rows differ."""
    x = table(60, noise=0.01) + 1e4
    x[31] = x[30]
    x[31, 5] = torch.nextafter(x[30, 5], torch.tensor(1e9))
    proxy = Helix().fit(x)
    points = proxy.reconstruct(x.double())
    assert torch.equal(proxy.reconstruct(x), points.float())


def test_tables_that_cannot_be_told_apart_or_fitted() -> None:
    x = table()
    twice = x.clone()
    twice[7] = twice[40]
    with pytest.raises(ProxyError, match="same row"):
        Helix().fit(twice)
    with pytest.raises(StatisticsError, match="too few"):
        Helix().fit(x[:9])
    with pytest.raises(NonFiniteError):
        Helix().fit(torch.where(x > x.max() - 0.1, torch.nan, x))


@pytest.mark.parametrize("wave", [True, False])
def test_with_all_of_the_residual_every_row_is_itself(wave: bool) -> None:
    x = table().double()
    torch.testing.assert_close(Helix(residual=16, wave=wave).fit(x).reconstruct(x), x)
    torch.testing.assert_close(
        Helix(rest=True, residual=3, wave=wave).fit(x).reconstruct(x), x
    )  # three are off the curve


@pytest.mark.parametrize("wave", [True, False])
def test_each_component_of_the_residual_takes_its_own_share_of_the_error(wave: bool) -> None:
    x = table().double()
    alone = Helix(wave=wave).fit(x).reconstruct(x)
    sizes = torch.linalg.svdvals(x - alone)
    for k in (1, 5, 12):
        left = x - Helix(residual=k, wave=wave).fit(x).reconstruct(x)
        torch.testing.assert_close((left**2).sum(), (sizes[k:] ** 2).sum())  # Eckart and Young
        assert torch.linalg.matrix_rank(x - left - x.mean(dim=0)) <= (3 if wave else 2) + k


def test_drift_and_wave_are_what_the_fit_says_they_are() -> None:
    x = table().double()
    fit = Helix().fit(x).fit_
    assert fit is not None
    along, wave = drift(fit), fit.fitted - drift(fit)
    whole = (fit.scores**2).sum()
    assert (along**2).sum() / whole == pytest.approx(fit.baseline)
    assert (wave**2).sum() / whole == pytest.approx(fit.gain)
    assert (along * wave).sum() == pytest.approx(0, abs=1e-9)
    t = fit.tokens / fit.tokens[-1]
    expected = np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, fit.scores, 2)).T
    np.testing.assert_allclose(along, expected, atol=1e-9)


def test_without_its_wave_a_helix_is_its_drift() -> None:
    x = table().double()
    proxy = Helix(wave=False).fit(x)
    fit = proxy.fit_
    assert fit is not None
    np.testing.assert_allclose(proxy.reconstruct(x).numpy(), fit.mean + drift(fit) @ fit.components)


def test_a_residual_has_at_most_as_many_components_as_the_table() -> None:
    with pytest.raises(ProxyError, match="residual of a helix: rank 17 for activations of width 16"):
        Helix(residual=17).fit(table())
