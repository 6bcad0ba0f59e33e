"""The curvature of a network's behavioural loss at its own weights, exact where it is small and sketched where it is not.

    found = curvature(BehaviouralLoss(network, inputs))
    found.effective(cut)                    # tr[H (H + cut)^-1] and its error: parameters that matter at a cut
    found.top                               # the largest eigenvalue

The loss has no residual at w0, so its Hessian there is the Gauss-Newton matrix and positive semidefinite::

    mse   H = 2/n sum_x J_x^T J_x                       kl   H = 1/n sum_x J_x^T (diag p - p p^T) J_x

with J_x (V, P) the derivative of the outputs by the weights; with H = A^T A, the tangent kernel A A^T has the same
eigenvalues but for zeros. Where neither is small, H is only multiplied with vectors, and stochastic Lanczos quadrature
turns that into tr f(H) for any f: K random sign vectors z, m Lanczos steps from each, and the Gauss quadrature of z^T f(H) z
that their tridiagonal matrix holds (Golub & Meurant; Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. 38, 1075).

At ReLU kinks H is that of the linear pieces that the data fall on. It says nothing of what lies beyond second order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from heldout.analyses.degeneracy.behavioural import CHUNK, BehaviouralLoss, root
from heldout.errors import ConfigError, NetworkError, NonFiniteError
from heldout.proxies.spectrum import EXACT, Spectrum

SMALL = 1_024  # parameters, or outputs of all predictions, up to which every eigenvalue is found
MEMORY = 2**28  # bytes of Jacobian at once
PROBES, STEPS = 10, 40  # of stochastic Lanczos quadrature: m steps err by exp(-4 m / sqrt(top / cut)) at worst
MIXED = 1e-8  # an item's output alone and among others, in float64, relative to the largest


@dataclass(frozen=True, eq=False)
class Curvature:
    """`nodes` and `weights` (K, m): each row's weighted nodes stand for the spectrum of H, (P, P), on `n` predictions.

    ``exact``: one row, the eigenvalues. ``lanczos``: one row a random vector, each an unbiased estimate of tr f(H) as far
    as m nodes go.
    """

    parameters: int
    n: int
    nodes: Tensor
    weights: Tensor
    method: str

    def trace(self, function: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """tr f(H) and its standard error over random vectors (0 where exact), for an elementwise `function`."""
        rows = (function(self.nodes) * self.weights).sum(1)
        error = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0
        return float(rows.mean()), error

    def effective(self, cut: float) -> tuple[float, float]:
        """tr[H (H + cut)^-1] and its standard error: from 0 to rank H. It means something together with n, the cut and
        the normalisation of the loss."""
        if not 0 < cut < math.inf:
            raise ConfigError(f"a cut must be positive, got {cut}")
        return self.trace(lambda values: values / (values + cut))

    @property
    def top(self) -> float:
        """The largest eigenvalue; from Lanczos a lower bound, which m steps bring closer than m power iterations."""
        return float(self.nodes.max())


def curvature(
    loss: BehaviouralLoss, *, small: int = SMALL, probes: int = PROBES, steps: int = STEPS, seed: int = 0
) -> Curvature:
    """The spectrum of the Hessian of `loss`: exact where there are at most `small` parameters or outputs, by stochastic
    Lanczos quadrature otherwise. `loss` should be in float64."""
    outputs = loss.reference.numel()
    if loss.size <= small or (outputs <= small and outputs * loss.size * 8 <= MEMORY):
        values = eigenvalues(loss).clamp(min=0)
        rest = values.new_tensor([float(loss.size - len(values))])  # the zeros that the smaller matrix lacks
        nodes, weights = torch.cat([values, values.new_zeros(1)]), torch.cat([torch.ones_like(values), rest])
        return Curvature(loss.size, loss.n, nodes[None], weights[None], "exact")
    if probes < 2 or steps < 1:
        raise ConfigError(f"Lanczos quadrature needs at least 2 probes and 1 step, got {probes} and {steps}")
    multiply = product(loss)
    rows = [_quadrature(multiply, loss, steps, np.random.SeedSequence(seed, spawn_key=(k,))) for k in range(probes)]
    most = max(
        len(nodes) for nodes, _ in rows
    )  # a row that ended early has found all there is; zeros of weight 0 fill it
    nodes, weights = (
        torch.stack([torch.nn.functional.pad(row[part], (0, most - len(row[part]))) for row in rows]) for part in (0, 1)
    )
    return Curvature(loss.size, loss.n, nodes, weights, f"lanczos ({probes} probes, {most} steps)")


def hessian(loss: BehaviouralLoss) -> Tensor:
    """(P, P): the Hessian of `loss` at its start."""
    total = loss.start.new_zeros(loss.size, loss.size)
    for rows in _factors(loss):
        total += rows.T @ rows
    return total


def kernel(loss: BehaviouralLoss) -> Tensor:
    """(n V, n V): the tangent kernel A A^T, A^T A = H; predictions that do not count are rows of zeros."""
    rows = torch.cat(list(_factors(loss)))
    return rows @ rows.T


def spectrum(loss: BehaviouralLoss, *, relative: float = EXACT) -> Spectrum:
    """Eigenvalues of the smaller of Hessian and tangent kernel, with their rank and its tolerance."""
    by_weights = loss.size <= loss.reference.numel()
    matrix, what = (hessian(loss), "the Hessian") if by_weights else (kernel(loss), "the tangent kernel")
    return Spectrum.of(matrix, relative=relative, what=what)


def eigenvalues(loss: BehaviouralLoss) -> Tensor:
    """(min(P, n V),), rising: those of the smaller of Hessian and tangent kernel."""
    matrix = hessian(loss) if loss.size <= loss.reference.numel() else kernel(loss)
    _require_finite(matrix, loss)
    found: Tensor = torch.linalg.eigvalsh(matrix)
    return found


def product(loss: BehaviouralLoss) -> Callable[[Tensor], Tensor]:
    """v (P,) -> H v, by the derivative of the gradient along v; no matrix is made. Where the data are one chunk, the
    gradient's graph is kept from one product to the next."""
    held = list(_gradients(loss)) if loss.items <= CHUNK else None

    def multiply(v: Tensor) -> Tensor:
        parts = _gradients(loss) if held is None else held
        found = (torch.autograd.grad(g, w, v, retain_graph=held is not None)[0] for w, g in parts)
        total: Tensor = sum(found, start=torch.zeros_like(v))
        return total

    return multiply


