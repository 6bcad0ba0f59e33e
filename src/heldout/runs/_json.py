"""JSON in one canonical form, and files that are either the old ones or the new ones, never half written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heldout.errors import ConfigError, StoreError


def plain(value: Any, where: str) -> Any:
    """A copy of `value` in JSON's own types (tuples become lists); `where` names it in the error.

    Raises ConfigError for NaN and infinity, for keys that are not strings, and for every other type: a key made from
    their text would depend on the library that printed them.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value}; only finite numbers can be part of a key")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ConfigError(f"{where} has the key {key!r}; keys are strings")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    raise ConfigError(
        f"{where} is a {type(value).__name__}; accepted are None, bool, int, float, str, lists and mappings of them"
    )


def canonical(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` (full, read-only, not permitted) into a StoreError that names it."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error


def unwritable(path: Path, reason: str) -> StoreError:
    """The error for a place that cannot be written."""
    return StoreError(
        f"cannot write {path}: {reason}. Finished steps are kept; make room or give another directory, "
        "then run the same command again"
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` durably under a temporary name, then rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(value, file, sort_keys=True, indent=1, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
