"""Sources of code: what text there is, where it lies, and in which language. Nothing is chosen here, nothing downloaded
unless its source was named.

A corpus has documents of the distribution that is trained on (`home`), perhaps others held out by its makers (`held_out`),
and pools of other text by name. Documents are listed in one order on every machine that has the same files.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heldout.errors import ConfigError, SplitError, choices
from heldout.tasks.code.languages import language_of, shown_name
from heldout.tasks.code.settings import CodeSettings

# The library's own tests, and tables that are not written by anybody.
NOT_STDLIB = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages", "dist-packages", "lib-dynload"}
CSN_LANGUAGES = ("go", "java", "javascript", "php", "python", "ruby")
PACKAGES = "python_packages"


@dataclass(frozen=True)
class Document:
    """One file or function. `parts` lead to it from its package down; `size` is in bytes (characters, where the text is
    at hand); `source` is where it lies, or the text itself."""

    name: str
    parts: tuple[str, ...]
    language: str
    size: int
    source: Path | str

    def text(self) -> str:
        """The text with line ends as ``\\n``; what is not UTF-8 is U+FFFD."""
        raw = self.source if isinstance(self.source, str) else self.source.read_text("utf-8", errors="replace")
        return raw.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class Corpus:
    """What a source has: see the module's text. `notes`: pool -> one line on what it is."""

    home: list[Document]
    held_out: list[Document] = field(default_factory=list)
    others: dict[str, list[Document]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def find_corpus(settings: CodeSettings) -> Corpus:
    """The corpus that `settings` name. Raises `ConfigError` where it is not there."""
    return _SOURCES[settings.source](settings)


def installed(settings: CodeSettings) -> Corpus:
    """The code that comes with this Python: the standard library is home; other packages' Python, and every other language
    in packages and in Python's own headers, are pools."""
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    home = [d for d in _walk(stdlib, skip=NOT_STDLIB) if d.language == "python"]
    roots = [Path(p) for p in dict.fromkeys([paths["purelib"], paths["platlib"]])]
    other = [d for root in roots for d in _walk(root)]
    headers = Path(paths["include"])
    other += list(_walk(headers, inside=(headers.name,)))
    pools: dict[str, list[Document]] = {PACKAGES: []}
    for document in other:
        pools.setdefault(PACKAGES if document.language == "python" else document.language, []).append(document)
    notes = {name: f"{shown_name(name)} in installed packages and Python's own headers" for name in pools}
    notes |= {"home": "Python's standard library", PACKAGES: "Python of other installed packages"}
    return Corpus(home, others=pools, notes=notes)


def fingerprint(settings: CodeSettings) -> str:
    """Sixteen hexadecimal digits that change when a listed file comes, goes, or changes its size. No file is opened.

    ``absent`` where a copy is not there (yet): a study can then be shown, and running it says what is missing.
    """
    from hashlib import sha256

    if settings.source == "codesearchnet_hub":
        return "hub"
    if settings.source == "codesearchnet":
        try:
            listed = [(p.as_posix(), p.stat().st_size) for p in _data_files(Path(settings.path))]
        except ConfigError:
            return "absent"
    else:
        corpus = find_corpus(settings)
        pools = [corpus.home, corpus.held_out, *corpus.others.values()]
        listed = [(d.name, d.size) for pool in pools for d in pool]
    return sha256(json.dumps(listed).encode()).hexdigest()[:16]


def folder(settings: CodeSettings) -> Corpus:
    """Files below a folder, by patterns for each split."""
    base = Path(settings.path)
    if not base.is_dir():
        raise ConfigError(f"code: there is no folder {base}; path is where the patterns of globs begin")
    pools = {}
    for name, patterns in settings.globs.items():
        files = sorted({p for pattern in patterns for p in base.glob(pattern) if p.is_file()})
        if not files:
            raise SplitError(
                f"code: no file below {base} matches {', '.join(patterns)}, the patterns of split {name!r}"
            )
        pools[name] = [_document(p, p.relative_to(base).as_posix()) for p in files]
    home, held_out = pools.pop("train"), pools.pop("id", [])
    notes = {name: f"files that match {', '.join(settings.globs[name])}" for name in pools}
    return Corpus(home, held_out, pools, notes | {"home": f"files that match {', '.join(settings.globs['train'])}"})


def codesearchnet(settings: CodeSettings) -> Corpus:
    """A local copy of CodeSearchNet: any parquet or jsonl.gz files; rows name their language, repository and partition."""
    rows = (row for path in _data_files(Path(settings.path)) for row in _rows(path))
    return _functions(rows, settings)


def codesearchnet_hub(settings: CodeSettings) -> Corpus:
    """CodeSearchNet through Hugging Face `datasets`, streamed."""
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError(
            "code: source 'codesearchnet_hub' needs the package datasets (pip install datasets); a local copy is read "
            "with source 'codesearchnet' and its path"
        )
    datasets: Any = importlib.import_module("datasets")

    def rows() -> Iterator[Mapping[str, Any]]:
        for language in CSN_LANGUAGES:
            for part in ("train", "test") if language == settings.language else ("test",):
                yield from datasets.load_dataset(
                    "code-search-net/code_search_net", language, split=part, streaming=True
                )

    return _functions(rows(), settings)


_SOURCES: dict[str, Callable[[CodeSettings], Corpus]] = {
    "installed": installed,
    "folder": folder,
    "codesearchnet": codesearchnet,
    "codesearchnet_hub": codesearchnet_hub,
}


def _walk(root: Path, *, skip: Iterable[str] = (), inside: tuple[str, ...] = ()) -> Iterator[Document]:
    """Every file of code below `root`, in the order of its path; symbolic links are not followed."""
    skipped = {"__pycache__", *skip}
    for place, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in skipped and not f.startswith("."))
        here = (*inside, *Path(place).relative_to(root).parts)
        for file in sorted(files):
            if language_of(file) is not None:
                yield _document(Path(place, file), "/".join((*here, file)))


