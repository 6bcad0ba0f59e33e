"""What the features study measures: rows of one condition, one network's penultimate layer, and the values that come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.errors import StatisticsError
from heldout.evidence import Origin
from heldout.networks.mlp import MLP, Hidden
from heldout.studies.features_conditions import Condition
from heldout.tasks.base import Rectangular
from heldout.tasks.features import Features

Floats = NDArray[np.float64]

SITE = "penultimate"
MAP = Origin("map", site=SITE, fit_split="val")
VALUES, PICTURES, RESAMPLED = "values.json", "pictures.npz", "density_draws.npz"


class Value(NamedTuple):
    """One number of one network: ``quantity:feature``, at a `parameter` (rank, push, step), or the reason for none."""

    quantity: str
    value: float | None
    parameter: float | None = None
    reason: str = ""


def valued(quantity: str, value: float, parameter: float | None = None, reason: str = "") -> Value:
    """NaN becomes None, and the reason is kept there only."""
    return Value(quantity, None, parameter, reason) if math.isnan(value) else Value(quantity, value, parameter)


def or_reason(quantity: str, names: Sequence[str], measure: Callable[[], Iterator[Value]]) -> list[Value]:
    """What is measured; where it cannot be, `quantity` of each of `names` with the reason."""
    try:
        return list(measure())
    except StatisticsError as error:
        return [Value(f"{quantity}:{name}", None, reason=str(error)) for name in names]


def relying(a: float, b: float) -> Origin:
    """The classifier fitted on labels that agree with the simpler feature at rate `a` and with the other at `b`."""
    return Origin(f"classifier {a:g} {b:g}", site=SITE, fit_split="val")


@dataclass(frozen=True, eq=False)
class Rows:
    """One split as the measures need it: `bits` (N, bits) of 0 and 1, `inputs` (N, bits) as they enter the network,
    `values` (N, F), `keys` (N,), `table` feature -> (N,)."""

    bits: NDArray[np.uint8]
    inputs: Tensor
    values: NDArray[np.int64]
    keys: NDArray[np.int64]
    table: dict[str, NDArray[np.int64]]

    @staticmethod
    def of(task: Features, split: str) -> Rows:
        items, values, keys = task.splits[split].items, task.values[split], task.splits[split].keys
        assert isinstance(items, Rectangular)
        assert keys is not None
        table = {f: values[:, i] for i, f in enumerate(task.names)}
        return Rows(task.rows[split], items.inputs, values, np.asarray(keys), table)


class Measuring:
    """What the networks of a condition share: rows, labels' coding, and one draw of test rows for all seeds.

    `s`: `data_seed`, `density_draws`, `row_draws`, `band_draws`, `probe_rows` and `probe_strengths`, see `FeaturesConfig`.
    """

    def __init__(self, condition: Condition, task: Features, s: Mapping[str, Any]) -> None:
        self.condition, self.task, self.s = condition, task, s
        self.val, self.test = Rows.of(task, "val"), Rows.of(task, "test")
        self.coding = Coding.fit(self.val.table)
        self.design = {"val": self.coding.encode(self.val.table), "test": self.coding.encode(self.test.table)}
        self.answered = task.settings.outputs == "features"
        self.binary = [p.name for p in task.planted if p.feature.classes == 2]
        n = len(self.test.inputs)
        self.counts = np.random.default_rng([s["data_seed"], n]).multinomial(n, np.full(n, 1 / n), size=s["row_draws"])

    def network(self, network: MLP, seed: int) -> Measured:
        return Measured(self, network, seed)


class Measured:
    """One network's penultimate layer: activations `x` (N, D) and what they were `before` the nonlinearity, by split, and
    the joint moments with the labels of val (`fit`) and test (`tested`)."""

    def __init__(self, here: Measuring, network: MLP, seed: int) -> None:
        self.here, self.model, self.seed = here, network, seed
        self.names, self.coding = here.task.names, here.coding
        self.before: dict[str, Tensor] = {}
        self.x: dict[str, Tensor] = {}
        with torch.no_grad():
            for split, rows in (("val", here.val), ("test", here.test)):
                self.before[split], self.x[split] = penultimate(network, rows.inputs)
        self.fit = moments_of(self.x["val"], here.design["val"])
        self.tested = moments_of(self.x["test"], here.design["test"])

    def decide(self, rows: Tensor) -> NDArray[np.int64]:
        """(N, F) what the network's readout answers to rows of its penultimate layer."""
        return np.asarray(self.here.task.heads.predictions(self.model.readout(rows)))


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
