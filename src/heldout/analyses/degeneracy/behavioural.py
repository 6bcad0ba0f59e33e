"""The behavioural loss: how differently a network with other weights behaves from the network as it is.

    loss = BehaviouralLoss(network, inputs)
    loss(loss.start)                        # 0: the weights as they are
    loss(loss.start + 0.01)                 # of other weights, all in one vector (P,)

Over n predictions x (items, or the counted positions of sequences), summed over outputs or classes::

    mse   L(w) = 1/n sum_x |f_w(x) - f_w0(x)|^2
    kl    L(w) = 1/n sum_x KL(softmax f_w0(x) || softmax f_w(x))        nats, temperature 1

It is 0 at w0 and nowhere less, whatever the network was trained on and however far that went: w0 is a global minimum by
construction, and so is every network that answers alike on these data. It knows no targets: a low learning coefficient of
this loss says that the function is cheap to describe, not that it is right.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from heldout.analyses.scoring import Scoring
from heldout.errors import ConfigError, NetworkError, NonFiniteError, unknown
from heldout.tasks.base import Batch, Rectangular, Split

Kind = Literal["mse", "kl"]
KINDS: tuple[Kind, ...] = ("mse", "kl")
Parameters = Sequence[str] | Mapping[str, Tensor]
WORDS = {
    "mse": "the squared difference from the network as it is, summed over outputs",
    "kl": "KL(network as it is || network), nats, over all classes",
}
SIDE_BY_SIDE = 2**21  # items x parameters; beyond, activations of all chains leave a processor's cache
CHUNK = 4_096  # items in one pass where no chain sets it
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}  # of an output, relative to the largest one


class BehaviouralLoss:
    """L as a function of the `parameters` that are free, one vector (P,); the others stay as they are.

    - `data`: a `Split`, or the network's inputs (a tensor, or a tuple or mapping of tensors with items first).
    - `parameters`: names of parameters or of modules that hold them, or masks (name -> bool tensor of its shape); all
      parameters where None, whether or not they are trained.
    - `output`: which part of a tuple or mapping that the network returns.
    - `dtype`: float32 or float64; the network's own where None (float32 where it has less).

    The network is copied, and put into evaluation mode. `start` (P,) are its weights, `n` the number of predictions that the
    mean is over, `items` that of items. Raises `NetworkError` where it fails or does not compute the same thing twice.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Split | Any,
        *,
        kind: Kind = "mse",
        parameters: Parameters | None = None,
        output: str = "",
        dtype: torch.dtype | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(unknown("behavioural loss", str(kind), KINDS))
        if dtype not in (None, *ROUNDING):
            raise ConfigError(f"a behavioural loss is computed in float32 or float64, got {dtype}")
        split = data if isinstance(data, Split) else Split("data", "fit", Rectangular(data))
        first = next(iter(network.parameters()), None)
        if first is None:
            raise NetworkError(f"{type(network).__name__} has no parameters")
        self.kind, self.split = kind, split.name
        self.dtype = dtype or (torch.float64 if first.dtype == torch.float64 else torch.float32)
        self.network = copy.deepcopy(network).to(self.dtype).eval().requires_grad_(False)
        self._scoring = Scoring(output=output)
        self._choose(parameters)
        self.stacked, self.reason = True, ""

        batch = split.items.take(np.arange(len(split))).to(first.device)
        leaves, self._spec = tree_flatten(batch.inputs)
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise NetworkError(f"the inputs of split {split.name!r} must be tensors; bind other arguments in a wrapper")
        self.inputs = [leaf.to(self.dtype) if leaf.is_floating_point() else leaf for leaf in leaves]
        self.items = len(split)
        with torch.no_grad():
            parts = [[x[i : i + CHUNK] for x in self.inputs] for i in range(0, self.items, CHUNK)]
            own = torch.cat([self._called(inputs) for inputs in parts])
            self.reference = torch.cat([self.outputs(self.start, inputs) for inputs in parts])
        self.counted = self._counted(batch)
        self.n = int(self.counted.sum())
        if not self.n:
            raise NetworkError(f"no prediction of split {split.name!r} counts; mark positions (scored=...)")
        self._check(own)

    def _choose(self, parameters: Parameters | None) -> None:
        """Names, shapes and entries of what is free."""
        every = {k: p for k, p in self.network.named_parameters() if p.is_floating_point()}
        masks = parameters if isinstance(parameters, Mapping) else None
        asked = list(every) if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
        chosen = {k for name in asked for k in every if k == name or (masks is None and k.startswith(f"{name}."))}
        for name in asked:
            if not any(k == name or (masks is None and k.startswith(f"{name}.")) for k in every):
                raise ConfigError(unknown("parameter", name, every))
        self.shapes = {k: tuple(p.shape) for k, p in every.items() if k in chosen}
        self._sizes = [math.prod(shape) for shape in self.shapes.values()]
        whole = torch.cat([every[k].flatten() for k in self.shapes]) if chosen else torch.empty(0)
        self._whole, self._at = whole, None
        if masks is not None:
            for name in self.shapes:
                if masks[name].dtype != torch.bool or tuple(masks[name].shape) != self.shapes[name]:
                    raise ConfigError(
                        f"the mask of {name} must be bool of shape {self.shapes[name]}, got {masks[name].dtype} "
                        f"{tuple(masks[name].shape)}"
                    )
            if chosen:
                self._at = torch.cat([masks[k].flatten() for k in self.shapes]).nonzero()[:, 0].to(whole.device)
        self.start = whole.clone() if self._at is None else whole[self._at]
        if not len(self.start):
            raise ConfigError("no parameter is free; choose at least one, or leave parameters out for all of them")

    @property
    def size(self) -> int:
        """P."""
        return len(self.start)

    @property
    def normalisation(self) -> str:
        """The loss in words: without it no number made from it means anything."""
        return f"mean over {self.n} predictions of {WORDS[self.kind]}"

    def values(self, w: Tensor) -> dict[str, Tensor]:
        """The parameters by name that a vector (P,) stands for."""
        whole = w if self._at is None else self._whole.index_copy(0, self._at, w)
        parts = torch.split(whole, self._sizes)  # one split: slices would each fill a gradient of full length
        return {k: part.view(shape) for (k, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def outputs(self, w: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """(B, V) or (B, T, V) at weights `w` (P,), for the tensors that the network's inputs are made of."""
        args, kwargs = Batch(tree_unflatten(list(inputs), self._spec), torch.empty(0)).arguments()
        with sdpa_kernel(SDPBackend.MATH):  # other kernels have no second derivative, nor a rule for many at once
            return self._tensor(functional_call(self.network, self.values(w), args, kwargs))

    def __call__(self, w: Tensor, index: Tensor | None = None) -> Tensor:
        """L at `w` (P,): of all items, or its unbiased estimate from those at `index` (B,)."""
        return self._loss(w, *self._at_items(index))

    def chains(self, w: Tensor, index: Tensor | None = None) -> Tensor:
        """(S,): L at each of `w` (S, P), each on all items or on its own, `index` (S, B).

        They are computed side by side where the network allows it and, on a processor, items x P are few enough for that to
        be faster; otherwise one by one. `stacked` says which and `reason` why not.
        """
        entries = self.size * (self.items if index is None else index.shape[1])
        if self.stacked and w.device.type == "cpu" and entries > SIDE_BY_SIDE:
            self.stacked, self.reason = False, "it is faster at this size on a processor"
        parts = self._at_items(index)
        if self.stacked:
            dims = (0, *(3 * [None] if index is None else [[0] * len(self.inputs), 0, 0]))
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message="There is a performance drop")
                    found: Tensor = vmap(self._loss, in_dims=dims, randomness="different")(w, *parts)
                    return found
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, UserWarning) as error:
                self.stacked, self.reason = False, str(error).splitlines()[0]
        own = [None] * len(w) if index is None else list(index)
        return torch.stack([self(one, i) for one, i in zip(w, own, strict=True)])

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
        """All items in order: inputs, outputs at w0, and 1 for each prediction that counts, (B,) or (B, T)."""
        for start in range(0, self.items, size):
            part = slice(start, start + size)
            yield [x[part] for x in self.inputs], self.reference[part], self.counted[part]

    def _loss(self, w: Tensor, inputs: Sequence[Tensor], reference: Tensor, counted: Tensor) -> Tensor:
        rows = divergence(self.kind, reference, self.outputs(w, inputs))
        share = len(reference) / self.items
        return (rows * counted).sum() / (self.n * share)

    def _at_items(self, index: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        if index is None:
            return self.inputs, self.reference, self.counted
        return [x[index] for x in self.inputs], self.reference[index], self.counted[index]

    def _called(self, inputs: list[Tensor]) -> Tensor:
        """The network's own output, errors named."""
        try:
            args, kwargs = Batch(tree_unflatten(inputs, self._spec), torch.empty(0)).arguments()
            found = self._tensor(self.network(*args, **kwargs))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise NetworkError(f"{type(self.network).__name__} fails on split {self.split!r}: {error}") from error
        if found.ndim not in (2, 3) or len(found) != len(inputs[0]):
            raise NetworkError(
                f"the network returned shape {tuple(found.shape)} for {len(inputs[0])} items; (B,), (B, V) or (B, T, V) "
                "is needed, items first"
            )
        return found

    def _tensor(self, output: Any) -> Tensor:
        found = self._scoring._logits(output)
        return found[:, None] if found.ndim == 1 else found

    def _counted(self, batch: Batch) -> Tensor:
        shape = self.reference.shape[:-1]
        marked = batch.scored if batch.scored is not None else batch.mask
        if marked is None or len(shape) == 1:
            return torch.ones(shape, dtype=self.dtype, device=self.reference.device)
        if marked.shape != shape:
            raise NetworkError(f"the network returned {tuple(shape)} predictions, the data mark {tuple(marked.shape)}")
        return marked.to(self.dtype)

    def _check(self, own: Tensor) -> None:
        if self.kind == "kl" and own.shape[-1] < 2:
            raise NetworkError("KL compares classes; the network returns one number a prediction, take loss mse")
        if not bool(torch.isfinite(self.reference[self.counted > 0]).all()):
            raise NonFiniteError(
                f"the network's outputs on split {self.split!r} are NaN or infinite; nothing can be compared"
            )
        differs = (own - self.reference).abs().amax(-1)[self.counted > 0].max()
        if differs > ROUNDING[self.dtype] * self.reference.abs().max().clamp(min=1):
            raise NetworkError(
                f"{type(self.network).__name__} gives other outputs when it is called again (by {float(differs):.3g}): "
                "its loss at its own weights would not be 0. Does it draw random numbers in evaluation mode?"
            )


def divergence(kind: Kind, reference: Tensor, output: Tensor) -> Tensor:
    """(..., V) and (..., V) -> (...): the loss of each prediction."""
    if kind == "mse":
        return (output - reference).square().sum(-1)
    p, q = reference.log_softmax(-1), output.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def root(kind: Kind, reference: Tensor, jacobian: Tensor) -> Tensor:
    """B J for outputs at w0 (..., V) and their Jacobian (..., V, P), where B^T B is the Hessian of a prediction's loss by
    its outputs, 2 or diag(p) - p p^T: B is sqrt 2, or diag(sqrt p) (1 - 1 p^T)."""
    if kind == "mse":
        return math.sqrt(2) * jacobian
    p = reference.softmax(-1)[..., None]
    return p.sqrt() * (jacobian - (p * jacobian).sum(-2, keepdim=True))
