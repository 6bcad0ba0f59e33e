"""A table of labels as columns of numbers: binary 0/1, categories one-hot with one dropped, numbers as they are or splined.

    coding = Coding.fit({"depth": depth, "kind": kind}, kinds={"depth": "continuous"})  # on the fit split
    design = coding.encode({"depth": ..., "kind": ...})  # (n, q) of any split

Levels and knots are those of the fit split. Which level is dropped, and whether codes are 0/1 or -1/1, changes nothing in
what follows, because all that follows centres its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import ConfigError, NonFiniteError, StatisticsError, unknown

Floats = NDArray[np.float64]
Kind = Literal["binary", "categorical", "continuous"]
KINDS: tuple[Kind, ...] = ("binary", "categorical", "continuous")
MAX_LEVELS = 64  # of a categorical label; more is taken for an identifier


@dataclass(frozen=True, eq=False)
class Feature:
    """One label and its `columns` of the design. `levels`: of a binary or categorical one, the first is dropped."""

    name: str
    kind: Kind
    columns: slice
    levels: tuple[Any, ...] = ()
    spline: Any = None  # a fitted sklearn SplineTransformer

    @property
    def width(self) -> int:
        return int(self.columns.stop - self.columns.start)

    def encode(self, values: np.ndarray) -> Floats:
        if self.kind == "continuous":
            numbers = values.astype(np.float64)
            if self.spline is None:
                return numbers[:, None]
            return np.asarray(self.spline.transform(numbers[:, None]), dtype=np.float64)
        codes = self.codes(values)
        return np.asarray(codes[:, None] == np.arange(1, len(self.levels)), dtype=np.float64)

    def codes(self, values: np.ndarray) -> NDArray[np.intp]:
        """(n,) the number of each value's level; raises `StatisticsError` for one that the fit split did not have."""
        levels = np.array(self.levels)
        at = np.clip(np.searchsorted(levels, values), 0, len(levels) - 1)
        strange = np.flatnonzero(levels[at] != values)
        if len(strange):
            raise StatisticsError(
                f"label {self.name!r}: {values[strange[0]].item()!r} in row {strange[0]} is no level of the fit split; it "
                f"has {', '.join(map(repr, levels[:8].tolist()))}{' ...' if len(levels) > 8 else ''}"
            )
        return at


@dataclass(frozen=True, eq=False)
class Coding:
    """How a table of labels becomes a design matrix; made by `Coding.fit`."""

    features: tuple[Feature, ...]

    @staticmethod
    def fit(table: Mapping[str, ArrayLike], kinds: Mapping[str, Kind] | None = None, *, knots: int = 0) -> Coding:
        """Fit levels and knots on the labels of the fit split.

        - `table`: name -> (n,) values.
        - `kinds`: name -> kind where it is not to be inferred: two distinct values are binary, text and whole numbers of
          at most 16 levels categorical, other numbers continuous.
        - `knots`: at least 2 puts continuous labels on a cubic spline with knots at as many quantiles (knots + 1
          columns, linear beyond the ends); 0 leaves them linear.

        Raises `StatisticsError` for a label that is constant, `NonFiniteError` for a number that is not finite.
        """
        columns = checked(table)
        for name in kinds or {}:
            if name not in columns:
                raise ConfigError(unknown("label", name, columns))
        features: list[Feature] = []
        start = 0
        for name, values in columns.items():
            feature = _feature(name, values, (kinds or {}).get(name), knots, start)
            features.append(feature)
            start = feature.columns.stop
        n = len(next(iter(columns.values())))
        if start >= n:
            raise StatisticsError(
                f"{start} label columns cannot be fitted to {n} rows; use more rows, or fewer labels or levels"
            )
        return Coding(tuple(features))

    @property
    def width(self) -> int:
        """q, the number of columns of the design."""
        return sum(f.width for f in self.features)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    def feature(self, name: str) -> Feature:
        for found in self.features:
            if found.name == name:
                return found
        raise ConfigError(unknown("label", name, self.names))

    def columns(self, *names: str) -> NDArray[np.intp]:
        """The design's columns of the labels named, in the order given."""
        parts = [np.arange(f.columns.start, f.columns.stop) for f in map(self.feature, names)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)

    def encode(self, table: Mapping[str, ArrayLike], rows: int | None = None) -> Floats:
        """(n, q) float64. `rows`: the number of activations, which must be the same."""
        columns = checked({name: _column(table, name) for name in self.names}, rows)
        return np.concatenate([f.encode(columns[f.name]) for f in self.features], axis=1)

    def cells(
        self, table: Mapping[str, ArrayLike], *names: str
    ) -> tuple[NDArray[np.intp], tuple[tuple[Any, ...], ...]]:
        """(n,) the number of each row's combination of levels of the labels named, and what each combination is.

        All combinations of levels are numbered, whether or not they occur. Continuous labels have none and raise
        `ConfigError`.
        """
        features = [self.feature(name) for name in names]
        for f in features:
            if f.kind == "continuous":
                raise ConfigError(
                    f"label {f.name!r} is continuous and has no levels to balance; name others, or bin it"
                )
        columns = checked({name: _column(table, name) for name in names})
        shape = [len(f.levels) for f in features]
        codes = np.ravel_multi_index([f.codes(columns[f.name]) for f in features], shape)
        return np.asarray(codes, dtype=np.intp), tuple(product(*(f.levels for f in features)))


