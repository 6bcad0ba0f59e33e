"""The whole examination of one network: simplify it, score it on every split, and set each result beside its null.

1. Fit the edits on the fit split and score the grid on every split.
2. Choose, for each site and family, the smallest parameter whose agreement on the select split reaches the threshold
   (of the grid, or for refined families between two of it).
3. Match random perturbations to the chosen edits on the reference split and score them (see `damage`).
4. Fit the chosen edits on one half of each out-of-distribution split and score the other half, and swapped (the oracle:
   is the subspace wrong there, or is the rank too low?).

Scores go to a sink; what is returned is small and plain, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.activations.edits import Edit
from heldout.analyses.damage import DRAWS, matched_damage
from heldout.analyses.faithfulness import Extra, Outcome, Subject, faithfulness, margin_edges
from heldout.analyses.tables import Memory, Sink
from heldout.errors import ProxyError, SplitError, unknown
from heldout.evidence import Origin
from heldout.tasks.base import Split

Wanted = set[tuple[str, str, float | None]]  # site, family, parameter
Build = Callable[[Subject, Split, bool, Wanted | None], list[Edit]]
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Plan:
    """What is examined, on which splits.

    - `fit`, `select`, `reference`: names of splits; gaps are measured from the reference.
    - `tests`: the out-of-distribution splits.
    - `also`: further splits that the grid is scored on (the training data, say).
    - `families`: which edits get a parameter chosen, a null and (those in `oracles`) an oracle.
    - `threshold`: the agreement that a chosen parameter reaches on the select split.
    - `refined`: families whose parameter is then narrowed down between two of the grid; see `refine`.
    """

    reference: str
    tests: tuple[str, ...]
    fit: str = "fit"
    select: str = "id_select"
    also: tuple[str, ...] = ()
    families: tuple[str, ...] = ("svd", "kmeans")
    oracles: tuple[str, ...] = ("svd", "kmeans")
    threshold: float = 0.95
    refined: tuple[str, ...] = ()
    null_draws: int = DRAWS
    batch_size: int = 256
    margin_bins: int = 10


def audit(
    subject: Subject,
    splits: Mapping[str, Split],
    plan: Plan,
    build: Build,
    sink: Sink,
    *,
    seed: int,
    read: Sequence[str] = (),
    extra: Extra | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Examine one network as `plan` says. See the module's text.

    `build` (subject, split, oracle, wanted) fits the edits on a split: the whole grid, or what is `wanted` of it.

    Returns ``identity``, ``chosen`` (rows: site, family, parameter, agreement on select, whether it reached the
    threshold), ``nulls`` (rows: how well each null matches) and ``oracles_not_fitted`` (split -> why), as plain values.
    """
    for name in (plan.fit, plan.select, plan.reference, *plan.tests, *plan.also):
        if name not in splits:
            raise SplitError(unknown("split", name, splits))
    say = progress or (lambda done, total, note: None)
    scored = [splits[n] for n in dict.fromkeys((plan.reference, *plan.tests, plan.select, *plan.also))]
    tests = [splits[n] for n in (plan.reference, *plan.tests)]
    edges = margin_edges(subject, splits[plan.reference], bins=plan.margin_bins, batch_size=plan.batch_size)

    def score(on: Sequence[Split], edits: Sequence[Edit], note: str, *, with_extra: bool = True) -> Outcome:
        return faithfulness(
            subject,
            on,
            edits,
            sink,
            margin_edges=edges,
            read=read if with_extra else (),
            extra=extra if with_extra else None,
            batch_size=plan.batch_size,
            progress=lambda done, total: say(done, total, note),
        )

    edits = build(subject, splits[plan.fit], False, None)
    outcome = score(scored, edits, "grid")
    chosen = choose(edits, outcome, plan)
    for number, pick in enumerate(chosen):
        if pick.edit.origin.name in plan.refined:
            say(number, len(chosen), f"narrowing down {pick.edit.origin.label}")
            chosen[number] = refine(subject, splits, plan, pick, edits, build)
    new = [pick.edit for pick in chosen if pick.edit not in edits]
    if new:
        score(scored, new, "chosen")
    nulls = []
    for number, pick in enumerate(chosen):
        say(number, len(chosen), "matched damage")
        matched = matched_damage(
            subject,
            splits[plan.reference],
            pick.edit,
            seed=_seed(seed, number),
            draws=plan.null_draws,
            batch_size=plan.batch_size,
        )
        drawn = score(tests, matched.edits, f"null of {pick.edit.origin.label}", with_extra=False)
        nulls.append(
            {
                "site": pick.edit.origin.site,
                "edit": pick.edit.origin.label,
                "scale": matched.scale,
                "target": matched.target,
                "agreement": matched.agreement,
                "reason": matched.reason,
                "draws": [dict(agreement) for agreement in drawn.agreement],
            }
        )
    wanted = {(o.site, o.name, o.parameter) for o in (p.edit.origin for p in chosen) if o.name in plan.oracles}
    unfitted: dict[str, str] = {}
    for name in plan.tests if wanted else ():
        try:
            halves = [(on, build(subject, fitted, True, wanted)) for fitted, on in swapped_halves(splits[name])]
        except ProxyError as error:  # a half that is too small for the chosen size; all else stands
            unfitted[name] = str(error)
            continue
        for scored_on, oracles in halves:
            score([scored_on], oracles, f"oracle on {name}", with_extra=False)
    c = outcome.check
    identity = {"sites": list(c.sites), "difference": c.difference, "tolerance": c.tolerance, "replay": c.replay}
    return {
        "identity": identity,
        "chosen": [p.row() for p in chosen],
        "nulls": nulls,
        "oracles_not_fitted": unfitted,
        "margin_edges": edges.tolist(),
    }


