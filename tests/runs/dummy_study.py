"""A study of six steps and about two seconds, whose functions a worker can import; and the evidence that it leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heldout.errors import HeldoutError, NonFiniteError
from heldout.runs import Run, Step, StepContext, execute
from heldout.runs.store import RECORD, TIMING


def sample(ctx: StepContext) -> None:
    """Numbers from a seed, in a subfolder."""
    linger(ctx)
    numbers = np.random.default_rng(ctx.settings["seed"]).normal(size=ctx.settings["size"])
    (ctx.out / "parts").mkdir()
    numbers.tofile(ctx.out / "parts" / "numbers.bin")
    ctx.log({"drawn": len(numbers)})


def total(ctx: StepContext) -> None:
    """The sum over all inputs."""
    linger(ctx)
    folders = [ctx.inputs[local] for local in sorted(ctx.inputs)]
    value = sum(float(np.fromfile(file).sum()) for folder in folders for file in sorted(folder.rglob("*.bin")))
    np.array([value]).tofile(ctx.out / "total.bin")


def linger(ctx: StepContext) -> None:
    """Take ``pause`` seconds, reporting progress."""
    parts = 10
    for i in range(parts):
        time.sleep(ctx.settings.get("pause", 0) / parts)
        ctx.progress(i + 1, parts, "lingering")


def samples(contexts: Sequence[StepContext]) -> None:
    """What `sample` does, for several steps; each says with how many others it was computed."""
    for ctx in contexts:
        if ctx.settings.get("counter"):
            suicide(ctx)
        sample(ctx)
        ctx.log({"together": len(contexts)})


def totals(contexts: Sequence[StepContext]) -> None:
    for ctx in contexts:
        total(ctx)
        ctx.log({"together": len(contexts)})


def fails_together(contexts: Sequence[StepContext]) -> None:
    """Fail as `nonfinite` does."""
    nonfinite(contexts[1])


def told(ctx: StepContext) -> None:
    """Whether seeds are to be one computation."""
    (ctx.out / "together.json").write_text(json.dumps(ctx.together))


def environment(ctx: StepContext) -> None:
    """Which process this is, and with how many threads."""
    import torch

    facts = {"pid": os.getpid(), "threads": torch.get_num_threads(), "omp": os.environ["OMP_NUM_THREADS"]}
    (ctx.out / "facts.json").write_text(json.dumps(facts))


def unsteady(ctx: StepContext) -> None:
    """Other bytes every time."""
    (ctx.out / "clock.bin").write_bytes(np.array([time.time_ns()], dtype=float).tobytes())


def big(ctx: StepContext) -> None:
    """A file of ``megabytes``."""
    (ctx.out / "big.bin").write_bytes(b"\1" * int(ctx.settings["megabytes"] * 2**20))


def nonfinite(ctx: StepContext) -> None:
    """Fail in a way that a user can mend."""
    raise NonFiniteError("loss is NaN at step 7; lower the learning rate")


class Odd(HeldoutError):
    """An error whose pickle cannot be loaded: its constructor takes no message."""

    def __init__(self) -> None:
        super().__init__("odd")


def odd(ctx: StepContext) -> None:
    """Fail with an exception that cannot be sent to another process."""
    raise Odd


def defect(ctx: StepContext) -> None:
    """Fail in a way that is ours to mend."""
    raise ZeroDivisionError("a defect")


def greedy(ctx: StepContext) -> None:
    """Write over the store's own record."""
    (ctx.out / "step.json").write_text("{}")


def wrong_name(ctx: StepContext) -> None:
    """Read a field that is not among the settings."""
    ctx.settings["sise"]


def suicide(ctx: StepContext) -> None:
    """Kill the worker, the first ``times`` times; a file beside the store counts."""
    count = Path(ctx.settings["counter"])
    tries = len(count.read_bytes()) if count.exists() else 0
    if tries < ctx.settings["times"]:
        count.write_bytes(b"x" * (tries + 1))
        os.kill(os.getpid(), signal.SIGKILL)


def steps(pause: float = 0.0, size: int = 1000) -> list[Step]:
    """Three samples, two sums of two samples, one sum of the sums: in all 6 x `pause` seconds of work."""
    samples = [Step(f"sample-{s}", sample, {"seed": s, "size": size, "pause": pause}) for s in range(3)]
    sums = [
        Step("sum-01", total, {"pause": pause}, {"a": "sample-0", "b": "sample-1"}),
        Step("sum-12", total, {"pause": pause}, {"a": "sample-1", "b": "sample-2"}),
    ]
    return [*samples, *sums, Step("all", total, {"pause": pause}, {"left": "sum-01", "right": "sum-12"})]


def evidence(run: Run) -> dict[str, Any]:
    """Every file of every output of the store, step.json without its timing.

    The source hash is left out too: somebody may be editing the package while its tests run.
    """
    found: dict[str, Any] = {}
    for path in sorted(run.store.root.glob("[0-9a-f]*/**/*")):
        if path.is_file():
            content: Any = path.read_bytes()
            if path.name == RECORD:
                content = {k: v for k, v in json.loads(content).items() if k not in (*TIMING, "source_hash")}
            found[path.relative_to(run.store.root).as_posix()] = content
    return found


def main(out: str, pause: str) -> None:
    """What a command line does: run, print the message of a HeldoutError, exit with 2."""
    try:
        execute("dummy", steps(float(pause)), out=Path(out), workers=2)
    except HeldoutError as error:
        sys.exit(f"{type(error).__name__}: {error}")