def checked(table: Mapping[str, ArrayLike], rows: int | None = None) -> dict[str, np.ndarray]:
    """The columns as arrays of one length, `rows` where given; raises `ConfigError` or (NaN) `NonFiniteError`."""
    if not table:
        raise ConfigError("no labels were given; name at least one")
    columns = {name: np.asarray(values) for name, values in table.items()}
    rows = len(next(iter(columns.values()))) if rows is None else rows
    for name, values in columns.items():
        if values.ndim != 1 or len(values) != rows:
            raise ConfigError(f"label {name!r} has shape {values.shape}; ({rows},) was expected, one value a row")
        if values.dtype == object:
            columns[name] = values = _plain(name, values)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise NonFiniteError(f"label {name!r} is not finite in {len(bad)} rows, the first is row {bad[0]}")
    return columns


def minterms(table: Mapping[str, ArrayLike], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The parts of a function of some bits: each bit, each of their 2^k conjunctions, and `or` of all. (n,) 0/1 each.

    A conjunction is named by its pattern: ``a=1 b=0``. They are linearly dependent: measure each by itself.
    """
    columns = checked({name: _column(table, name) for name in names})
    bits = {}
    for name, values in columns.items():
        if not np.isin(values, (0, 1)).all():
            raise ConfigError(f"label {name!r} is not a bit; its values must be 0 and 1")
        bits[name] = values.astype(np.int64)
    parts = dict(bits)
    for pattern in product((0, 1), repeat=len(bits)):
        key = " ".join(f"{name}={value}" for name, value in zip(bits, pattern, strict=True))
        parts[key] = np.prod([b == v for b, v in zip(bits.values(), pattern, strict=True)], axis=0).astype(np.int64)
    parts[" or ".join(bits)] = np.max(list(bits.values()), axis=0)
    return parts


def _feature(name: str, values: np.ndarray, kind: Kind | None, knots: int, start: int) -> Feature:
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"label {name!r}: {unknown('kind', str(kind), KINDS)}")
    levels = np.unique(values)
    if len(levels) < 2:
        raise StatisticsError(
            f"label {name!r} is constant ({levels[0].item()!r}) in the fit split: nothing can be said of it"
        )
    kind = kind or _infer(values, len(levels))
    if kind == "binary" and len(levels) != 2:
        raise ConfigError(f"label {name!r} is to be binary and has {len(levels)} levels; call it categorical")
    if kind != "continuous":
        if len(levels) > MAX_LEVELS:
            raise ConfigError(f"label {name!r} has {len(levels)} levels; a category may have {MAX_LEVELS}")
        return Feature(name, kind, slice(start, start + len(levels) - 1), tuple(levels.tolist()))
    if values.dtype.kind not in "fiub":
        raise ConfigError(f"label {name!r} holds text and cannot be continuous; call it categorical")
    if not knots:
        return Feature(name, kind, slice(start, start + 1))
    from sklearn.preprocessing import SplineTransformer

    if knots < 2 or len(levels) <= knots:
        raise ConfigError(
            f"label {name!r}: {knots} knots for {len(levels)} distinct values; choose 2 to {len(levels) - 1}"
        )
    spline = SplineTransformer(knots, knots="quantile", extrapolation="linear", include_bias=False)
    width = spline.fit_transform(values.astype(np.float64)[:, None]).shape[1]
    return Feature(name, kind, slice(start, start + width), spline=spline)


def _infer(values: np.ndarray, levels: int) -> Kind:
    if levels == 2:
        return "binary"
    return "categorical" if values.dtype.kind in "USb" or (values.dtype.kind in "iu" and levels <= 16) else "continuous"


def _column(table: Mapping[str, ArrayLike], name: str) -> ArrayLike:
    if name not in table:
        raise ConfigError(unknown("label", name, table))
    return table[name]


def _plain(name: str, values: np.ndarray) -> np.ndarray:
    """A column of Python objects, as text or numbers."""
    if all(isinstance(v, str) for v in values):
        return values.astype(str)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"label {name!r} mixes text and numbers, or has gaps; use one of the two") from None
