"""A progress bar for the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heldout.training.loop import Progress


@contextmanager
def bar(label: str) -> Iterator[Progress]:
    """A bar on the terminal with rate, estimate and loss, to be given to `train(..., progress=...)`.

    >>> with bar("seed 0") as progress:  # doctest: +SKIP
    ...     train(network, batches, cross_entropy, settings=settings, progress=progress)
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}")) as shown:
        task = shown.add_task(label, total=None, rate="", loss="")

        def update(step: int, steps: int, loss: float) -> None:
            speed = shown.tasks[task].speed
            rate = f"{speed:.0f} steps/s" if speed else ""
            shown.update(task, completed=step, total=steps, rate=rate, loss=f"loss {loss:.4g}")

        yield update
