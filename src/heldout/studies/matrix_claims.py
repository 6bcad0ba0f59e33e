"""Cells of the matrix that are a claim of their row's own study: the study's steps, its tests and its gates.

Nothing is judged here that the study does not judge. Its claims keep their names, deltas and gates; on the matrix's page
Holm's correction is over the page's claims, so a verdict may differ from that on the study's own page, which has others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.statistics.claims import Claim

if TYPE_CHECKING:
    from heldout.statistics.claims import Gate
    from heldout.statistics.verdict import Finding
    from heldout.studies.arithmetic import Trained
    from heldout.studies.judging import Judging

Find = Callable[["Claimed", Mapping[str, Path], Sequence[int], Mapping[str, Any]], "Finding"]


@dataclass(frozen=True)
class Claimed:
    """One claim of a study.

    - `steps`: the study's steps that it is judged from, names with ``{seed}`` where there is one a seed; a ``*`` stands for
      all that the preset has.
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


def _rule(claim: str, trained: str) -> Claimed:
    steps = (f"arithmetic-answers-{trained}-s{{seed}}",)
    return Claimed("arithmetic", claim, steps, "rule_of_answers", "share of answers", of_step=("kind",))


def _class_subspace(claim: str, trained: str) -> Claimed:
    steps = (f"arithmetic-answers-{trained}-s{{seed}}", f"arithmetic-inside-{trained}-s{{seed}}")
    return Claimed("arithmetic", claim, steps, "class_removed", "share of answers", of_step=("kind", "random_draws"))


CLAIMED: dict[tuple[str, str], Claimed] = {
    ("features", "features"): Claimed(
        "features", "F1", ("features-measure-headline",), "louder_feature", "share of variance", of_step=("condition",)
    ),
    ("similarity", "similarity"): Claimed(
        "similarity", "F9", ("similarity-compare-*",), "less_alike", "difference of RSA"
    ),
    ("sequences", "features"): Claimed(
        "sequences",
        "F5-start",
        ("sequences-measure-headline",),
        "earlier_answer",
        "share of variance",
        of_step=("configuration",),
    ),
    ("arithmetic", "removal"): _class_subspace("C4-rank-at_most", "sum_at_most"),
    ("arithmetic", "rule"): _rule("C3-at_most", "sum_at_most"),
    ("arithmetic_exactly", "removal"): _class_subspace("C4-rank-exactly", "sum_exactly"),
    ("arithmetic_exactly", "rule"): _rule("C3-exactly", "sum_exactly"),
    ("product", "rule"): _rule("C3-product", "product"),
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
    "features": "heldout.studies.features",
    "sequences": "heldout.studies.sequences",
    "similarity": "heldout.studies.similarity",
    "nuclear": "heldout.studies.nuclear_claims",
}


def claim_of(claimed: Claimed) -> Claim:
    """The claim as its study fixed it."""
    every: list[Claim] = import_module(_CLAIMS[claimed.study]).claims()
    return next(claim for claim in every if claim.id == claimed.claim)


def claims() -> list[Claim]:
    """Every claim of the page, in the order of its rows."""
    return [claim_of(claimed) for claimed in CLAIMED.values()]


def step_names(claimed: Claimed, seeds: Sequence[int], steps: Iterable[str]) -> list[str]:
    """The study's steps behind a claim, each once, in the order of `steps`, all of the study's."""
    wanted = list(dict.fromkeys(name.format(seed=seed) for name in claimed.steps for seed in seeds))
    every = dict.fromkeys(steps)
    # A name without a pattern is looked up: with a thousand seeds a search for each takes minutes.
    found = ([name] if name in every else [step for step in every if fnmatchcase(step, name)] for name in wanted)
    return list(dict.fromkeys(step for steps in found for step in steps))


# What makes findings is loaded when a cell is computed. `folders` are by name of step, `settings` what they ask for.


def rule_of_answers(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """C3: the answers to longer operands against the rule and against the best shuffle."""
    from heldout.analyses.estimates import Scores
    from heldout.studies.arithmetic import Trained
    from heldout.studies.arithmetic_judge import answer_tests
    from heldout.studies.judging import Judging

    kind, judging = Trained(**settings["kind"]), Judging(Scores.read(folders.values()))
    return judging.finding(claim_of(claimed), answer_tests(kind)["C3"], _sums_learnt(judging, kind))


def class_removed(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """C4-rank: exact match that is lost with the class subspace, against as many random directions."""
    from heldout.analyses.estimates import Scores
    from heldout.studies.arithmetic import Trained
    from heldout.studies.arithmetic_inside import SCALED
    from heldout.studies.arithmetic_judge import class_removal
    from heldout.studies.judging import Judging

    kind, judging = Trained(**settings["kind"]), Judging(Scores.read(folders.values()))
    test = class_removal(SCALED, settings["random_draws"]), kind.name
    return judging.finding(claim_of(claimed), {"": test}, _sums_learnt(judging, kind))


def _sums_learnt(judging: Judging, kind: Trained) -> dict[str, Gate]:
    from heldout.statistics.claims import Gate
    from heldout.studies.arithmetic_claims import ACCURATE, LEARNT
    from heldout.studies.arithmetic_judge import answered

    exact = {who: float(answered("truth", kind.trained)(judging.point(who))[0]) for who in judging.subjects(kind.name)}
    worst = min(exact, key=lambda who: exact[who])
    text = f"least exact match on unseen pairs {exact[worst]:.4f} ({worst[0]}, seed {worst[1]}); {ACCURATE} needed"
    name = LEARNT.format(kind.name)
    return {name: Gate(name, exact[worst] >= ACCURATE, text)}


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


def louder_feature(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """F1: variance explained by the simpler feature minus that by the other, behind the gate that both are computed."""
    from heldout.studies.features import condition_from
    from heldout.studies.features_estimands import Measurements
    from heldout.studies.features_judge import TESTS, learnt_gate

    condition = condition_from(settings["condition"])
    measured = Measurements.read([condition], {condition.name: folders[f"features-measure-{condition.name}"]})
    gate = learnt_gate(measured, condition)
    test = TESTS[claimed.claim](measured.conditions), condition.name
    return measured.judging.finding(claim_of(claimed), {"": test}, {gate.name: gate})


def earlier_answer(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """F5 where the decoder begins: variance explained by what is answered first minus that by what is answered last."""
    from heldout.analyses.estimates import Scores
    from heldout.studies.judging import Judging
    from heldout.studies.sequences import FIRST, configuration_from
    from heldout.studies.sequences_judge import earlier, learnt_gate

    one, judging = configuration_from(settings["configuration"]), Judging(Scores.read(folders.values()))
    gate = learnt_gate(judging, one)
    return judging.finding(claim_of(claimed), {"": (earlier(one, FIRST), one.network(0))}, {gate.name: gate})


def less_alike(
    claimed: Claimed, folders: Mapping[str, Path], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Finding:
    """F9: networks that compute both features against those of the easy one, over the configurations."""
    import json

    from heldout.studies.similarity import CONFIGURATIONS
    from heldout.studies.similarity_compare import THETA
    from heldout.studies.similarity_judge import finding, gate_of

    own = {name.removeprefix("similarity-compare-"): folder for name, folder in folders.items()}
    thetas = {name: json.loads((folder / THETA).read_text()) for name, folder in own.items()}
    gates = {name: gate_of(one if name in own else None, own.get(name), name) for name, one in CONFIGURATIONS.items()}
    return finding(thetas, gates)
