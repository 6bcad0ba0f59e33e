"""Replay: on later passes over the same batch, return what finished before the first edit instead of computing it.

    replay = Replay(network, sites)                 # every site that any edit will touch
    original = replay.record(batch)                 # one ordinary pass, remembered
    proxied = replay.run(batch, edit.functions)     # passes with edits skip what cannot have changed

Remembered are the outputs of *maximal* module calls that finish before the first edited site is reached, by call index. A
tensor that is changed in place after its call returned is remembered as a copy, and given out as one; a call that
changes its arguments in place is made again, and so is one that fills a cache of keys and values. Hugging Face models are
therefore asked for none (``use_cache``), unless the batch itself asks for one. A network that computes something else the
second time cannot be replayed: `Replay.check` measures that, and `run` then makes full passes, which are always correct.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from heldout.activations.attention import reachable_attention
from heldout.activations.sites import Site, module_at
from heldout.activations.tap import EditFunction, Reading, Tap
from heldout.errors import SiteError
from heldout.tasks.base import Batch

Forward = Callable[..., Any]


@dataclass
class _Remembered:
    """One module call of the recorded pass: when it began and ended, and what it returned."""

    module: nn.Module
    index: int
    began: int
    ended: int | None = None
    output: Any = None
    versions: list[int] = field(default_factory=list)
    spoils: bool = False  # it changed what it was given, so that leaving it out would be seen


class Replay:
    """Passes over one batch after another, the first of each recorded, the others replayed.

    `sites` are all the sites that edits will touch. `active` is False after a failed `check`, and `reason` says why.
    """

    def __init__(self, network: nn.Module, sites: Iterable[str | Site]) -> None:
        self.network = network
        self.sites = [Site.parse(s) for s in sites]
        self.active, self.reason = True, ""
        self._watched = _watched(network, [module_at(network, s) for s in self.sites])
        self._fragile: set[tuple[nn.Module, int]] = set()  # changed in place after they returned
        self._calls: list[_Remembered] = []
        self._reached: dict[Site, int] = {}
        self._batch: Batch | None = None
        configs = {id(c): c for m in network.modules() if (c := getattr(m, "config", None)) is not None}
        self._caching = [c for c in configs.values() if getattr(c, "use_cache", None) is True]

    def record(self, batch: Batch, *, read: Iterable[str | Site] = ()) -> Reading:
        """One ordinary pass over `batch`, remembered until the next one is recorded."""
        if not self.active:
            return self._pass(batch, {}, read)
        self._batch = None  # until this pass is whole
        reading = self._record_once(batch, read)
        broken = {(c.module, c.index) for c in self._calls if _versions(c.output) != c.versions} - self._fragile
        if broken:  # seen for the first time: those outputs are spoilt, so this pass is made again with copies
            self._fragile |= broken
            reading = self._record_once(batch, read)
        self._batch = batch
        return reading

    def _record_once(self, batch: Batch, read: Iterable[str | Site]) -> Reading:
        clock = itertools.count()
        self._calls, self._reached = [], {}

        def remember(module: nn.Module, index: int, original: Forward, args: Any, kwargs: Any) -> Any:
            call = _Remembered(module, index, began=next(clock))
            self._calls.append(call)
            before = _versions((args, kwargs))
            output = original(*args, **kwargs)
            call.spoils = _versions((args, kwargs)) != before or _holds_cache((*args, *kwargs.values()))
            call.output = tree_map(_clone, output) if (module, index) in self._fragile else output
            call.versions, call.ended = _versions(call.output), next(clock)
            return output

        def marker(site: Site) -> EditFunction:
            def mark(rows: Tensor, mask: Tensor | None) -> Tensor:
                self._reached.setdefault(site, next(clock))
                return rows

            return mark

        with ExitStack() as stack:
            for module in self._watched:
                _replace_forward(stack, module, remember)
            # Reading scores or patterns would change the kernel; the query is reached at the same moment.
            places = {s: replace(s, part="query") if s.part in ("scores", "pattern") else s for s in self.sites}
            marks = {str(place): marker(place) for place in places.values()}
            stack.enter_context(self._without_cache())
            tap = stack.enter_context(Tap(self.network, read=read, edit=marks))
            reading = tap(batch)
            for site, place in places.items():
                self._reached[site] = self._reached[place]
        return reading

    def run(self, batch: Batch, edit: Mapping[str, EditFunction], *, read: Iterable[str | Site] = ()) -> Reading:
        """One pass with `edit`; what finished before its first site in the recorded pass is not computed again."""
        sites = [Site.parse(s) for s in edit]
        if not self.active or not sites:
            return self._pass(batch, edit, read)
        if batch is not self._batch:
            raise SiteError("this batch was not recorded; call Replay.record(batch) before Replay.run(batch, edit)")
        unplanned = [str(s) for s in sites if s not in self._reached]
        if unplanned:
            raise SiteError(f"site {unplanned[0]} was not among the sites that this replay was made for")
        # Skipped calls are not counted by the tap: what is read, or edited by its number, must run (or be given out) itself.
        counted = [s for s in sites if s.call is not None] + [Site.parse(s) for s in read]
        plan = self._plan(min(self._reached[s] for s in sites), counted)

        def recall(module: nn.Module, index: int, original: Forward, args: Any, kwargs: Any) -> Any:
            call = plan[module][index] if index < len(plan[module]) else None
            if call is None:
                return original(*args, **kwargs)
            return tree_map(_clone, call.output) if (module, call.index) in self._fragile else call.output

        with ExitStack() as stack:
            for module, calls in plan.items():
                if any(calls):
                    _replace_forward(stack, module, recall)
            return self._pass(batch, edit, read)

    def _pass(self, batch: Batch, edit: Mapping[str, EditFunction], read: Iterable[str | Site]) -> Reading:
        with ExitStack() as stack:
            if any(s.in_attention for s in self.sites):  # every pass of one replay with the same kernel
                stack.enter_context(reachable_attention(self.network))
            stack.enter_context(self._without_cache())
            tap = stack.enter_context(Tap(self.network, read=read, edit=edit))
            return tap(batch)

    @contextmanager
    def _without_cache(self) -> Iterator[None]:
        """Until the context closes, the network's configuration asks for no cache of keys and values."""
        for config in self._caching:
            config.use_cache = False
        try:
            yield
        finally:
            for config in self._caching:
                config.use_cache = True

    def _plan(self, moment: int, counted: list[Site]) -> dict[nn.Module, list[_Remembered | None]]:
        """For each module, what its calls in a replayed pass give out, in order; None is computed.

        Given out are calls that ended before `moment`; calls inside those do not happen. A call that holds a module whose
        calls are `counted`, or has to do with attention that is, must run.
        """
        kept_whole: set[nn.Module] = set()
        kept_running: set[nn.Module] = set()
        for site in counted:
            owner = module_at(self.network, site)
            kept_whole.add(owner)
            if site.in_attention:
                kept_running.update(owner.modules())
        plan: dict[nn.Module, list[_Remembered | None]] = {}
        covered = -1
        for call in self._calls:
            if call.began <= covered:
                continue
            finished = call.ended is not None and call.ended < moment and not call.spoils
            if finished and counted:
                inside = set(call.module.modules()) - {call.module}
                finished = not (inside & kept_whole or call.module in kept_running)
            if finished and call.ended is not None:
                covered = call.ended
            plan.setdefault(call.module, []).append(call if finished else None)
        return plan

    def check(self, batch: Batch) -> float:
        """Record `batch`, replay it unedited at each site, and return the largest difference from a full pass, over all
        output tensors (infinite where they differ in number or shape).

        Anything but exactly zero turns replay off for this network, with the reason in `reason`.
        """
        self.record(batch)
        worst = 0.0
        alike: set[object] = set()
        for site in self.sites:
            # The heads and operands of one attention call leave out the same calls: one of them is enough.
            plan = self._plan(self._reached[site], [site] if site.call is not None else [])
            left_out = frozenset((m, i) for m, calls in plan.items() for i, c in enumerate(calls) if c is not None)
            key = (left_out, site.path, site.in_attention, site.part in ("scores", "pattern"), site.call)
            if site.in_attention and key in alike:
                continue
            alike.add(key)
            again = self.run(batch, {str(site): _same}).output
            full = self._pass(batch, {str(site): _same}, ())
            worst = max(worst, _difference(full.output, again))
        if worst != 0.0:
            self.active = False
            self.reason = f"a replayed pass differs from the recorded one by {worst:.3g}; full passes are made instead"
        return worst


