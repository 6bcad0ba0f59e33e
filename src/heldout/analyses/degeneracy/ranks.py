"""Free directions of a network's parameters: how many change nothing it does on some data, and where they come from.

    found = free_directions(network, inputs)
    found.null, found.rank              # parameters that do nothing, and the rank that says so, with its tolerance

For the behavioural loss L(w) = mean over x of |f_w(x) - f_w0(x)|^2, summed over outputs, the Hessian at w0 is the
Gauss-Newton matrix H = 2/n sum_x J^T J, with J the derivative of the outputs by the parameters. Its rank is that of the
tangent kernel J J^T, which for linear maps with inputs f and gradients g at their outputs is the sum over layers of the
elementwise product of the two Gram matrices, K_g o K_f. Three kinds of degeneracy add up to what is free::

    P - rank H = sum_l [ d_l d_l+1 - rank(K_g o K_f) ] + sum_S r_f(S) r_g(S)

the first sum over linear maps (biases are weights of a constant input): inputs that depend on each other, and gradients
that do; the second over sets S of ReLU neurons that are on for the same inputs (a lone neuron counts 1: its scale may move
from one side to the other), with ranks of their outputs and of the gradients at their inputs, and a constant beside
the outputs of neurons that are always on. The right side is a count for networks of linear maps and ReLUs; that the two
sides agree is a check, and where they do not, `unexplained` says by how much.

A rank holds for its data and its tolerance: more data, or a finer cut, can only raise it. It does not show degeneracy of
higher order, where the loss is flat to second order only.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.gates import gate_clusters
from heldout.errors import NetworkError, ProxyError
from heldout.proxies.spectrum import EXACT, Spectrum


@dataclass(frozen=True)
class LinearCount:
    """Directions of one linear map, of `size` parameters, that are free on their own.

    `inputs`: by inputs that depend on each other, (d - r_f) d'. `gradients`: by gradients that do, (d' - r_g) d. Both
    hold for some, so the exact count `free`, d d' - rank(K_g o K_f), is less than their sum; `rank` is that rank.
    """

    size: int
    input_rank: Spectrum
    gradient_rank: Spectrum
    rank: Spectrum

    @property
    def inputs(self) -> int:
        outputs = len(self.gradient_rank.values)
        return (len(self.input_rank.values) - self.input_rank.rank) * outputs

    @property
    def gradients(self) -> int:
        return (len(self.gradient_rank.values) - self.gradient_rank.rank) * len(self.input_rank.values)

    @property
    def free(self) -> int:
        return self.size - self.rank.rank


@dataclass(frozen=True)
class Synchronised:
    """ReLU neurons (their numbers) of one layer that are on for the same inputs, and the directions that frees, r_f r_g;
    `always` on, they are a linear map."""

    layer: str
    neurons: tuple[int, ...]
    always: bool
    free: int

    @property
    def extra(self) -> int:
        """Beyond the one direction that any live neuron has, its scale."""
        return self.free - len(self.neurons)


@dataclass(frozen=True, eq=False)
class FreeDirections:
    """Of `parameters` weights, on `n` items. `hessian` is the spectrum of H, non-zero part and as many zeros as n outputs
    leave; `rank` its rank."""

    parameters: int
    n: int
    hessian: Spectrum
    linear: Mapping[str, LinearCount]
    synchronised: tuple[Synchronised, ...]

    @property
    def rank(self) -> int:
        return self.hessian.rank

    @property
    def null(self) -> int:
        """P - rank H."""
        return self.parameters - self.rank

    @property
    def explained(self) -> int:
        """The right side of the formula in the module's text."""
        return sum(count.free for count in self.linear.values()) + sum(s.free for s in self.synchronised)

    @property
    def unexplained(self) -> int:
        return self.null - self.explained

    def effective(self, cut: float) -> float:
        """sum of l / (l + cut) over eigenvalues of H: the parameters that matter at a cut, between 0 and `rank`. It means
        something together with n, the cut, and the loss (mean over items, sum over outputs)."""
        if cut <= 0:
            raise ProxyError(f"a cut must be positive, got {cut}")
        values = self.hessian.values[: self.rank]
        return float((values / (values + cut)).sum())


