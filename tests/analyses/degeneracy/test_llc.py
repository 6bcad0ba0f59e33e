"""The learning coefficient as a user meets it: a number with what it depends on, or the reason why there is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.llc import learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.errors import ConfigError
from heldout.networks.mlp import MLP
from heldout.tasks.base import Rectangular, Split

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
SHORT = Sampling(draws=500, burn_in=60, localisation=30.0, step=3e-3, seed=100)


def small() -> MLP:
    torch.manual_seed(0)
    return MLP((4, 6, 3), "tanh")


def test_three_lines_on_a_plain_module() -> None:
    network = small().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = learning_coefficient(network, X, sampling=SHORT)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert found.low < found.value < found.high
    assert (found.n, found.parameters, found.dtype, found.stacked) == (60, 51, "float32", "chains side by side")
    assert found.effective.value == 2 * found.value
    assert found.value == pytest.approx(found.settings.n_beta * float(found.trace.mean()), rel=1e-12)
    assert found.cut == pytest.approx(30 / (60 / math.log(60)))
    assert found.effective.value == pytest.approx(found.quadratic.value, rel=0.2)


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_no_number_comes_bare(kind: str) -> None:
    found = learning_coefficient(small(), Split("dev", "select", Rectangular(X)), loss=kind, sampling=SHORT)  # type: ignore[arg-type]
    words = {"mse": "squared difference", "kl": "KL(network as it is || network), nats"}[kind]
    for count in (found.effective, found.quadratic, found.expected):
        for said in (str(count), count.estimate("n_eff").method):
            assert "n = 60" in said
            assert "cut-off" in said
            assert f"mean over 60 predictions of {'the ' if kind == 'mse' else ''}{words}" in said
    row = found.effective.estimate("n_eff")
    assert (row.quantity, row.value, row.n, row.reason) == ("n_eff", found.effective.value, 60, "")
    assert found.split == "dev"
    assert "split R-hat" in str(found)


def test_the_same_seed_gives_the_same_chains() -> None:
    one, two = (learning_coefficient(small(), X, sampling=SHORT) for _ in range(2))
    assert torch.equal(one.trace, two.trace)
    assert (one.value, one.diagnostics) == (two.value, two.diagnostics)


def test_chains_that_have_not_settled_give_no_number() -> None:
    how = Sampling(draws=60, burn_in=0, localisation=0.1, seed=100)
    found = learning_coefficient(small(), X, sampling=how)
    assert all(map(math.isnan, (found.value, found.low, found.high, found.effective.value)))
    assert "chains disagree" in found.reason
    assert "burn-in" in found.reason
    assert "localisation above 0.1" in found.reason
    assert "N_eff: not given" in str(found)
    assert "too short to see it all" in str(found)
    assert found.effective.estimate("n_eff").reason == found.reason
    assert found.quadratic.value > found.expected.value > 0  # these are not the chains', and stand


def test_parameters_that_do_nothing_count_nothing() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    nn.init.constant_(network[0].bias, -100.0)  # no neuron is ever on
    found = learning_coefficient(network, X, parameters=["0"], sampling=Sampling(draws=20, burn_in=5))
    assert (found.value, found.low, found.high, found.reason) == (0, 0, 0, "")
    assert found.quadratic.value == 0


class Saturated(nn.Module):
    """tanh 3w at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (3 * self.w).tanh() * x


def test_a_loss_that_levels_off_counts_less_than_its_curvature() -> None:
    """Curvature 18 gives n beta 18 / (n beta 18 + gamma) = 0.9; a loss of at most 1 gives at most 2 n beta = 0.1."""
    how = Sampling(8, 150, 1_000, localisation=0.1, n_beta=0.05, step=0.5, seed=100)
    found = learning_coefficient(Saturated(), torch.ones(3, 1, dtype=torch.float64), sampling=how)
    assert found.quadratic.value == pytest.approx(0.9, rel=1e-12)
    assert 0 < found.effective.value <= 0.1
    assert "away from these weights the loss is flatter" in found.meaning


def test_too_few_predictions_for_a_temperature() -> None:
    with pytest.raises(ConfigError, match="at least 3 predictions, got 2; give n_beta"):
        learning_coefficient(small(), X[:2])


def test_batches_and_sketched_curvature_are_said() -> None:
    how = Sampling(draws=20, burn_in=5, localisation=30.0, batch=20, seed=100)
    found = learning_coefficient(small(), X, sampling=how, small=1, probes=4, steps=6)
    assert "steps saw 20 of 60 items" in str(found)
    assert "lanczos (4 probes, 6 steps)" in found.quadratic.method
    assert found.quadratic.low < found.quadratic.value < found.quadratic.high
    exact = learning_coefficient(small(), X, sampling=how)
    assert exact.quadratic.low == exact.quadratic.value == exact.quadratic.high
    assert found.quadratic.low < exact.quadratic.value < found.quadratic.high
