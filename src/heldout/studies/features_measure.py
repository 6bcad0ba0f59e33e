"""What one condition's networks represent: every measure of `heldout.analyses.features` at their penultimate layer.

Maps are fitted on val and scored on test. What claims read is written as scores, sums of each test row, or (density,
which is no ratio of sums) with its resamples over test rows; all else as one value a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heldout.analyses.features.decode import INNER, STRENGTHS, probe
from heldout.analyses.features.density import DEAD, densities, participation
from heldout.analyses.features.invariance import bands
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.principal import component_r2, components, effective_dimension, survival
from heldout.analyses.features.reliance import GRID, training_items
from heldout.analyses.features.steering import class_difference, steer
from heldout.analyses.features.strength import score
from heldout.analyses.features.subspace import ablation_cost
from heldout.analyses.features.trajectory import trajectory
from heldout.analyses.features.variance import explained, fit_map
from heldout.analyses.tables import Folder, Sink
from heldout.errors import StatisticsError
from heldout.evidence import Cell, Origin
from heldout.networks.mlp import MLP, Hidden
from heldout.runs import StepContext
from heldout.studies.features import condition_from
from heldout.studies.features_conditions import EXPERIMENTS, Condition
from heldout.studies.features_training import kept_moments, trained_network
from heldout.tasks.base import Rectangular
from heldout.tasks.features import Features

Floats = NDArray[np.float64]

SITE = "penultimate"
BEFORE = "before the nonlinearity"
MAP = Origin("map", site=SITE, fit_split="val")
VALUES, PICTURES, RESAMPLED = "values.json", "pictures.npz", "density_draws.npz"
RANKS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128, 256)
SHOWN = 1000  # points of a picture
PUSH = 1.0  # in units of the class difference: where off-target flips are read
TOLERANCE = 1e-5  # between logits computed in one pass and through the penultimate layer


def relying(a: float, b: float) -> Origin:
    """The classifier fitted on labels that agree with the simpler feature at rate `a` and with the other at `b`."""
    return Origin(f"classifier {a:g} {b:g}", site=SITE, fit_split="val")


class Value(NamedTuple):
    """One number of one network: ``quantity:feature``, at a `parameter` (rank, push, step), or the reason for none."""

    quantity: str
    value: float | None
    parameter: float | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """One split as the measures need it: `inputs` (N, bits), `values` (N, F), `keys` (N,), `table` feature -> (N,)."""

    inputs: Tensor
    values: NDArray[np.int64]
    keys: NDArray[np.int64]
    table: dict[str, NDArray[np.int64]]

    @staticmethod
    def of(task: Features, split: str) -> Rows:
        items, values, keys = task.splits[split].items, task.values[split], task.splits[split].keys
        assert isinstance(items, Rectangular)
        assert keys is not None
        return Rows(items.inputs, values, np.asarray(keys), {f: values[:, i] for i, f in enumerate(task.names)})


def measure_networks(ctx: StepContext) -> None:
    """Every seed of one condition."""
    s = ctx.settings
    condition, folder = condition_from(s["condition"]), ctx.inputs["weights"]
    here = Measuring(condition, Features(condition.task, seed=s["data_seed"]), s)
    found: dict[str, list[Value]] = {}
    with Folder(ctx.out) as sink:
        for i, seed in enumerate(s["seeds"]):
            ctx.progress(i, len(s["seeds"]), f"seed {seed}")
            network = here.network(trained_network(condition, folder, seed), seed)
            network.add_scores(sink)
            found[str(seed)] = list(network.all())
            if condition.trajectory:
                steps = kept_moments(folder)
                along = [here.network(trained_network(condition, folder, seed, step), seed) for step in steps]
                found[str(seed)] += list(trajectories(steps, along))
            if i == 0:
                pictures = network.pictures()
            here.resampled.append(network.resampled_density())
            here.unit_r2.append(network.unit_r2())
    (ctx.out / VALUES).write_text(json.dumps(found))
    arrays: dict[str, Any] = pictures | {"unit_r2": np.stack(here.unit_r2)}
    np.savez_compressed(ctx.out / PICTURES, **arrays)
    np.savez_compressed(ctx.out / RESAMPLED, draws=np.stack(here.resampled), units=len(here.test.inputs))


class Measuring:
    """What the networks of a condition share: rows, labels' coding, and one draw of test rows for all seeds."""

    def __init__(self, condition: Condition, task: Features, s: Any) -> None:
        self.condition, self.task, self.s = condition, task, s
        self.val, self.test = Rows.of(task, "val"), Rows.of(task, "test")
        self.coding = Coding.fit(self.val.table)
        self.design = {"val": self.coding.encode(self.val.table), "test": self.coding.encode(self.test.table)}
        self.answered = task.settings.outputs == "features"
        self.binary = [p.name for p in task.planted if p.feature.classes == 2]
        n = len(self.test.inputs)
        self.counts = np.random.default_rng([s["data_seed"], n]).multinomial(n, np.full(n, 1 / n), size=s["row_draws"])
        self.resampled: list[Floats] = []
        self.unit_r2: list[Floats] = []

    def network(self, network: MLP, seed: int) -> Measured:
        return Measured(self, network, seed)


