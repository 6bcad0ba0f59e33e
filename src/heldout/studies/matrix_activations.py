"""What the matrix measures of activations at a row's site: effective dimension, similarity of seeds, labels explained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heldout.analyses.features.decode import decode
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.nulls import permutation_null
from heldout.analyses.features.principal import effective_dimension
from heldout.analyses.features.strength import score
from heldout.analyses.features.variance import ALL
from heldout.analyses.similarity.inference import Settings as Inference
from heldout.analyses.similarity.inference import assess, within
from heldout.analyses.similarity.result import Similarity
from heldout.errors import ConfigError, StatisticsError
from heldout.statistics.bootstrap import bootstrap_variance
from heldout.statistics.rule import mean_test
from heldout.studies.matrix_evidence import DRAWS, Asked, Evidence, alone, table
from heldout.studies.matrix_material import Material, Stimuli

# -- degeneracy --------------------------------------------------------------------------------------------------------


def degeneracy(m: Material, asked: Asked) -> Evidence:
    """Effective dimension of the site's activations, trained against untrained."""
    stimuli = m.stimuli["id"].first(asked.settings["items"])
    rows, theta = [], []
    for seed, *both in zip(m.seeds, m.networks.trained, m.networks.untrained, strict=True):
        trained, untrained = (spread(m.read(network, stimuli)) for network in both)
        width = trained[1]
        theta.append((trained[0] - untrained[0]) / width)
        rows.append((f"seed {seed}", trained[0], untrained[0], width))
    detail = table(
        "Effective dimension",
        ("network", "trained", "before training", "width"),
        rows,
        f"(sum l)^2 / sum l^2 of the variances l of principal components, {len(stimuli.split)} stimuli of id, one a unit.",
    )
    return Evidence.of(alone(theta), tables=(detail,))


def spread(rows: np.ndarray) -> tuple[float, int]:
    """Effective dimension of rows (N, D), and D."""
    variances = np.clip(np.linalg.eigvalsh(np.cov(rows, rowvar=False)), 0, None)
    return effective_dimension(variances), rows.shape[1]


# -- similarity --------------------------------------------------------------------------------------------------------


def similarity(m: Material, asked: Asked) -> Evidence:
    """Networks of different seeds, trained and untrained."""
    if len(m.seeds) < 2:
        raise StatisticsError("one seed: there is no other network to compare with")
    stimuli = m.stimuli["id"].first(asked.settings["items"])
    own, before = (
        alike([m.read(n, stimuli) for n in networks], asked.settings)
        for networks in (m.networks.trained, m.networks.untrained)
    )
    detail = table(
        "Networks of different seeds",
        ("networks", "CKA", "low", "high", "permuted", "p"),
        [(name, x.value, x.low, x.high, x.null, x.p) for name, x in (("trained", own), ("before training", before))],
        f"Debiased linear CKA, {own.n} stimuli of id, one a unit. Networks that were never trained are alike too: what "
        "training adds is the difference.",
    )
    pairs = len(m.seeds) * (len(m.seeds) - 1) // 2
    method = f"t over stimuli{' and networks' if len(m.seeds) > 2 else ''}, {pairs} pair{'s' * (pairs > 1)}"
    return Evidence(own.value, own.low, own.high, own.null, own.n, len(m.seeds), (), method, (detail,))


def alike(rows: Sequence[np.ndarray], s: Mapping[str, Any]) -> Similarity:
    # Stimuli are different ones, of different units: what both networks take for one counts as such.
    settings = Inference(permutations=s["permutations"], repeated=True)
    if len(rows) == 2:
        return assess(rows[0], rows[1], "cka", seed=0, settings=settings)
    return within(rows, "cka", seed=0, settings=settings)


# -- features ----------------------------------------------------------------------------------------------------------


def features(m: Material, asked: Asked) -> Evidence:
    """Variance that labels explain, held out, and how well each categorical one is read."""
    s = asked.settings
    fit, test = (m.stimuli[name].evenly(s["items"]) for name in ("fit", "id"))
    test = known(fit, test)
    clusters = fit.split.unit_ids(), test.split.unit_ids()
    units, unit = np.unique(clusters[1], return_inverse=True)
    # A unit of one stimulus cannot be told from a stimulus: labels then move between all of them.
    clustered = all(np.unique(c, return_counts=True)[1].min() > 1 for c in clusters)
    coding = Coding.fit(fit.labels, fit.kinds)
    design, there = coding.encode(fit.labels), coding.encode(test.labels)
    sums: list[np.ndarray] = []
    nulls: list[float] = []
    rows = []
    for seed, network in zip(m.seeds, m.networks.trained, strict=True):
        asked.progress(len(nulls), len(m.seeds), f"seed {seed}")
        x, y = m.read(network, fit), m.read(network, test)
        errors = score(moments_of(x, design), y, there, coding)
        sums += [
            np.bincount(unit, weights=w, minlength=len(units)) for w in (errors.total - errors.error(ALL), errors.total)
        ]
        null = permutation_null(
            (x, design), (y, there), seed=seed, groups=clusters if clustered else None, draws=s["permutations"]
        )
        nulls.append(null.threshold)
        for name in coding.names:
            own = 1 - float(errors.error(name).sum() / errors.total.sum())
            rows.append((f"seed {seed}", name, own, *read_of(y, test, coding, name, seed, s)))
    columns = np.stack(sums, axis=1)

    def shares(totals: np.ndarray) -> np.ndarray:
        return np.asarray(np.mean(totals[:, 0::2] / totals[:, 1::2], axis=1))

    theta = (columns[:, 0::2].sum(0) / columns[:, 1::2].sum(0)).tolist()
    variance = bootstrap_variance(columns, shares, rng=np.random.default_rng(0), draws=DRAWS)
    result = mean_test(theta, unit_variance=variance, n_clusters=len(columns), delta=0.0)
    detail = table(
        "Each label by itself",
        ("network", "label", "variance explained", "read linearly", "most frequent value", "why not"),
        rows,
        f"Variance explained: map fitted on {len(fit.split)} stimuli of {m.fit}, scored on {len(test.split)} of id, in "
        f"{len(units)} units. Read linearly: accuracy of a logistic regression on id, nested cross-validation; beside "
        "it the share of the most frequent value. Null: labels permuted "
        + ("with regard to units." if clustered else "over all stimuli."),
    )
    return Evidence.of(result, null=float(np.mean(nulls)), tables=(detail,))


def known(fit: Stimuli, test: Stimuli) -> Stimuli:
    """Those test stimuli whose categories the fit stimuli have."""
    kept = np.ones(len(test.split), dtype=bool)
    for name, values in test.labels.items():
        if test.kinds.get(name) != "continuous":
            kept &= np.isin(values, fit.labels[name])
    at = np.flatnonzero(kept)
    if not len(at):
        raise StatisticsError("no stimulus of id has labels that the fit split has too")
    return test.take(at)


def read_of(
    rows: np.ndarray, stimuli: Stimuli, coding: Coding, name: str, seed: int, s: Mapping[str, Any]
) -> tuple[float, float, str]:
    """Accuracy, share of the most frequent value, and why there is none."""
    if coding.feature(name).kind == "continuous":
        return math.nan, math.nan, "a number has no classes to read"
    try:
        found = decode(rows, stimuli.labels[name], seed=seed, strengths=s["strengths"])
    except (StatisticsError, ConfigError) as error:
        return math.nan, math.nan, str(error)
    return found.accuracy.value, found.majority, ""
