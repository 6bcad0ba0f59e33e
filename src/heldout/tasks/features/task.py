"""The splits of the `features` task: rows of bits, several features of them, each an output of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from heldout.errors import SplitError
from heldout.tasks.base import Rectangular, Role, Split
from heldout.tasks.features.complexity import Complexity, complexity
from heldout.tasks.features.sampling import Sampler, balanced, independent, largest_correlation, row_keys
from heldout.tasks.features.settings import FeaturesSettings

BALANCE = 0.02  # how far a label's share may be from that of balanced classes
_STREAMS = ("train", "val", "test")  # positions are spawn keys: append only


class Features:
    """The task: `settings`, `planted` features, `heads`, and `splits` by name.

    ============  ====  ==========================================================================================
    ``train``     fit   to train on; the only split that prevalence touches
    ``val``       fit   fresh rows, balanced: readings are fitted here
    ``test``      test  fresh rows, balanced: readings are tested here
    ``only_<f>``  test  where features predict a label: feature f as in ``train``, the others at chance
    ============  ====  ==========================================================================================

    Inputs are (B, bits) float32, targets (B, outputs) int64, `scored` (B, outputs) bool (False: label withheld).
    Strata are every feature's value, by its name. No row is in two splits. The unit of resampling is the row.

    `seed` draws the data and nothing else; weights and order have seeds of their own.
    """

    def __init__(self, settings: FeaturesSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self.planted = settings.planted()
        self.names = tuple(p.name for p in self.planted)
        self.outputs = ("label",) if settings.outputs == "label" else self.names
        self.heads = settings.heads()
        self.rows: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {}
        self.labels: dict[str, np.ndarray] = {}
        self.splits: dict[str, Split] = {}
        self._sampler = Sampler(self.planted, settings.bits)
        self._taken = np.empty(0, dtype=np.int64)
        self._draw_all()

    @property
    def complexities(self) -> dict[str, Complexity]:
        """Feature -> how complex it is, computed from its truth table."""
        return {p.name: complexity(p.feature) for p in self.planted}

    def parts(self, split: str) -> dict[str, np.ndarray]:
        """``feature/part`` -> (N,) int64 of 0 and 1: the sub-features of every row of a split."""
        rows = self.rows[split]
        return {
            f"{p.name}/{part}": values
            for p in self.planted
            for part, values in p.feature.parts_of(rows[:, list(p.bits)]).items()
        }

    def composition(self) -> list[dict[str, Any]]:
        """One row a split and feature: rows, share of class 1 (of two) or of the rarest class, share labelled,
        agreement with the hidden label (None without one), and the feature's complexity."""
        table = []
        for name, values in self.values.items():
            items = self.splits[name].items
            assert isinstance(items, Rectangular)
            assert items.scored is not None
            for f, planted in enumerate(self.planted):
                counts = np.bincount(values[:, f], minlength=planted.feature.classes)
                share = counts[1] if planted.feature.classes == 2 else counts.min()
                scored = items.scored[:, f] if self.settings.outputs == "features" else items.scored[:, 0]
                label = self.labels.get(name)
                table.append(
                    {
                        "split": name,
                        "feature": planted.name,
                        "rows": len(values),
                        "share": float(share / len(values)),
                        "labelled": float(scored.double().mean()),
                        "agrees": None if label is None else float((values[:, f] == label).mean()),
                        **asdict(complexity(planted.feature)),
                    }
                )
        return table

    def _draw_all(self) -> None:
        s = self.settings
        predictive = s.predictivity
        for name in ("train", "val", "test"):
            note = "the rows to train on" if name == "train" else "fresh rows of the same distribution"
            if name != "train" and s.prevalence is not None:
                note = "fresh rows, every feature balanced and labelled"
            self._add(name, "test" if name == "test" else "fit", getattr(s, name), self._rng(name), note, predictive)
        if predictive is not None:
            for f, feature in enumerate(self.names):
                alone = tuple(p if g == f else 0.5 for g, p in enumerate(predictive))
                note = f"{feature} predicts the label as in train, the other features do not"
                self._add(f"only_{feature}", "test", s.test, self._rng("test", 1 + f), note, alone)

    def _rng(self, name: str, *path: int) -> np.random.Generator:
        """The data of one split do not depend on how much another took."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, _STREAMS.index(name), *path)))

    def _add(
        self, name: str, role: Role, n: int, draw: np.random.Generator, note: str, predictive: tuple[float, ...] | None
    ) -> None:
        s = self.settings
        classes = [p.feature.classes for p in self.planted]
        if predictive is None:
            values = independent(n, classes, draw)
        else:
            label = self.labels[name] = balanced(n, 2, draw)
            values = label[:, None] ^ (draw.random((n, len(classes))) >= np.array(predictive))
        scored = np.ones((n, len(self.outputs)), dtype=bool)
        if name == "train" and s.prevalence is not None:
            for f, share in enumerate(s.prevalence):
                _make_rare(values, scored, f, share, s.rarity, draw)
        rows = self._sampler.draw_new(values, self._taken, draw, name)
        keys = row_keys(rows)
        unit = np.unique(keys, return_inverse=True)[1].astype(np.int64)
        begin = len(self._taken)
        self._taken = np.concatenate((self._taken, np.unique(keys)))
        inputs = rows.astype(np.float32) if s.coding == "01" else rows.astype(np.float32) * 2 - 1
        targets = self.labels[name][:, None] if s.outputs == "label" else values
        self.rows[name], self.values[name] = rows, values
        items = Rectangular(
            torch.from_numpy(inputs),
            torch.from_numpy(targets.astype(np.int64)),
            scored=torch.from_numpy(scored),
            strata={f: torch.from_numpy(values[:, i].astype(np.int64)) for i, f in enumerate(self.names)},
        )
        self.splits[name] = Split(name, role, items, note, keys=keys, units=begin + unit)
        self._check(name, predictive)

    def _check(self, name: str, predictive: tuple[float, ...] | None) -> None:
        """What every later number leans on: rows have the drawn values, classes are balanced, features independent."""
        rows, values, n = self.rows[name], self.values[name], len(self.rows[name])
        for f, planted in enumerate(self.planted):
            assert np.array_equal(planted.of(rows), values[:, f]), f"{planted.name} of split {name}"
        if predictive is not None or (name == "train" and self.settings.prevalence is not None):
            return
        classes = [p.feature.classes for p in self.planted]
        for f, k in enumerate(classes):
            shares = np.bincount(values[:, f], minlength=k) / n
            if np.abs(shares - 1 / k).max() > max(BALANCE, 1 / n):
                raise SplitError(f"features: {self.names[f]} is not balanced in split {name!r}: shares {shares}")
        worst = largest_correlation(values, classes)
        if worst >= 4 / np.sqrt(n):
            raise SplitError(f"features: two features correlate by {worst:.3f} in split {name!r} of {n} rows")


def _make_rare(
    values: np.ndarray, scored: np.ndarray, f: int, share: float, rarity: str, draw: np.random.Generator
) -> None:
    """Lower the presence of feature `f` in place; see `FeaturesSettings.prevalence`."""
    n = len(values)
    if rarity == "base_rate":
        values[:, f] = draw.permutation(np.arange(n) < round(n * share / 2))
        return
    kept = draw.permutation(n) < round(n * share)
    if rarity == "mask":
        scored[:, f] = kept
    else:
        classes = int(values[:, f].max()) + 1
        values[~kept, f] = 0
        values[kept, f] = balanced(int(kept.sum()), classes, draw)
