"""The seeds of one architecture, trained side by side or one after another, whichever is faster here.

    trained = train_together(lambda: Transformer(12), range(8), batches, cross_entropy, settings=settings)
    trained.networks[3], trained.histories[3], trained.how

On an accelerator, which one small network leaves idle, they are one computation (`heldout.training.stacked`). On a CPU
it depends: `benchmarks/stacked.py` has small networks up to 1.8 times as fast side by side, and larger ones, whose matrix
products keep a core busy by themselves, slower. So a few updates of copies are timed both ways first.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from heldout.errors import ConfigError, unknown
from heldout.training.history import History
from heldout.training.loop import Evaluate, Loss, Progress, Until, train
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Batches, Stack, shapes, train_stacked

How = Literal["auto", "stacked", "one by one"]
HOW: tuple[How, ...] = ("auto", "stacked", "one by one")
TRIAL_STEPS, TRIAL_TURNS = 3, 3


@dataclass(frozen=True, eq=False)
class Together:
    """`networks` in evaluation mode and their `histories`, in the order of the seeds; `how` they were trained."""

    networks: list[nn.Module]
    histories: list[History]
    how: How


def train_together(
    make: Callable[[], nn.Module],
    seeds: Sequence[int],
    batches: Batches | Sequence[Batches],
    loss: Loss,
    *,
    settings: TrainSettings,
    device: str = "cpu",
    evaluate: Evaluate | Sequence[Evaluate] | None = None,
    until: Until | None = None,
    progress: Progress | None = None,
    how: How = "auto",
) -> Together:
    """Train what `make` builds, once for each of `seeds`, which give the initial weights (`initialised`) and take the place
    of `settings.seed`.

    - `batches`: step -> batch, the same for all, or one such function for each seed. To be stacked, the batches of one
      step must have one shape for all seeds; bucketed sentences in orders of their own have not.
    - `evaluate`, `until`: of one network and of its curves, as of `heldout.training.loop.train`; `evaluate` may be one
      for each seed. A network that has ended stays as it was. `progress`: (updates of all seeds together, their number,
      loss).
    - `how`: ``stacked`` or ``one by one`` to say it oneself; ``auto`` chooses, and says what in the result. One seed is
      trained as `train` does it, whatever is said.

    Both ways do the same updates to float rounding, but not to the last bit (and in mixed precision to bfloat16's rounding:
    a stack's layers are other kernels). What networks draw while training (dropout) is drawn differently: in a stack from
    the first seed, for all of them, so that it depends on how many there are. Where bytes must repeat, say `how`: what
    `auto` chooses on a CPU depends on the clock. Raises `ConfigError` where `how` is unknown, there is no seed, or another
    number of batches or of evaluations than seeds.
    """
    if how not in HOW:
        raise ConfigError(f"train_together: {unknown('way', str(how), HOW)}")
    if not seeds:
        raise ConfigError("train_together: no seeds; at least one is needed")
    networks = [initialised(make, seed).to(device) for seed in seeds]
    looks = None if evaluate is None else [evaluate] * len(seeds) if callable(evaluate) else list(evaluate)
    for what, given in (("orders of batches", batches), ("ways to evaluate", looks)):
        if isinstance(given, Sequence) and len(given) != len(seeds):
            raise ConfigError(
                f"train_together: {len(given)} {what} for {len(seeds)} seeds; give one for all, or as many"
            )
    if len(seeds) == 1 or (how == "auto" and not _stacking_pays(networks, batches, loss, settings, device)):
        how = "one by one"
    if how == "one by one":
        histories = []
        for i, network in enumerate(networks):

            def shown(done: int, total: int, value: float, before: int = i * settings.steps) -> None:
                if progress is not None:
                    progress(before + done, total * len(seeds), value)

            histories.append(
                train(
                    network,
                    batches if callable(batches) else batches[i],
                    loss,
                    settings=replace(settings, seed=seeds[i]),
                    evaluate=None if looks is None else looks[i],
                    until=until,
                    progress=shown,
                )
            )
        return Together(networks, histories, how)

    stack = Stack(networks)
    histories = train_stacked(
        stack,
        batches,
        loss,
        settings=replace(settings, seed=seeds[0]),
        evaluate=None if looks is None else lambda done, stack: _each(stack, looks),
        until=until,
        progress=None if progress is None else lambda d, n, v: progress(d * len(seeds), n * len(seeds), v),
        names=[f"seed {seed}" for seed in seeds],
    )
    return Together([stack.network(i) for i in range(len(seeds))], histories, "stacked")


def _each(stack: Stack, looks: Sequence[Evaluate]) -> Mapping[str, list[float]]:
    found = [look(stack.network(i)) for i, look in enumerate(looks)]
    return {name: [values[name] for values in found] for name in found[0]}


def _stacking_pays(
    networks: Sequence[nn.Module], batches: Any, loss: Loss, settings: TrainSettings, device: str
) -> bool:
    """Not where batches differ in shape from seed to seed; else always on an accelerator, and on a CPU where some updates of
    copies say so, the ways taken in turns."""
    if not callable(batches) and any(len({shapes(each(step)) for each in batches}) > 1 for step in range(TRIAL_STEPS)):
        return False
    if not device.startswith("cpu"):
        return True
    few = replace(settings, steps=TRIAL_STEPS, warmup=0, evaluate_every=None)

    def stacked() -> None:
        train_stacked(Stack(networks), batches, loss, settings=few)

    def one_by_one() -> None:
        for i, network in enumerate(networks):
            train(copy.deepcopy(network), batches if callable(batches) else batches[i], loss, settings=few)

    ratios = []
    for turn in range(TRIAL_TURNS + 1):
        seconds = []
        for way in (stacked, one_by_one):
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
        if turn:  # the first turn warms up
            ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios) > 1
