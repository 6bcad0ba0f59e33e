"""One condition's networks measured: every measure of `heldout.analyses.features` at their penultimate layer.

Maps are fitted on val and scored on test. What claims read is written as scores, sums of each test row, or (density,
which is no ratio of sums) with its resamples over test rows; all else as one value a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from heldout.analyses.tables import Folder
from heldout.runs import StepContext
from heldout.studies.features import condition_from
from heldout.studies.features_causes import removal, steering, surviving
from heldout.studies.features_conditions import EXPERIMENTS
from heldout.studies.features_inside import (
    band,
    density,
    in_components,
    parts,
    pictures,
    resampled_density,
    trajectories,
    unit_r2,
)
from heldout.studies.features_measured import PICTURES, RESAMPLED, VALUES, Measured, Measuring, Value, or_reason
from heldout.studies.features_reading import READ, readable, readable_inputs
from heldout.studies.features_scored import add_scores
from heldout.studies.features_shares import WITHIN, effects, few, together
from heldout.studies.features_training import kept_moments, trained_network
from heldout.tasks.features import Features


def measure_networks(ctx: StepContext) -> None:
    """Every seed of one condition."""
    s = ctx.settings
    condition, folder = condition_from(s["condition"]), ctx.inputs["weights"]
    here = Measuring(condition, Features(condition.task, seed=s["data_seed"]), s)
    inputs = readable_inputs(here) if condition.name in READ else []
    found: dict[str, list[Value]] = {}
    shown: dict[str, Any] = {}
    draws, units = [], []
    with Folder(ctx.out) as sink:
        for i, seed in enumerate(s["seeds"]):
            ctx.progress(i, len(s["seeds"]), f"seed {seed}")
            network = here.network(trained_network(condition, folder, seed), seed)
            found[str(seed)] = [*add_scores(network, sink), *values_of(network), *inputs]
            if condition.trajectory:
                steps = kept_moments(folder)
                along = [here.network(trained_network(condition, folder, seed, step), seed) for step in steps]
                found[str(seed)] += list(trajectories(steps, along))
            shown = shown or pictures(network)  # of the first seed
            draws.append(resampled_density(network))
            units.append(unit_r2(network))
    (ctx.out / VALUES).write_text(json.dumps(found))
    np.savez_compressed(ctx.out / PICTURES, unit_r2=np.stack(units), **shown)
    np.savez_compressed(ctx.out / RESAMPLED, draws=np.stack(draws), units=len(here.test.inputs))


def values_of(m: Measured) -> Iterator[Value]:
    """One value a network of everything that is no score; the reason where there is none."""
    name, names, binary = m.here.condition.name, m.names, m.here.binary
    yield Value("total_variance", float(m.tested.variances.sum()))
    yield Value("difference_of_passes", difference_of_passes(m))
    yield from or_reason("density", names, partial(density, m))
    yield from or_reason("band_low", names, partial(band, m))
    yield from or_reason("largest_component", names, partial(in_components, m))
    if few(m):
        yield from or_reason("unique", names, partial(together, m))
        if binary == list(names):
            yield from or_reason("effect", [*names, WITHIN], partial(effects, m))
    if name in READ:
        yield from readable(m)
    if m.here.answered:
        yield from or_reason("k95", names, partial(surviving, m))
        for feature in binary:
            yield from or_reason("half_push", [feature], partial(steering, m, feature))
        for feature in names:
            yield from or_reason("cost", [feature], partial(removal, m, feature))
    if name in EXPERIMENTS["E5"]:
        yield from parts(m)


def difference_of_passes(m: Measured) -> float:
    """Largest difference of any logit between one pass and the pass through the penultimate layer."""
    with torch.no_grad():
        through, whole = m.model.readout(m.x["test"]), m.model(m.here.test.inputs)
    return float((through - whole).abs().max())
