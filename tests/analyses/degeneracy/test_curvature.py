"""Curvature of the behavioural loss: against autograd's Hessian, the two-layer blocks, ranks, and random vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.curvature import curvature, eigenvalues, hessian, kernel, product, spectrum
from heldout.analyses.degeneracy.ranks import free_directions
from heldout.errors import ConfigError, NetworkError
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Rectangular, Split


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*, activation: type[nn.Module] = nn.Tanh, bias: bool = True) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(5, 8, bias=bias), activation(), nn.Linear(8, 3, bias=bias)).double()
    for i, p in enumerate(made.parameters()):
        p.data = draw(*p.shape, seed=10 + i)
    return made


X = draw(60, 5, seed=1)


def by_autograd(loss: BehaviouralLoss) -> Tensor:
    return torch.func.jacrev(torch.func.jacrev(loss))(loss.start)


class Positions(nn.Module):
    """(B, T, 5) -> (B, T, 3), each position seeing the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + x.roll(1, dims=1))
        return out


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_hessian_is_autograd_s(kind: str) -> None:
    loss = BehaviouralLoss(network(), X, kind=kind)  # type: ignore[arg-type]
    exact = by_autograd(loss)
    found, v = hessian(loss), draw(loss.size, seed=2)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(product(loss)(v), exact @ v, rtol=1e-11, atol=1e-12)
    tangent = torch.linalg.eigvalsh(kernel(loss))[-loss.size :]
    torch.testing.assert_close(tangent, torch.linalg.eigvalsh(exact), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_positions_that_do_not_count_play_no_part(kind: str) -> None:
    scored = draw(6, 4, seed=3) > 0
    split = Split("some", "fit", Rectangular(draw(6, 4, 5, seed=4), scored=scored))
    loss = BehaviouralLoss(Positions(), split, kind=kind, dtype=torch.float64)  # type: ignore[arg-type]
    assert loss.n == int(scored.sum())
    exact = by_autograd(loss)
    torch.testing.assert_close(hessian(loss), exact, rtol=1e-12, atol=1e-13)
    v = draw(loss.size, seed=5)
    torch.testing.assert_close(product(loss)(v), exact @ v, rtol=1e-11, atol=1e-12)


def test_attention_has_its_curvature_and_stacks() -> None:
    torch.manual_seed(0)
    made = Transformer(5, width=4, layers=1, heads=2, mlp_ratio=1, max_length=3).double()
    tokens = torch.tensor([[0, 1, 2], [3, 4, 0], [2, 2, 1]])
    loss = BehaviouralLoss(made, tokens, kind="kl")
    assert loss.n == 9
    exact, v = by_autograd(loss), draw(loss.size, seed=9)
    torch.testing.assert_close(hessian(loss), exact, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(product(loss)(v), exact @ v, rtol=1e-9, atol=1e-12)
    w = loss.start + 0.1 * draw(3, loss.size, seed=10)
    torch.testing.assert_close(loss.chains(w), torch.stack([loss(one) for one in w]), rtol=1e-10, atol=0)
    assert loss.stacked


def test_two_layer_blocks() -> None:
    """With gates o, f2 = o * (W_in f1) and f_out = W_out f2: <f2 f2^T> for each output, W_out^T W_out <o o f1 f1> and
    between them W_out <o f1 f2> + (for an output's own weight) <...>; H is twice these."""
    made = network(activation=nn.ReLU, bias=False)
    w_in, w_out = (p.detach() for p in made.parameters())
    gates = (X @ w_in.T > 0).double()
    f2 = gates * (X @ w_in.T)
    n = len(X)
    first = torch.einsum("oi,oj,ni,nj,nk,nl->ikjl", w_out, w_out, gates, gates, X, X).reshape(40, 40) / n
    second = torch.kron(torch.eye(3, dtype=torch.float64), f2.T @ f2 / n)
    cross = torch.einsum("oi,ni,nk,nl->ikol", w_out, gates, X, f2).reshape(40, 24) / n
    oracle = 2 * torch.cat([torch.cat([first, cross], 1), torch.cat([cross.T, second], 1)])
    torch.testing.assert_close(hessian(BehaviouralLoss(made, X)), oracle, rtol=1e-12, atol=1e-12)


def test_ranks_of_kernel_jacobian_and_free_directions_are_one() -> None:
    made = network(activation=nn.ReLU)
    loss, counted = BehaviouralLoss(made, X), free_directions(made, X)
    by_weights = torch.func.jacrev(lambda w: loss.outputs(w, loss.inputs))(loss.start).flatten(0, 1)
    found = spectrum(loss)
    assert found.rank == counted.rank == int(torch.linalg.matrix_rank(by_weights)) < loss.size
    assert int(torch.linalg.matrix_rank(kernel(loss), hermitian=True)) == found.rank
    ours, theirs = found.values[: found.rank], counted.hessian.values[: found.rank]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=0)
    assert curvature(loss).effective(0.01)[0] == pytest.approx(counted.effective(0.01), rel=1e-8)


def test_fewer_outputs_than_weights_give_the_same_count() -> None:
    few = BehaviouralLoss(network(), X[:10])  # 30 outputs, 75 weights
    assert len(eigenvalues(few)) == 30
    exact = torch.linalg.eigvalsh(hessian(few)).clamp(min=0)
    found = curvature(few)
    assert found.effective(0.1)[0] == pytest.approx(float((exact / (exact + 0.1)).sum()), rel=1e-10)
    assert found.trace(torch.ones_like)[0] == 75


def test_chosen_parameters_are_a_block() -> None:
    whole = hessian(BehaviouralLoss(network(), X))
    by_module = BehaviouralLoss(network(), X, parameters=["2"])
    torch.testing.assert_close(hessian(by_module), whole[48:, 48:], rtol=1e-12, atol=1e-13)
    mask = draw(8, 5, seed=6) > 0
    at = torch.cat([mask.flatten().nonzero()[:, 0], torch.arange(72, 75)])
    masks = {"0.weight": mask, "2.bias": torch.ones(3, dtype=torch.bool)}
    by_mask = BehaviouralLoss(network(), X, parameters=masks)
    assert by_mask.size == len(at)
    torch.testing.assert_close(hessian(by_mask), whole[at][:, at], rtol=1e-12, atol=1e-13)


def test_lanczos_from_every_sign_vector_is_exact() -> None:
    """All steps that there are from the 2^P sign vectors: the mean over all of them is the trace itself."""
    made = nn.Linear(3, 1).double()
    made.weight.data, made.bias.data = draw(1, 3, seed=7), draw(1, seed=8)
    loss = BehaviouralLoss(made, X[:, :3])
    exact, sketched = curvature(loss), curvature(loss, small=0, probes=400)
    assert (exact.method, sketched.method) == ("exact", "lanczos (400 probes, 4 steps)")
    assert sketched.top == pytest.approx(exact.top, rel=1e-10)
    # Each row is z^T f(H) z to rounding, and only 2^3 values of it differ.
    rows = (sketched.nodes / (sketched.nodes + 0.5) * sketched.weights).sum(1)
    h = hessian(loss)
    f = torch.linalg.solve(h + 0.5 * torch.eye(4, dtype=torch.float64), h)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    possible = torch.einsum("si,ij,sj->s", signs, f, signs)
    assert float((rows[:, None] - possible).abs().min(dim=1).values.max()) < 1e-10
    assert float(possible.mean()) == pytest.approx(exact.effective(0.5)[0], rel=1e-12)


def test_lanczos_quadrature_is_right_within_its_error() -> None:
    loss = BehaviouralLoss(network(), X)
    exact, (sketched, error) = curvature(loss).effective(0.01)[0], curvature(loss, small=1, probes=20).effective(0.01)
    assert 0 < error < 0.1 * exact
    assert abs(sketched - exact) < 4 * error


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown behavioural loss 'mes'; choose from mse, kl"):
        BehaviouralLoss(network(), X, kind="mes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"unknown parameter '0\.weigth'"):
        BehaviouralLoss(network(), X, parameters=["0.weigth"])
    with pytest.raises(ConfigError, match="must be bool of shape"):
        BehaviouralLoss(network(), X, parameters={"0.weight": torch.ones(5, 8, dtype=torch.bool)})
    with pytest.raises(ConfigError, match="no parameter is free"):
        BehaviouralLoss(network(), X, parameters={"0.weight": torch.zeros(8, 5, dtype=torch.bool)})
    with pytest.raises(ConfigError, match="cut must be positive"):
        curvature(BehaviouralLoss(network(), X)).effective(0)
    with pytest.raises(NetworkError, match="fails on split 'data'"):
        BehaviouralLoss(network(), X[:, :4])


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x - x.mean(0))
        return out


class Random(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + torch.rand_like(x))
        return out


class Branching(Mixing):
    """Looks at its data, which many items at once do not allow."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) if bool((x > -100).all()) else x[:, :3]
        return out


def test_networks_that_are_not_functions_of_items() -> None:
    with pytest.raises(NetworkError, match="items of a batch influence each other"):
        hessian(BehaviouralLoss(Mixing(), X))
    with pytest.raises(NetworkError, match="other outputs when it is called again"):
        BehaviouralLoss(Random(), X)


def test_a_network_that_looks_at_its_data_is_taken_item_by_item() -> None:
    plain = hessian(BehaviouralLoss(network(), X[:5]))
    torch.testing.assert_close(hessian(BehaviouralLoss(Branching(), X[:5])), plain, rtol=1e-12, atol=1e-14)
