"""Synchronised ReLU neurons: which are on for the same inputs, and what it costs to give some of them one gate.

    errors = gate_errors(before)                 # before the ReLU, (n, D)
    sets = gate_clusters(before, tolerance=0.01)
    replaced = replace_gates(network, "hidden.0.act", inputs, sets)

A neuron with pre-activation p has gate o = [p > 0] and output o p. k neurons with one gate on all inputs compute a
linear map of their inputs wherever they are on, and any invertible mixture of them, undone behind them, changes nothing
that the network does there (as long as gates stay as they are): k^2 directions, k of them the scales that each live
neuron has anyway.

Equal gates are rare, so a tolerance is offered: neuron j may share the gate of i where it costs less than that share of
its mean square, (o_i p_j - o_j p_j)^2 against (o_j p_j)^2, both ways. That is a statement about this layer alone; what
it does to the network is measured by replacement, beside random sets of the same sizes. At a tolerance above zero the
k^2 - k directions of a set are not free: they change little.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heldout.errors import ConfigError, NonFiniteError, SiteError, unknown
from heldout.statistics.permutation import null_p

TOLERANCE = 0.01  # of a neuron's mean square
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GateCluster:
    """`neurons` (their numbers, rising) that share a gate; `medoid`, the one whose gate costs the others least in sum.

    `error`: the largest cost of any member with any other's gate, a share of its mean square; 0 where gates are equal.
    """

    neurons: tuple[int, ...]
    medoid: int
    error: float
    always: bool

    @property
    def extra(self) -> int:
        """k^2 - k: directions beyond the neurons' own scales, where maps and gradients are independent."""
        return len(self.neurons) * (len(self.neurons) - 1)


def gate_errors(before: Tensor) -> Tensor:
    """(D, D) float64: entry (i, j) is what gate i costs neuron j, as a share of its mean square.

    `before` (n, D) are pre-activations. Columns of neurons that are never on are inf, but for their own entry, which is
    0. All terms are sums of squares: entries are exactly 0 where gates are equal.
    """
    p = _checked(before)
    on = (p > 0).double()
    missed_or_added = (1 - on).T @ (on * p**2) + on.T @ ((1 - on) * p**2)
    cost = missed_or_added / (on * p**2).sum(dim=0)
    cost[:, ~on.bool().any(dim=0)] = torch.inf
    return cost.fill_diagonal_(0.0)


def gate_clusters(before: Tensor, *, tolerance: float = 0.0) -> list[GateCluster]:
    """Sets of neurons that share a gate on all rows of `before` (n, D), lone neurons among them, by their first neuron.

    `tolerance` 0: gates are equal, found by hashing patterns. Above: complete linkage on the larger of the two costs,
    so that no two members of a set cost each other more. Neurons that are never on are in none. Raises `ConfigError`.
    """
    if not 0 <= tolerance < 1:
        raise ConfigError(f"a tolerance must be from 0 to below 1 of a neuron's mean square, got {tolerance}")
    p = _checked(before)
    gates = p > 0
    live = gates.any(dim=0).nonzero()[:, 0].tolist()
    groups = _equal(gates, live) if tolerance == 0 else _close(gate_errors(p)[live][:, live], live, tolerance)
    found = []
    for neurons in groups:
        inner = gate_errors(p[:, neurons])
        medoid = neurons[int(inner.sum(dim=1).argmin())]
        found.append(GateCluster(tuple(neurons), medoid, float(inner.max()), bool(gates[:, neurons].all())))
    return found


def never_on(before: Tensor) -> tuple[int, ...]:
    """The neurons that are on for no row of `before` (n, D)."""
    return tuple((~(_checked(before) > 0).any(dim=0)).nonzero()[:, 0].tolist())


@dataclass(frozen=True, eq=False)
class Replaced:
    """Every neuron of a set given its medoid's gate: what that changes, beside random sets of the same sizes.

    `error`: mean square change of the outputs over their variance (sum over outputs), on `n` items; `random` (R,): the
    same for sets of random live neurons. `agreement` and `random_agreement` (R,): how often the largest output stays
    the largest.
    """

    error: float
    random: Floats
    agreement: float
    random_agreement: Floats
    n: int

    @property
    def p(self) -> float:
        """Of an error as small as this for random sets; at least 1 / (1 + R)."""
        return null_p(-self.error, -self.random)


