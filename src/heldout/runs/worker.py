"""What runs in a worker: a step, or several as one, from plain data to folders in the store and a plain answer."""

from __future__ import annotations

import errno
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict

from heldout import errors
from heldout.errors import HeldoutError, StoreError
from heldout.runs._json import unwritable, write_json
from heldout.runs.provenance import source_hash, threads, versions
from heldout.runs.steps import STORE_FORMAT, StepContext, resolve
from heldout.runs.store import NOTES, RECORD, Store


class Job(TypedDict):
    """A step as plain data, so that it can be sent to any process or machine that sees the store."""

    name: str
    function: str
    version: int
    settings: dict[str, Any]
    places: dict[str, Any]
    inputs: dict[str, str]  # local name -> key
    key: str
    store: str
    device: str
    replace: bool
    together: bool  # whether seeds are trained as one computation where they can be
    side_by_side: str | None  # the function that does several such steps as one
    keep: bool  # False where the store has the output, and the step is computed for those beside it


class StepFailed(RuntimeError):
    """A step's function raised something that is not a `HeldoutError`; the message carries the worker's traceback."""


def perform(*jobs: Job) -> dict[str, Any]:
    """Run one step, or several by the function that does them together, and store the outputs that are to be kept.

    Answers ``{"outcomes": by name, "wall_seconds": of each, in equal parts}`` or ``{"error": class, "message": ...}``:
    exceptions travel as text, since one that cannot be unpickled would look like a lost worker.
    """
    store = Store(Path(jobs[0]["store"]))
    with ExitStack() as stack:
        try:
            folders = []
            for job in jobs:
                folders.append(store.begin(job["key"]))
                stack.callback(shutil.rmtree, folders[-1], ignore_errors=True)
            return _perform(jobs, store, folders)
        except (Exception, SystemExit) as error:
            return _describe(error, store.root)


def _perform(jobs: Sequence[Job], store: Store, folders: Sequence[Path]) -> dict[str, Any]:
    contexts = [_context(job, store, folder / "out") for job, folder in zip(jobs, folders, strict=True)]
    contents = [{local: store.content(key) for local, key in job["inputs"].items()} for job in jobs]
    started = time.perf_counter()
    if len(jobs) == 1:
        resolve(jobs[0]["function"])(contexts[0])
    else:
        assert jobs[0]["side_by_side"] is not None
        resolve(jobs[0]["side_by_side"])(contexts)
    wall = (time.perf_counter() - started) / sum(job["keep"] for job in jobs)
    for context in contexts:
        taken = [name for name in (RECORD, NOTES) if (context.out / name).exists()]
        if taken:
            raise StoreError(f"step {context.name!r} wrote {taken[0]}, a name that the store uses; choose another")
        if context.notes:
            write_json(context.out / NOTES, {"events": context.notes})
    shared = {
        "store_format": STORE_FORMAT,
        "versions": versions(),
        "threads": threads(),
        "source_hash": source_hash(),
        "wall_seconds": wall,
    }
    if len(jobs) > 1:
        shared["together"] = [job["name"] for job in jobs]
    outcomes = {}
    for job, folder, content in zip(jobs, folders, contents, strict=True):
        if not job["keep"]:
            continue
        own = {field: job[field] for field in ("name", "function", "version", "settings", "inputs", "device")}
        record = own | shared | {"input_contents": content}
        outcomes[job["name"]] = store.commit(job["key"], folder, record, replace=job["replace"])
    return {"outcomes": outcomes, "wall_seconds": wall}


def _context(job: Job, store: Store, out: Path) -> StepContext:
    inputs = {local: store.path(key) for local, key in job["inputs"].items()}
    return StepContext(
        job["name"],
        job["settings"] | job["places"],
        inputs,
        out=out,
        device=job["device"],
        together=job["together"],
    )


def _describe(error: BaseException, root: Path) -> dict[str, Any]:
    if not isinstance(error, HeldoutError) and (reason := _no_room(error, root)):
        error = unwritable(root, reason)
    if not isinstance(error, HeldoutError):
        return {"error": None, "message": "".join(traceback.format_exception(error))}
    known = next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
    return {"error": known, "message": str(error)}


def _no_room(error: BaseException, root: Path) -> str | None:
    """Why the store cannot be written, where that is what a step's function ran into."""
    if os.strerror(errno.ENOSPC) in str(error):  # the libraries written in Rust and C++ keep only the text
        return os.strerror(errno.ENOSPC)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT):
        inside = error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(root)
        return error.strerror if inside else None
    return None


def revive(answer: Mapping[str, Any], name: str) -> Exception:
    """The exception that an answer of `perform` describes: a HeldoutError as itself, anything else as StepFailed."""
    if answer["error"] is None:
        return StepFailed(f"step {name!r} failed; in its worker:\n{answer['message']}")
    error: HeldoutError = getattr(errors, answer["error"])(answer["message"])
    error.add_note(f"in step {name!r}")
    return error
