"""Langevin chains: the stationary law on a quadratic, seeds, batches, networks that do not stack, chains that diverge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy import behavioural
from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.sgld import Sampling, Settled, sample
from heldout.errors import ConfigError, NonFiniteError

CURVATURES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1, 0.0], dtype=torch.float64)


def quadratic(curvatures: Tensor = CURVATURES) -> BehaviouralLoss:
    """A linear map whose loss is exactly 1/2 sum l_i (w_i - w0_i)^2."""
    p = len(curvatures)
    made = nn.Linear(p, 1, bias=False).double()
    made.weight.data = torch.linspace(-1, 1, p, dtype=torch.float64)[None]
    return BehaviouralLoss(made, torch.diag((curvatures * p / 2).sqrt()))


def doubled_mean(loss: BehaviouralLoss, settings: Settled) -> tuple[float, float]:
    """2 n beta times the mean loss over all draws of all chains, with its standard error over chains."""
    means = 2 * settings.n_beta * sample(loss, settings)[:, settings.burn_in :].mean(1)
    return float(means.mean()), float(means.std()) / math.sqrt(len(means))


def test_the_quadratic_is_one() -> None:
    loss = quadratic()
    w = loss.start + torch.arange(6, dtype=torch.float64)
    assert float(loss(w)) == pytest.approx(float((CURVATURES * torch.arange(6) ** 2).sum() / 2), rel=1e-12)


@pytest.mark.parametrize(
    ("chains", "draws", "burn_in", "error"),
    [(100, 300, 0, 0.02), (100, 300, 60, 0.02), pytest.param(400, 3_000, 200, 0.004, marks=pytest.mark.slow)],
)
def test_stationary_law_on_a_quadratic(chains: int, draws: int, burn_in: int, error: float) -> None:
    """A step this long inflates by a third, and without burn-in the flat directions are short of their share: both
    are in the formula, and without either it would miss."""
    loss = quadratic()
    how = Sampling(chains, burn_in, draws, localisation=2.0, n_beta=20.0, step=1 / 82, seed=100)
    settings = how.settled(loss, top=4.0)
    expected = float(settings.expected(CURVATURES).sum())
    found, se = doubled_mean(loss, settings)
    assert se < error * expected
    assert found == pytest.approx(expected, abs=4 * se)
    if chains == 400:
        assert found == pytest.approx(expected, rel=0.02)  # T8
    ideal = float((CURVATURES / (CURVATURES + settings.cut)).sum())
    assert abs(ideal - expected) > 4 * se


def test_expected_is_the_variance_of_the_recursion() -> None:
    """Against the recursion of the variance itself, step by step."""
    settings = Settled(4, 7, 11, 2.0, 20.0, 0.01, 6, 0, 6, 4.0)
    k = 20 * CURVATURES + 2
    variance, total = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for t in range(18):
        if t >= 7:
            total += 20 * CURVATURES * variance / 11
        variance = (1 - 0.01 * k / 2) ** 2 * variance + 0.01
    torch.testing.assert_close(settings.expected(CURVATURES), total, rtol=1e-12, atol=1e-14)
    long = replace(settings, step=1e-7, burn_in=10**10)
    torch.testing.assert_close(long.expected(CURVATURES), CURVATURES / (CURVATURES + 0.1), rtol=1e-5, atol=1e-12)


def test_chains_are_functions_of_seed_and_number() -> None:
    loss = quadratic()
    settings = Sampling(4, 5, 10, n_beta=20.0, seed=3).settled(loss, 4.0)
    first = sample(loss, settings)
    assert torch.equal(first, sample(loss, settings))
    assert first.shape == (4, 15)
    assert float(first[:, 0].abs().max()) == 0
    torch.testing.assert_close(sample(loss, replace(settings, chains=2)), first[:2], rtol=1e-9, atol=0)
    assert len({float(x) for x in first[:, -1]}) == 4
    assert not torch.equal(first, sample(loss, replace(settings, seed=4)))


class Branching(nn.Module):
    """Looks at its data, which many networks at once do not allow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out if bool(out.isfinite().all()) else out.nan_to_num()


@pytest.mark.parametrize("batch", [None, 3])
def test_one_by_one_is_the_same_as_side_by_side(batch: int | None) -> None:
    made = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, branching = BehaviouralLoss(made, x), BehaviouralLoss(Branching(made), x)
    settings = Sampling(3, 5, 10, n_beta=20.0, step=1e-3, batch=batch).settled(plain, 4.0)
    torch.testing.assert_close(sample(branching, settings), sample(plain, settings), rtol=1e-9, atol=1e-15)
    assert plain.stacked
    assert not branching.stacked
    assert "data-dependent control flow" in branching.reason


def test_large_networks_go_one_by_one_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    beside, after = quadratic(), quadratic()
    settings = Sampling(3, 5, 10, n_beta=20.0).settled(beside, 4.0)
    side_by_side = sample(beside, settings)
    monkeypatch.setattr(behavioural, "SIDE_BY_SIDE", 35)  # 6 items x 6 parameters
    torch.testing.assert_close(sample(after, settings), side_by_side, rtol=1e-9, atol=0)
    assert (beside.stacked, after.stacked, after.reason) == (True, False, "it is faster at this size on a processor")


def test_batches_estimate_the_loss_and_heat_the_chains() -> None:
    loss = quadratic()
    w = loss.start + torch.arange(6, dtype=torch.float64)
    parts = [loss(w, torch.tensor([i, i + 1])) for i in (0, 2, 4)]
    assert float(sum(parts)) / 3 == pytest.approx(float(loss(w)), rel=1e-12)
    settings = Sampling(100, 60, 200, localisation=2.0, n_beta=20.0, step=1 / 82, seed=100).settled(loss, 4.0)
    (whole, a), (few, b) = doubled_mean(loss, settings), doubled_mean(loss, replace(settings, batch=2))
    assert few - whole > 4 * math.hypot(a, b)


class Product(nn.Module):
    """w1 w2 x at 0: flat to second order, steep beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.prod() * x


def test_a_chain_that_diverges_is_named_with_what_to_do() -> None:
    loss = BehaviouralLoss(Product(), torch.ones(3, 1, dtype=torch.float64))
    settings = Sampling(4, 0, 200, n_beta=100.0, step=0.2).settled(loss, 0.0)
    with pytest.raises(
        NonFiniteError, match=r"chain \d of 4 diverged.* at step \d+ .*smaller step than 0.2.*localisation"
    ):
        sample(loss, settings)


def test_settings_follow_from_the_curvature() -> None:
    loss = quadratic()
    settings = Sampling(localisation=2.0).settled(loss, 400.0)
    assert settings.n_beta == pytest.approx(6 / math.log(6))
    assert settings.step == pytest.approx(0.2 / (settings.n_beta * 400 + 2))
    assert settings.cut == pytest.approx(2 / settings.n_beta)
    assert Sampling().settled(loss, 0.0).step == 1e-3
    assert Sampling(batch=2).settled(loss, 1.0).batch == 2
    with pytest.raises(ConfigError, match=r"every chain diverges: .*stable below 0\.0488 and well drawn at 0\.00244"):
        Sampling(n_beta=20.0, localisation=2.0, step=0.05).settled(loss, 4.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"chains": 1}, "at least 2"),
        ({"draws": 3}, "at least 8 draws"),
        ({"localisation": 0.0}, "localisation must be positive"),
        ({"step": -1.0}, "step must be positive"),
        ({"batch": 0}, "at least one item"),
        ({"seed": -1}, "not negative"),
    ],
)
def test_settings_that_are_refused(how: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**how)  # type: ignore[arg-type]
