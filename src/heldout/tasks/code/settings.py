"""What the code task is made of, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from heldout.errors import ConfigError, unknown

Source = Literal["installed", "codesearchnet", "codesearchnet_hub", "folder"]
SOURCES: tuple[Source, ...] = ("installed", "codesearchnet", "codesearchnet_hub", "folder")
OWN = ("train", "id")  # names of splits that `globs` may give for the distribution that is trained on


@dataclass(frozen=True)
class CodeSettings:
    """Where the text comes from, and how much of it is used.

    - `source`: ``installed`` (the code that comes with this Python: the default, no network), ``codesearchnet`` (a local
      copy at `path`: parquet or jsonl.gz), ``codesearchnet_hub`` (the same through Hugging Face `datasets`; the only
      source that uses a network, and only because it is named), ``folder`` (files below `path`, by `globs`).
    - `language`: what CodeSearchNet networks are trained on; its other languages are out of distribution.
    - `globs`: split -> patterns below `path`; ``train`` is needed, ``id`` is optional, others are out of distribution.
    - `window`: T, characters of one item.
    - `train_characters`: the most text to train on. `fit_windows`: how many training windows proxies are fitted on.
    - `windows`, `units`, `per_file`: the most windows of each evaluation split, of clusters in it, of windows of one file.
    - `least_characters`: a split with less text is left out, with the reason.
    - `longest_line`: a file with a longer line is taken to be minified or data.
    - `seed`: of the draw of units, files and windows.
    """

    source: Source = "installed"
    path: str = ""
    language: str = "java"
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    window: int = 128
    train_characters: int = 9_000_000
    fit_windows: int = 512
    windows: int = 96
    units: int = 24
    per_file: int = 2
    least_characters: int = 20_000
    longest_line: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"code: {unknown('source', str(self.source), SOURCES)}")
        least = {"window": 8, "train_characters": 1, "fit_windows": 1, "windows": 1, "units": 1, "per_file": 1}
        least |= {"least_characters": 0, "longest_line": 80, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"code: {name} must be at least {value}, got {getattr(self, name)}")
        if self.source in ("codesearchnet", "folder") and not self.path:
            raise ConfigError(f"code: source {self.source!r} needs a path: the folder that holds the files")
        if self.source == "folder":
            if not self.globs.get("train"):
                raise ConfigError(
                    'code: source \'folder\' needs globs with a split train, as {"train": ["src/**/*.py"]}'
                )
        elif self.globs:
            raise ConfigError(f"code: globs belong to source 'folder'; the source is {self.source!r}")
