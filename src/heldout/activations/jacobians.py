"""Jacobian-Gram matrices of sections: M = 1/P sum over items, outputs and input positions of g g^T, streamed.

For rows f^l (B, T, D) and f^(l+1) (B, T', D'), and a factor C (D', K) that reads the latter, g = d(f^(l+1) C)_(t, k) / d
f^l_s is one gradient (D,). The sum runs over all counted outputs (t, k) and input positions s; P is the number of counted
input positions. Gradients are vector-Jacobian products, made in chunks that a memory budget sets, and added up at once.

Probes replace the P' = T' K one-hot outputs by random signs (Hutchinson's estimator), which is unbiased. For one item,
with J_s the (P', D) Jacobian at input position s and N_ss' = J_s^T J_s', the variance of sum_s J_s^T phi phi^T J_s is::

    sum_ss' [ tr(N_ss')^2 + tr(N_ss'^2) - 2 sum_p (J_ps . J_ps')^2 ]

With v its mean over n items, the relative error of M in the Frobenius norm is sqrt(n v / R) / (P ||M||) for R draws: more
items with one draw each do as well as more draws.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from heldout.activations.probes import Probes
from heldout.activations.sections import Crossing, Sections
from heldout.activations.sites import finite
from heldout.errors import ConfigError, NonFiniteError, ProxyError, SiteError
from heldout.tasks.base import Split

MEMORY = 2**28  # bytes for one chunk of derivatives, unless told otherwise
CACHE = 2**22  # bytes: on a processor, chunks whose tensors leave its cache take longer


class JacobianGram:
    """The sum of g g^T, (D, D) float64, and the number P of input positions; mergeable.

    `error`: the estimated relative error (Frobenius) of random probes, 0 where they are exact. `batched` is False where
    an operation has no rule for many derivatives at once, and they were made one by one; `reason` names it.
    """

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.positions, self.items = 0, 0
        self.total: Tensor | None = None
        self.variance = 0.0  # of one item's sum under the probes, mean over the items it was measured on
        self.batched, self.reason = True, ""

    def update(self, gradients: Tensor, counted: Tensor) -> None:
        """Add gradients (k, B, T, D) at the input positions that are `counted` (B, T)."""
        rows = gradients.flatten(0, 2) if bool(counted.all()) else gradients[:, counted].flatten(0, 1)
        self._add(rows.T @ rows)

    def count(self, counted: Tensor) -> None:
        """Note the items and counted input positions of one batch, after all of its gradients."""
        self.items += counted.shape[0]
        self.positions += int(counted.sum())

    def merge(self, other: JacobianGram) -> None:
        if self.probes != other.probes:
            raise ProxyError(f"Jacobian Grams under {self.probes} and {other.probes} do not merge; use the same probes")
        if other.total is not None:
            self._add(other.total)
        if self.items + other.items:
            self.variance = (self.items * self.variance + other.items * other.variance) / (self.items + other.items)
        self.items, self.positions = self.items + other.items, self.positions + other.positions
        self.batched, self.reason = self.batched and other.batched, self.reason or other.reason

    def _add(self, gram: Tensor) -> None:
        if self.total is None:
            self.total = torch.zeros_like(gram)
        if gram.shape != self.total.shape:
            raise ProxyError(f"gradients of width {len(gram)} cannot join those of width {len(self.total)}")
        self.total += gram

    def matrix(self) -> Tensor:
        """(D, D) float64, symmetric: M, per counted input position."""
        if self.total is None or not self.positions:
            raise ProxyError("no gradients were seen: there is no Jacobian Gram")
        return (self.total + self.total.T) / (2 * self.positions)

    @property
    def error(self) -> float:
        """Relative error of `matrix` in the Frobenius norm: that of the formula in the module's text."""
        norm = float(self.matrix().norm())
        return math.sqrt(self.items * self.variance) / (self.positions * norm) if norm > 0 else 0.0


class Backward:
    """Vector-Jacobian products of one crossing, many at once where every operation has a rule for it."""

    def __init__(self, crossing: Crossing, *, memory: int = MEMORY, batched: bool = True) -> None:
        self.crossing, self.batched, self.reason = crossing, batched, ""
        *sources, end = crossing.rows
        entries = 3 * end.numel() + 3 * sum(s.numel() for s in sources) + 4 * crossing.largest
        self.chunk = memory // (entries * end.element_size())
        if end.device.type == "cpu" and self.chunk > 1:
            self.chunk = max(1, min(self.chunk, CACHE // (crossing.largest * end.element_size())))
        if self.chunk < 1:
            raise ConfigError(
                f"{crossing.where}: one derivative of a batch of {len(end)} items needs about "
                f"{entries * end.element_size() / 2**20:.3g} MiB, the budget is {memory / 2**20:.3g} MiB; use a smaller "
                "batch_size or more memory"
            )

    def __call__(self, cotangents: Tensor) -> tuple[Tensor, ...]:
        """Gradients (k, B, T, D) of each layer but the last, for cotangents (k, B, T', D')."""
        if self.batched and len(cotangents) > 1:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message="There is a performance drop")
                    return self._grad(cotangents, batched=True)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, UserWarning) as error:
                self.batched, self.reason = False, str(error).splitlines()[0]
        single = [self._grad(z, batched=False) for z in cotangents]
        return tuple(torch.stack(gradients) for gradients in zip(*single, strict=True))

    def _grad(self, cotangents: Tensor, *, batched: bool) -> tuple[Tensor, ...]:
        *sources, end = self.crossing.rows
        found = torch.autograd.grad(
            end, sources, cotangents, retain_graph=True, is_grads_batched=batched, allow_unused=True
        )
        if any(g is None for g in found):
            raise SiteError(f"{self.crossing.where}: no differentiable path joins two of its layers")
        return found


