"""Steps that train one network each, and steps of several seeds that train theirs as one computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from heldout.runs import StepContext
from heldout.training.history import History
from heldout.training.loop import Evaluate, Loss, Until
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Batches
from heldout.training.together import train_together


def trained(
    contexts: Sequence[StepContext],
    make: Callable[[], nn.Module],
    batches: Batches | Sequence[Batches],
    loss: Loss,
    *,
    settings: TrainSettings,
    evaluate: Evaluate | Sequence[Evaluate] | None = None,
    until: Until | None = None,
) -> Iterable[tuple[StepContext, nn.Module, History]]:
    """Each of `contexts`, whose settings differ in ``seed`` alone, with the network that it gave and its curves.

    The arguments are those of `heldout.training.together.train_together`. One context is trained by
    `heldout.training.loop.train`, several are a stack.
    """
    seeds = [ctx.settings["seed"] for ctx in contexts]
    with_others = f"{len(seeds)} seeds together, " if len(seeds) > 1 else ""
    made = train_together(
        make,
        seeds,
        batches,
        loss,
        settings=settings,
        device=contexts[0].device,
        evaluate=evaluate,
        until=until,
        progress=lambda done, total, value: contexts[0].progress(done, total, f"{with_others}loss {value:.3f}"),
        how="stacked",
    )
    return zip(contexts, made.networks, made.histories, strict=True)
