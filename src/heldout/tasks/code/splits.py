"""From a corpus to splits: units apart, copies removed, windows drawn so that no package dominates.

A unit is the smallest independent cluster that a split has at least `CLUSTERS` of: a package or, where there are few of
those, a folder within one. The training distribution is parted by unit too, so `id` is other packages.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heldout.errors import SplitError
from heldout.tasks.base import Role
from heldout.tasks.code import breakdown
from heldout.tasks.code.corpora import Document, find_corpus
from heldout.tasks.code.settings import CodeSettings
from heldout.tasks.code.vocabulary import PAD, encode
from heldout.tasks.code.windows import Windows

CLUSTERS = 10
DEEPEST = 8  # folders below which no unit is made
LONG = 20  # characters of a line that is not written twice by chance
LOOKED_AT = 60_000  # characters of a file that evaluation windows are drawn from: a lexer is slow on more
COPIED = 0.5  # share of a file's long lines, seen in training, above which it is a copy


@dataclass(frozen=True)
class CodeTask:
    """Windows by split, and how they came about: `composition` is plain data for a manifest and a report."""

    splits: Mapping[str, Windows]
    composition: dict[str, Any]


def code(settings: CodeSettings | None = None) -> CodeTask:
    """Read a corpus and cut it into ``train``, ``fit`` (part of it), ``train_sample``, ``id_select``, ``id`` and one test
    split for each other pool that has enough text. Raises `SplitError` where the home text does not suffice."""
    settings = settings or CodeSettings()
    corpus = find_corpus(settings)
    parts = _parted(_clustered(corpus.home), _clustered(corpus.held_out), settings)
    reader = _Reader(settings)
    numbers: dict[str, int] = {}
    note = corpus.notes.get("home", "")
    train = reader.train(parts["train"], numbers, note)
    splits: dict[str, Windows] = {"train": train, **_of_train(train, settings)}
    left_out: dict[str, str] = {}
    pools: list[tuple[str, Role, dict[str, list[Document]], str]] = [
        ("id_select", "select", parts["id_select"], f"{note}, other packages"),
        ("id", "test", parts["id"], f"{note}, other packages again"),
    ]
    for name, documents in sorted(corpus.others.items(), key=lambda item: (item[0] != "python_packages", item[0])):
        pools.append((name, "test", _clustered(documents), corpus.notes.get(name, "")))
    for name, role, units, text in pools:
        found = reader.evaluation(name, role, units, numbers, text)
        if isinstance(found, str):
            if name in ("id", "id_select"):
                raise SplitError(f"code: split {name!r} cannot be made: {found}; give more text to train and test on")
            left_out[name] = found
        else:
            splits[name] = found
    found_in = {"home": corpus.home, "held_out": corpus.held_out, **corpus.others}
    composition = {
        "source": settings.source,
        "found": [{"pool": n, "files": len(d), "bytes": sum(x.size for x in d)} for n, d in found_in.items() if d],
        "left_out": left_out,
        "splits": [{**reader.records.get(name, {}), **windows.describe()} for name, windows in splits.items()],
    }
    return CodeTask(splits, composition)


def _order(seed: int, *names: str) -> bytes:
    """A place in a random order that depends on a name alone, and not on what else is there."""
    return hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()


def _by_unit(documents: Iterable[Document], depth: int) -> dict[str, list[Document]]:
    units: dict[str, list[Document]] = {}
    for document in documents:
        folders = document.parts[:-1] or document.parts
        units.setdefault("/".join(folders[:depth]), []).append(document)
    return units


def _clustered(documents: Sequence[Document]) -> dict[str, list[Document]]:
    """Documents by unit at the least depth that gives `CLUSTERS` of them, or the depth that gives most."""
    found = {depth: _by_unit(documents, depth) for depth in range(1, DEEPEST + 1)}
    enough = (units for units in found.values() if len(units) >= CLUSTERS)
    return next(enough, max(found.values(), key=len))


def _parted(
    home: dict[str, list[Document]], held_out: dict[str, list[Document]], settings: CodeSettings
) -> dict[str, dict[str, list[Document]]]:
    """Units of ``train``, ``id_select`` and ``id``: a third of those that suffice, at most, is held out."""
    pool = held_out or home
    worth = [u for u, ds in pool.items() if sum(d.size for d in ds) >= 4 * settings.window]
    worth.sort(key=lambda u: _order(settings.seed, u))
    each = min(settings.units, len(worth) // (2 if held_out else 6))
    if each < 1:
        raise SplitError(
            f"code: {len(worth)} packages of the training text have {4 * settings.window} characters or more; to hold some "
            f"out at least {2 if held_out else 6} are needed"
        )
    chosen = {"id": worth[:each], "id_select": worth[each : 2 * each]}
    away = set() if held_out else {*worth[: 2 * each]}
    parts = {name: {u: pool[u] for u in units} for name, units in chosen.items()}
    return parts | {"train": {u: ds for u, ds in home.items() if u not in away}}


def _of_train(train: Windows, settings: CodeSettings) -> dict[str, Windows]:
    """What proxies are fitted on, and other training windows to look at."""
    order = np.random.default_rng([settings.seed, 1]).permutation(len(train))
    fit, shown = order[: settings.fit_windows], order[settings.fit_windows :][: settings.windows]
    if not len(shown):
        raise SplitError(
            f"code: {len(train)} training windows are too few to fit on {settings.fit_windows}; give more text"
        )
    return {
        "fit": train.take(np.sort(fit), "fit", "what simplifications are fitted on: training windows"),
        "train_sample": train.take(
            np.sort(shown), "train_sample", "training windows that were not fitted on"
        ).labelled(),
    }


@dataclass
class _Reader:
    """Reads documents once, and refuses what it has seen: copies must not stand on both sides."""

    settings: CodeSettings
    seen: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def train(self, packages: Mapping[str, list[Document]], numbers: dict[str, int], note: str) -> Windows:
        """Whole files in a random order, cut into windows, up to the amount that is asked for."""
        s, refused = self.settings, Counter[str]()
        rows: list[np.ndarray] = []
        keys: list[str] = []
        units: list[int] = []
        read = 0
        unit = {d.name: u for u, documents in packages.items() for d in documents}
        ordered = sorted((d for ds in packages.values() for d in ds), key=lambda d: _order(s.seed, d.name))
        for document, text, key in self._texts(ordered, refused):
            if read >= s.train_characters:
                break
            read += len(text)
            self.lines.update(_long_lines(text))  # to know copies that differ a little
            tokens = encode(text)
            starts = _starts(len(tokens), s.window)
            rows += [_padded(tokens[i : i + s.window], s.window) for i in starts]
            keys += [key] * len(starts)
            units += [numbers.setdefault(f"home:{unit[document.name]}", len(numbers))] * len(starts)
        if not rows:
            raise SplitError("code: no file of the training text can be used: all are too short, minified or copies")
        self.records["train"] = {"characters_read": read, "refused": dict(refused)}
        return Windows("train", "fit", note, np.stack(rows), np.array(keys), np.array(units, dtype=np.int64))

    def evaluation(
        self, name: str, role: Role, units: Mapping[str, list[Document]], numbers: dict[str, int], note: str
    ) -> Windows | str:
        """Windows in turns from each unit, or why there are too few."""
        s = self.settings
        own = name in ("id", "id_select")
        size = sum(d.size for documents in units.values() for d in documents)
        if not own and size < s.least_characters:
            return f"{size:,} characters found, {s.least_characters:,} needed"
        refused = Counter[str]()
        drawn = sorted(units, key=lambda u: _order(s.seed, name, u))
        queues = [(unit, self._windows(name, units[unit], refused)) for unit in drawn]
        taken: list[tuple[str, _Window]] = []
        active: dict[str, Iterator[_Window]] = {}
        for unit, queue in queues:  # as many units as are asked for, each with one window at least
            if len(active) == s.units:
                break
            first = next(queue, None)
            if first is not None:
                active[unit] = queue
                taken.append((unit, first))
        while active and len(taken) < s.windows:
            for unit in list(active):
                window = next(active[unit], None)
                if window is None:
                    del active[unit]
                elif len(taken) < s.windows:
                    taken.append((unit, window))
        self.records[name] = {
            "folders_deep": max((u.count("/") + 1 for u in units), default=0),
            "refused": dict(refused),
        }
        found = len({unit for unit, _ in taken})
        needed = 2 if own else min(CLUSTERS, s.units, s.windows)
        if found < needed:
            return f"{found} units with usable text, {needed} needed ({_said(refused)})"
        taken.sort(key=lambda pair: pair[0])
        pool = "home" if own else name
        ids = [numbers.setdefault(f"{pool}:{unit}", len(numbers)) for unit, _ in taken]
        windows = [w for _, w in taken]
        return Windows(
            *(name, role, note),
            *(np.stack([w.tokens for w in windows]), np.array([w.key for w in windows]), np.array(ids, dtype=np.int64)),
            {axis: np.stack([w.labels[axis] for w in windows]) for axis in windows[0].labels},
        )

    def _windows(self, split: str, documents: Sequence[Document], refused: Counter[str]) -> Iterator[_Window]:
        """Windows of one unit's files, at most `per_file` of each; a file is opened when its turn comes."""
        s = self.settings
        ordered = sorted(documents, key=lambda d: _order(s.seed, split, d.name))
        for document, text, key in self._texts(ordered, refused):
            long = _long_lines(text)
            if long and sum(line in self.lines for line in long) > COPIED * len(long):
                refused["copies of training files"] += 1
                continue
            text = text[:LOOKED_AT]
            tokens, role = encode(text), breakdown.roles(text, document.language)
            starts = np.array(_starts(len(tokens), s.window))
            draw = np.random.default_rng(int.from_bytes(_order(s.seed, split, document.name, "windows"), "big"))
            for start in sorted(draw.permutation(starts)[: s.per_file].tolist()):
                piece = slice(start, start + s.window)
                labels = breakdown.labels(text[piece]) | {"role": role[piece]}
                padded = {axis: _padded(values, s.window, 0) for axis, values in labels.items()}
                yield _Window(_padded(tokens[piece], s.window), key, padded)

    def _texts(self, documents: Iterable[Document], refused: Counter[str]) -> Iterator[tuple[Document, str, str]]:
        """Document, text and key of every usable document: long enough, not minified, not seen before."""
        for document in documents:
            text = document.text()
            key = content_key(text)
            if len(text) < self.settings.window // 2:
                refused["too short"] += 1
            elif max(map(len, text.split("\n"))) > self.settings.longest_line:
                refused["minified or data"] += 1
            elif key in self.seen:
                refused["same content"] += 1
            else:
                self.seen.add(key)
                yield document, text, key


@dataclass(frozen=True)
class _Window:
    tokens: np.ndarray
    key: str
    labels: dict[str, np.ndarray]


def content_key(text: str) -> str:
    """What makes a file the same file: a hash of its text with every run of white space as one space."""
    return hashlib.blake2b(re.sub(r"\s+", " ", text).strip().encode(errors="replace"), digest_size=12).hexdigest()


def _starts(length: int, window: int) -> list[int]:
    """Where windows of a text begin: side by side, the last where at least half of it is text."""
    return list(range(0, max(1, length - window // 2 + 1), window))


def _padded(values: np.ndarray, window: int, fill: int = PAD) -> np.ndarray:
    return np.concatenate([values, np.full(window - len(values), fill, dtype=values.dtype)])


def _long_lines(text: str) -> list[str]:
    return [stripped for line in text.split("\n") if len(stripped := line.strip()) >= LONG]


def _said(refused: Counter[str]) -> str:
    return ", ".join(f"{n} {why}" for why, n in refused.items()) or "none refused"