def _gradients(loss: BehaviouralLoss) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each chunk of items: the weights, and the gradient of its share of the loss by them, differentiable again."""
    for start in range(0, loss.items, CHUNK):
        index = torch.arange(start, min(start + CHUNK, loss.items), device=loss.start.device)
        w = loss.start.clone().requires_grad_()
        value = loss(w, index) * (len(index) / loss.items)
        yield w, torch.autograd.grad(value, w, create_graph=True)[0]


def _factors(loss: BehaviouralLoss) -> Iterator[Tensor]:
    """A in chunks of rows, (items x T x V, P): each item's outputs by the weights, times the root of the loss's Hessian."""

    def one(w: Tensor, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        out = loss.outputs(w, [x[None] for x in inputs])[0]
        return out, out

    jacobian = jacrev(one, has_aux=True)
    many = vmap(jacobian, in_dims=(None, 0), randomness="same")
    each = loss.reference[0].numel() * loss.size * loss.start.element_size()

    for inputs, reference, counted in loss.chunks(max(1, min(loss.items, MEMORY // (4 * each)))):
        try:
            by_weights, alone = many(loss.start, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a network that looks at its data: item by item
            pairs = [jacobian(loss.start, [x[i] for x in inputs]) for i in range(len(reference))]
            by_weights, alone = (torch.stack(part) for part in zip(*pairs, strict=True))
        _check_apart(loss, alone, reference, counted)
        scaled = root(loss.kind, reference, by_weights) * (counted / loss.n).sqrt()[..., None, None]
        yield scaled.flatten(0, -2)


def _check_apart(loss: BehaviouralLoss, alone: Tensor, reference: Tensor, counted: Tensor) -> None:
    differs = float(((alone - reference).abs().amax(-1) * counted).max())
    rounding = MIXED if loss.dtype == torch.float64 else 1e-3
    if differs > rounding * max(1.0, float(reference.abs().max())):
        raise NetworkError(
            f"an item of split {loss.split!r} gets another output alone than among others (by {differs:.3g}): items of a "
            "batch influence each other, and the Hessian is no sum over items. Axis 0 of inputs and output must count items"
        )


def _quadrature(
    multiply: Callable[[Tensor], Tensor], loss: BehaviouralLoss, steps: int, seed: np.random.SeedSequence
) -> tuple[Tensor, Tensor]:
    """Nodes and weights (at most `steps`,) of one random sign vector; the weights add up to P."""
    size = loss.size
    signs = np.random.default_rng(seed).integers(0, 2, size)
    basis = loss.start.new_zeros(min(steps, size), size)
    basis[0] = torch.from_numpy(2.0 * signs - 1).to(basis) / math.sqrt(size)
    diagonal: list[float] = []
    beside: list[float] = []
    for k in range(len(basis)):
        w = multiply(basis[k])
        _require_finite(w, loss)
        diagonal.append(float(w @ basis[k]))
        for _ in range(2):  # against all before, twice: rounding would bring found eigenvalues in again
            w = w - (basis[: k + 1] @ w) @ basis[: k + 1]
        norm = float(w.norm())
        if k + 1 == len(basis) or norm <= 1e-10 * max(map(abs, diagonal)):
            break
        beside.append(norm)
        basis[k + 1] = w / norm
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return nodes.clamp(min=0), size * vectors[0].square()


def _require_finite(values: Tensor, loss: BehaviouralLoss) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(
            f"derivatives of the network's outputs on split {loss.split!r} are NaN or infinite; look for square roots, "
            "norms or divisions at zero"
        )