class Measured:
    """One network's penultimate layer, measured; F features, D units."""

    def __init__(self, here: Measuring, network: MLP, seed: int) -> None:
        self.here, self.model, self.seed = here, network, seed
        self.names, self.coding = here.task.names, here.coding
        self.without: list[Value] = []  # what could not be scored, with the reason
        with torch.no_grad():
            self.before, self.x = {}, {}
            for split, rows in (("val", here.val), ("test", here.test)):
                self.before[split], self.x[split] = penultimate(network, rows.inputs)
        self.fit = moments_of(self.x["val"], here.design["val"])
        self.tested = moments_of(self.x["test"], here.design["test"])

    def decide(self, rows: Tensor) -> NDArray[np.int64]:
        """(N, F) what the network's readout answers to rows of its penultimate layer."""
        return np.asarray(self.here.task.heads.predictions(self.model.readout(rows)))

    # -- scores ---------------------------------------------------------------------------------------------------

    def add_scores(self, sink: Sink) -> None:
        """Squared norms by test row, whole and explained, what the network answers, and what classifiers rely on."""
        here, x = self.here, self.x["test"]
        errors = score(self.fit, x, here.design["test"], self.coding)
        total = errors.total
        moves = total > 0
        columns: dict[str, np.ndarray] = {"unit": here.test.keys, "n": np.ones(len(total)), "total": total}
        columns["moves"] = moves.astype(float)
        for name in self.names:
            columns[f"explained:{name}"] = gain = total - errors.error(name)
            columns[f"example:{name}"] = np.divide(gain, total, out=np.zeros_like(total), where=moves)
        if here.answered:
            columns |= self._answers()
        sink.add(self._cell(MAP), columns)
        if here.condition.name in EXPERIMENTS["E17"] and here.binary == list(self.names) and len(self.names) == 2:
            for a, b in GRID:
                try:
                    sink.add(self._cell(relying(a, b)), self._reliance((a, b)))
                except StatisticsError as error:
                    self.without.append(Value(f"reliance {a:g} {b:g}", None, reason=str(error)))

    def _cell(self, edit: Origin) -> Cell:
        return Cell("features", self.here.condition.name, self.seed, "test", edit)

    def _answers(self) -> dict[str, np.ndarray]:
        targets = torch.from_numpy(self.here.test.values)
        with torch.no_grad():
            outputs = self.model.readout(self.x["test"])
        losses = self.here.task.heads.losses(outputs, targets).double().numpy()
        right = (self.here.task.heads.predictions(outputs) == targets).double().numpy()
        return {f"correct:{f}": right[:, i] for i, f in enumerate(self.names)} | {
            f"loss:{f}": losses[:, i] for i, f in enumerate(self.names)
        }

    def _reliance(self, rates: tuple[float, float]) -> dict[str, np.ndarray]:
        """One row a test row: whether the features disagree there (`n`), and whether it is labelled as the first says."""
        from sklearn.model_selection import StratifiedKFold

        rng = np.random.default_rng(self.seed)
        items, label = training_items(self.here.val.values, rates, rng)
        folds = StratifiedKFold(INNER, shuffle=True, random_state=int(rng.integers(2**31)))
        fit, test = (self.x[split].double().numpy() for split in ("val", "test"))
        said = probe(STRENGTHS, folds).fit(fit[items], label).predict(test)
        first, second = self.here.test.values.T
        apart = first != second
        follows = said == first
        return {
            "unit": self.here.test.keys,
            "n": apart.astype(float),
            "on_first": (apart & follows).astype(float),
            "agreed": (~apart).astype(float),
            "right": (~apart & follows).astype(float),
        }

    # -- one value a network --------------------------------------------------------------------------------------

    def all(self) -> Iterator[Value]:
        yield from self.without
        yield Value("total_variance", float(self.tested.variances.sum()))
        yield Value("difference_of_passes", self._difference())
        yield from self._or_reason(["density"], self._density)
        yield from self._or_reason(["band_low", "band_high"], self._bands)
        yield from self._or_reason(["largest_component"], self._components)
        if self.here.answered:
            yield from self._or_reason(["k95"], self._survival)
            for name in self.here.binary:
                yield from self._or_reason(["half_push"], partial(self._steering, name), [name])
            for name in self.names:
                yield from self._or_reason(["cost"], partial(self._ablation, name), [name])
        if self.here.condition.name in EXPERIMENTS["E5"]:
            yield from self._parts()

    def _or_reason(
        self, quantities: Sequence[str], measure: Callable[[], Iterator[Value]], names: Sequence[str] | None = None
    ) -> list[Value]:
        """What is measured, or, where it cannot be, the first of its quantities with the reason."""
        try:
            return list(measure())
        except StatisticsError as error:
            chosen = self.names if names is None else names
            return [Value(f"{q}:{name}", None, reason=str(error)) for q in quantities for name in chosen]

    def _difference(self) -> float:
        """Largest difference of any logit between one pass and the pass through the penultimate layer."""
        with torch.no_grad():
            through, whole = self.model.readout(self.x["test"]), self.model(self.here.test.inputs)
        return float((through - whole).abs().max())

    def _density(self) -> Iterator[Value]:
        for name, d in densities(self.tested, self.coding, seed=self.seed, draws=self.here.s["density_draws"]).items():
            yield _value(f"density:{name}", d.value, reason=d.reason)
            yield _value(f"density_permuted:{name}", d.permuted, reason="nothing exceeds chance")
            yield _value(f"density_random_direction:{name}", d.random_direction, reason="nothing exceeds chance")
            yield Value(f"dead_units:{name}", 1 - d.live / d.units)
            for threshold, share in d.fraction.items():
                yield Value(f"units_over:{name}", share, threshold)

    def _bands(self) -> Iterator[Value]:
        places = {BEFORE: tuple(moments_of(self.before[s], self.here.design[s]) for s in ("val", "test"))}
        draws = self.here.s["band_draws"]
        found = bands(self.fit, self.tested, self.coding, seed=self.seed, elsewhere=places, draws=draws)  # type: ignore[arg-type]
        for name, band in found.items():
            yield Value(f"band_low:{name}", band.low)
            yield Value(f"band_high:{name}", band.high)
            yield Value(f"zscored:{name}", band.zscored)
            yield Value(f"whitened:{name}", band.whitened)
            yield Value(f"gauge_low:{name}", float(band.gauge.min()))
            yield Value(f"gauge_high:{name}", float(band.gauge.max()))
            yield Value(f"before_nonlinearity:{name}", band.elsewhere[BEFORE])

    def _components(self) -> Iterator[Value]:
        pca = components(self.fit)
        for name in self.names:
            variances, r2 = component_r2(pca, self.tested, self.coding.columns(name))
            yield Value(f"largest_component:{name}", float(np.nanargmax(r2)) + 1)
            for k in range(min(10, len(r2))):
                yield _value(f"component_r2:{name}", float(r2[k]), k + 1, "this component does not vary")
        yield Value("effective_dimension", effective_dimension(variances))

    def _survival(self) -> Iterator[Value]:
        ranks = [k for k in RANKS if k <= self.fit.width]
        kept = survival(self.decide, self.x["test"], self.here.test.values, self.names, components(self.fit), ranks)
        for i, name in enumerate(self.names):
            k95 = kept.k95(name)
            yield Value(f"k95:{name}", k95, reason="" if k95 else "no listed rank keeps 95% of the accuracy")
            for rank, accuracy in zip(kept.ranks, kept.accuracy[:, i].tolist(), strict=True):
                yield Value(f"accuracy_of_top:{name}", accuracy, rank)

    def _steering(self, name: str) -> Iterator[Value]:
        direction = class_difference(self.fit, int(self.coding.columns(name)[0]))
        found = steer(self.decide, self.x["test"], self.names, name, direction)
        for quantity, value in (
            ("half_push", found.half.value),
            ("half_length", found.half_length),
            ("half_deviations", found.half_deviations),
        ):
            yield _value(f"{quantity}:{name}", value, reason=found.half.reason)
        yield Value(f"difference_length:{name}", direction.length)
        others = found.off_target(PUSH)
        if others:
            yield Value(f"off_target:{name}", max(others.values()))
        at = self.names.index(name)
        for alpha, share in zip(found.alphas.tolist(), found.flips[:, at].tolist(), strict=True):
            yield Value(f"flips:{name}", share, alpha)

    def _ablation(self, name: str) -> Iterator[Value]:
        basis = fit_map(self.fit, self.coding.columns(name)).weights
        found = ablation_cost(
            self.decide, self.x["test"], self.here.test.values, self.names, basis, self.fit.mean()[1], seed=self.seed
        )
        yield Value(f"cost:{name}", found.cost[name].value)
        yield Value(f"random_cost:{name}", float(found.random[:, self.names.index(name)].mean()))

    def _parts(self) -> Iterator[Value]:
        """Variance explained of every sub-feature, each by itself."""
        parts = {split: self.here.task.parts(split) for split in ("val", "test")}
        for part, values in parts["val"].items():
            coding = Coding.fit({part: values})
            columns = coding.columns(part)
            fit, test = (moments_of(self.x[s], coding.encode({part: parts[s][part]})) for s in ("val", "test"))
            yield from self._or_reason(["part"], partial(_part, part, fit, test, columns), [part])

    # -- for pictures and for the claim on density ------------------------------------------------------------------

    def pictures(self) -> dict[str, np.ndarray]:
        """The first test rows on the two largest components, with their features' values."""
        directions = components(self.fit).components_
        assert directions is not None
        rows = self.x["test"][:SHOWN].double() - torch.from_numpy(self.fit.mean()[1])
        return {"points": (rows @ directions[:2].T).numpy(), "values": self.here.test.values[:SHOWN]}

    def unit_r2(self) -> Floats:
        """(F, D) share of each unit's variance on test that a feature explains; NaN for one that does not vary."""
        fitted = (fit_map(self.tested, self.coding.columns(name)) for name in self.names)
        return np.stack([explained(m, self.tested).by_unit for m in fitted])

    def resampled_density(self) -> Floats:
        """(F, R) density in each resample of test rows; NaN for features of more than two classes."""
        binary = [i for i, name in enumerate(self.names) if name in self.here.binary]
        found = np.full((len(self.names), len(self.here.counts)), np.nan)
        if binary:
            labels = self.here.test.values[:, binary].astype(np.float64)
            found[binary] = resampled(self.x["test"].double().numpy(), labels, self.here.counts).T
        return found


def penultimate(network: MLP, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) the last hidden layer's rows before and after its nonlinearity."""
    *early, last = network.hidden
    assert isinstance(last, Hidden)
    x = inputs.flatten(1)
    for layer in early:
        x = layer(x)
    x = last.linear(x)
    x = x if last.norm is None else last.norm(x)
    return x, last.act(x)


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
        yield _value(growth.quantity, growth.value, reason=growth.reason)
        why = "accuracy does not stay at .95"
        yield Value(f"mastered:{name}", found.mastered, reason=why if found.mastered is None else "")


def _part(name: str, fit: JointMoments, test: JointMoments, columns: NDArray[np.intp]) -> Iterator[Value]:
    yield Value(f"part:{name}", explained(fit_map(fit, columns), test).pooled)


def _value(quantity: str, value: float, parameter: float | None = None, reason: str = "") -> Value:
    """NaN becomes None, and the reason is kept there only."""
    return Value(quantity, None, parameter, reason) if math.isnan(value) else Value(quantity, value, parameter)
