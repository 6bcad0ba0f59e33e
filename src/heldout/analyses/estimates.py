"""From scores to estimates: ratios of sums, gaps, and what the verdict rule needs of them.

An *estimand* is a function of a `View`, which gives totals of one network and seed:

    def gap(view):
        return view.ratio("same", split="id", edit="svd-8") - view.ratio("same", split="rotated", edit="svd-8")

    test = estimate(scores, [("mlp", seed) for seed in range(5)], gap, delta=0.02, rng=rng)

The point estimate and every bootstrap draw pass through the same function, so interval and value cannot disagree about
what they are of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.tables import Memory
from heldout.errors import EvidenceError, choices
from heldout.evidence import Cell, Estimate, read_cell, read_scores
from heldout.statistics.bootstrap import MAX_UNDEFINED, bootstrap_totals
from heldout.statistics.ratios import error_consistency, ratio
from heldout.statistics.rule import MeanTest, mean_test

Floats = NDArray[np.float64]
DRAWS = 2000
KEPT = 1000  # cells in memory at a time


class Column(NamedTuple):
    """One column of additive sums: a metric of a cell, in one stratum value (None: all of them)."""

    network: str
    seed: int
    split: str
    edit: str
    site: str
    metric: str
    stratum: str | None
    value: int | None


@dataclass(frozen=True, eq=False)
class _Part:
    cell: Cell
    columns: dict[str, np.ndarray]


class _Loaded(NamedTuple):
    """One cell in memory: its columns, its units ascending, and which of them each row belongs to."""

    table: dict[str, np.ndarray]
    units: np.ndarray
    unit: np.ndarray


class Scores:
    """Every scores table of a study, by cell; each is read once, when it is first asked for."""

    def __init__(self, cells: Iterable[tuple[Cell, Callable[[], dict[str, np.ndarray]]]]) -> None:
        self._loaders: dict[tuple[str, int, str, str, str], list[Callable[[], dict[str, np.ndarray]]]] = {}
        self.cells: list[Cell] = []
        for cell, load in cells:
            key = (cell.network, cell.seed, cell.split, cell.edit.label, cell.edit.site)
            if key not in self._loaders:
                self.cells.append(cell)
            self._loaders.setdefault(key, []).append(load)
        self._loaded: OrderedDict[tuple[str, int, str, str, str], _Loaded] = OrderedDict()

    @staticmethod
    def read(folders: Iterable[Path]) -> Scores:
        """All parts in some folders, as `Folder` sinks wrote them."""
        cells = []
        for path in (p for folder in folders for p in sorted(folder.glob("*.parquet"))):
            cells.append((read_cell(path), partial(_columns, path)))
        return Scores(cells)

    @staticmethod
    def from_memory(memory: Memory) -> Scores:
        return Scores(
            (cell, _constant({k: np.concatenate([c[k] for c in parts]) for k in parts[0]}))
            for cell, parts in memory.parts.values()
        )

    def seeds(self, network: str) -> list[int]:
        return sorted({c.seed for c in self.cells if c.network == network})

    def networks(self) -> list[str]:
        return list(dict.fromkeys(c.network for c in self.cells))

    def table(self, column: Column) -> _Loaded:
        """The rows of the cell that `column` is of; the last `KEPT` that were asked for stay in memory."""
        key = (column.network, column.seed, column.split, column.edit, column.site)
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        if key not in self._loaders:
            near = [f"{c.edit.label} at {c.edit.site} on {c.split}" for c in self.cells if c.network == column.network]
            raise EvidenceError(
                f"no scores of {column.edit!r} at {column.site!r} on split {column.split!r} for {column.network!r}, "
                f"seed {column.seed}; {choices(f'{column.edit} at {column.site} on {column.split}', near)}"
            )
        parts = [load() for load in self._loaders[key]]
        table = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        self._loaded[key] = _Loaded(table, *np.unique(table["unit"], return_inverse=True))
        if len(self._loaded) > KEPT:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def columns(self, cell: Cell) -> list[str]:
        """Names of the columns of a cell: `unit`, strata, `n` and metrics."""
        return list(
            self.table(Column(cell.network, cell.seed, cell.split, cell.edit.label, cell.edit.site, "n", None, None))[0]
        )

    def has(self, network: str, seed: int, split: str, edit: str, site: str) -> bool:
        """Whether anything was scored there."""
        return (network, seed, split, edit, site) in self._loaders

    def sums(self, column: Column) -> tuple[np.ndarray, Floats]:
        """(units, sums): the units of a cell and the column's sum in each, units ascending."""
        table, units, unit = self.table(column)
        if column.metric not in table:
            raise EvidenceError(f"no metric {column.metric!r} in the scores; {choices(column.metric, table)}")
        values = table[column.metric]
        if column.stratum is not None:
            if column.stratum not in table:
                raise EvidenceError(f"no stratum {column.stratum!r} in the scores; {choices(column.stratum, table)}")
            values = np.where(table[column.stratum] == column.value, values, 0.0)
        return units, np.bincount(unit, weights=values, minlength=len(units)).astype(np.float64)