@dataclass(frozen=True)
class Choice:
    """The edit that the rank rule chose for a site and family, and what it reaches on the select split."""

    edit: Edit
    agreement: float
    reached: bool

    def row(self) -> dict[str, Any]:
        o: Origin = self.edit.origin
        return {
            "site": o.site,
            "family": o.name,
            "parameter": o.parameter,
            "agreement": self.agreement,
            "reached": self.reached,
        }


def choose(edits: Sequence[Edit], outcome: Outcome, plan: Plan) -> list[Choice]:
    """For each site and family: the smallest parameter whose agreement on the select split, averaged over draws, reaches
    the threshold; the largest there is where none does, marked as not reached."""
    groups: dict[tuple[str, str], dict[float, list[tuple[Edit, float]]]] = {}
    for edit, agreement in zip(edits, outcome.agreement, strict=True):
        o = edit.origin
        if o.name in plan.families:
            grid = groups.setdefault((o.site, o.name), {})
            grid.setdefault(o.parameter or 0.0, []).append((edit, agreement[plan.select]))
    chosen = []
    for grid in groups.values():
        means = {p: sum(a for _, a in grid[p]) / len(grid[p]) for p in sorted(grid)}
        picked = next((p for p, mean in means.items() if mean >= plan.threshold), max(means))
        chosen.append(Choice(grid[picked][0][0], means[picked], means[picked] >= plan.threshold))
    return chosen


def refine(
    subject: Subject, splits: Mapping[str, Split], plan: Plan, pick: Choice, edits: Sequence[Edit], build: Build
) -> Choice:
    """The smallest whole parameter that reaches the threshold, by bisection between the pick and the next smaller one of
    the grid; agreement is taken to rise in between. A pick that is the smallest of the grid, or reaches nothing, stays.
    """
    o = pick.edit.origin
    grid = {e.origin.parameter for e in edits if (e.origin.site, e.origin.name) == (o.site, o.name)}
    smaller = [int(p) for p in grid if p is not None and o.parameter is not None and p < o.parameter]
    if not pick.reached or not smaller or o.parameter is None:
        return pick
    low, high = max(smaller), int(o.parameter)
    while high - low > 1:
        middle = (low + high) // 2
        (edit,) = build(subject, splits[plan.fit], False, {(o.site, o.name, middle)})
        found = faithfulness(subject, [splits[plan.select]], [edit], Memory(), batch_size=plan.batch_size)
        agreement = found.agreement[0][plan.select]
        if agreement >= plan.threshold:
            high, pick = middle, Choice(edit, agreement, reached=True)
        else:
            low = middle
    return pick


def swapped_halves(split: Split) -> list[tuple[Split, Split]]:
    """Two halves of a split by unit, as (fit on, score on), both ways round. Raises `SplitError` for a single unit."""
    units = split.unit_ids()
    distinct = np.unique(units)
    if len(distinct) < 2:
        raise SplitError(f"split {split.name!r} has one unit; an oracle is fitted on one half and scored on the other")
    # Alternating units: a split may be ordered by what makes it hard.
    first = np.isin(units, distinct[::2])
    halves = [split.subset(np.flatnonzero(which)) for which in (first, ~first)]
    return [(halves[0], halves[1]), (halves[1], halves[0])]


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
