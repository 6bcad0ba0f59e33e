"""Cells of the matrix that are a claim of their row's own study: the study's steps, its tests and its gates.

Nothing is judged here that the study does not judge. Its claims keep their names, deltas and gates; on the matrix's page
Holm's correction is over the page's claims, so a verdict may differ from that on the study's own page, which has others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.statistics.claims import Claim

if TYPE_CHECKING:
    from heldout.statistics.verdict import Finding

Find = Callable[["Claimed", Mapping[str, Path], Sequence[int], Mapping[str, Any]], "Finding"]


@dataclass(frozen=True)
class Claimed:
    """One claim of a study.

    - `steps`: the study's steps that it is judged from, names with ``{seed}`` where there is one a seed.
    - `find`: the function of this module that makes the finding; `unit` of its estimand.
    - `of_step`, `of_config`: what `find` reads of the settings of the last of these steps, and of the study's configuration.
    """

    study: str
    claim: str
    steps: tuple[str, ...]
    find: str
    unit: str
    of_step: tuple[str, ...] = ()
    of_config: tuple[str, ...] = ()


CLAIMED: dict[tuple[str, str], Claimed] = {
    ("arithmetic", "rule"): Claimed(
        "arithmetic",
        "C3-at_most",
        ("arithmetic-answers-sum_at_most-s{seed}",),
        "sum_rule",
        "share of answers",
        of_step=("kind",),
    ),
    ("modular", "degeneracy"): Claimed(
        "degeneracy", "D6", ("degeneracy-modular-s{seed}",), "modular_edges", "log ratio of numbers of edges"
    ),
    ("nuclear", "faithfulness"): Claimed(
        "nuclear",
        "N1",
        ("nuclear-baselines", "nuclear-train-binding-s{seed}", "nuclear-kept-s{seed}"),
        "nuclear_claim",
        "log ratio of RMS errors",
        of_config=("most",),
    ),
    ("nuclear", "geometry"): Claimed(
        "nuclear",
        "N3",
        ("nuclear-baselines", "nuclear-train-binding-s{seed}", "nuclear-helix-binding-s{seed}"),
        "nuclear_claim",
        "aspect x gain",
        of_config=("most",),
    ),
}
_CLAIMS = {
    "arithmetic": "heldout.studies.arithmetic_claims",
    "degeneracy": "heldout.studies.degeneracy_claims",
    "nuclear": "heldout.studies.nuclear_claims",
}


def claim_of(claimed: Claimed) -> Claim:
    """The claim as its study fixed it."""
    every: list[Claim] = import_module(_CLAIMS[claimed.study]).claims()
    return next(claim for claim in every if claim.id == claimed.claim)


def claims() -> list[Claim]:
    """Every claim of the page, in the order of its rows."""
    return [claim_of(claimed) for claimed in CLAIMED.values()]


def step_names(claimed: Claimed, seeds: Sequence[int]) -> list[str]:
    """The study's steps behind a claim, each once."""
    return list(dict.fromkeys(name.format(seed=seed) for name in claimed.steps for seed in seeds))


# What makes findings is loaded when a cell is computed. `folders` are by name of step, `settings` what they ask for.


def sum_rule(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """C3: the answers to longer operands against the rule and against the best shuffle."""
    from heldout.analyses.estimates import Scores
    from heldout.statistics.claims import Gate
    from heldout.studies.arithmetic import Trained
    from heldout.studies.arithmetic_claims import ACCURATE, LEARNT
    from heldout.studies.arithmetic_judge import answer_tests, answered
    from heldout.studies.judging import Judging

    kind, judging = Trained(**settings["kind"]), Judging(Scores.read(folders.values()))
    exact = {who: float(answered("truth", kind.trained)(judging.point(who))[0]) for who in judging.subjects(kind.name)}
    worst = min(exact, key=lambda who: exact[who])
    text = f"least exact match on unseen pairs {exact[worst]:.4f} ({worst[0]}, seed {worst[1]}); {ACCURATE} needed"
    name = LEARNT.format(kind.name)
    return judging.finding(
        claim_of(claimed), answer_tests(kind)["C3"], {name: Gate(name, exact[worst] >= ACCURATE, text)}
    )


def modular_edges(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """D6: the edges that each basis needs."""
    import json

    from heldout.analyses.estimates import Scores
    from heldout.studies.degeneracy_judge import Found, finding, learnt_gate
    from heldout.studies.degeneracy_modular import MEASURED

    modular = [json.loads((folders[f"degeneracy-modular-s{seed}"] / MEASURED).read_text()) for seed in seeds]
    found = Found(seeds, modular, (), (), (), (), (), (), Scores([]))
    return finding(claim_of(claimed), found, learnt_gate(found))


def nuclear_claim(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """N1 and N3, behind the gate that networks beat the refitted formula."""
    from heldout.studies.nuclear_judge import Found, all_gates, finding

    own = {name.removeprefix("nuclear-"): folder for name, folder in folders.items()}
    found = Found(seeds, ("binding",), settings["most"], own)
    return finding(claim_of(claimed), found, {gate.name: gate for gate in all_gates(found)})