class View:
    """Totals of one network and seed, as arrays of R draws (R = 1 for the point estimate)."""

    def __init__(self, network: str, seed: int, total: Callable[[Column], Floats]) -> None:
        self.network, self.seed, self._total = network, seed, total

    def of(self, network: str) -> View:
        """The totals of another network with the same training seed, in the same resamples: for paired comparisons."""
        return View(network, self.seed, self._total)

    def total(
        self, metric: str, *, split: str, edit: str, site: str, stratum: str | None = None, value: int | None = None
    ) -> Floats:
        """(R,) the sum of one metric over a cell (over one stratum of it)."""
        return self._total(Column(self.network, self.seed, split, edit, site, metric, stratum, value))

    def ratio(
        self, metric: str, *, split: str, edit: str, site: str, stratum: str | None = None, value: int | None = None
    ) -> Floats:
        """(R,) the sum of one metric over the number of predictions."""
        where = {"split": split, "edit": edit, "site": site}
        num = self.total(metric, **where, stratum=stratum, value=value)
        return ratio(num, self.total("n", **where, stratum=stratum, value=value))

    def gap(self, *, reference: str, split: str, edit: str, site: str, metric: str = "same") -> Floats:
        """(R,) `metric` on the reference minus on the split: positive where the proxy is less faithful on the split."""
        return self.ratio(metric, split=reference, edit=edit, site=site) - self.ratio(
            metric, split=split, edit=edit, site=site
        )

    def kappa(
        self, *, split: str, edit: str, site: str, stratum: str | None = None, value: int | None = None
    ) -> Floats:
        """(R,) error consistency of network and proxy; see `heldout.statistics.ratios.error_consistency`."""
        totals = [
            self.total(m, split=split, edit=edit, site=site, stratum=stratum, value=value)
            for m in ("n", "net_correct", "proxy_correct", "both_correct")
        ]
        return error_consistency(*totals)

    def binned(self, metric: str, *, split: str, edit: str, site: str, bins: int) -> Floats:
        """(R, bins) the sum of one metric in each bin of the network's margin."""
        cuts = [
            self.total(metric, split=split, edit=edit, site=site, stratum="margin_bin", value=b) for b in range(bins)
        ]
        return np.stack(cuts, axis=-1)


Estimand = Callable[[View], Floats]


def estimate(
    scores: Scores,
    subjects: Sequence[tuple[str, int]],
    estimand: Estimand,
    *,
    rng: np.random.Generator,
    delta: float = 0.0,
    draws: int = DRAWS,
) -> MeanTest:
    """The mean of `estimand` over `subjects` (network, training seed), tested against `delta` by the verdict rule.

    Units that several splits share (by number) are resampled together, one draw for all seeds. Raises `EvidenceError`
    where the estimand is undefined for a seed.
    """
    (sample,) = _resample(scores, subjects, [estimand], rng, draws)
    if isinstance(sample, str):
        raise EvidenceError(sample)
    return mean_test(sample.theta, unit_variance=sample.variance, n_clusters=sample.units, delta=delta)


