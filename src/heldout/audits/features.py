"""Which labels activations carry loudly, which quietly, and which matter: one network (or file), one test split.

Maps are fitted on the fit split and scored on the test split; a label matters as far as the network's answers change when
the directions that hold it are removed. Quantities end in ``:<label>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heldout.activations.edits import Edit
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.features.decode import decode
from heldout.analyses.features.dissociation import dissociation_over_units
from heldout.analyses.features.intervals import ratio_interval
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.overview import Labelled, Overview, overview
from heldout.analyses.features.strength import carried_over, refitted
from heldout.analyses.features.subspace import subspace_removal
from heldout.analyses.features.variance import fit_map
from heldout.analyses.tables import Memory
from heldout.analyses.warning import over_runs
from heldout.audits.labelled import Rows
from heldout.audits.parts import Features
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Estimate
from heldout.statistics.rule import mean_test
from heldout.tasks.base import Split

FIGURES, WARNINGS = "features.parquet", "features.json"
RANDOM = 10  # random subspaces beside each label's own
DECODED_ROWS, STRENGTHS = 1000, (0.01, 1.0)  # of probes: their cost grows fast, their answer does not
CARRIED, REFITTED, CHANGED, INDEX = "variance_balanced", "variance_refitted", "changed", "dissociation"

P_VALUES, BAND = ("permutation_p", f"{INDEX}_p"), "variance_band"


@dataclass(frozen=True)
class Place:
    """Where a figure belongs: a network (or its name for files), its training run, and a test split."""

    network: str
    run: int
    split: str

    def at(self, site: str) -> dict[str, Any]:
        return {"network": self.network, "split": self.split, "site": site}


@dataclass(frozen=True, eq=False)
class Answering:
    """A network whose answers on a split tell what matters there."""

    subject: Subject
    split: Split
    fit_split: str
    batch_size: int


def measure(
    fit: Rows,
    test: Rows,
    spec: Features,
    place: Place,
    *,
    seed: int,
    answering: Answering | None,
    progress: Callable[[float, float, str], None] | None = None,
) -> tuple[list[Estimate], list[str]]:
    """Every figure of every label at every site, and warnings.

    Raises `ConfigError` and `StatisticsError` for labels that are constant, do not match rows, or outnumber them.
    """
    coding = Coding.fit(fit.table, {k: v for k, v in spec.kinds.items() if k in fit.table})
    for label in spec.kinds:
        coding.feature(label)
    rows: list[Estimate] = []
    warnings: list[str] = []
    for i, site in enumerate(spec.sites):
        if progress is not None:
            progress(i, len(spec.sites), f"{site} on {place.split}")
        here = fit.labelled(site), test.labelled(site)
        before = spec.before.get(site)
        elsewhere = {"before the nonlinearity": (fit.x[before], test.x[before])} if before else None
        seen = overview(*here, coding, seed=seed, elsewhere=elsewhere, draws=spec.draws, **place.at(site))
        rows += seen.estimates
        warnings += [f"{site}: {said}" for said in seen.warnings]
        rows += _balanced(seen, here[1], coding, place.at(site), seed)
        if spec.decode:
            rows += _decoded(here[1], coding, place.at(site), seed)
        if answering is not None and spec.importance:
            rows += _mattering(answering, seen, test, coding, site, place, seed)
    return [replace(row, seed=place.run) for row in rows], list(dict.fromkeys(warnings))


def over_training(runs: Sequence[Estimate]) -> Estimate:
    """One figure over training runs: their mean, with an interval over runs and units; of one run, that one itself.

    Of p-values the largest (it holds in every run), of a band the widest; what has no interval within a run (density, the
    place of a component) gets one over runs alone.
    """
    first, values = runs[0], [run.value for run in runs]
    null = float(np.mean([run.null for run in runs]))
    measure = first.quantity.partition(":")[0]
    if len(runs) == 1 or not np.isfinite(values).all():
        return replace(over_runs(runs), null=null)
    shared: dict[str, Any] = {"null": null, "seed": None, "seeds": len(runs), "n": min(run.n for run in runs)}
    if measure in P_VALUES:
        return replace(first, **shared, value=max(values), method=f"the largest of {len(runs)} training runs")
    if measure == BAND:
        low, high = min(run.low for run in runs), max(run.high for run in runs)
        return replace(first, **shared, value=float(np.mean(values)), low=low, high=high)
    if np.isfinite([run.high - run.low for run in runs]).all():
        return replace(over_runs(runs), null=null)
    test = mean_test(values, unit_variance=0.0, n_clusters=None, delta=0.0)
    return replace(first, **shared, value=test.value, low=test.low, high=test.high, method="t over seeds")


def _balanced(
    seen: Overview, test: Labelled, coding: Coding, where: Mapping[str, Any], seed: int
) -> Iterator[Estimate]:
    """Variance explained on labels made equally frequent: with the fit split's map, and refitted on half of this split."""
    for name in coding.names:
        try:
            cells, levels = coding.cells(test.table, name)
            given = carried_over(seen.errors, name, cells, len(levels), groups=test.groups)
            design = coding.encode(test.table)
            own = refitted(test.x, design, coding, name, cells, len(levels), seed=seed, groups=test.groups)
        except (ConfigError, StatisticsError) as error:
            for quantity in (CARRIED, REFITTED):
                yield Estimate(f"{quantity}:{name}", float("nan"), reason=str(error), **where)
            continue
        method = "linearised t interval, labels reweighted to equal frequency"
        for quantity, found in ((CARRIED, given), (REFITTED, own)):
            yield found["variance_explained"].estimate(f"{quantity}:{name}", method=method, **where)


