"""Model recovery: how often does a way of comparing rank the computation that made the data first?

    scores = recovery(candidates, stimuli, standard_methods(stimuli, loud=["easy"]), draws=100, seed=0)
    rates(scores), confusion(scores), gains(scores)      # heldout.analyses.similarity.recovered

A synthetic brain (`brains`) is made from one network of a condition, the truth. It is compared with one network of every
condition, the truth's own among them, each of another seed than the brain's, so that recovery asks for the computation
and not for the very network. All methods see the same brains and the same candidates.

A failure in this game is a finding: there the right answer was among the candidates, the noise was as assumed and the
stimuli were many. Success is not its opposite. The brains come from the same family as the candidates and are linear in
their units; real ones are neither, and then the best of the candidates may compute nothing that the brain does.
Recovery also says nothing of how much better the first was than the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.similarity.brains import Recording
from heldout.analyses.similarity.checks import Floats, table
from heldout.analyses.similarity.methods import Method, Stimuli
from heldout.errors import ConfigError, HeldoutError, StatisticsError, unknown

BRAIN = ("measure", "correction", "truth", "network", "draw")  # columns that name one ranking

Split = tuple[Floats, Floats]


def recovery(
    candidates: Mapping[str, Sequence[ArrayLike | Tensor]],
    stimuli: Stimuli,
    methods: Sequence[Method],
    *,
    seed: int,
    recording: Recording = Recording(),  # noqa: B008 - frozen
    draws: int = 100,
    truths: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Every score of every candidate by every method, from `draws` brains of each of the `truths` (all conditions).

    - `candidates`: condition -> activations (R, D) of its networks, two or more, in the order of their seeds, R the rows of
      `stimuli`; widths may differ. Draw d makes its brain from network d modulo their number.

    Columns ``measure``, ``correction``, ``truth``, ``network`` (the brain's), ``draw``, ``candidate``,
    ``candidate_network``, ``score`` and ``reason``, which says why a score is NaN and is else empty. Scores do not depend
    on which other methods are asked for; brains of one seed that differ in noise alone share everything but its size.
    """
    known = _checked(candidates, stimuli)
    truths = list(known) if truths is None else list(truths)
    for truth in truths:
        if truth not in known:
            raise ConfigError(unknown("condition", truth, known))
    if draws < 1 or not methods or not truths:
        raise ConfigError("recovery needs one draw, one method and one truth, or more of each")
    prepared = {
        condition: [_halves(methods, split, brain=False) for split in splits] for condition, splits in known.items()
    }
    rows: list[tuple[Any, ...]] = []
    for at, truth in enumerate(truths):
        for draw in range(draws):
            network = draw % len(known[truth])
            rng = np.random.default_rng([seed, list(known).index(truth), draw])
            others = {name: _another(len(of), network, rng) for name, of in known.items()}
            brain = _halves(methods, _record(recording, known[truth][network], rng), brain=True)
            for i, method in enumerate(methods):
                for name, other in others.items():
                    score, reason = _join(method, prepared[name][other][i], brain[i])
                    rows.append((method.measure, method.correction, truth, network, draw, name, other, score, reason))
            if progress is not None:
                progress(at * draws + draw + 1, len(truths) * draws)
    return pd.DataFrame(rows, columns=[*BRAIN, "candidate", "candidate_network", "score", "reason"])


def _checked(candidates: Mapping[str, Sequence[ArrayLike | Tensor]], stimuli: Stimuli) -> dict[str, list[Split]]:
    """condition -> activations of the fit and of the test split of each network."""
    if len(candidates) < 2:
        raise ConfigError(f"recovery ranks two or more conditions; got {len(candidates)}")
    rows = len(next(iter(stimuli.labels.values())))
    found: dict[str, list[Split]] = {}
    for condition, networks in candidates.items():
        if len(networks) < 2:
            raise StatisticsError(
                f"{condition!r} has {len(networks)} network; two or more are needed, for brain and candidate differ in seed"
            )
        found[condition] = []
        for i, x in enumerate(networks):
            units = table(x, f"network {i} of {condition!r}")
            if len(units) != rows:
                raise StatisticsError(
                    f"network {i} of {condition!r} has activations of {len(units)} stimuli and there are labels of {rows}; "
                    "row i of all must be the same stimulus"
                )
            found[condition].append((units[stimuli.fit], units[stimuli.test]))
    return found


def _record(recording: Recording, network: Split, rng: np.random.Generator) -> Split:
    """Responses to the stimuli of both splits, by the same neurons."""
    fit = len(network[0])
    responses = recording.of(np.concatenate(network), rng)
    return responses[:fit], responses[fit:]


def _another(count: int, network: int, rng: np.random.Generator) -> int:
    """One of `count` networks, any but that numbered `network`."""
    return int(rng.choice([k for k in range(count) if k != network]))


def _halves(methods: Sequence[Method], split: Split, *, brain: bool) -> list[Any]:
    """What each method makes of one side, or the error that it ends in; every correction is made once."""
    found: list[Any] = [None] * len(methods)
    order = sorted(range(len(methods)), key=lambda i: id(methods[i].correct))
    for _, group in groupby(order, key=lambda i: id(methods[i].correct)):
        numbers = list(group)
        try:
            corrected: Any = methods[numbers[0]].correct(*split)
        except HeldoutError as error:
            corrected = error
        for i in numbers:
            halves = methods[i].halves
            try:
                half = halves.of_brain if brain else halves.of_model
                found[i] = corrected if isinstance(corrected, HeldoutError) else half(*corrected)
            except HeldoutError as error:
                found[i] = error
    return found


def _join(method: Method, model: Any, brain: Any) -> tuple[float, str]:
    for side, half in (("candidate", model), ("brain", brain)):
        if isinstance(half, HeldoutError):
            return math.nan, f"{side}: {half}"
    try:
        return method.halves.join(model, brain), ""
    except HeldoutError as error:
        return math.nan, str(error)
