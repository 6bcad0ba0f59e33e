"""A study is a static list of steps; a step is a function, the fields that it reads and the steps that it builds on.

    steps = [
        Step("train-s0", train, {"seed": 0, "width": 64}),
        Step("audit-s0", audit, {"ranks": [1, 2, 4]}, inputs={"network": "train-s0"}),
    ]

A step's key is made of what stands in it and of its inputs' keys, so equal steps of two studies share one output, and
changing an analysis recomputes that analysis and what depends on it. The key does not see the function's source: raise
`version` when results change.
"""

from __future__ import annotations

import importlib
import inspect
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from heldout.errors import ConfigError, unknown
from heldout.runs._json import canonical, digest, plain

STORE_FORMAT = 1  # of the outputs' folders; raised when an older version could not read them

NAME = re.compile(r"[A-Za-z0-9._-]+")


class _Known(dict[str, Any]):
    """A dictionary that answers an unknown name with what a step may ask for."""

    def __init__(self, items: Mapping[str, Any], kind: str) -> None:
        super().__init__(items)
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        raise ConfigError(unknown(self._kind, name, self))


class StepContext:
    """What a step's function is given: all that it reads, and where it writes.

    - `settings`, `inputs`: read-only mappings; `inputs` gives the folders of finished outputs, which are not to be
      written to. An unknown name raises ConfigError.
    - `out`: an empty folder. What lies in it when the function returns is the step's output; the names ``step.json``
      and ``notes.json`` are taken.
    - `device`: where to compute (``cpu``, ``cuda:0``).
    - `together`: whether a step that trains several seeds is to train them as one computation.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        out: Path,
        device: str,
        together: bool = False,
    ) -> None:
        self.name = name
        self.settings: Mapping[str, Any] = MappingProxyType(_Known(settings, f"setting of step {name!r}"))
        self.inputs: Mapping[str, Path] = MappingProxyType(_Known(inputs, f"input of step {name!r}"))
        self.out = out
        self.device = device
        self.together = together
        self.notes: list[dict[str, Any]] = []
        self._next_report = 0.0

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the step is, in any unit. Cheap: at most three reports a second leave the process."""
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + 0.3
        with suppress(OSError):  # a display is not worth a failed step; a full disk shows when the output is written
            self.out.with_name("progress.json").write_text(canonical({"done": done, "total": total, "note": note}))

    def log(self, event: Mapping[str, Any]) -> None:
        """Keep one event (plain JSON, nothing that differs from run to run) in the output's ``notes.json``."""
        self.notes.append(plain(event, f"event of step {self.name!r}"))


@dataclass(frozen=True)
class Step:
    """One unit of work, computed once and kept.

    `name` is unique in a study. `function` stands at the top level of an importable module: a worker imports it anew.
    `settings` are exactly the fields that it reads (JSON values). `inputs` maps the names that the function uses to
    names of other steps. `version` is raised when the function's results change. `places` are further settings that say
    where something lies and not what it is (a folder of the user's): they stand beside `settings` for the function, but
    not in the key, so what lies there must, by a fingerprint of its content. `together` does what `function` does for
    several steps whose settings differ in ``seed`` alone, as one computation (see `companions`). Like the device, it is not
    in the key: it changes outputs to float rounding, and the noise that is drawn while training. Raises ConfigError.
    """

    name: str
    function: Callable[[StepContext], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    places: Mapping[str, Any] = field(default_factory=dict)
    together: Callable[[Sequence[StepContext]], None] | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"step name {self.name!r} is not accepted; use letters, digits, '.', '_' and '-'")
        settings = plain(self.settings, f"settings of step {self.name!r}")
        places = plain(self.places, f"places of step {self.name!r}")
        if both := sorted(settings.keys() & places.keys()):
            raise ConfigError(f"step {self.name!r} has {both[0]!r} among its settings and its places; leave one out")
        object.__setattr__(self, "settings", MappingProxyType(settings))
        object.__setattr__(self, "places", MappingProxyType(places))
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))
        for function in (self.function, *(() if self.together is None else (self.together,))):
            if not _importable(function):
                raise ConfigError(
                    f"the function of step {self.name!r} cannot be imported by a worker ({function!r}); "
                    "accepted is a function at the top level of a module that is not the script itself"
                )

    @property
    def function_name(self) -> str:
        """``module:name``, by which a worker imports the function."""
        return name_of(self.function)


