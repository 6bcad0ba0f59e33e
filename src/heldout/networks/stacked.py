"""Linear maps of many networks at once, as one batched product."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(S, B, O): network s maps ``x[s]`` (B, I), or the `x` that all share, by ``weight[s]`` (O, I) and ``bias[s]``."""
    return cast(Tensor, _StackedLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class _StackedLinear(torch.autograd.Function):
    """Beside what autograd derives from a batched product, this adds the bias inside it and lays the weights' gradient
    out as the weights are, which saves a pass over the outputs and a transposing copy of every weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), _each(x, weight), weight.mT)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = outer
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.bmm(gradient, weight)
            of_x = of_x if x.dim() == 3 else of_x.sum(0)
        return of_x, torch.bmm(gradient.mT, _each(x, weight)), gradient.sum(1)


def _each(x: Tensor, weight: Tensor) -> Tensor:
    """(S, B, I), with what is shared by all networks expanded, not copied."""
    return x if x.dim() == 3 else x.expand(len(weight), -1, -1)
