"""How alike networks are, site by site, on one split: one row of activations for each independent unit of it.

Every network sees the same items, and of sites of positions the same position of each, so that rows correspond. Rows that
repeat, exactly and in every network, are one stimulus and count once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heldout.activations.capture import data_rows
from heldout.activations.sites import Site, module_at
from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject
from heldout.analyses.similarity.inference import Settings, assess, between, within
from heldout.analyses.similarity.measures import MEASURES
from heldout.analyses.similarity.result import Similarity as Found
from heldout.audits.labelled import as_rows, read_arrays, read_table, site_rows
from heldout.audits.parts import Similarity, SplitSpec
from heldout.audits.spec import RUNS_WITHIN
from heldout.errors import ConfigError, SplitError, unknown
from heldout.evidence import Estimate
from heldout.tasks.base import Batch, Split

FIGURES, CAUTIONS = "similarity.parquet", "similarity.json"
FIELD = "similarity.sites"
VALUE, P = "similarity", "similarity_p"
WITHIN = "its own runs"

Rows = Mapping[str, np.ndarray]  # site -> (n, D)


def rows_of(
    subject: Subject, split: Split, sites: Sequence[str], spec: Similarity, *, seed: int, batch_size: int
) -> Rows:
    """One row a unit, of at most `spec.rows` units of a split in a seeded order; the same for every network."""
    for site in sites:
        module_at(subject.network, Site.parse(site))
    order = np.random.default_rng([seed, len(split)]).permutation(len(split))
    _, first = np.unique(split.unit_ids()[order], return_index=True)
    items = order[np.sort(first)][: spec.rows]
    some = split.subset(items)
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    numbers: list[np.ndarray] = []
    with Tap(subject.network, read=sites) as tap:
        for batch in some.batches(batch_size):
            given = batch.to(subject.device)
            reading = tap(given)
            for site in sites:  # names the place where an activation is NaN or infinite
                data_rows(subject.network, Site.parse(site), reading[site], given, where=f"split {split.name!r}")
                rows = as_rows(subject, site, reading[site], batch, field=FIELD).detach().cpu()
                parts[site].append(rows if rows.ndim == 2 else _one_position(rows, batch, spec.positions, seed))
            numbers.append(np.asarray(batch.index))
    back = np.argsort(np.concatenate(numbers))
    return {site: torch.cat(values).double().numpy()[back] for site, values in parts.items()}


def _one_position(rows: Tensor, batch: Batch, which: str, seed: int) -> Tensor:
    """(B, T, D) -> (B, D): a random position that holds data, the last one, or the mean over all of them."""
    data = torch.ones(rows.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask.bool()
    if data.shape != rows.shape[:2]:
        raise ConfigError(f"{FIELD} have rows {tuple(rows.shape[:2])} where the mask is {tuple(data.shape)}")
    if which == "mean":
        weights = data.to(rows.dtype)
        return (rows * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    if which == "last":
        at = data.shape[1] - 1 - data.flip(1).int().argmax(1)
    else:  # drawn by item, so that batches do not matter
        draws = [np.random.default_rng([seed, int(i)]).random() for i in batch.index]
        count = data.sum(1)
        nth = torch.minimum((torch.tensor(draws) * count).long(), count - 1)
        at = (data.cumsum(1) == nth[:, None] + 1).int().argmax(1)
    return rows[torch.arange(len(rows)), at]


def rows_of_files(
    name: str, spec: SplitSpec, asked: Similarity, sites: Sequence[str], folder: Path, *, seed: int
) -> Rows:
    """Arrays of a split's file, at most `asked.rows` of their rows; one of each group of `asked.groups`."""
    arrays = read_arrays(name, spec, folder)
    for site in sites:
        if site not in arrays:
            raise ConfigError(f"{FIELD}, split {name!r}: {unknown('array', site, arrays)}")
    arrays = {site: site_rows(arrays[site], f"{FIELD}, split {name!r}: {site}") for site in sites}
    sizes = {site: len(arrays[site]) for site in sites}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{site} has {n}" for site, n in sizes.items())
        raise ConfigError(f"{FIELD}, split {name!r}: rows must be the same stimuli, but {listed}")
    n = next(iter(sizes.values()))
    order = np.random.default_rng([seed, n]).permutation(n)
    if asked.groups is not None:
        table = read_table(name, spec, folder)
        if asked.groups not in table:
            raise ConfigError(f"similarity.groups, split {name!r}: {unknown('column', asked.groups, table)}")
        if len(table[asked.groups]) != n:
            raise ConfigError(
                f"similarity.groups, split {name!r}: {len(table[asked.groups])} labels for {n} rows of activations"
            )
        _, first = np.unique(table[asked.groups][order], return_index=True)
        order = order[np.sort(first)]
    return {site: arrays[site].astype(np.float64)[order[: asked.rows]] for site in sites}


