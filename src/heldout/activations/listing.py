"""Which sites a network has, with their shapes: found by running one batch and watching."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heldout.activations.attention import AttentionMode, Call, groups_of, reachable_attention
from heldout.activations.sites import ATTENTION_PARTS
from heldout.tasks.base import Batch


@dataclass(frozen=True)
class Listed:
    """One place that can be read and edited: its name, the shape that it had, how often it ran, and why it is not
    available where it is not."""

    site: str
    shape: tuple[int, ...]
    calls: int
    module: str
    unavailable: str = ""


def sites(network: nn.Module, batch: Batch | Any) -> list[Listed]:
    """Every site of `network` that one pass over `batch` (a `Batch`, or the network's input) reaches, in running order.

    Outputs that are nested are listed by their selectors. Inside attention the five parts are listed for each module
    that calls `scaled_dot_product_attention`; where a module named like attention calls another kernel, that is said.
    """
    given = batch if isinstance(batch, Batch) else Batch(inputs=batch, index=torch.zeros(1, dtype=torch.int64))
    names = {module: path for path, module in reversed(list(network.named_modules(remove_duplicate=False))) if path}
    found: dict[str, Listed] = {}
    running: list[nn.Module] = []
    called: set[str] = set()

    def note(site: str, value: Tensor, kind: str) -> None:
        before = found.get(site)
        found[site] = Listed(site, tuple(value.shape), 1 if before is None else before.calls + 1, kind)

    def enter(module: nn.Module, args: Any) -> None:
        running.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()
        for selector, value in _leaves(output):
            note(names[module] + selector, value, type(module).__name__)

    def begin() -> Call | None:
        if not running:
            return None
        path, kind = names[running[-1]], type(running[-1]).__name__
        called.add(path)

        def visit(part: str, value: Tensor) -> Tensor:
            note(f"{path}@attn.{part}", value, kind)
            return value

        return Call(visit, True, groups_of(running[-1]))

    training = [m for m in network.modules() if m.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        for module in training:
            stack.callback(setattr, module, "training", True)
        network.eval()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(reachable_attention(network))
        stack.enter_context(AttentionMode(begin))
        stack.enter_context(torch.no_grad())
        args, kwargs = given.arguments()
        network(*args, **kwargs)
    rows = list(found.values())
    for module, path in names.items():
        inside = any(path == c or c.startswith(path + ".") for c in called)
        if "attention" in type(module).__name__.lower() and not inside:
            why = "no scaled_dot_product_attention is called inside: another kernel, or an explicit softmax"
            rows += [Listed(f"{path}@attn.{part}", (), 0, type(module).__name__, why) for part in ATTENTION_PARTS]
    return rows


def _leaves(value: Any, selector: str = "") -> list[tuple[str, Tensor]]:
    """The tensors inside a nested output, each with its selector."""
    if isinstance(value, Tensor):
        return [(selector, value)]
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{selector}[{k}]")]
    if isinstance(value, (tuple, list)):
        return [leaf for i, v in enumerate(value) for leaf in _leaves(v, f"{selector}[{i}]")]
    return []
