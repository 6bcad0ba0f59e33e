"""A table of your own: scalar targets behind columns of whole numbers or names, from CSV or Parquet.

    task = Table.read("alloys.csv", TableSettings(tokens=("metal", "second"), targets=("hardness",), group="metal"))
    task.splits["train"], task.vocabularies["metal"]

What `nuclear` is for nuclei: tokens are looked up, targets may have gaps, groups stay together, and a later vintage can be
what is tested on. Relations between targets that would give held-out values away are not known here; see `nuclear.leaks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heldout.errors import ConfigError, choices
from heldout.tasks.base import Role, Split, check_disjoint
from heldout.tasks.columns import Sheet, label_column, number_column, read_table
from heldout.tasks.files import unit_numbers
from heldout.tasks.rows import (
    Rows,
    check_shares,
    check_trained,
    lengthen,
    make_split,
    random_parts,
    scorable,
    trained_tokens,
)


@dataclass(frozen=True)
class TableSettings:
    """Which columns are what, and how rows are parted.

    - `tokens`: columns of whole numbers or names; a combination of them stands once (once a vintage).
    - `targets`: columns of numbers, gaps allowed; with more than one, a network is told which by a last token.
    - `uncertainty`: target -> column of its standard deviation.
    - `group`: a column (whole numbers or names) whose rows stay in one split and are resampled as one; default:
      each combination of tokens is one.
    - `vintage`: a column of numbers, the edition that a row is of. Then rows up to `until` (default: the last but one)
      are parted at random, each combination with its latest values, and what first appears later is the split ``new``.
    - `train`, `select`: shares of the groups; the rest is ``id``.
    """

    tokens: tuple[str, ...]
    targets: tuple[str, ...]
    uncertainty: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    vintage: str | None = None
    until: float | None = None
    train: float = 0.8
    select: float = 0.1

    def __post_init__(self) -> None:
        for label, names in (("tokens", self.tokens), ("targets", self.targets)):
            if not names:
                raise ConfigError(f"table: {label} must name at least one column")
        if "target" in self.tokens:
            raise ConfigError(
                "table: a token column cannot be called 'target', which says which target a row is of; rename it"
            )
        every = [*self.tokens, *self.targets]
        if len(set(every)) < len(every):
            twice = next(name for name in every if every.count(name) > 1)
            raise ConfigError(
                f"table: column {twice!r} is named twice among tokens and targets; a column is one or the other"
            )
        for target in self.uncertainty:
            if target not in self.targets:
                raise ConfigError(
                    f"table: uncertainty is given for {target!r}, which is no target; {choices(target, self.targets)}"
                )
        if self.until is not None and self.vintage is None:
            raise ConfigError(f"table: until={self.until:g} needs vintage, the column that it is compared with")
        check_shares("table", self.train, self.select)


class Table:
    """The task: `settings`, `seed`, and `splits` by name.

    ==========  ======  =====================================================================
    ``train``   fit     rows to train on
    ``select``  select  rows of other groups: for choosing a size or when to stop
    ``id``      test    rows of the remaining groups
    ``new``     test    with `vintage`: combinations of tokens that first appear after `until`
    ==========  ======  =====================================================================

    Inputs are (B, C) int64 token ids, and the target's number as a last column where there are several targets; targets are
    (B, 1) float32 as they stand in the table. Strata are the token columns and ``target``. The key is the combination of
    tokens, the unit of resampling the group. `seed` draws the splits and nothing else.

    - `vocabularies`: token column -> its values in token order: whole numbers rising, names by alphabet.
    - `rows`, `unscorable`: split -> `Rows` in the order of its items, and those with a token that no training row has.
    - `superseded`: lines left out because a later edition up to `until` gives the combination's values; `revised`: lines
      after `until` of combinations that were there before. Neither is in a split.
    """

    def __init__(self, sheet: Sheet, settings: TableSettings, seed: int = 0) -> None:
        self.settings, self.seed, self.targets = settings, seed, settings.targets
        labels = {name: label_column(sheet, name) for name in settings.tokens}
        self.vocabularies: dict[str, tuple[Any, ...]] = {k: tuple(np.unique(v).tolist()) for k, v in labels.items()}
        tokens = np.stack([np.unique(v, return_inverse=True)[1].reshape(-1) for v in labels.values()], axis=1)
        key = np.unique(tokens, axis=0, return_inverse=True)[1].reshape(-1)
        group = key if settings.group is None else unit_numbers(label_column(sheet, settings.group))
        vintage = None if settings.vintage is None else number_column(sheet, settings.vintage)
        _refuse_twice(sheet, settings, key, vintage)
        values = [number_column(sheet, name, gaps=True) for name in self.targets]
        unsure = [self._uncertainty(sheet, name, len(key)) for name in self.targets]

        def rows(at: np.ndarray) -> Rows:
            return lengthen(tokens[at], key[at], group[at], np.stack(values, 1)[at], np.stack(unsure, 1)[at])

        old, new = self._editions(key, vintage)
        part = random_parts(group[old], (settings.train, settings.select), seed)
        parts: dict[str, tuple[Role, str, Rows]] = {
            "train": ("fit", "rows to train on", rows(old[part == 0])),
            "select": ("select", "rows of other groups", rows(old[part == 1])),
            "id": ("test", "rows of the remaining groups", rows(old[part == 2])),
        }
        if vintage is not None:
            parts["new"] = ("test", f"first appear after {settings.vintage} {self.until:g}", rows(new))
        train = parts["train"][2]
        known = {name: scorable(part[2], train) for name, part in parts.items()}
        self.rows = {name: part[2].take(known[name]) for name, part in parts.items()}
        self.unscorable = {name: part[2].take(~known[name]) for name, part in parts.items()}
        self.splits: dict[str, Split] = {
            name: make_split(name, role, note, self.rows[name], settings.tokens, self.targets)
            for name, (role, note, _) in parts.items()
        }
        check_disjoint(list(self.splits.values()))

    @classmethod
    def read(cls, path: str | Path, settings: TableSettings, seed: int = 0) -> Table:
        """The task of the table at `path`, ``.csv`` or ``.parquet``. Errors name the row and the column."""
        return cls(read_table(path), settings, seed)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens there are in each input column; last, the targets, if several."""
        sizes = tuple(len(v) for v in self.vocabularies.values())
        return (*sizes, len(self.targets)) if len(self.targets) > 1 else sizes

    @property
    def tokens(self) -> dict[str, np.ndarray]:
        """Column -> sorted token ids that some training row has."""
        return dict(zip(self.settings.tokens, trained_tokens(self.rows["train"]), strict=True))

    def encode(self, columns: Mapping[str, Any], target: str | None = None) -> np.ndarray:
        """(B, C) int64 inputs for values of your choice, by token column. Raises `ConfigError` for what was not trained."""
        if missing := [name for name in self.settings.tokens if name not in columns]:
            raise ConfigError(f"table: column {missing[0]!r} is missing; {choices(missing[0], columns)}")
        ids: dict[str, np.ndarray] = {}
        for name, vocabulary in self.vocabularies.items():
            number = {value: i for i, value in enumerate(vocabulary)}
            given = np.asarray(columns[name]).tolist()
            for i, value in enumerate(given):
                if value not in number:
                    raise ConfigError(
                        f"table: row {i + 1}, column {name!r}: {value!r} is not known; "
                        f"{choices(str(value), map(str, vocabulary))}"
                    )
            ids[name] = np.array([number[value] for value in given], dtype=np.int64)
        tokens = check_trained(ids, self.tokens, "table", self.vocabularies)
        if len(self.targets) == 1:
            return tokens
        if target not in self.targets:
            raise ConfigError(f"table: say which target, one of {', '.join(self.targets)}; got {target!r}")
        return np.column_stack([tokens, np.full(len(tokens), self.targets.index(target))])

    def _uncertainty(self, sheet: Sheet, target: str, n: int) -> np.ndarray:
        column = self.settings.uncertainty.get(target)
        if column is None:
            return np.full(n, np.nan)
        values = number_column(sheet, column, gaps=True)
        if (values < 0).any():
            i = int(np.flatnonzero(values < 0)[0])
            raise ConfigError(
                f"{sheet.place(column, i)}: {values[i]:g} is not accepted; a standard deviation of at least 0 is"
            )
        return values

    def _editions(self, key: np.ndarray, vintage: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Line numbers: each combination's latest up to `until`, and the latest of those that first appear after it."""
        self.superseded = self.revised = 0
        if vintage is None:
            return np.arange(len(key)), np.empty(0, dtype=np.int64)
        editions = np.unique(vintage)
        self.until = float(editions[max(len(editions) - 2, 0)] if self.settings.until is None else self.settings.until)
        early, late = np.flatnonzero(vintage <= self.until), np.flatnonzero(vintage > self.until)
        if not len(early) or not len(late):
            use = "test" if len(early) else "train"
            raise ConfigError(
                f"table: until={self.until:g} leaves no edition of column {self.settings.vintage!r} to {use} on; there are "
                f"{', '.join(f'{e:g}' for e in editions[:8])}. Accepted is until from {editions[0]:g} to below "
                f"{editions[-1]:g}"
            )
        old = _latest(early, key, vintage)
        first = late[~np.isin(key[late], key[early])]
        self.superseded, self.revised = len(early) - len(old), len(late) - len(first)
        return old, _latest(first, key, vintage)


def _latest(lines: np.ndarray, key: np.ndarray, vintage: np.ndarray) -> np.ndarray:
    """Of `lines`, the one of the latest edition for each key; in the order of the table."""
    order = lines[np.lexsort((vintage[lines], key[lines]))]
    last = np.append(key[order][1:] != key[order][:-1], True) if len(order) else np.empty(0, dtype=bool)
    return np.sort(order[last])


def _refuse_twice(sheet: Sheet, settings: TableSettings, key: np.ndarray, vintage: np.ndarray | None) -> None:
    seen: dict[tuple[int, float], int] = {}
    editions = np.zeros(len(key)) if vintage is None else vintage
    for row, this in enumerate(zip(key.tolist(), editions.tolist(), strict=True)):
        if this in seen:
            cells = ", ".join(f"{name}={sheet.column(name)[row]}" for name in settings.tokens)
            within = "" if vintage is None else f" within {settings.vintage} {this[1]:g}"
            raise ConfigError(
                f"{sheet.name}: rows {seen[this] + 1} and {row + 1} are both {cells}; give each once{within}"
            )
        seen[this] = row
