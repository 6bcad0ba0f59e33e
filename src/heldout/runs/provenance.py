"""What a result was computed with: versions, threads, and a hash of this package's source."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import heldout


@cache
def source_hash() -> str:
    """SHA-256 over the names and contents of the package's files, as they were when this process first asked."""
    root = Path(heldout.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers come from, read without importing any of it."""
    return {"python": platform.python_version()} | {name: _installed(name) for name in ("heldout", "torch", "numpy")}


def threads() -> int:
    """Compute threads of this process: PyTorch's where it is loaded, else what it would take."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