def _document(path: Path, name: str) -> Document:
    return Document(name, tuple(name.split("/")), language_of(name) or "text", path.stat().st_size, path)


def _data_files(base: Path) -> list[Path]:
    found = sorted(p for pattern in ("*.parquet", "*.jsonl.gz") for p in base.rglob(pattern))
    if not found:
        raise ConfigError(
            f"code: no .parquet or .jsonl.gz file below {base}; path is the folder of a CodeSearchNet copy"
        )
    return found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                yield from batch.to_pylist()
        return
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            yield json.loads(line)


def _functions(rows: Iterable[Mapping[str, Any]], settings: CodeSettings) -> Corpus:
    """Functions as documents: the chosen language's train partition is home, every language's test partition held out.

    Both spellings of the columns are read: the archive's (code, repo, partition) and the data set card's.
    """
    pools: dict[str, list[Document]] = {}
    room = {"home": 2 * settings.train_characters}
    for number, row in enumerate(rows):
        text = row.get("func_code_string", row.get("code"))
        language, part = row.get("language"), row.get("split_name", row.get("partition"))
        repository = row.get("repository_name", row.get("repo"))
        if text is None or language is None or part is None or repository is None:
            raise ConfigError(
                f"code: a row of CodeSearchNet has the columns {', '.join(row)}; func_code_string (or code), language, "
                "repository_name (or repo) and split_name (or partition) are needed"
            )
        pool = "home" if part == "train" else language
        if (part == "train" and language != settings.language) or part not in ("train", "test"):
            continue
        left = room.setdefault(pool, 400 * settings.windows * settings.window)
        if left > 0:
            room[pool] = left - len(text)
            name = f"{repository}#{language}-{part}-{number}"
            pools.setdefault(pool, []).append(Document(name, (repository,), language, len(text), text))
    if "home" not in pools:
        raise ConfigError(
            f"code: there are no training functions of {settings.language!r}; {choices(settings.language, sorted(pools))}"
        )
    home, held_out = pools.pop("home"), pools.pop(settings.language, [])
    notes = {name: f"{shown_name(name)} functions of other repositories" for name in pools}
    return Corpus(
        home, held_out, pools, notes | {"home": f"{shown_name(settings.language)} functions of CodeSearchNet"}
    )
