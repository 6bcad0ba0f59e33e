"""Many networks of one architecture trained as one computation: the seeds of a condition, side by side.

    stack = Stack([initialised(lambda: MLP((32, 256, 64, 2)), seed) for seed in range(10)])
    histories = train_stacked(stack, shuffled(task["train"], 256, seed=0), loss, settings=settings)
    save_weights(stack.network(3), folder / "seed-3.safetensors")

Every parameter is one tensor with S networks first. The forward pass is that of one network under `torch.func.vmap`,
and the gradient of the *sum* of the S losses is, network by network, the gradient of its own loss, because no network
looks at another. Optimisers work element by element. So the result is that of `heldout.training.loop.train` on each
network in turn, to float rounding, wherever nothing is drawn while training. (Where a gradient is zero but for rounding,
as a bias in front of batch normalisation has it, Adam scales the rounding up to whole steps, here as there.)

A network under `vmap` may not branch on its data. One that has ``forward_stacked(state, inputs, own=...)``, as `MLP`
has, says itself how many of it are computed at once, and is faster.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from heldout.errors import ConfigError, NetworkError, NonFiniteError
from heldout.tasks.base import Batch
from heldout.training.history import BATCH_LOSS, History
from heldout.training.loop import DEFERRED, Loss, Progress, Until, advice
from heldout.training.optimizers import decayed, make_optimizer, multipliers, set_rate
from heldout.training.seeds import stream
from heldout.training.settings import TrainSettings

Batches = Callable[[int], Batch]
Evaluate = Callable[[int, "Stack"], Mapping[str, Sequence[float]]]

_CLIP_FLOOR = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Stack:
    """S networks as one. `parameters` and `buffers` hold every tensor with S first; the networks given are copied.

    Raises `NetworkError` where the networks differ in architecture.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        if not networks:
            raise NetworkError("a stack needs at least one network")
        first = _shapes(networks[0])
        for i, network in enumerate(networks):
            if type(network) is not type(networks[0]) or _shapes(network) != first:
                raise NetworkError(
                    f"network {i} of a stack has another architecture than network 0 ({type(network).__name__} and "
                    f"{type(networks[0]).__name__}, or other weights); stack networks that differ in weights alone"
                )
        self._template = copy.deepcopy(networks[0])
        parameters, buffers = stack_module_state(list(networks))
        trained = {name: p.requires_grad for name, p in networks[0].named_parameters()}
        self.parameters = {k: p.detach().clone().requires_grad_(trained[k]) for k, p in parameters.items()}
        self.buffers = {k: b.detach().clone() for k, b in buffers.items()}
        self._size = len(networks)
        self.train(networks[0].training)

    def __len__(self) -> int:
        return self._size

    def train(self, mode: bool = True) -> Stack:
        """Switch every network to training mode, or to evaluation mode with False."""
        self._template.train(mode)
        return self

    def __call__(self, batch: Batch, *, own: bool = False) -> Any:
        """The outputs of all networks, S first. `batch` is the same for all, or, with `own`, has S first itself.

        What networks draw (dropout) is drawn for each apart, from PyTorch's global generator and for all S together:
        a network's noise depends on the stack that it is in.
        """
        args, kwargs = batch.arguments()
        stacked = getattr(self._template, "forward_stacked", None)
        if stacked is not None:
            return stacked({**self.parameters, **self.buffers}, *args, own=own, **kwargs)

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
            return functional_call(self._template, (parameters, buffers), args, kwargs)

        at = 0 if own else None
        run = vmap(one, in_dims=(0, 0, at, at), randomness="different")
        with sdpa_kernel(SDPBackend.MATH):  # vmap would run the fused kernels one network after another
            return run(self.parameters, self.buffers, args, kwargs)

    def losses(self, batch: Batch, loss: Loss, *, own: bool = False) -> Tensor:
        """(S,) the loss of each network; see `__call__`."""
        outputs = self(batch, own=own)
        if not own:
            return vmap(lambda out: loss(out, batch))(outputs)
        return vmap(lambda out, fields: loss(out, Batch(**fields)))(outputs, _fields(batch))

    def state(self, i: int) -> dict[str, Tensor]:
        """The state dict of network `i`, on its own memory."""
        state = {k: v[i].detach().clone() for k, v in {**self.parameters, **self.buffers}.items()}
        return {k: state[k] for k in self._template.state_dict() if k in state}

    @torch.no_grad()
    def set_state(self, i: int, state: Mapping[str, Tensor]) -> None:
        """Give network `i` the weights of `state`, as `state(i)` returns them."""
        tensors = {**self.parameters, **self.buffers}
        for name, value in state.items():
            tensors[name][i] = value

    def network(self, i: int) -> nn.Module:
        """Network `i` as a module of its own, in the mode that the stack is in."""
        network = copy.deepcopy(self._template)
        network.load_state_dict(self.state(i), strict=False)  # names of tied weights are filled through each other
        return network


