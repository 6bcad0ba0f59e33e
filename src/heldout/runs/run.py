"""Run a study's steps: reuse what the store has, compute what is missing, and leave a directory that says how.

Killed at any moment, the same call goes on and ends with the same outputs.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from heldout.errors import ConfigError, HeldoutError
from heldout.runs._json import plain
from heldout.runs.directory import RUN_FORMAT, Run, RunWriter, locked
from heldout.runs.engine import Engine, make_engine
from heldout.runs.progress import Listener, listening
from heldout.runs.provenance import source_hash, versions
from heldout.runs.steps import Step, and_dependents, check_steps, companions, name_of, step_keys
from heldout.runs.store import Store
from heldout.runs.worker import Job, perform, revive

LOSSES = 3  # a step that lost its worker so often is taken to be the reason
POLL = 0.5  # seconds between looks at the progress of running steps

Emit = Callable[..., None]


def execute(
    study: str,
    steps: Iterable[Step],
    *,
    out: Path,
    store: Path | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    device: str = "cpu",
    fresh: Iterable[str] = (),
    verify: bool = False,
    manifest: Mapping[str, Any] | None = None,
    together: bool | None = None,
    progress: Listener | Literal["auto"] | None = "auto",
) -> Run:
    """Run `steps` into the run directory `out` and return the finished run.

    - `store`: where outputs are kept; ``<out>/../store`` where None.
    - `engine`: ``local`` (worker processes), ``inline`` (this process) or ``ray`` (a Ray on this machine or a cluster).
    - `workers`: worker processes of the engine; one for each available processor where None.
    - `address`: of a running cluster, for ``ray`` (see `RayEngine`).
    - `fresh`: names or patterns of steps to compute again, with all that is built on them.
    - `verify`: compare the SHA-256 of reused outputs and not only their sizes.
    - `manifest`: what the study wants to keep about itself (config, preset, seeds, the claims' hash), plain JSON.
    - `together`: whether steps that differ in their seed alone, and can, are computed as one; where None, on an accelerator,
      which one small network leaves idle. Several workers keep a CPU's processors as busy, each with a seed of its own.
    - `progress`: called with every event (a mapping with ``event`` and mostly ``step``), also with reports of running
      steps; None for silence; ``auto`` for a display on standard error.

    A HeldoutError of a step is raised as itself, any other exception as StepFailed with the worker's traceback, in
    both cases after the steps then running have been stored. Raises ConfigError for steps, names and engines that are
    not accepted, StoreError for directories that cannot be used, HeldoutError when a step loses its worker again and
    again.
    """
    order = check_steps(steps)
    keys = step_keys(order)
    together = not device.startswith("cpu") if together is None else together
    beside = companions(order) if together else {}
    again = and_dependents(order, fresh)
    out = Path(out)
    depot = Store((out.parent / "store" if store is None else Path(store)).resolve())
    with make_engine(engine, workers, address=address, device=device) as pool:
        where = {
            "store": os.path.relpath(depot.root, out.resolve()),
            "engine": engine,
            "device": device,
            "together": together,
        }
        fields = _manifest(study, order, keys, manifest or {}) | where | {"workers": pool.workers}
        with locked(out, study), closing(RunWriter(out, fields)) as writer, listening(progress) as listener:

            def emit(event: str, **details: Any) -> None:
                if event != "progress":
                    writer.event({"event": event, **details})
                if event in ("finished", "reused"):
                    timing = {"wall_seconds": details["wall_seconds"], "reused": event == "reused"}
                    writer.manifest["steps"][details["step"]].update(timing)
                    writer.update()
                listener({"event": event, **details})

            depot.prepare()
            pool.share(depot)
            writer.update()
            emit("start", study=study, steps=len(order), pid=os.getpid())
            jobs = {
                step.name: _job(step, keys, depot, device, replace=step.name in again, together=together)
                for step in order
            }
            try:
                _drive(order, jobs, beside, pool, depot, verify, emit)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            writer.update(status="done", finished=time.time())
            emit("done")
    return Run.open(out)


def _manifest(study: str, order: Sequence[Step], keys: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "run_format": RUN_FORMAT,
        "study": study,
        "status": "unfinished",
        "started": time.time(),
        "finished": None,
        "versions": versions(),
        "source_hash": source_hash(),
        "order": [step.name for step in order],
        "steps": {
            step.name: {
                "key": keys[step.name],
                "function": step.function_name,
                "version": step.version,
                "inputs": dict(step.inputs),
                "wall_seconds": None,
                "reused": None,
            }
            for step in order
        },
    }
    if taken := sorted(set(given) & {*ours, "store", "engine", "device", "together", "workers"}):
        raise ConfigError(f"the manifest's fields {', '.join(taken)} are written by the run itself; choose other names")
    given_plain: dict[str, Any] = plain(given, "manifest")
    return given_plain | ours


def _job(step: Step, keys: Mapping[str, str], depot: Store, device: str, *, replace: bool, together: bool) -> Job:
    return Job(
        name=step.name,
        function=step.function_name,
        version=step.version,
        settings=dict(step.settings),
        places=dict(step.places),
        inputs={local: keys[source] for local, source in step.inputs.items()},
        key=keys[step.name],
        store=str(depot.root),
        device=device,
        replace=replace,
        together=together,
        side_by_side=None if step.together is None else name_of(step.together),
        keep=True,
    )


def _drive(
    order: Iterable[Step],
    jobs: Mapping[str, Job],
    beside: Mapping[str, Sequence[str]],
    pool: Engine,
    depot: Store,
    verify: bool,
    emit: Emit,
) -> None:
    """Reuse or submit each step when its inputs are there, with all its companions (`beside`); after a failure finish what
    is running, then raise it.

    Companions that the store has are computed along and not kept: what a network draws depends on those beside it, and a run
    that was killed is to end as if it had not been.
    """
    waiting, done = {step.name: step for step in order}, set[str]()
    running: dict[Future[dict[str, Any]], list[Step]] = {}
    losses: Counter[str] = Counter()
    failure: Exception | None = None

    def ready(name: str) -> bool:
        return name in waiting and done.issuperset(waiting[name].inputs.values())

    def missing(name: str) -> bool:
        """Whether a step that is ready is to be computed; one that the store has is done here."""
        if jobs[name]["replace"] or not _reuse(jobs[name], depot, verify, emit):
            return True
        del waiting[name]
        done.add(name)
        return False

    def named(group: Sequence[Step]) -> str:
        return ", ".join(step.name for step in group)

    while running or (waiting and failure is None):
        for name in list(waiting) if failure is None else ():
            if not ready(name) or not missing(name) or len(running) >= pool.workers:
                continue
            names = beside.get(name, (name,))
            if not all(ready(other) or other in done for other in names):
                continue  # together or not must not depend on which input was there first
            kept = {other for other in names if other not in done and missing(other)}
            group = [waiting.pop(other) for other in names if other in kept]
            for step in group:
                emit("submitted", step=step.name)
            given = [Job(**{**jobs[other], "keep": other in kept}) for other in names]
            running[pool.submit(perform, *given)] = group
        finished, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
        for future in finished:
            group = running.pop(future)
            name = group[0].name  # events of several steps that are one are its
            try:
                answer = future.result()
            except BrokenExecutor:
                losses[name] += 1
                emit("lost", step=name, losses=losses[name])
                if losses[name] < LOSSES:
                    waiting = {step.name: step for step in group} | waiting
                else:
                    failure = failure or _lost(named(group))
                continue
            if "error" in answer:
                emit("failed", step=name, error=answer["error"], message=answer["message"])
                error = revive(answer, named(group))
                if len(beside.get(name, ())) > 1:
                    error.add_note("trained together; --apart trains them one by one, and keeps those that end")
                failure = failure or error
                continue
            for step in group:
                done.add(step.name)
                outcome = answer["outcomes"][step.name]
                emit("finished", step=step.name, outcome=outcome, wall_seconds=answer["wall_seconds"])
        for group in running.values():
            first = beside.get(group[0].name, (group[0].name,))[0]  # the one that reports for all
            if report := depot.progress(jobs[first]["key"]):
                emit("progress", step=group[0].name, **report)
    if failure is not None:
        raise failure


def _reuse(job: Job, depot: Store, verify: bool, emit: Emit) -> bool:
    def damaged(fault: str, moved_to: Path) -> None:
        emit("damaged", step=job["name"], fault=fault, moved_to=str(moved_to))

    if depot.open(job["key"], verify=verify, damaged=damaged) is None:
        return False
    emit("reused", step=job["name"], wall_seconds=(depot.record(job["key"]) or {}).get("wall_seconds"))
    return True


def _lost(name: str) -> HeldoutError:
    return HeldoutError(
        f"step {name!r} lost its worker {LOSSES} times: killed from outside, out of memory, or a crash in a library "
        "(or the calling script lacks `if __name__ == '__main__':`). Finished steps are kept; free memory or use fewer "
        "workers, then run the same command again. engine='inline' runs the step in this process, for debugging"
    )
