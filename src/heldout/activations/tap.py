"""A tap: hooks on some sites of a network while a context is open, removed exactly when it closes.

    with Tap(network, read=["hidden.0"], edit=edit) as tap:
        reading = tap(batch)
        reading.output, reading["hidden.0"]

The network is used as it is: no weight is changed, its training flags are put back, and hooks that somebody else
registered stay. Edits are applied in the order in which the network runs; a site that is read and edited is read as
edited, since that is what the rest of the network sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from heldout.activations.attention import AttentionMode, Call, groups_of, reachable_attention
from heldout.activations.sites import (
    EVERY,
    Arguments,
    Site,
    finite,
    from_rows,
    module_at,
    pick,
    position_mask,
    put,
    resolve_view,
    to_rows,
)
from heldout.errors import HeldoutError, NetworkError, NonFiniteError, SiteError, unknown
from heldout.tasks.base import Batch

EditFunction = Callable[[Tensor, Tensor | None], Tensor]
Watch = Callable[[Tensor], None]


@dataclass(frozen=True)
class Reading:
    """What one pass gave: the network's output, and the tensors read at each site, one per call of its module."""

    output: Any
    values: Mapping[str, list[Tensor]]

    def __getitem__(self, site: str | Site) -> Tensor:
        """The tensor read at a site that ran once."""
        values = self.values.get(str(Site.parse(site)))
        if values is None:
            raise SiteError(f"this pass did not read it: {unknown('site', str(site), self.values)}")
        if len(values) != 1:
            raise SiteError(f"site {site} was read {len(values)} times; use .values[{str(site)!r}] for all of them")
        return values[0]


class _Hooked:
    """The sites of one module and one part of it, with the calls counted in the current pass."""

    __slots__ = ("calls", "module", "places")

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.places: list[tuple[Site, str | None, EditFunction | None]] = []  # the name under which it is read
        self.calls = 0