def describe(
    scores: Scores,
    subjects: Sequence[tuple[str, int]],
    estimands: Sequence[tuple[Estimand, Mapping[str, Any]]],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[Estimate]:
    """Rows of the estimates table: each estimand with the fields that say what it is of, from one common resampling.

    Over several seeds the interval is the verdict rule's; over one seed it is the percentile interval of the crossed
    bootstrap, which describes this network on other units and not other training runs. An undefined estimand gives a
    row with the reason.
    """
    rows = []
    samples = _resample(scores, subjects, [e for e, _ in estimands], rng, draws)
    for sample, (_, where) in zip(samples, estimands, strict=True):
        shared: dict[str, Any] = {"seeds": len(subjects), **where}
        if isinstance(sample, str):
            rows.append(Estimate(value=float("nan"), reason=sample, **shared))
            continue
        shared |= {"n": sample.units}
        if len(subjects) == 1:
            low, high = (float(q) for q in np.quantile(sample.draws, [0.025, 0.975]))
            how = "bootstrap over units, one network"
            rows.append(Estimate(value=sample.theta[0], low=low, high=high, method=how, **shared))
        else:
            test = mean_test(sample.theta, unit_variance=sample.variance, n_clusters=sample.units, delta=0.0)
            how = "t over seeds and units"
            rows.append(Estimate(value=test.value, low=test.low, high=test.high, method=how, **shared))
    return rows


class _Sample(NamedTuple):
    theta: list[float]  # one value a subject
    draws: Floats  # (R,) the mean over subjects in each resample
    units: int

    @property
    def variance(self) -> float:
        # Equal values must give exactly zero: the rounding of their mean would pass for a tiny variance.
        return float(np.var(self.draws, ddof=1)) if np.ptp(self.draws) > 0 else 0.0


def _resample(
    scores: Scores,
    subjects: Sequence[tuple[str, int]],
    estimands: Sequence[Estimand],
    rng: np.random.Generator,
    draws: int,
) -> list[_Sample | str]:
    """Each estimand's values and resampled means, from one bootstrap of all columns together; or why it has none."""
    wanted: dict[Column, int] = {}
    uses: list[set[int]] = []  # the columns that each estimand reads

    def point(column: Column) -> Floats:
        uses[-1].add(wanted.setdefault(column, len(wanted)))
        return np.array([scores.sums(column)[1].sum()])

    theta = []
    for estimand in estimands:
        uses.append(set())
        theta.append([float(np.mean(estimand(View(network, seed, point)))) for network, seed in subjects])
    sums, present = _matrix(scores, list(wanted))
    # Units that appear in the same splits are drawn among themselves.
    splits = {s: [i for c, i in wanted.items() if c.split == s] for s in dict.fromkeys(c.split for c in wanted)}
    pattern = np.stack([present[:, at].any(axis=1) for at in splits.values()], axis=1)
    _, strata = np.unique(pattern, axis=0, return_inverse=True)
    totals = bootstrap_totals(sums, draws=draws, rng=rng, strata=strata)

    def drawn(column: Column) -> Floats:
        return totals[:, wanted[column]]

    found: list[_Sample | str] = []
    for values, estimand, used in zip(theta, estimands, uses, strict=True):
        undefined = [who for who, value in zip(subjects, values, strict=True) if not np.isfinite(value)]
        if undefined:
            found.append(f"undefined for {undefined[0][0]}, seed {undefined[0][1]}")
            continue
        resampled = np.mean([estimand(View(network, seed, drawn)) for network, seed in subjects], axis=0)
        resampled = resampled[np.isfinite(resampled)]
        if len(resampled) < (1 - MAX_UNDEFINED) * draws:
            found.append(f"undefined in {draws - len(resampled)} of {draws} resamples, too few units")
            continue
        found.append(_Sample(values, resampled, int(present[:, sorted(used)].any(axis=1).sum())))
    return found


def _matrix(scores: Scores, columns: list[Column]) -> tuple[Floats, np.ndarray]:
    """(units, C) sums of all columns over the union of their units, and which units each column has."""
    parts = [scores.sums(c) for c in columns]
    units = np.unique(np.concatenate([u for u, _ in parts]))
    sums = np.zeros((len(units), len(columns)))
    present = np.zeros(sums.shape, dtype=bool)
    for i, (mine, values) in enumerate(parts):
        at = np.searchsorted(units, mine)
        sums[at, i] = values
        present[at, i] = True
    return sums, present


def _columns(path: Path) -> dict[str, np.ndarray]:
    return read_scores(path)[1]


def _constant(columns: dict[str, np.ndarray]) -> Callable[[], dict[str, np.ndarray]]:
    return lambda: columns
