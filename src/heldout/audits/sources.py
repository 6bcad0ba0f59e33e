"""What a spec refers to: paths, the code that it names, and the fingerprints by which a change of either is seen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from heldout.audits.parts import Part
from heldout.errors import ConfigError, choices

CODE = ("from", "function")  # fields that name code
FILES = ("file", "weights", "huggingface", "names", "tokenizer", "activations", "table")


def resolve(folder: Path, given: str, *, field: str) -> Path:
    """A path of a spec, relative to its folder. Raises `ConfigError` where nothing is there."""
    path = folder / Path(given).expanduser()
    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise ConfigError(f"{field}: {path} does not exist; {choices(path.name, near)}")
    return path


def plain(part: Part) -> dict[str, Any]:
    """A part of a spec as it would be written."""
    found: dict[str, Any] = part.model_dump(mode="json", by_alias=True)
    return found


def fingerprint(part: Part | None, folder: Path) -> Any:
    """A part of a spec by content: `plain`, with a SHA-256 in place of every path, and one behind the name of all code.

    It is the same wherever the folder lies and whatever its files are called. Of code, the modules of the spec's folder
    count (those beside it, and the package that is named); installed packages do not. Among `arguments` every text that
    names a file counts as one; what a directory there holds is not looked at.
    """

    def visit(value: Any, key: str, *, argument: bool) -> Any:
        if isinstance(value, dict):
            return {k: visit(v, k, argument=argument or key == "arguments") for k, v in value.items()}
        if isinstance(value, list):
            return [visit(v, key, argument=argument) for v in value]
        if not isinstance(value, str):
            return value
        if key in CODE and not argument:
            return f"{value} {_code(value, folder)}"
        if key in FILES or argument:
            return _content(value, folder, directories=not argument)
        return value

    return None if part is None else visit(plain(part), "", argument=False)


def _content(given: str, folder: Path, *, directories: bool) -> str:
    """The hash of what a path leads to, with its suffix, by which it is read; the text itself where nothing is there."""
    try:
        path = folder / Path(given).expanduser()
        found = _hash(path) if directories or path.is_file() else ""
    except (OSError, RuntimeError, ValueError):  # no path at all
        found = ""
    return f"{path.suffix} {found}" if found else given


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
