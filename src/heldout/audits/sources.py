"""What a spec refers to: paths, the code that it names, and the hashes by which a change of either is seen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from heldout.audits.spec import Made, Network, Part
from heldout.errors import ConfigError, choices

CODE = ("from", "function")  # fields that name code
FILES = ("file", "weights", "huggingface", "names", "tokenizer")


def resolve(folder: Path, given: str, *, field: str) -> Path:
    """A path of a spec, relative to its folder. Raises `ConfigError` where nothing is there."""
    path = folder / Path(given).expanduser()
    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise ConfigError(f"{field}: {path} does not exist; {choices(path.name, near)}")
    return path


def digests(part: Part | None, folder: Path) -> dict[str, str]:
    """SHA-256 of every file, directory and module of the folder that a part of a spec names, by how it names it.

    Of code, the modules of the spec's folder count (those beside it, and the package that is named); installed packages
    do not.
    """
    found: dict[str, str] = {}

    def visit(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                visit(v, k)
        elif isinstance(value, list):
            for v in value:
                visit(v, key)
        elif isinstance(value, str) and key in CODE:
            found[value] = _code(value, folder)
        elif isinstance(value, str) and key in FILES:
            found[value] = _hash(folder / Path(value).expanduser())

    if part is not None:
        visit(part.model_dump(mode="json", by_alias=True), "")
    return found


def source_names(network: Network | Made) -> list[str]:
    """How a network's runs are called in tables: their files, or what makes them."""
    if isinstance(network, Made):
        return [network.weights or network.from_]
    return [s or str(network.from_) for s in network.sources]


def _code(target: str, folder: Path) -> str:
    """Of the Python files that importing ``package.module:function`` from `folder` may run."""
    top = target.partition(":")[0].split(".")[0]
    beside = sorted(folder.glob("*.py"))
    inside = sorted((folder / top).rglob("*.py")) if (folder / top).is_dir() else []
    here = [*beside, *inside] if (folder / f"{top}.py").exists() or inside else []
    return _joined([(p.relative_to(folder).as_posix(), p) for p in here])


def _hash(path: Path) -> str:
    if path.is_dir():
        return _joined([(p.relative_to(path).as_posix(), p) for p in sorted(path.rglob("*")) if p.is_file()])
    return _joined([("", path)]) if path.is_file() else ""


def _joined(files: list[tuple[str, Path]]) -> str:
    whole = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return whole.hexdigest()
