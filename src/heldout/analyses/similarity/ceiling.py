"""Feature-matched noise ceilings: similarity between conditions, over what networks of one and the same condition reach.

Networks that do the identical task from different seeds are not perfectly alike; their similarity is the *reliability* of
the condition, and with it bounds what can be asked of a comparison with another. Cross scores divided by
sqrt(rel_a rel_b) take that out (Spearman's correction for attenuation). It is exact for correlations of signals with
independent errors and a convention for other measures, and may then exceed 1. It divides by an estimate: where reliability
is low the quotient is noise, and there is a reason in place of a number.

Reliability depends on the feature. Within the subspace of a loud feature seeds agree where in that of a quiet one they may
not, and the overall figure, which the loud one makes, hides it; so each has its own ceiling. High reliability of a
feature's subspace does not show that the networks compute the feature in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.labels import Kind
from heldout.analyses.similarity.checks import Floats, table
from heldout.analyses.similarity.corrections import Scorer, scorer
from heldout.analyses.similarity.measures import find_measure
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, HeldoutError, StatisticsError

LEAST = 0.1  # reliability below which nothing is divided by it
ALL = "*"  # in the column `feature`: the whole representation

Networks = Mapping[str, Sequence[ArrayLike | Tensor]]


def ceilings(networks: Networks, *, measure: str | Scorer = "cka", least: float = LEAST) -> pd.DataFrame:
    """Every condition against every condition, over its noise ceiling.

    `networks`: condition -> activations (N, D) of its networks, two or more, each sequence in the order of the seeds: two
    networks of one place are never compared, since they may share initialisation and data.

    One row an ordered pair of conditions: ``a``, ``b``, ``similarity`` (mean over all pairs of networks of different seeds),
    ``pairs`` (their number), ``reliability_a``, ``reliability_b``, ``ceiling`` (the root of their product), ``corrected``
    (similarity / ceiling) and ``reason``, empty where there is a number. On the diagonal similarity is the reliability and
    the quotient 1 by definition.
    """
    return _ceilings(_tables(networks), measure, least)


def feature_ceilings(
    fit: Networks,
    test: Networks,
    labels_fit: Mapping[str, ArrayLike],
    *,
    kinds: Mapping[str, Kind] | None = None,
    measure: str | Scorer = "cka",
    least: float = LEAST,
) -> pd.DataFrame:
    """`ceilings` of the whole representation (column ``feature`` is ``*``) and within the subspace of each label.

    Subspaces are fitted on the activations `fit` of the fit split, with `labels_fit`, name -> (n,); those of `test` are
    compared. Subspaces can have one dimension, where the correlation distance sees only a sign: prefer CKA or a
    Euclidean distance.
    """
    if {c: len(n) for c, n in fit.items()} != {c: len(n) for c, n in test.items()}:
        raise ConfigError("the fit and the test split need activations of the same networks, condition by condition")
    tables = _tables(test)
    spaces = {c: [Subspaces.fit(x, labels_fit, kinds) for x in of] for c, of in fit.items()}
    found = [_ceilings(tables, measure, least).assign(feature=ALL)]
    for name in next(iter(spaces.values()))[0].coding.names:
        inside = {
            c: [space.within(x, name) for space, x in zip(spaces[c], of, strict=True)] for c, of in tables.items()
        }
        found.append(_ceilings(inside, measure, least).assign(feature=name))
    joined = pd.concat(found, ignore_index=True)
    return joined[["feature", *(column for column in joined if column != "feature")]]


@dataclass(frozen=True)
class _Mean:
    """A mean over pairs of networks, or why there is none."""

    value: float
    pairs: int
    reason: str = ""


def _ceilings(tables: Mapping[str, Sequence[Floats]], measure: str | Scorer, least: float) -> pd.DataFrame:
    score = scorer(measure)
    symmetric = isinstance(measure, str) and find_measure(measure).symmetric
    means: dict[tuple[str, str], _Mean] = {}
    for a, b in product(tables, repeat=2):
        known = means.get((b, a)) if symmetric else None
        means[a, b] = known or _mean(tables[a], tables[b], score, halved=symmetric and a == b)
    rows = []
    for (a, b), cross in means.items():
        rel_a, rel_b = means[a, a], means[b, b]
        reason = cross.reason or _too_low({a: rel_a, b: rel_b}, least)
        ceiling = math.nan if reason else math.sqrt(rel_a.value * rel_b.value)
        rows.append(
            {
                "a": a,
                "b": b,
                "similarity": cross.value,
                "pairs": cross.pairs,
                "reliability_a": rel_a.value,
                "reliability_b": rel_b.value,
                "ceiling": ceiling,
                "corrected": cross.value / ceiling,
                "reason": reason,
            }
        )
    return pd.DataFrame(rows)


def _mean(a: Sequence[Floats], b: Sequence[Floats], score: Scorer, *, halved: bool) -> _Mean:
    """Over pairs of different places, from a to b; `halved` leaves out (j, i) where there is (i, j)."""
    pairs = [(i, j) for i, j in product(range(len(a)), range(len(b))) if (i < j if halved else i != j)]
    try:
        return _Mean(float(np.mean([score(a[i], b[j]) for i, j in pairs])), len(pairs))
    except HeldoutError as error:
        return _Mean(math.nan, len(pairs), f"undefined: {error}")


def _too_low(reliabilities: Mapping[str, _Mean], least: float) -> str:
    for condition, found in reliabilities.items():
        if found.reason:
            return f"reliability of {condition!r} is {found.reason}"
        if not found.value >= least:
            return f"reliability of {condition!r} is {found.value:.3g}, below {least:g}: too low to divide by"
    return ""


def _tables(networks: Networks) -> dict[str, list[Floats]]:
    if not networks:
        raise ConfigError("no conditions were given; name one or more, each with two networks")
    found = {}
    for condition, of in networks.items():
        if len(of) < 2:
            raise StatisticsError(
                f"{condition!r} has {len(of)} network; reliability needs two or more of different seeds"
            )
        found[condition] = [table(x, f"network {i} of {condition!r}") for i, x in enumerate(of)]
    sizes = sorted({len(x) for of in found.values() for x in of})
    if len(sizes) > 1:
        raise StatisticsError(f"networks have {sizes} stimuli; all must see the same, row by row")
    return found