def _watched(network: nn.Module, owners: Iterable[nn.Module]) -> list[nn.Module]:
    """The children of every module that is or holds the owner of a site: the largest calls that can be skipped."""
    owned = set(owners)
    watched: dict[nn.Module, None] = {}

    def walk(module: nn.Module) -> bool:
        children = list(module.children())
        holds = module in owned
        for child in children:
            holds = walk(child) or holds
        if holds:
            watched.update(dict.fromkeys(children))
        return holds

    walk(network)
    return list(watched)


def _replace_forward(stack: ExitStack, module: nn.Module, instead: Callable[..., Any]) -> None:
    """Until the stack closes, calls of `module` go to `instead(module, index of the call, its own forward, args, kwargs)`.

    The method is replaced and not hooked: hooks of the user's stay around it, in recorded and in replayed passes alike.
    """
    original, own = module.forward, module.__dict__.get("forward")
    index = itertools.count()

    def forward(*args: Any, **kwargs: Any) -> Any:
        return instead(module, next(index), original, args, kwargs)

    def restore() -> None:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own

    stack.callback(restore)
    module.__dict__["forward"] = forward


def _holds_cache(given: Iterable[Any]) -> bool:
    """Whether a call is given a Hugging Face cache, which it then fills."""
    return any(hasattr(value, "get_seq_length") for value in given)


def _same(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _versions(output: Any) -> list[int]:
    return [t._version for t in _tensors(output)]


def _clone(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _difference(a: Any, b: Any) -> float:
    """The largest absolute difference between two outputs' tensors; NaN equals NaN."""
    left, right = _tensors(a), _tensors(b)
    if [t.shape for t in left] != [t.shape for t in right]:
        return math.inf
    return max((_distance(x, y) for x, y in zip(left, right, strict=True) if x.numel()), default=0.0)


def _distance(a: Tensor, b: Tensor) -> float:
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a.double() - b.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf).masked_fill(same, 0.0).max())
