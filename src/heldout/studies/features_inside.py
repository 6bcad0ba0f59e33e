"""How one network's features are spread over units and components, within what band, and how that came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from heldout.analyses.features.density import DEAD, densities, participation
from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.principal import component_r2, components, effective_dimension
from heldout.analyses.features.trajectory import trajectory
from heldout.analyses.features.variance import explained, fit_map
from heldout.errors import StatisticsError
from heldout.studies.features_measured import Floats, Measured, Value, or_reason, valued

BEFORE = "before the nonlinearity"
SHOWN = 1000  # points of a picture
LARGEST = 10  # components whose r^2 is kept


def density(m: Measured) -> Iterator[Value]:
    """Density of each feature beside its nulls, dead units, and the share of units over some r^2."""
    for name, d in densities(m.tested, m.coding, seed=m.seed, draws=m.here.s["density_draws"]).items():
        yield valued(f"density:{name}", d.value, reason=d.reason)
        yield valued(f"density_permuted:{name}", d.permuted, reason="nothing exceeds chance")
        yield valued(f"density_random_direction:{name}", d.random_direction, reason="nothing exceeds chance")
        yield Value(f"dead_units:{name}", 1 - d.live / d.units)
        for threshold, share in d.fraction.items():
            yield Value(f"units_over:{name}", share, threshold)


def band(m: Measured) -> Iterator[Value]:
    """What variance explained becomes under changes that leave the network's function as it is."""
    places = {BEFORE: tuple(moments_of(m.before[s], m.here.design[s]) for s in ("val", "test"))}
    draws = m.here.s["band_draws"]
    found = bands(m.fit, m.tested, m.coding, seed=m.seed, elsewhere=places, draws=draws)  # type: ignore[arg-type]
    for name, b in found.items():
        yield Value(f"band_low:{name}", b.low)
        yield Value(f"band_high:{name}", b.high)
        yield Value(f"zscored:{name}", b.zscored)
        yield Value(f"whitened:{name}", b.whitened)
        yield Value(f"gauge_low:{name}", float(b.gauge.min()))
        yield Value(f"gauge_high:{name}", float(b.gauge.max()))
        yield Value(f"before_nonlinearity:{name}", b.elsewhere[BEFORE])


def in_components(m: Measured) -> Iterator[Value]:
    """Which principal component each feature explains best, and r^2 of the largest ones."""
    pca = components(m.fit)
    for name in m.names:
        variances, r2 = component_r2(pca, m.tested, m.coding.columns(name))
        if np.isnan(r2).all():
            raise StatisticsError("the activations do not vary: no component does")
        yield Value(f"largest_component:{name}", float(np.nanargmax(r2)) + 1)
        for k in range(min(LARGEST, len(r2))):
            yield valued(f"component_r2:{name}", float(r2[k]), k + 1, "this component does not vary")
    yield Value("effective_dimension", effective_dimension(variances))


def parts(m: Measured) -> Iterator[Value]:
    """Variance explained of every sub-feature, each by itself."""
    found = {split: m.here.task.parts(split) for split in ("val", "test")}
    for part, values in found["val"].items():
        coding = Coding.fit({part: values})
        columns = coding.columns(part)
        fit, test = (moments_of(m.x[s], coding.encode({part: found[s][part]})) for s in ("val", "test"))
        yield from or_reason("part", [part], partial(_part, part, fit, test, columns))


def _part(name: str, fit: JointMoments, test: JointMoments, columns: NDArray[np.intp]) -> Iterator[Value]:
    yield Value(f"part:{name}", explained(fit_map(fit, columns), test).pooled)


def trajectories(steps: Sequence[int], networks: Sequence[Measured]) -> Iterator[Value]:
    """One network at its checkpoints: explained variance over the final total, over the current one, and accuracy."""
    first = networks[0]
    for i, name in enumerate(first.names):
        columns = first.coding.columns(name)
        at = [explained(fit_map(n.fit, columns), n.tested) for n in networks]
        right = [float((n.decide(n.x["test"])[:, i] == n.here.test.values[:, i]).mean()) for n in networks]
        found = trajectory(name, steps, at, right)
        for quantity, values in (
            ("explained_of_final", found.explained),
            ("explained_of_current", found.share),
            ("accuracy_along", found.accuracy),
        ):
            for step, value in zip(found.steps.tolist(), values.tolist(), strict=True):
                yield Value(f"{quantity}:{name}", value, step)
        growth = found.growth_after_mastery()
        yield valued(growth.quantity, growth.value, reason=growth.reason)
        why = "accuracy does not stay at .95"
        yield Value(f"mastered:{name}", found.mastered, reason=why if found.mastered is None else "")


# -- for pictures, and for the claim on density ---------------------------------------------------------------------


def pictures(m: Measured) -> dict[str, np.ndarray]:
    """The first test rows on the two largest components, with their features' values."""
    directions = components(m.fit).components_
    assert directions is not None
    rows = m.x["test"][:SHOWN].double() - torch.from_numpy(m.fit.mean()[1])
    return {"points": (rows @ directions[:2].T).numpy(), "values": m.here.test.values[:SHOWN]}


def unit_r2(m: Measured) -> Floats:
    """(F, D) share of each unit's variance on test that a feature explains; NaN for one that does not vary."""
    fitted = (fit_map(m.tested, m.coding.columns(name)) for name in m.names)
    return np.stack([explained(f, m.tested).by_unit for f in fitted])


def resampled_density(m: Measured) -> Floats:
    """(F, R) density in each resample of test rows; NaN for features of more than two classes."""
    binary = [i for i, name in enumerate(m.names) if name in m.here.binary]
    found = np.full((len(m.names), len(m.here.counts)), np.nan)
    if binary:
        labels = m.here.test.values[:, binary].astype(np.float64)
        found[binary] = resampled(m.x["test"].double().numpy(), labels, m.here.counts).T
    return found


def resampled(x: Floats, labels: Floats, counts: NDArray[np.int64]) -> Floats:
    """(R, q) density of binary `labels` (n, q) over units x (n, D) with row i taken ``counts[r, i]`` times.

    The units that are live in all rows are those of every resample. NaN where nothing exceeds chance.
    """
    n = len(x)
    variances = x.var(axis=0)
    x = x[:, variances > DEAD * variances.max()] if variances.max() > 0 else x[:, :0]
    if not x.shape[1]:
        return np.full((len(counts), labels.shape[1]), np.nan)
    x, labels = x - x.mean(axis=0), labels - labels.mean(axis=0)
    w = counts / n
    mean, spread = w @ x, w @ x**2
    spread -= mean**2
    found = []
    for b in labels.T:
        m = w @ b
        covariance = w @ (x * b[:, None]) - mean * m[:, None]
        variance = (w @ b**2 - m**2)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = np.where(spread * variance > 0, covariance**2 / (spread * variance), 0.0)
        found.append(participation(r2, 1, n))
    return np.stack(found, axis=1)