def train_stacked(
    stack: Stack,
    batches: Batches | Sequence[Batches],
    loss: Loss,
    *,
    settings: TrainSettings,
    evaluate: Evaluate | None = None,
    at: Sequence[int] | None = None,
    until: Until | None = None,
    progress: Progress | None = None,
    names: Sequence[str] = (),
) -> list[History]:
    """Train the networks of `stack` in place; the curves of each. The stack is left in evaluation mode.

    - `batches`: step -> batch, the same for all networks, or one such function for each network.
    - `loss`: (outputs, batch) -> scalar of one network, computed under `vmap`.
    - `evaluate`: (updates made, stack) -> {"split/metric": S values}, in evaluation mode without gradients; it may save
      what it sees. It is called where `at` says (0 is before the first update), by default before the first update,
      every `settings.evaluate_every` updates and after the last.
    - `until`: asked about each network's curves after every row that follows an update; where it says yes, that network
      is left as it is there. The others go on, and it is computed along with them to no effect.
    - `progress`: called with (updates made, steps, mean loss of the last batches) about ten times a second.
    - `names`: what an error calls the networks; by default their places in the stack.

    Clipping is by each network's own norm. Raises `NonFiniteError`, naming the networks, where a loss, or weights where
    they are looked at, become NaN or infinite. There is no checkpoint to go on from: a stack is trained in one go, or again.
    """
    trained = {name: p for name, p in stack.parameters.items() if p.requires_grad}
    if not trained:
        raise NetworkError("the stacked networks have no parameters to train; all are frozen or there are none")
    own = not callable(batches)
    if not callable(batches) and len(batches) != len(stack):
        raise ConfigError(f"a stack of {len(stack)} networks needs as many orders of batches, got {len(batches)}")
    factors = multipliers(stack._template, settings)
    optimizer = make_optimizer(trained, decayed(stack._template, settings) & set(trained), settings, factors)
    due = _moments(settings, at)
    histories = [History() for _ in range(len(stack))]
    called = tuple(names) or tuple(f"network {i} of the stack" for i in range(len(stack)))
    ended: dict[int, dict[str, Tensor]] = {}
    pending: list[Tensor] = []  # losses not looked at yet, each (S,)
    total, count, shown = torch.zeros(len(stack), dtype=torch.float64), 0, time.monotonic()
    device = next(iter(trained.values())).device
    noise = int(stream(settings.seed, "noise").generate_state(1, np.uint32)[0])
    seed_noise = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed

    with torch.random.fork_rng(devices=[] if device.type == "cpu" else range(torch.cuda.device_count())):
        if 0 in due:
            _record(histories, 0, stack, evaluate, None, ended)
        stack.train()
        for step in range(settings.steps):
            seed_noise((noise + step) % 2**32)
            batch = batches(step) if callable(batches) else _together([b(step) for b in batches], step)
            with settings.casting(device):
                values = stack.losses(batch if device.type == "cpu" else batch.to(device), loss, own=own)
            optimizer.zero_grad(set_to_none=True)
            values.sum().backward()  # type: ignore[no-untyped-call]
            if settings.clip is not None:
                _clip(trained, settings.clip)
            set_rate(optimizer, settings.rate(step))
            optimizer.step()

            done = step + 1
            pending.append(values.detach())
            if device.type == "cpu" or done in due or len(pending) == DEFERRED:
                found = torch.stack(pending).cpu()
                pending.clear()
                _require_finite(found, done, settings, ended, called)
                total += found.sum(0, dtype=torch.float64)
                count += len(found)
                if progress is not None and (done == settings.steps or time.monotonic() - shown > 0.1):
                    shown = time.monotonic()
                    progress(done, settings.steps, float(found[-1].mean()))
            if done in due:
                _restore(stack, ended)
                _require_finite_weights(trained, done, settings, called)
                _record(histories, done, stack, evaluate, total / count, ended)
                if until is not None:
                    now = {i for i, history in enumerate(histories) if i not in ended and until(history)}
                    ended |= {i: stack.state(i) for i in now}
                stack.train()
                total.zero_()
                count = 0
            if len(ended) == len(stack):
                break
    _restore(stack, ended)
    stack.train(False)
    return histories