def jacobian_grams(
    sections: Sections,
    split: Split,
    first: int,
    last: int,
    *,
    factor: Tensor | None = None,
    probes: Probes | None = None,
    batch_size: int = 256,
    memory: int = MEMORY,
    error_items: int | None = None,
) -> list[JacobianGram]:
    """The Jacobian Grams of layers `first` to `last` - 1 with respect to layer `last`, read by `factor` (D', K).

    One sweep of derivatives from the last layer serves all of them. `factor` None reads each neuron. `batch_size` counts
    positions (items, where items have one size); `memory` (bytes) sets how many derivatives are made at once. The error of
    random probes is estimated on `error_items` (one in 16, from 2 to 16, where None), at the price of two sweeps over them.

    Raises `SiteError` where no differentiable path joins two layers or items of a batch influence each other,
    `NonFiniteError` where a derivative is NaN or infinite, `ConfigError` where one derivative exceeds the memory.
    """
    given = probes or Probes()
    grams: list[JacobianGram] = []
    batched = True
    for number, batch in enumerate(split.batches(batch_size)):
        ready = sections.prepared(batch)
        crossing = sections.cross(ready, first, last)
        *counted, counted_end = crossing.counted
        settled = given.settled(counted_end.shape[1])
        backward = Backward(crossing, memory=memory, batched=batched)
        if number == 0:
            grams = [JacobianGram(settled) for _ in counted]
            check_items_apart(crossing, backward)
            few = error_items or max(2, min(16, len(split) // 16))
            variances = _variances(sections, split, first, last, factor, settled, few, memory)
            for gram, variance in zip(grams, variances, strict=True):
                gram.variance = variance
        for cotangents, _ in settled.cotangents(crossing.rows[-1], counted_end, ready.index, factor, backward.chunk):
            for gram, gradients, here in zip(grams, backward(cotangents), counted, strict=True):
                gram.update(gradients, here)
        batched = backward.batched
        for gram, here in zip(grams, counted, strict=True):
            gram.count(here)
            if gram.batched and not batched:
                gram.batched, gram.reason = False, backward.reason
            if gram.total is None or not finite(gram.total):
                raise NonFiniteError(
                    f"{crossing.where}: derivatives are NaN or infinite on items {ready.index[:5].tolist()}; look for "
                    "square roots, norms or divisions at zero"
                )
    return grams


def check_items_apart(crossing: Crossing, backward: Backward) -> None:
    """Raise `SiteError` where an item's outputs depend on another item of the batch: its Jacobian would be the batch's."""
    end = crossing.rows[-1]
    if len(end) < 2:
        return
    probe = torch.zeros_like(end)
    probe[0] = torch.linspace(0.5, 1.5, probe[0].numel(), dtype=end.dtype, device=end.device).view_as(probe[0])
    if any(bool(gradient[0, 1:].any()) for gradient in backward(probe[None])):
        raise SiteError(
            f"{crossing.where}: items of a batch influence each other (a norm or attention over the batch); a section must "
            "treat each item on its own"
        )


def _variances(
    sections: Sections,
    split: Split,
    first: int,
    last: int,
    factor: Tensor | None,
    probes: Probes,
    items: int,
    memory: int,
) -> list[float]:
    """Of each layer: the variance of an item's sum under `probes`, from two independent sweeps over `items` of the split,
    evenly spaced, since batches go from short to long."""
    if probes.kind == "exact":
        return [0.0] * (last - first)
    spaced = np.linspace(0, len(split) - 1, min(items, len(split))).astype(np.int64)
    few = sections.prepared(split.items.take(spaced))
    crossing = sections.cross(few, first, last)
    *counted, counted_end = crossing.counted
    backward = Backward(crossing, memory=memory // 2)  # items are kept apart, which takes copies
    if probes.kind == "position" and int(counted_end.sum(dim=1).max()) == 1:
        return [0.0] * (last - first)  # a sign squared is one
    sums: list[list[Tensor]] = []
    for sweep in (1, 2):
        other = replace(probes, seed=probes.seed + 7_919 * sweep)  # signs that no estimate is made with
        own = [torch.zeros(len(few), *2 * r.shape[-1:], dtype=r.dtype, device=r.device) for r in crossing.rows[:-1]]
        for cotangents, _ in other.cotangents(crossing.rows[-1], counted_end, few.index, factor, backward.chunk):
            for total, gradients, here in zip(own, backward(cotangents), counted, strict=True):
                rows = (gradients * here[..., None]).transpose(0, 1).flatten(1, 2)  # (items, k T, D)
                total += rows.transpose(1, 2) @ rows
        sums.append(own)
    return [float(((a - b) ** 2).sum()) / (2 * len(few)) for a, b in zip(*sums, strict=True)]