def free_directions(network: nn.Module, inputs: Tensor, *, relative: float = EXACT) -> FreeDirections:
    """Count the free directions of a network of linear maps and ReLUs on `inputs` (n, ...), in float64.

    `relative` is the cut of every rank, as a share of the largest eigenvalue; the ranks carry it along. Time and memory
    grow with the square of n outputs. Raises `NetworkError` where a parameter belongs to no linear map that runs once on
    (n, D), and `ProxyError` where n outputs are fewer than the parameters, of which data would then say nothing.
    """
    double = copy.deepcopy(network).to("cpu", torch.float64).eval().requires_grad_(False)
    passed = _passed(double, inputs.detach().cpu().double())
    parameters = sum(p.numel() for p in double.parameters())
    n, outputs = passed.output.shape
    if n * outputs < parameters:
        raise ProxyError(
            f"{n} items with {outputs} outputs for {parameters} parameters; at least {-(-parameters // outputs)} items are "
            "needed to tell a direction that does nothing from one that has not been seen to"
        )
    kernel = torch.zeros(n * outputs, n * outputs, dtype=torch.float64)
    linear: dict[str, LinearCount] = {}
    for name, module in passed.linear.items():
        f, g = passed.before[name], passed.gradients[name]
        f = f if module.bias is None else torch.cat([f, torch.ones(n, 1, dtype=torch.float64)], dim=1)
        block = (g @ g.T) * (f @ f.T).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
        kernel += block
        what = f"of linear map {name}"
        linear[name] = LinearCount(
            f.shape[1] * g.shape[1],
            Spectrum.of(f.T @ f, relative=relative, what=f"the inputs' Gram {what}"),
            Spectrum.of(g.T @ g, relative=relative, what=f"the gradients' Gram {what}"),
            Spectrum.of(block, relative=relative, what=f"the tangent kernel {what}"),
        )
    found = [s for name in passed.relu for s in _synchronised(name, passed, relative)]
    hessian = Spectrum.of(2 / n * kernel, relative=relative, what="the tangent kernel")
    return FreeDirections(parameters, n, hessian, linear, tuple(found))


@dataclass(frozen=True, eq=False)
class _Passed:
    """One pass: of each linear map and ReLU its inputs (n, D), of each ReLU its outputs, and gradients of every output,
    (n outputs, D), at the outputs of linear maps and the inputs of ReLUs. The network's `output` is (n, outputs)."""

    output: Tensor
    linear: Mapping[str, nn.Linear]
    relu: tuple[str, ...]
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def _passed(network: nn.Module, inputs: Tensor) -> _Passed:
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    relu = tuple(name for name, m in network.named_modules() if isinstance(m, nn.ReLU))
    owned = {id(p) for m in linear.values() for p in m.parameters()}
    foreign = [name for name, p in network.named_parameters() if id(p) not in owned]
    if foreign or not linear:
        raise NetworkError(
            f"free directions are counted for linear maps and ReLUs; {foreign[0] if foreign else 'this network'} "
            f"belongs to {'another kind of module' if foreign else 'neither'}"
        )
    before: dict[str, Tensor] = {}
    at: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():
        if name not in linear and name not in relu:
            continue

        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor, name: str = name) -> Tensor | None:
            if name in before or args[0].ndim != 2:
                raise NetworkError(f"{name} must run once, on inputs (n, D); it was given {tuple(args[0].shape)}")
            before[name], after[name] = args[0].detach().clone(), out.detach().clone()
            if name in relu:
                at[name] = args[0]
                return None
            at[name] = out.requires_grad_() if not out.requires_grad else out
            return at[name].clone()

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.enable_grad():
            output = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if output.ndim != 2:
        raise NetworkError(f"the network returned shape {tuple(output.shape)}; (n, outputs) is needed")
    gradients: dict[str, list[Tensor]] = {name: [] for name in at}
    for i in range(output.shape[1]):
        found = torch.autograd.grad(output[:, i].sum(), list(at.values()), retain_graph=True)
        for name, g in zip(at, found, strict=True):
            gradients[name].append(g)
    stacked = {name: torch.stack(g, dim=1).flatten(0, 1) for name, g in gradients.items()}  # items, then outputs
    return _Passed(output.detach(), linear, relu, before, after, stacked)


def _synchronised(name: str, passed: _Passed, relative: float) -> list[Synchronised]:
    """The sets of neurons of one ReLU layer with equal gates; neurons that are never on are in none."""
    found = []
    for cluster in gate_clusters(passed.before[name]):
        neurons = list(cluster.neurons)
        f, g = passed.after[name][:, neurons], passed.gradients[name][:, neurons]
        if cluster.always:
            f = torch.cat([f, torch.ones(len(f), 1, dtype=torch.float64)], dim=1)
        ranks = [Spectrum.of(m.T @ m, relative=relative).rank if bool(m.any()) else 0 for m in (f, g)]
        found.append(Synchronised(name, cluster.neurons, cluster.always, ranks[0] * ranks[1]))
    return found
