"""Finished outputs, one folder a key. A folder is written elsewhere, made durable, and renamed into its place.

<root>/store.json        which format this store has
<root>/<key>/            an output; its step.json lists every file with size and SHA-256
<root>/.tmp/             outputs being written; the folder's name tells the process that writes it
<root>/.aside/           outputs that were damaged, for the user to look at
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heldout.errors import StoreError
from heldout.runs._json import digest, read_json, write_json, writing
from heldout.runs.steps import STORE_FORMAT

RECORD = "step.json"
NOTES = "notes.json"
TIMING = ("wall_seconds",)  # the fields of step.json that differ between two runs of one step


class Store:
    """The outputs under `root`. Making a `Store` touches nothing; `prepare` creates what is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the output of `key` lies, or would lie."""
        return self.root / key

    def prepare(self) -> None:
        """Create the store where there is none, and remove what dead processes left half written.

        Raises StoreError for a store of another version, a folder with other things in it, or an unwritable place.
        """
        marker = self.root / "store.json"
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            found = read_json(marker)
            if found is None and any(not p.name.startswith(".") and p != marker for p in self.root.iterdir()):
                raise StoreError(f"{self.root} holds other files and is no store; give an empty or a new directory")
            if found is None:
                write_json(marker, {"heldout_store": STORE_FORMAT})
            elif found.get("heldout_store") != STORE_FORMAT:
                raise StoreError(
                    f"{self.root} was made by another version (store format {found.get('heldout_store')!r}, this one "
                    f"uses {STORE_FORMAT}); give another store directory, or remove this one to compute everything anew"
                )
            for name in (".tmp", ".aside"):
                (self.root / name).mkdir(exist_ok=True)
        for folder in (self.root / ".tmp").iterdir():
            _, host, pid, _ = folder.name.split("@")
            if host == socket.gethostname() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)

    def record(self, key: str) -> dict[str, Any] | None:
        """The output's step.json, or None where it is missing or unreadable."""
        return read_json(self.path(key) / RECORD)

    def fault(self, key: str, *, verify: bool = False) -> str | None:
        """What is wrong with an output, None where it is whole.

        Compares the files' sizes, with `verify` also their SHA-256 (a byte changed in place shows only there).
        """
        record = self.record(key)
        if record is None or record.get("key") != key or not isinstance(record.get("files"), dict):
            return f"{RECORD} is missing or damaged" if self.path(key).exists() else "is not in the store"
        for name, expected in record["files"].items():
            file = self.path(key) / name
            size = file.stat().st_size if file.is_file() else None
            if size != expected["bytes"]:
                return (
                    f"{name} has {size} bytes, {expected['bytes']} were written"
                    if size is not None
                    else (f"{name} is missing")
                )
            if verify and _sha256(file) != expected["sha256"]:
                return f"{name} does not have the SHA-256 that was recorded"
        for local, content in record["input_contents"].items():
            if self.content(record["inputs"][local]) not in (content, None):
                return f"it was computed from an earlier output of its input {local!r}"
        return None

    def content(self, key: str) -> str | None:
        """One hash of all files of an output as they were recorded, None where there is none."""
        record = self.record(key)
        return None if record is None else digest(record.get("files"))

    def open(self, key: str, *, verify: bool = False, damaged: Callable[[str, Path], None]) -> Path | None:
        """The folder of a whole output, or None. A damaged one is moved to ``.aside`` and `damaged(what, where)` called."""
        path = self.path(key)
        if not path.exists():
            return None
        fault = self.fault(key, verify=verify)
        if fault is None:
            return path
        damaged(fault, self._set_aside(path))
        return None

    def begin(self, key: str) -> Path:
        """A new folder for the output of `key`; what goes into its ``out`` becomes the output."""
        with writing(self.root):
            owner = f"{key}@{socket.gethostname()}@{os.getpid()}@"
            temporary = Path(tempfile.mkdtemp(prefix=owner, dir=self.root / ".tmp"))
            (temporary / "out").mkdir()
        return temporary

    def progress(self, key: str) -> dict[str, Any] | None:
        """The last report of the step that is computing `key`."""
        reports = (self.root / ".tmp").glob(f"{key}@*/progress.json")
        return next((report for path in reports if (report := read_json(path))), None)

    def commit(self, key: str, temporary: Path, record: Mapping[str, Any], *, replace: bool = False) -> str:
        """Move ``temporary/out`` into the store, with `record` and the files' hashes as its step.json.

        Returns ``stored``; ``raced`` where another process finished first (its output stands); with `replace`
        ``identical`` (the old files stand, only the record is new) or ``replaced`` where the bytes differ.
        """
        out, target, old = temporary / "out", self.path(key), None
        with writing(target):
            files = {p.relative_to(out).as_posix(): p for p in sorted(out.rglob("*")) if p.is_file()}
            listed = {name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for name, p in files.items()}
            for place in (*files.values(), *(p for p in out.rglob("*") if p.is_dir())):
                _fsync(place)
            write_json(out / RECORD, {**record, "key": key, "files": listed})
            _fsync(out)
            if replace and target.exists():
                if self.fault(key, verify=True) is None and (self.record(key) or {})["files"] == listed:
                    (out / RECORD).replace(target / RECORD)
                    return "identical"
                old = self._set_aside(target)  # killed from here to the rename, the key is absent and computed again
            try:
                out.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return "raced"
            _fsync(self.root)
        if old is None:
            return "stored"
        shutil.rmtree(old, ignore_errors=True)
        return "replaced"

    def _set_aside(self, path: Path) -> Path:
        with writing(self.root):
            place = Path(tempfile.mkdtemp(prefix=f"{path.name[:16]}-", dir=self.root / ".aside"))
            path.rename(place)
        return place


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    try:  # a zombie is dead: nobody has asked for its exit status yet
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