def replace_gates(
    network: nn.Module,
    layer: str,
    inputs: Tensor,
    clusters: Sequence[GateCluster],
    *,
    draws: int = 20,
    seed: int = 0,
) -> Replaced:
    """Run `network` on `inputs` (n, ...) with one gate a set at its ReLU `layer`, in float64; then `draws` random sets.

    A random set has the size of one of `clusters`; its members and the one whose gate all take are drawn from the
    neurons that are in any of them. Raises `SiteError` where `layer` is no ReLU that runs once on (n, D).
    """
    if draws < 1 or not clusters:
        raise ConfigError(f"a replacement needs clusters and one random draw or more, got {len(clusters)} and {draws}")
    double = copy.deepcopy(network).to("cpu", torch.float64).eval().requires_grad_(False)
    relus = {name: m for name, m in double.named_modules() if isinstance(m, nn.ReLU)}
    if layer not in relus:
        raise SiteError(unknown("ReLU", layer, relus))
    x = inputs.detach().cpu().double()
    plain = _gated(double, relus[layer], x, None, layer)
    variance = float(((plain - plain.mean(dim=0)) ** 2).sum(dim=1).mean())
    if variance == 0:
        raise ConfigError(
            f"the network returns the same for all {len(x)} inputs: a change has nothing to be measured by"
        )

    def judged(leaders: dict[int, int]) -> tuple[float, float]:
        out = _gated(double, relus[layer], x, leaders, layer)
        same = (out.argmax(dim=1) == plain.argmax(dim=1)).double().mean()
        return float(((out - plain) ** 2).sum(dim=1).mean()) / variance, float(same)

    error, agreement = judged({n: c.medoid for c in clusters for n in c.neurons})
    neurons = np.array(sorted(n for c in clusters for n in c.neurons))
    sizes = [len(c.neurons) for c in clusters]
    rng = np.random.default_rng(seed)
    controls = []
    for _ in range(draws):
        sets = np.split(rng.permutation(neurons), np.cumsum(sizes)[:-1])
        controls.append(judged({int(n): int(members[0]) for members in sets for n in members}))
    random, random_agreement = np.array(controls).T
    return Replaced(error, random, agreement, random_agreement, len(x))


def _gated(network: nn.Module, relu: nn.Module, x: Tensor, leaders: dict[int, int] | None, layer: str) -> Tensor:
    """The network's output (n, K), with neuron -> the neuron whose gate it takes."""
    runs = 0

    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        p = args[0]
        if runs > 1 or p.ndim != 2:
            raise SiteError(f"{layer} must run once, on (n, D); it was given {tuple(p.shape)}")
        order = torch.arange(p.shape[1])
        if leaders:
            order[list(leaders)] = torch.tensor(list(leaders.values()))
        return out if leaders is None else p * (p[:, order] > 0)

    if isinstance(relu, nn.ReLU) and relu.inplace:
        raise SiteError(f"{layer} works in place, so what it is given is lost; build it with inplace=False")
    handle = relu.register_forward_hook(hook)
    try:
        with torch.no_grad():
            result: Tensor = network(x)
    finally:
        handle.remove()
    return result.flatten(1)


def _equal(gates: Tensor, live: list[int]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for neuron in live:
        groups.setdefault(gates[:, neuron].numpy().tobytes(), []).append(neuron)
    return list(groups.values())


def _close(cost: Tensor, live: list[int], tolerance: float) -> list[list[int]]:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(live) < 2:
        return [[n] for n in live]
    distance = torch.maximum(cost, cost.T).numpy()
    labels = fcluster(linkage(squareform(distance, checks=False), "complete"), tolerance, criterion="distance")
    groups: dict[int, list[int]] = {}
    for neuron, label in zip(live, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(neuron)
    return list(groups.values())


def _checked(before: Tensor) -> Tensor:
    if before.ndim != 2 or not before.is_floating_point() or not len(before):
        raise ConfigError(
            f"pre-activations must be floating-point rows (n, D), got {before.dtype} {tuple(before.shape)}"
        )
    p = before.detach().cpu().double()
    if not bool(torch.isfinite(p).all()):
        raise NonFiniteError("pre-activations hold NaN or infinite values")
    return p
