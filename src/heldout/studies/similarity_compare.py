"""The networks of one configuration compared: every measure, under every correction, pair by pair of seeds.

A pair has two networks of each role, of different seeds. The similarity of two roles is the mean of the two comparisons
across seeds; that of a role with itself compares its two networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.corrections import BETAS
from heldout.analyses.similarity.jackknife import stimulus_jackknife
from heldout.analyses.similarity.measures import MEASURES, Measure
from heldout.analyses.similarity.methods import Method, Stimuli, standard_methods
from heldout.analyses.similarity.resampling import draw_counts, resampled
from heldout.errors import StatisticsError
from heldout.runs import StepContext
from heldout.studies.features_measured import penultimate
from heldout.studies.features_training import trained_network
from heldout.studies.similarity import BOTH, EASY, ROLES, UNTRAINED, Configuration, configuration_from
from heldout.tasks.features import Features

CELLS, THETA, ACCURACIES = "cells.parquet", "theta.json", "accuracies.json"
RAW = "raw"
GROUPS = 20  # of stimuli, one of which is left out at a time
SLOW = {"rsa-kendall"}  # measured, and not resampled


@dataclass(frozen=True, eq=False)
class Compared:
    """The networks of one configuration on common stimuli.

    `rows`: role -> one (fit + test, D) array of penultimate activations a network, pair after pair; `stimuli` says which
    rows are which and what their labels are.
    """

    one: Configuration
    rows: Mapping[str, Sequence[Floats]]
    stimuli: Stimuli

    @staticmethod
    def read(s: Mapping[str, Any], folders: Mapping[str, Path]) -> Compared:
        """Activations of the networks that the training steps left."""
        one = configuration_from(s["configuration"])
        task = Features(one.roles[BOTH].task, seed=s["data_seed"])
        inputs, labels = stimuli_of(task, s["fit_stimuli"], s["stimuli"])
        rows: dict[str, list[Floats]] = {}
        for role, condition in one.roles.items():
            for seed in s["seeds"]:
                with torch.no_grad():
                    _, x = penultimate(trained_network(condition, folders[role], seed), inputs)
                rows.setdefault(role, []).append(x.double().numpy())
        fit = np.arange(s["fit_stimuli"])
        return Compared(one, rows, Stimuli(labels, fit, np.arange(len(fit), len(inputs))))

    @property
    def pairs(self) -> int:
        return len(self.rows[BOTH]) // 2

    def tested(self, role: str, pair: int) -> tuple[Floats, Floats]:
        """The two networks of a pair on the test stimuli."""
        a, b = self.rows[role][2 * pair : 2 * pair + 2]
        return a[self.stimuli.test], b[self.stimuli.test]


def stimuli_of(task: Features, fit: int, test: int) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """The first rows of val, then those of test: inputs (fit + test, bits) and labels by feature."""
    parts = []
    for split, count in (("val", fit), ("test", test)):
        if count > len(task.values[split]):
            raise StatisticsError(f"{count} stimuli of {split} are asked for; the task has {len(task.values[split])}")
        parts.append(task.splits[split].items.take(np.arange(count)).inputs)
    values = np.concatenate([task.values["val"][:fit], task.values["test"][:test]])
    return torch.cat(parts), {name: values[:, i] for i, name in enumerate(task.names)}


def compare_networks(ctx: StepContext) -> None:
    s = ctx.settings
    here = Compared.read(s, ctx.inputs)
    (ctx.out / ACCURACIES).write_text(json.dumps(accuracies(here.one, s, ctx.inputs)))
    chosen = {name: MEASURES[name] for name in s["measures"]}
    cells = [*measured(here, chosen, ctx.progress), *corrected(here, chosen)]
    pd.DataFrame(cells, columns=["measure", "correction", "a", "b", "pair", "value"]).to_parquet(ctx.out / CELLS)
    thetas = {name: theta(here, measure, s["draws"]) for name, measure in chosen.items() if name not in SLOW}
    (ctx.out / THETA).write_text(json.dumps(thetas))


Cell = tuple[str, str, str, str, int, float]


def measured(
    here: Compared, chosen: Mapping[str, Measure], progress: Callable[[float, float, str], None]
) -> Iterable[Cell]:
    """Every two roles by each measure, without correction."""
    for i, (name, measure) in enumerate(chosen.items()):
        progress(i, len(chosen), name)
        for a, b in combinations_with_replacement(ROLES, 2):
            for pair in range(here.pairs):
                x, y = here.tested(a, pair), here.tested(b, pair)
                yield name, RAW, a, b, pair, across(x, y, measure.of, same=a == b)


def across(x: tuple[Any, Any], y: tuple[Any, Any], of: Callable[[Any, Any], float], *, same: bool) -> float:
    """Similarity of two roles across the seeds of a pair, mean of both ways; NaN where it is undefined."""
    try:
        return of(x[0], y[1]) if same else (of(x[0], y[1]) + of(x[1], y[0])) / 2
    except StatisticsError:
        return math.nan


def corrected(here: Compared, known: Container[str] = ()) -> Iterable[Cell]:
    """Every method of model recovery, between roles: corrections are fitted on each network's own fit split. Measures that
    are `known` without correction are not taken so again."""
    easy = here.one.features[0]
    for method in standard_methods(here.stimuli, loud=[easy], betas=BETAS):
        if method.correction == RAW and method.measure in known:
            continue
        halves = {role: [_halves(method, x, here.stimuli) for x in of] for role, of in here.rows.items()}
        for a, b in combinations_with_replacement(ROLES, 2):
            for pair in range(here.pairs):
                (x1, _), (x2, _) = halves[a][2 * pair : 2 * pair + 2]
                (_, y1), (_, y2) = halves[b][2 * pair : 2 * pair + 2]
                value = math.nan
                if not any(half is None for half in (x1, x2, y1, y2)):
                    value = across((x1, x2), (y1, y2), method.halves.join, same=a == b)
                yield method.measure, method.correction, a, b, pair, value


def _halves(method: Method, rows: Floats, stimuli: Stimuli) -> tuple[Any, Any]:
    """One network as the side that predicts and as the side that is predicted; None where a correction does not apply."""
    try:
        fit, test = method.correct(rows[stimuli.fit], rows[stimuli.test])
        return method.halves.of_model(fit, test), method.halves.of_brain(fit, test)
    except StatisticsError:
        return None, None


def theta(here: Compared, measure: Measure, draws: int) -> dict[str, Any]:
    """The claim's estimand by one measure: `values`, one a pair; `variance` of their mean over other stimuli.

    For RDMs the variance is that of a bootstrap of the stimuli, without pairs of a stimulus with itself; for the others, for
    which repeated stimuli bring back a bias, it comes from leaving groups of stimuli out.
    """
    values = [_theta(here.tested(BOTH, p), here.tested(EASY, p), measure.of) for p in range(here.pairs)]
    n = len(here.stimuli.test)
    rng = np.random.default_rng([2024, n])
    if measure.rdms is None:
        tested = [(here.tested(BOTH, p), here.tested(EASY, p)) for p in range(here.pairs)]

        def mean(kept: np.ndarray) -> float:
            def some(x: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
                return x[0][kept], x[1][kept]

            return float(np.mean([_theta(some(b), some(e), measure.of) for b, e in tested]))

        variance, _ = stimulus_jackknife(mean, n, rng=rng, groups=GROUPS)
        return {"values": values, "variance": variance, "stimuli": n}
    counts = draw_counts(n, draws, rng)
    sampled = np.zeros(draws)
    for p in range(here.pairs):
        b1, b2, e1, e2 = measure.rdms.stack([*here.tested(BOTH, p), *here.tested(EASY, p)])
        by = measure.rdms.by
        both, to_first, to_second = (
            resampled(x[None], y[None], counts, by)[:, 0, 0] for x, y in ((b1, b2), (b1, e2), (b2, e1))
        )
        sampled += (np.minimum(to_first, to_second) - both) / here.pairs
    return {"values": values, "variance": float(sampled.var(ddof=1)), "stimuli": n}


def _theta(both: tuple[Floats, Floats], easy: tuple[Floats, Floats], of: Callable[[Floats, Floats], float]) -> float:
    """The smaller of each network's similarity to the easy one of the other seed, minus that of the two."""
    return min(of(both[0], easy[1]), of(both[1], easy[0])) - of(*both)


def accuracies(
    one: Configuration, s: Mapping[str, Any], folders: Mapping[str, Path]
) -> dict[str, list[dict[str, float]]]:
    """Role -> of each network, its accuracy on all of test by feature that it learns."""
    task = Features(one.roles[BOTH].task, seed=s["data_seed"])
    inputs, targets = task.splits["test"].items.take(np.arange(len(task.values["test"]))).inputs, task.values["test"]
    found: dict[str, list[dict[str, float]]] = {}
    for role, condition in one.roles.items():
        if role == UNTRAINED:
            continue
        for seed in s["seeds"]:
            with torch.no_grad():
                said = task.heads.predictions(trained_network(condition, folders[role], seed)(inputs)).numpy()
            right = {name: float((said[:, i] == targets[:, i]).mean()) for i, name in enumerate(task.names)}
            found.setdefault(role, []).append({name: right[name] for name in one.learns(role)})
    return found