class Tap:
    """Reads and edits sites of `network` in every pass made while it is open.

    - `read`: sites whose tensors each pass returns, as the network uses them (their own view, features where they are).
    - `edit`: site -> function (rows (B, ..., D), mask) -> rows; features come last, `mask` (B, ...) is True on data
      and None where all of it is. Rows that are not data keep their values.
    - `watch`: site -> function that is given the tensor at once, in the middle of the pass, and must not keep or change it;
      where the tensor is only to be summed up, this spares the copy that a reading is.
    - `grad`: keep the graph; passes run without it otherwise.

    Passes are made by calling the tap, in ``eval()`` mode; one made in another way while the tap is open is refused, since
    its mask and its calls would be unknown. Raises `SiteError` for a site that does not exist, does not run, or runs
    more than once without a call index; `NonFiniteError` where an edit returns NaN or infinite values; `NetworkError`
    where the network itself fails, naming the batch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        read: Iterable[str | Site] = (),
        edit: Mapping[str, EditFunction] | None = None,
        watch: Mapping[str, Watch] | None = None,
        grad: bool = False,
    ) -> None:
        self.network, self.grad = network, grad
        self.read = [Site.parse(s) for s in read]
        self._watch = {f"watched {Site.parse(s)}": f for s, f in (watch or {}).items()}
        self.edits = {Site.parse(s): f for s, f in (edit or {}).items()}
        self._hooked: dict[tuple[nn.Module, str], _Hooked] = {}
        self._names = [str(site) for site in self.read]
        self._values: dict[str, list[Tensor]] = {}
        self._mask: Tensor | None = None
        self._owners: list[_Hooked] = []
        self._stack: ExitStack | None = None
        self._running = False
        for site, function in self.edits.items():
            self._place(site, None, function)
        for site, name in zip(self.read, self._names, strict=True):
            self._place(site, name, None)
        for given, name in zip(watch or {}, self._watch, strict=True):
            self._place(Site.parse(given), name, None)

    def _place(self, site: Site, name: str | None, function: EditFunction | None) -> None:
        module = module_at(self.network, site)
        part = "attention" if site.in_attention else site.part
        hooked = self._hooked.get((module, part))
        if hooked is None:
            hooked = self._hooked[module, part] = _Hooked(module)
        hooked.places.append((site, name, function))

    def __enter__(self) -> Tap:
        if self._stack is not None:
            raise SiteError("this tap is open already; open a new one")
        with ExitStack() as stack:
            training = _in_training(self.network)
            if training:
                stack.callback(_restore_training, training)
                self.network.eval()
            attention = False
            for (module, part), hooked in self._hooked.items():
                if part == "output":
                    handle = module.register_forward_hook(self._after(hooked))
                elif part == "input":
                    handle = module.register_forward_pre_hook(self._before(hooked), with_kwargs=True)
                else:
                    attention = True
                    handle = module.register_forward_pre_hook(self._enter_owner(hooked))
                    stack.callback(handle.remove)
                    handle = module.register_forward_hook(self._leave_owner(hooked), always_call=True)
                stack.callback(handle.remove)
            # PyTorch's own encoder layers skip their submodules on a fast path, and every hook with them.
            fast = torch.backends.mha.get_fastpath_enabled()
            if fast:
                stack.callback(torch.backends.mha.set_fastpath_enabled, True)
                torch.backends.mha.set_fastpath_enabled(False)
            if attention:
                stack.enter_context(reachable_attention(self.network))
                stack.enter_context(AttentionMode(self._begin_attention))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def __call__(self, batch: Batch) -> Reading:
        """One pass over `batch`."""
        if self._stack is None:
            raise SiteError("this tap is closed; use it inside 'with Tap(...) as tap:'")
        self._values = {name: [] for name in self._names}
        self._mask = batch.mask
        self._owners.clear()
        for hooked in self._hooked.values():
            hooked.calls = 0
        args, kwargs = batch.arguments()
        self._running = True
        try:
            with torch.set_grad_enabled(self.grad):
                output = self.network(*args, **kwargs)
        except HeldoutError:
            raise
        except Exception as error:
            first, last = int(batch.index.min()), int(batch.index.max())
            raise NetworkError(
                f"{type(self.network).__name__} failed on a batch of {len(batch)} items (numbers {first} to {last} of "
                f"their split): {type(error).__name__}: {error}"
            ) from error
        finally:
            self._running = False
        self._check_ran()
        return Reading(output, self._values)

    def _check_ran(self) -> None:
        for hooked in self._hooked.values():
            for site, _, _ in hooked.places:
                if hooked.calls == 0:
                    why = (
                        "no scaled_dot_product_attention was called inside it (another kernel, or an explicit softmax); "
                        "use the module's output, or its query and key projections, as sites"
                        if site.in_attention
                        else "the module did not run in this pass"
                    )
                    raise SiteError(f"site {site} is not available: {why}")
                if site.call is not None and site.call >= hooked.calls:
                    raise SiteError(f"site {site}: it ran {hooked.calls} times; calls are counted from 0")

    def _visit(self, hooked: _Hooked, value: Any, call: int, part: str) -> Any:
        """Read and edit `value` at every site of `hooked` that means this call and part."""
        for site, name, function in hooked.places:
            if site.part != part:
                continue
            if site.call is None and call > 0:
                raise SiteError(
                    f"site {site}: {site.path} runs more than once in a pass; name one call ({site.path}#0, "
                    f"{site.path}#1, ...) or all of them ({site.path}#*)"
                )
            if site.call not in (None, EVERY, call):
                continue
            if function is not None:
                value = put(value, site, self._apply(function, site, hooked.module, pick(value, site)))
            if name in self._watch:
                self._watch[name](pick(value, site))
            elif name is not None:
                tensor = pick(value, site)
                # A copy, since the network may go on to change it in place; with a graph, the tensor itself is wanted.
                self._values[name].append(tensor if self.grad else tensor.clone())
        return value

    def _apply(self, function: EditFunction, site: Site, module: nn.Module, value: Tensor) -> Tensor:
        view = resolve_view(site, module, value, self.network)
        rows = to_rows(value, view, site)
        mask = position_mask(self._mask, rows, site)
        version = rows._version
        try:
            new = function(rows, mask)
        except HeldoutError:
            raise
        except Exception as error:
            raise SiteError(f"the edit at site {site} failed: {type(error).__name__}: {error}") from error
        if rows._version != version:
            raise SiteError(
                f"the edit at site {site} changed its argument in place, which others still use; start from rows.clone()"
            )
        if not isinstance(new, Tensor) or new.shape != rows.shape:
            got = f"shape {tuple(new.shape)}" if isinstance(new, Tensor) else f"a {type(new).__name__}"
            raise SiteError(
                f"the edit at site {site} returned {got}; a tensor of shape {tuple(rows.shape)} was expected"
            )
        if new is rows:
            return value
        if mask is not None:
            new = torch.where(mask[..., None], new, rows)
        if site.part != "scores" and not finite(new) and finite(rows):
            raise NonFiniteError(f"the edit at site {site} returned NaN or infinite values")
        return from_rows(new, view, value)

    def _count(self, hooked: _Hooked) -> int:
        if not self._running:
            raise SiteError(
                "the network was run while a tap was open on it, but not through that tap; call the tap with a batch, "
                "close it first, or put the sites of both into one tap"
            )
        hooked.calls += 1
        return hooked.calls - 1

    def _after(self, hooked: _Hooked) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            call = self._count(hooked)
            return self._visit(hooked, output, call, "output")

        return hook

    def _before(self, hooked: _Hooked) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = self._count(hooked)
            changed = self._visit(hooked, Arguments(args, kwargs), call, "input")
            return changed.args, changed.kwargs

        return hook

    def _enter_owner(self, hooked: _Hooked) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self._owners.append(hooked)

        return hook

    def _leave_owner(self, hooked: _Hooked) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._owners and self._owners[-1] is hooked:
                self._owners.pop()

        return hook

    def _begin_attention(self) -> Call | None:
        if not self._owners:
            return None
        hooked = self._owners[-1]
        call = self._count(hooked)
        explicit = any(site.part in ("scores", "pattern") for site, _, _ in hooked.places)
        return Call(lambda part, tensor: self._visit(hooked, tensor, call, part), explicit, groups_of(hooked.module))


def _in_training(network: nn.Module) -> list[nn.Module]:
    """The modules whose `training` flag is set; what `network.modules()` would give, at a third of its cost per call."""
    seen = {network}
    waiting = [network]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
    return [m for m in seen if m.training]


def _restore_training(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True
