"""Ways to compare a candidate with a brain: a measure of similarity, each under several corrections for loudness.

A correction is fitted on each side's own fit split, with the labels of those stimuli, and applied to the test split, where
the measure is taken. Labels of test stimuli enter only where ``partial`` says so: an experimenter knows what was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.labels import Kind, checked
from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.corrections import Whitening
from heldout.analyses.similarity.equalise import equalise
from heldout.analyses.similarity.halves import Halves, cka, encoding, rsa
from heldout.analyses.similarity.partial import model_rdms
from heldout.analyses.similarity.rdm import Distance
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, StatisticsError, unknown

Correct = Callable[[Floats, Floats], tuple[Floats, Floats]]

LEAST = 10  # stimuli of a split


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Which rows of every candidate's activations are the `fit` and which the `test` split (disjoint row numbers), and the
    `labels` of all rows, name -> (R,); `kinds` as for `Coding.fit`."""

    labels: Mapping[str, np.ndarray]
    fit: NDArray[np.intp]
    test: NDArray[np.intp]
    kinds: Mapping[str, Kind] | None = None

    def __post_init__(self) -> None:
        columns = checked(self.labels)
        rows = len(next(iter(columns.values())))
        object.__setattr__(self, "labels", columns)
        for name in ("fit", "test"):
            index = np.asarray(getattr(self, name))
            object.__setattr__(self, name, index.astype(np.intp))
            if index.ndim != 1 or len(index) < LEAST or index.dtype.kind not in "iu":
                raise StatisticsError(f"the {name} split needs {LEAST} or more row numbers; got shape {index.shape}")
            if index.min() < 0 or index.max() >= rows or len(np.unique(index)) < len(index):
                raise ConfigError(f"rows of the {name} split must be different numbers from 0 to {rows - 1}")
        if len(np.intersect1d(self.fit, self.test)):
            raise ConfigError("the fit and the test split share rows: what is fitted there would be scored there")

    @staticmethod
    def draw(
        labels: Mapping[str, ArrayLike], *, fit: int, test: int, seed: int, kinds: Mapping[str, Kind] | None = None
    ) -> Stimuli:
        """Two disjoint splits of so many stimuli, drawn without replacement from all that have labels."""
        columns = checked(labels)
        rows = len(next(iter(columns.values())))
        if fit + test > rows:
            raise StatisticsError(f"{fit} stimuli to fit and {test} to test on were asked for; there are {rows}")
        order = np.random.default_rng(seed).permutation(rows)
        return Stimuli(columns, np.sort(order[:fit]), np.sort(order[fit : fit + test]), kinds)

    @property
    def fit_labels(self) -> dict[str, np.ndarray]:
        return {name: values[self.fit] for name, values in self.labels.items()}

    @property
    def test_labels(self) -> dict[str, np.ndarray]:
        return {name: values[self.test] for name, values in self.labels.items()}


@dataclass(frozen=True, eq=False)
class Method:
    """A measure under a correction. `correct` takes activations of the fit and of the test split and returns both,
    corrected; methods that share one correct each side once."""

    measure: str
    correction: str
    correct: Correct = field(repr=False)
    halves: Halves = field(repr=False)


def standard_methods(
    stimuli: Stimuli,
    *,
    loud: Sequence[str],
    features: Sequence[str] | None = None,
    betas: Sequence[float] = (1.0,),
    distance: Distance = "correlation",
) -> tuple[Method, ...]:
    """RSA (``rsa``, Pearson), debiased CKA (``cka``) and encoding R^2 (``encoding``), each

    - ``raw``;
    - ``whitened`` with Ledoit and Wolf's shrinkage (``centred`` for a beta of 0, ``whitened-0.5`` and so on below 1);
    - ``removed``: the subspaces of the `loud` labels removed;
    - ``partial``: the `loud` labels held constant, as model RDMs in RSA and as predictors of the activations in the others;
    - ``equalised``: `features` (all labels by default) made equally loud, those absent left as they are.
    """
    for name in [*loud, *(features or ())]:
        if name not in stimuli.labels:
            raise ConfigError(unknown("label", name, stimuli.labels))
    if not loud:
        raise ConfigError("no loud features were named; name one or more labels to hold constant")
    fit_labels, test_labels = stimuli.fit_labels, stimuli.test_labels
    kinds = dict(stimuli.kinds or {})
    controls = model_rdms({n: test_labels[n] for n in loud}, {n: k for n, k in kinds.items() if n in loud})
    chosen = tuple(features) if features is not None else tuple(stimuli.labels)

    def spaces(fit: Floats, names: Sequence[str]) -> Subspaces:
        named = {n: fit_labels[n] for n in names}
        return Subspaces.fit(fit, named, {n: k for n, k in kinds.items() if n in named})

    def removed(fit: Floats, test: Floats) -> tuple[Floats, Floats]:
        space = spaces(fit, loud)
        return space.without(fit, *loud), space.without(test, *loud)

    def unlabelled(fit: Floats, test: Floats) -> tuple[Floats, Floats]:
        space = spaces(fit, loud)
        return space.unlabelled(fit, fit_labels, *loud), space.unlabelled(test, test_labels, *loud)

    def equalised(fit: Floats, test: Floats) -> tuple[Floats, Floats]:
        rescale = equalise(spaces(fit, chosen))
        return rescale(fit), rescale(test)

    plain = {"rsa": rsa(distance), "cka": cka(), "encoding": encoding()}
    corrections = {"raw": raw, **{_whitened_name(b): _whitened(b) for b in betas}, "removed": removed}
    methods = [Method(m, c, f, half) for c, f in corrections.items() for m, half in plain.items()]
    methods.append(Method("rsa", "partial", raw, rsa(distance, controls=controls)))
    methods += [Method(m, "partial", unlabelled, plain[m]) for m in ("cka", "encoding")]
    return tuple(methods + [Method(m, "equalised", equalised, half) for m, half in plain.items()])


def raw(fit: Floats, test: Floats) -> tuple[Floats, Floats]:
    """No correction."""
    return fit, test


def _whitened(beta: float) -> Correct:
    def whitened(fit: Floats, test: Floats) -> tuple[Floats, Floats]:
        whiten = Whitening.fit(fit)
        return whiten(fit, beta), whiten(test, beta)

    return whitened


def _whitened_name(beta: float) -> str:
    return {0.0: "centred", 1.0: "whitened"}.get(float(beta), f"whitened-{beta:g}")