def _decoded(test: Labelled, coding: Coding, where: Mapping[str, Any], seed: int) -> Iterator[Estimate]:
    """How well a linear probe reads each label within this split, beside the largest class and shuffled labels."""
    rows = np.asarray(test.x)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:DECODED_ROWS])
    groups = None
    if test.groups is not None:
        chosen, groups = _grouped(np.asarray(test.groups), chosen)
    for feature in coding.features:
        if feature.kind == "continuous":
            continue
        try:
            values = np.asarray(test.table[feature.name])[chosen]
            found = decode(rows[chosen], values, seed=seed, groups=groups, strengths=STRENGTHS)
        except (ConfigError, StatisticsError) as error:
            yield Estimate(f"decoded:{feature.name}", float("nan"), reason=str(error), **where)
            continue
        method = "nested cross-validation, linearised t interval"
        yield found.accuracy.estimate(f"decoded:{feature.name}", method=method, null=found.majority, **where)
        yield found.selectivity.estimate(f"decoded_selectivity:{feature.name}", method=method, **where)


def _grouped(groups: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen rows whose group has two of them or more, and their groups."""
    _, codes, sizes = np.unique(groups[chosen], return_inverse=True, return_counts=True)
    several = chosen[sizes[codes] > 1]
    return several, groups[several]


def _mattering(
    answering: Answering, seen: Overview, test: Rows, coding: Coding, site: str, place: Place, seed: int
) -> list[Estimate]:
    """Answers that change when a label's directions are removed, beside random ones, and how loud it is for that."""
    maps = {name: fit_map(seen.fit, coding.columns(name)) for name in coding.names}
    edits: dict[str, Edit] = {}
    why: dict[str, str] = {}
    for name, fitted in maps.items():
        try:
            edits[name] = subspace_removal(
                site, fitted.weights, fitted.mean_x, name=f"without {name}", fit_split=answering.fit_split
            )
        except StatisticsError as error:
            why[name] = str(error)
    random = _random(site, {name: _rank(edit) for name, edit in edits.items()}, seen, answering.fit_split, seed)
    units, n, changed = _changed(answering, test, [*edits.values(), *(e for draws in random.values() for e in draws)])
    found = [Estimate(f"{CHANGED}:{name}", float("nan"), reason=r, **place.at(site)) for name, r in why.items()]
    for name, edit in edits.items():
        floor = float(np.mean([changed[other.origin.label].sum() / n.sum() for other in random[_rank(edit)]]))
        ratio = ratio_interval(changed[edit.origin.label], n)
        method = "linearised t interval over units"
        found.append(ratio.estimate(f"{CHANGED}:{name}", method=method, null=floor, **place.at(site)))
    if len(edits) > 1:
        lost = {name: changed[edit.origin.label] / n for name, edit in edits.items()}
        found += _dissociated(seen, test, units, lost, place.at(site), seed)
    return found


def _random(site: str, ranks: Mapping[str, int], seen: Overview, fit_split: str, seed: int) -> dict[int, list[Edit]]:
    """Rank -> removals of so many random directions. They hold less variance than a label's own: a floor, not a match."""
    rng = np.random.default_rng([seed, 1])
    mean = seen.fit.mean()[1]
    return {
        rank: [
            subspace_removal(
                site, rng.normal(size=(rank, len(mean))), mean, name=f"random directions {draw}", fit_split=fit_split
            )
            for draw in range(RANDOM)
        ]
        for rank in sorted(set(ranks.values()))
    }


def _rank(edit: Edit) -> int:
    assert edit.origin.parameter is not None
    return int(edit.origin.parameter)


def _changed(
    answering: Answering, test: Rows, edits: Sequence[Edit]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(U,) units, (U,) their predictions, and edit -> (U,) how many of these change."""
    memory = Memory()
    split = answering.split.subset(test.items)
    faithfulness(answering.subject, [split], edits, memory, batch_size=answering.batch_size)
    found: dict[str, np.ndarray] = {}
    units: np.ndarray = np.empty(0)
    n: np.ndarray = np.empty(0)
    for cell, parts in memory.parts.values():
        unit, counts, same = (np.concatenate([part[c] for part in parts]) for c in ("unit", "n", "same"))
        units, codes = np.unique(unit, return_inverse=True)
        n = np.bincount(codes, weights=counts)
        found[cell.edit.label] = n - np.bincount(codes, weights=same)
    return units, n, found


def _dissociated(
    seen: Overview, test: Rows, units: np.ndarray, lost: Mapping[str, np.ndarray], where: Mapping[str, Any], seed: int
) -> Iterator[Estimate]:
    """Rank by what the removal changes less rank by variance explained, over the units that have rows and predictions."""
    names = list(lost)
    own, codes = np.unique(test.unit, return_inverse=True)
    both, here, there = np.intersect1d(units, own, return_indices=True)

    def by_unit(rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(codes, weights=rows)[there])

    total = seen.errors.total
    try:
        found = dissociation_over_units(
            np.stack([lost[name][here] for name in names], axis=1),
            np.stack([by_unit(total - seen.errors.error(name)) for name in names], axis=1),
            by_unit(total),
            names,
            seed=seed,
        )
    except StatisticsError as error:
        for name in names:
            yield Estimate(f"{INDEX}:{name}", float("nan"), reason=str(error), **where)
        return
    shared = {"n": len(both), **where}
    for name, index, low, high, p in zip(names, found.index, found.low, found.high, found.p, strict=True):
        yield Estimate(f"{INDEX}:{name}", float(index), float(low), float(high), "percentile over units", **shared)
        yield Estimate(f"{INDEX}_p:{name}", float(p), method="importance dealt out at random", **shared)