def name_of(function: Callable[..., None]) -> str:
    """``module:name`` of a function at the top level of a module."""
    return f"{function.__module__}:{function.__qualname__}"


def resolve(function_name: str) -> Callable[..., None]:
    """Import the function that ``module:name`` stands for."""
    module, _, name = function_name.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    return function


def _importable(function: Callable[..., None]) -> bool:
    try:
        found = resolve(name_of(function)) if inspect.isfunction(function) else None
    except (ImportError, AttributeError):
        return False
    return found is function and function.__module__ != "__main__"


def check_steps(steps: Iterable[Step]) -> list[Step]:
    """The steps in an order in which inputs come first, otherwise as given.

    Raises ConfigError for duplicate names, unknown inputs and cycles.
    """
    by_name: dict[str, Step] = {}
    for step in steps:
        if step.name in by_name:
            raise ConfigError(f"two steps are named {step.name!r}; names are unique in a study")
        by_name[step.name] = step
    for step in by_name.values():
        for source in step.inputs.values():
            if source not in by_name:
                raise ConfigError(f"step {step.name!r}: {unknown('input', source, by_name)}")
    order: dict[str, Step] = {}
    while len(order) < len(by_name):
        ready = [s for n, s in by_name.items() if n not in order and all(i in order for i in s.inputs.values())]
        if not ready:
            left = ", ".join(name for name in by_name if name not in order)
            raise ConfigError(f"steps wait for each other in a circle; look among {left}")
        order.update((step.name, step) for step in ready)
    return list(order.values())


def companions(order: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """Name -> the steps, itself among them, that can be computed as one: of the same `together`, version and settings but
    ``seed``, as many steps after the first, so that none waits for another. Steps are ordered by `check_steps`."""
    depth: dict[str, int] = {}
    groups: dict[str, list[str]] = {}
    alike: dict[str, str] = {}
    for step in order:
        depth[step.name] = 1 + max((depth[source] for source in step.inputs.values()), default=0)
        if step.together is not None and "seed" in step.settings:
            settings = {k: v for k, v in step.settings.items() if k != "seed"}
            mark = [
                name_of(step.together),
                step.version,
                settings,
                dict(step.places),
                sorted(step.inputs),
                depth[step.name],
            ]
            alike[step.name] = digest(mark)
        else:
            alike[step.name] = step.name
        groups.setdefault(alike[step.name], []).append(step.name)
    return {name: tuple(groups[mark]) for name, mark in alike.items()}


def step_keys(order: Sequence[Step]) -> dict[str, str]:
    """Name -> key (64 hexadecimal digits) of steps ordered by `check_steps`."""
    keys: dict[str, str] = {}
    for step in order:
        parts = {
            "store_format": STORE_FORMAT,
            "name": step.name,
            "function": step.function_name,
            "version": step.version,
            "settings": dict(step.settings),
            "inputs": {local: keys[source] for local, source in step.inputs.items()},
        }
        keys[step.name] = digest(parts)
    return keys


def and_dependents(order: Sequence[Step], patterns: Iterable[str]) -> set[str]:
    """Names that match a pattern (``train-*``) and all that is built on them. Raises ConfigError where none matches."""

    def matching(pattern: str) -> Iterator[str]:
        found = [step.name for step in order if fnmatchcase(step.name, pattern)]
        if not found:
            raise ConfigError(unknown("step", pattern, (step.name for step in order)))
        yield from found

    chosen = {name for pattern in patterns for name in matching(pattern)}
    for step in order:
        if not chosen.isdisjoint(step.inputs.values()):
            chosen.add(step.name)
    return chosen