def measure(
    rows: Mapping[str, Sequence[Rows]],
    spec: Similarity,
    split: str,
    *,
    seed: int,
    progress: Callable[[float, float, str], None] | None = None,
) -> tuple[list[Estimate], list[str]]:
    """Every measure of every two networks (`rows`: name -> one a training run) at every site, and cautions.

    Of a single network two sites are compared where the spec names two; one of three runs or more is compared with itself.
    """
    pairs = list(_pairs(rows, spec))
    found: list[Estimate] = []
    cautions: list[str] = []
    for i, (who, site, xs, ys) in enumerate(pairs):
        if progress is not None:
            progress(i, len(pairs), f"{who} on {split}")
        kept = _distinct([*xs, *ys])
        if len(kept) < len(xs[0]):
            cautions.append(
                f"{site}: {len(xs[0]) - len(kept)} of {len(xs[0])} rows repeat earlier ones and are left out."
            )
        a, b = [x[kept] for x in xs], [y[kept] for y in ys]
        settings = Settings(draws=spec.draws, permutations=spec.permutations)
        for name in spec.measures:
            if who.endswith(WITHIN):
                result = within(a, name, seed=seed, settings=settings)
            elif len(a) == len(b) == 1:
                result = assess(a[0], b[0], name, seed=seed, settings=settings)
            else:
                result = between(a, b, name, seed=seed, settings=settings)
            found += _estimates(result, name, who, site, split)
            cautions += [f"{site}: {said}" for said in result.cautions]
    if not found:
        raise SplitError(f"nothing to compare on split {split!r}: {FIELD} name one site of one network")
    return found, list(dict.fromkeys(cautions))


def _pairs(
    rows: Mapping[str, Sequence[Rows]], spec: Similarity
) -> list[tuple[str, str, list[np.ndarray], list[np.ndarray]]]:
    """(who, site, activations of one side, of the other): every two networks; two sites, or several runs, of one."""
    found = []
    for first, second in spec.places:
        site = first if first == second else f"{first} | {second}"
        for a, b in combinations(rows, 2):
            found.append((f"{a} | {b}", site, [r[first] for r in rows[a]], [r[second] for r in rows[b]]))
        for name, runs in rows.items():
            if first != second:
                if len(rows) > 1:  # the two sites belong to two networks
                    continue
                for run, own in enumerate(runs):  # in one and the same run: across runs it would be another question
                    who = name if len(runs) == 1 else f"{name}, run {run}"
                    found.append((who, site, [own[first]], [own[second]]))
            elif len(runs) >= RUNS_WITHIN:
                all_runs = [r[first] for r in runs]
                found.append((f"{name} | {WITHIN}", site, all_runs, all_runs))
    return found


def _distinct(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The rows that are not, in all tables at once, those of an earlier row."""
    _, first = np.unique(np.concatenate(tables, axis=1), axis=0, return_index=True)
    return np.sort(first)


def _estimates(result: Found, measure_name: str, who: str, site: str, split: str) -> list[Estimate]:
    where: dict[str, Any] = {"network": who, "site": site, "split": split}
    value = result.estimate(f"{VALUE}:{measure_name}", **where)
    how = "bootstrap of stimuli" if MEASURES[measure_name].rdms is not None else "groups of stimuli left out"
    value = replace(value, null=result.null_high, seeds=max(result.networks), method=f"t, {how}")
    p = Estimate(f"{P}:{measure_name}", result.p, method="stimuli permuted, one-sided", n=result.n, **where)
    return [value, p]