def _restore(stack: Stack, ended: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Networks that have ended as they were then."""
    for i, state in ended.items():
        stack.set_state(i, state)


def _moments(settings: TrainSettings, at: Sequence[int] | None) -> set[int]:
    """The numbers of updates after which networks are evaluated; the end always counts."""
    if at is None:
        every = settings.evaluate_every or settings.steps
        return {*range(0, settings.steps + 1, every), settings.steps}
    if bad := [n for n in at if not 0 <= n <= settings.steps]:
        raise ConfigError(f"training: there are 0 to {settings.steps} updates to evaluate after, got {bad[0]}")
    return {*at, settings.steps}


def _record(
    histories: Sequence[History],
    done: int,
    stack: Stack,
    evaluate: Evaluate | None,
    losses: Tensor | None,
    ended: Collection[int],
) -> None:
    """Append one row to the history of each network that has not ended."""
    columns: dict[str, Sequence[float]] = {} if losses is None else {BATCH_LOSS: losses.tolist()}
    if evaluate is not None:
        stack.train(False)
        with torch.no_grad():
            columns |= evaluate(done, stack)
    for i, history in enumerate(histories):
        if columns and i not in ended:
            history.add(done, {name: values[i] for name, values in columns.items()})


def _together(batches: Sequence[Batch], step: int) -> Batch:
    """One batch with S first of the batches of S networks."""
    sizes = {shapes(batch) for batch in batches}
    if len(sizes) > 1:
        one, other = sorted(sizes)[:2]
        raise ConfigError(
            f"training: the networks' batches of step {step} have different sizes, {list(one)} and {list(other)}; "
            "give batches of one size, or train the networks one by one"
        )
    parts = [_fields(batch) for batch in batches]
    return Batch(**tree_map(lambda *tensors: torch.stack(tensors), *parts))


def shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    """Those of all tensors of a batch."""
    return tuple(tuple(tensor.shape) for tensor in tree_leaves(_fields(batch)))


def _fields(batch: Batch) -> dict[str, Any]:
    """What the batch has, by name; nothing for what it has not, because `vmap` maps tensors alone."""
    return {name: value for name, value in vars(batch).items() if value is not None}


@torch.no_grad()
def _clip(parameters: Mapping[str, Tensor], most: float) -> None:
    """Scale each network's gradient, over all parameters together, to a norm of at most `most`."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    squares = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).square().sum(0)
    scale = (most / (squares.sqrt() + _CLIP_FLOOR)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *(1,) * (g.ndim - 1)))


def _require_finite(
    losses: Tensor, done: int, settings: TrainSettings, ended: Collection[int], called: Sequence[str]
) -> None:
    """`losses` (N, S) are those of the last N updates, of which `done` have been made."""
    if math.isfinite(float(losses.sum())):
        return
    wrong = ~torch.isfinite(losses)
    wrong[:, list(ended)] = False
    if not wrong.any():
        return
    first = int(wrong.any(1).nonzero()[0])
    bad, done = wrong[first].nonzero()[:, 0].tolist(), done - len(losses) + 1 + first
    which = ", ".join(called[i] for i in bad)
    raise NonFiniteError(advice(f"the training loss of {which} is NaN or infinite at update {done}", settings))


def _require_finite_weights(
    parameters: Mapping[str, Tensor], done: int, settings: TrainSettings, called: Sequence[str]
) -> None:
    for name, parameter in parameters.items():
        wrong = ~torch.isfinite(parameter).reshape(len(parameter), -1).all(1)
        if wrong.any():
            which = ", ".join(called[i] for i in wrong.nonzero()[:, 0].tolist())
            raise NonFiniteError(advice(f"{name} of {which} is NaN or infinite after update {done}", settings))


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in network.state_dict().items()}
