"""Degeneracy by design: each of its three kinds planted into a ReLU network, with the free directions it adds known.

    planted = plant_activations(network, inputs, layer=0, neuron=3)
    planted.network, planted.null          # one neuron more; this many free directions more than `network` has

What is planted, at a hidden layer between d inputs and d' neurons of the next layer:

- **activations** that depend on each other: a neuron that is a multiple of another, with a readout of its own, whose
  effect is taken off the other's. The function stays for every input. Free are d' weights that read it, and 1, its
  scale.
- **gradients** that do: a neuron with a map of its own that is on for the same inputs as another, and a readout that is
  a multiple of the other's; what it adds is taken off the other's map. The function stays on the inputs given. Free are
  the d + 1 parameters of a map (moving one against the other), and 1, its scale.
- **gates** alike: k neurons given maps of their own that are on for the same inputs: k^2 - k free directions. This must
  change the function: k independent maps with k independent readouts make a map of rank k, and a lone neuron has rank
  1. What leaves it as it is, is to move along the freedom: `mix_gates`.

The numbers hold where the rest is in general position, for which at least two neurons (or outputs) must read the layer;
the Hessian of the behavioural loss has the last word (`heldout.analyses.degeneracy.ranks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.gates import gate_clusters
from heldout.errors import ConfigError
from heldout.networks.mlp import MLP, Hidden

Kind = Literal["activations", "gradients", "gates"]
MARGIN = 0.5  # of a neuron's distance from its threshold that another map in step with it may use
SMALLEST = 1e-4  # of a neuron's size that the difference of two maps must have, or ranks would hardly see it
SHARE = 0.25  # of a neuron's effect that one with the same gradients takes over


@dataclass(frozen=True, eq=False)
class Planted:
    """A float64 `network` in which `neurons` of hidden layer `layer` are degenerate in a known way.

    `null`: free directions more than the network has that it was planted in. `change`: the largest absolute difference
    of an output on the inputs given, in units of the output: rounding, where the function stays.
    """

    network: MLP
    kind: Kind
    layer: int
    neurons: tuple[int, ...]
    null: int
    change: float


def plant_activations(network: MLP, inputs: Tensor, *, layer: int, neuron: int, seed: int = 0) -> Planted:
    """Add a neuron that is a multiple of `neuron`, which must be alone with its gate on `inputs` (n, widths[0])."""
    there, rng = _Around.of(network, inputs, layer), torch.Generator().manual_seed(seed)
    there.check_alone([neuron])
    multiple = 0.5 + 1.5 * float(torch.rand(1, generator=rng))
    size = there.readout[:, neuron].norm() / len(there.readout) ** 0.5
    readout = 0.5 * size * torch.randn(len(there.readout), generator=rng, dtype=torch.float64)
    maps = torch.cat([there.maps, multiple * there.maps[neuron : neuron + 1]])
    readouts = torch.cat([there.readout, readout[:, None]], dim=1)
    readouts[:, neuron] -= multiple * readout
    return there.planted("activations", (neuron, there.width), maps, readouts, null=len(readout) + 1)


def plant_gradients(network: MLP, inputs: Tensor, *, layer: int, neuron: int, seed: int = 0) -> Planted:
    """Add a neuron with a map of its own and a share of the readout of `neuron`, in step with it on `inputs`."""
    there, rng = _Around.of(network, inputs, layer), torch.Generator().manual_seed(seed)
    there.check_alone([neuron])
    own = there.in_step(neuron, rng)
    maps = torch.cat([there.maps, own[None]])
    maps[neuron] -= SHARE * own
    readouts = torch.cat([there.readout, SHARE * there.readout[:, neuron : neuron + 1]], dim=1)
    return there.planted("gradients", (neuron, there.width), maps, readouts, null=len(own) + 1)


def plant_gates(network: MLP, inputs: Tensor, *, layer: int, neurons: Sequence[int], seed: int = 0) -> Planted:
    """Give all `neurons` but the first maps of their own that are on where the first is, on `inputs` (n, widths[0]).

    The function changes, and so do gates in layers behind: there `null` is what these neurons add, and the network's
    own count may move too. Raises `ConfigError` where there are more neurons than inputs or readers to tell them apart.
    """
    there, rng = _Around.of(network, inputs, layer), torch.Generator().manual_seed(seed)
    there.check_alone(neurons)
    most = min(there.maps.shape[1], len(there.readout))
    if not 2 <= len(neurons) <= most:
        raise ConfigError(
            f"hidden layer {layer} has {there.maps.shape[1] - 1} inputs and {len(there.readout)} readers: from 2 to "
            f"{most} neurons may share a gate and stay independent, got {len(neurons)}"
        )
    maps = there.maps.clone()
    for neuron in neurons[1:]:
        maps[neuron] = there.in_step(neurons[0], rng)
    k = len(neurons)
    return there.planted("gates", tuple(neurons), maps, there.readout, null=k * k - k)


def mix_gates(
    network: MLP, inputs: Tensor, *, layer: int, neurons: Sequence[int], seed: int = 0, size: float = 0.5
) -> Planted:
    """The same function on `inputs`, other weights: maps of `neurons`, which share a gate, mixed by an invertible
    matrix and unmixed behind them. The matrix is within `size` of one in each row; that is halved until gates stay.

    Raises `ConfigError` where gates differ to begin with, or change however small the step.
    """
    there, chosen = _Around.of(network, inputs, layer), list(neurons)
    gates = there.before > 0
    if len(chosen) < 2 or not bool((gates[:, chosen] == gates[:, chosen[:1]]).all()):
        raise ConfigError(f"neurons {chosen} of hidden layer {layer} do not share a gate on these inputs")
    noise = 2 * torch.rand(len(chosen), len(chosen), generator=torch.Generator().manual_seed(seed)).double() - 1
    while True:
        mix = torch.eye(len(chosen), dtype=torch.float64) + size * noise / len(chosen)
        if bool(((there.before[:, chosen] @ mix.T > 0) == gates[:, chosen]).all()):
            break
        size /= 2
        if size < SMALLEST:
            raise ConfigError(
                f"neurons {chosen} of hidden layer {layer} stand too close to their threshold to be mixed"
            )
    maps, readouts = there.maps.clone(), there.readout.clone()
    maps[chosen] = mix @ there.maps[chosen]
    readouts[:, chosen] = there.readout[:, chosen] @ torch.linalg.inv(mix)
    return there.planted("gates", tuple(chosen), maps, readouts, null=0)


@dataclass(frozen=True, eq=False)
class _Around:
    """One hidden layer of `network`: `maps` (D, d + 1), biases last; `readout` (D', D) of the next layer; what it is
    given, `incoming` (n, d + 1) with ones last, and its pre-activations `before` (n, D)."""

    network: MLP
    inputs: Tensor
    layer: int
    maps: Tensor
    readout: Tensor
    incoming: Tensor

    @staticmethod
    def of(network: MLP, inputs: Tensor, layer: int) -> _Around:
        hidden = [m for m in network.hidden if isinstance(m, Hidden)]
        if any(not isinstance(m.act, nn.ReLU) or m.norm is not None for m in hidden):
            raise ConfigError("degeneracy is planted in networks of ReLUs without norms")
        if not 0 <= layer < len(hidden):
            raise ConfigError(f"hidden layer {layer}; choose from 0 to {len(hidden) - 1}")
        double = MLP(_widths(network)).double().eval().requires_grad_(False)
        double.load_state_dict(network.state_dict())
        x = inputs.detach().cpu().double().flatten(1)
        incoming = double.hidden[:layer](x)
        linears = _linears(double)
        here, following = linears[layer], linears[layer + 1]
        return _Around(
            double,
            x,
            layer,
            torch.cat([here.weight, here.bias[:, None]], dim=1),
            following.weight.clone(),
            torch.cat([incoming, torch.ones(len(x), 1, dtype=torch.float64)], dim=1),
        )

    @property
    def width(self) -> int:
        return len(self.maps)

    @property
    def before(self) -> Tensor:
        return self.incoming @ self.maps.T

    def check_alone(self, neurons: Sequence[int]) -> None:
        """Raise where a neuron does not exist, is never or always on, shares its gate, or has a single reader."""
        if len(set(neurons)) < len(neurons) or not all(0 <= n < self.width for n in neurons):
            raise ConfigError(
                f"neurons {list(neurons)} of hidden layer {self.layer}: different ones below {self.width}"
            )
        if len(self.readout) < 2:
            raise ConfigError(f"hidden layer {self.layer} has a single reader; two or more are needed for known counts")
        alone = {c.medoid for c in gate_clusters(self.before) if len(c.neurons) == 1 and not c.always}
        if taken := sorted(set(neurons) - alone):
            raise ConfigError(
                f"neurons {taken} of hidden layer {self.layer} are always on, never on, or share a gate on these "
                f"inputs; choose from {sorted(alone)}"
            )

    def in_step(self, leader: int, rng: torch.Generator) -> Tensor:
        """(d + 1,): a map of its own with the gate of `leader` on all inputs."""
        p = self.before[:, leader]
        own = torch.randn(self.maps.shape[1], generator=rng, dtype=torch.float64)
        other = self.incoming @ own
        step = MARGIN * float((p.abs() / other.abs()).min())
        if step * float(other.norm()) < SMALLEST * float(p.norm()):
            raise ConfigError(
                f"neuron {leader} of hidden layer {self.layer} is too close to its threshold on item "
                f"{int((p.abs() / other.abs()).argmin())}; choose another one, or leave that item out"
            )
        multiple = 0.75 + 0.75 * float(torch.rand(1, generator=rng))
        return multiple * self.maps[leader] + step * own

    def planted(self, kind: Kind, neurons: tuple[int, ...], maps: Tensor, readout: Tensor, *, null: int) -> Planted:
        """The network with these maps and readouts of the layer, in which `neurons` are degenerate."""
        widths = _widths(self.network)
        widths[self.layer + 1] = len(maps)
        grown = MLP(widths).double().eval().requires_grad_(False)
        for i, (new, old) in enumerate(zip(_linears(grown), _linears(self.network), strict=True)):
            new.bias.copy_(maps[:, -1] if i == self.layer else old.bias)
            new.weight.copy_(maps[:, :-1] if i == self.layer else readout if i == self.layer + 1 else old.weight)
        change = float((grown(self.inputs) - self.network(self.inputs)).abs().max())
        return Planted(grown, kind, self.layer, neurons, null, change)


def _linears(network: MLP) -> list[nn.Linear]:
    return [m.linear for m in network.hidden if isinstance(m, Hidden)] + [network.readout]


def _widths(network: MLP) -> list[int]:
    linears = _linears(network)
    return [linears[0].in_features, *(m.out_features for m in linears)]
