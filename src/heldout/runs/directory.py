"""A run directory: what was run, with what, and which outputs of the store belong to it.

<run>/manifest.json   the configuration, versions, keys and wall times; replaced after every step
<run>/events.jsonl    what happened, one line an event, only ever appended to
<run>/.lock           held by the driver
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heldout.errors import ConfigError, StoreError, choices, unknown
from heldout.runs._json import read_json, write_json, writing
from heldout.runs.provenance import source_hash
from heldout.runs.store import Store

RUN_FORMAT = 1
MANIFEST = "manifest.json"
EVENTS = "events.jsonl"


class Run:
    """A run that is finished or under way, for reading."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.store = Store((path / manifest["store"]).resolve())

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read the run in `path`. Raises StoreError where there is none, or one of another version."""
        manifest = read_manifest(path)
        if manifest is None:
            there = sorted(p.parent.name for p in path.parent.glob(f"*/{MANIFEST}"))
            hint = f"; in {path.parent}: {choices(path.name, there)}" if there else "; name one that a run has written"
            raise StoreError(f"{path} is not a run directory (no readable {MANIFEST}){hint}")
        return cls(path, manifest)

    def steps(self) -> tuple[str, ...]:
        """Names of the run's steps, inputs first."""
        return tuple(self.manifest["order"])

    def output(self, step: str) -> Path:
        """The folder of a step's output. Raises StoreError where it is missing or damaged."""
        key = self._key(step)
        if fault := self.store.fault(key):
            raise StoreError(
                f"the output of step {step!r} of {self.path} cannot be used: {fault} ({self.store.path(key)}); "
                "run the same command again to compute what is missing"
            )
        return self.store.path(key)

    def record(self, step: str) -> dict[str, Any]:
        """What the store keeps about a step's output: settings, versions, wall time, files with their SHA-256."""
        self.output(step)
        return self.store.record(self._key(step)) or {}

    @property
    def stale(self) -> tuple[str, ...]:
        """Steps whose output was computed by another source of this package than the one installed now.

        It does not show whether that source would give other numbers.
        """
        records = {step: self.store.record(self._key(step)) for step in self.steps()}
        return tuple(step for step, record in records.items() if record and record["source_hash"] != source_hash())

    def _key(self, step: str) -> str:
        if step not in self.manifest["steps"]:
            raise ConfigError(unknown("step", step, self.steps()))
        return str(self.manifest["steps"][step]["key"])


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run directory, or None. Raises StoreError for one of another version."""
    manifest = read_json(path / MANIFEST)
    if manifest is None:
        return None
    if manifest.get("run_format") != RUN_FORMAT:
        raise StoreError(
            f"{path} was written by another version (run format {manifest.get('run_format')!r}, this one reads "
            f"{RUN_FORMAT}); read it with that version, or run the study again into a new directory"
        )
    return manifest


class RunWriter:
    """The driver's hold on a run directory."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = dict(fields)
        with writing(path / EVENTS):
            self._events = (path / EVENTS).open("a", encoding="utf-8")
            if self._events.tell() and not (path / EVENTS).read_bytes().endswith(b"\n"):
                self._events.write("\n")  # the last driver was killed in the middle of a line

    def update(self, **fields: Any) -> None:
        """Change fields of the manifest, durably."""
        self.manifest.update(fields)
        write_json(self.path / MANIFEST, self.manifest)

    def event(self, event: Mapping[str, Any]) -> None:
        """Append one event with the time (seconds since 1970)."""
        with writing(self.path / EVENTS):
            self._events.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
            self._events.flush()

    def close(self) -> None:
        """Close the log."""
        with writing(self.path / EVENTS):
            self._events.close()


@contextmanager
def locked(path: Path, study: str) -> Iterator[None]:
    """Create the run directory where it is missing and hold it.

    Raises StoreError where another driver holds it, where it holds another study or other files, and where it cannot
    be written. The hold ends with the process, however it ends.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        found = read_manifest(path)
        if found is None and any(p.name not in (EVENTS, MANIFEST) and p.name[0] != "." for p in path.iterdir()):
            raise StoreError(f"{path} holds other files and is no run directory; give an empty or a new one")
        if found is not None and found["study"] != study:
            raise StoreError(f"{path} holds a run of study {found['study']!r}, not {study!r}; give another directory")
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode() or "unknown"
            raise StoreError(
                f"{path} is in use by process {owner}; wait for it to end, or give another directory"
            ) from None
        with writing(path):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
