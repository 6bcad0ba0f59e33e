"""Can two networks that compute the same be less alike than either is to one that computes less? And what shows it?

MLPs of the features study learn an easy Boolean feature, a hard one, or both. The paper says that two that learnt both may
be less similar than either is to one that learnt the easy feature alone (Lampinen, Chan & Hermann 2024). This study tests
that by several measures, shows what corrections for loudness do to it, and asks how often each measure recognises the true
computation behind a synthetic brain. This module is its settings, claim and steps; what the steps do is in
`similarity_compare`, `similarity_recover` and `similarity_judge`, the page in `similarity_page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from heldout.analyses.similarity.names import NAMES
from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, known_once
from heldout.studies.features import condition_from, train_networks
from heldout.studies.features_conditions import CONDITIONS, HARD, Condition, Phase
from heldout.studies.schema import Seeds

if TYPE_CHECKING:
    from heldout.figures.page import Page

UNTRAINED, EASY, HARD_ONLY, BOTH = "untrained", "easy only", "hard only", "both"
ROLES = (UNTRAINED, EASY, HARD_ONLY, BOTH)
LEAST, APART = 0.95, 0.01  # the accuracy that every learnt feature must exceed, and how far apart a network's may be
LEARNT = "{} learnt"
DELTA = 0.05
MEASURE = "rsa"  # that of the claim
JUDGE = "similarity-judge"


@dataclass(frozen=True)
class Configuration:
    """Four conditions of training, `roles` -> condition, alike but for what they learn."""

    name: str
    note: str
    roles: Mapping[str, Condition]

    @property
    def features(self) -> tuple[str, str]:
        """The easy and the hard feature."""
        easy, hard = (p.name for p in self.roles[BOTH].task.planted())
        return easy, hard

    def learns(self, role: str) -> tuple[str, ...]:
        """The features that the networks of a role are trained on."""
        easy, hard = self.features
        return {UNTRAINED: (), EASY: (easy,), HARD_ONLY: (hard,), BOTH: (easy, hard)}[role]


def _configuration(name: str, note: str, both: Condition, easy: str, hard: Condition) -> Configuration:
    roles = {UNTRAINED: CONDITIONS["untrained"], EASY: CONDITIONS[easy], HARD_ONLY: hard, BOTH: both}
    return Configuration(name, note, roles)


# Of 8 192 rows one network in ten learns a parity of four bits to .98 and no better, however long it is trained.
_PARITY4 = CONDITIONS["adam-xor_of_xors"]
_PARITY4 = replace(_PARITY4, name="adam-xor_of_xors-32768", task=replace(_PARITY4.task, train=32_768))
_PARITY4_ONLY = replace(
    _PARITY4,
    name=f"{_PARITY4.name}-hard-only",
    note="trained on the hard feature alone, Adam",
    phases=(Phase(_PARITY4.steps, (HARD,)),),
)
CONFIGURATIONS: dict[str, Configuration] = {
    c.name: c
    for c in (
        _configuration("sgd", "bit and parity:2, SGD", CONDITIONS["headline"], "easy-only", CONDITIONS["hard-only"]),
        _configuration(
            "adam", "bit and parity:2, Adam", CONDITIONS["adam"], "adam-easy-only", CONDITIONS["adam-hard-only"]
        ),
        _configuration("adam-parity4", "bit and xor_of_xors, Adam", _PARITY4, "adam-easy-only", _PARITY4_ONLY),
    )
}


class SimilarityConfig(Config):
    """Settings of the similarity study; every field can be given as ``--set field=value``.

    `seeds` are *pairs* of networks: pair s has the networks initialised with seeds 2 s and 2 s + 1, trained on the same rows
    in the same order. Networks are compared across the two, never where they share their initial weights.

    - `share`: of every condition's updates, below 1 only to try things out; `rows`: of each split, None for the condition's
      own.
    - `stimuli` of test, on which networks are compared, and `fit_stimuli` of val, on which corrections are fitted.
    - `measures`: by which they are compared, that of the claim among them. `draws`: bootstrap samples of the stimuli.
    - `brains`: synthetic brains of each condition, with `neurons` recorded and
      noise of `noise` times the signal's standard deviation, one recovery for each noise.
    """

    seeds: Seeds = 10
    configurations: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(CONFIGURATIONS)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Annotated[int, Field(ge=100)] | None = None
    stimuli: Annotated[int, Field(ge=50)] = 500
    fit_stimuli: Annotated[int, Field(ge=50)] = 1000
    measures: tuple[str, ...] = NAMES
    draws: Annotated[int, Field(ge=100)] = 500
    brains: Annotated[int, Field(ge=10)] = 100
    neurons: PositiveInt = 100
    noise: Annotated[tuple[Annotated[float, Field(ge=0, le=1000)], ...], Field(min_length=1)] = (0.5, 2.0)
    data_seed: NonNegativeInt = 0

    @field_validator("configurations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("configuration", names, CONFIGURATIONS)
        return names

    @field_validator("measures")
    @classmethod
    def _measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("measure", names, NAMES)
        if MEASURE not in names:
            raise ValueError(f"{MEASURE}, the measure of the claim, must be among them, got {', '.join(names)}")
        return names

    @field_validator("noise")
    @classmethod
    def _noises(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{level:g}" for level in levels}) < len(levels):
            raise ValueError(f"noise: each level once, told apart by six digits, got {list(levels)}")
        return levels

    @model_validator(mode="after")
    def _rows_suffice(self) -> Self:
        if self.rows is not None and self.rows < max(self.stimuli, self.fit_stimuli):
            raise ValueError(f"rows must be at least stimuli and fit_stimuli, {max(self.stimuli, self.fit_stimuli)}")
        return self

    def chosen(self) -> list[Configuration]:
        """The configurations that are run, as they are trained."""
        task = {} if self.rows is None else dict.fromkeys(("train", "val", "test"), self.rows)

        def trained(condition: Condition) -> Condition:
            return condition if self.share == 1 and not task else condition.shortened(self.share, **task)

        found = (CONFIGURATIONS[name] for name in self.configurations)
        return [replace(c, roles={role: trained(made) for role, made in c.roles.items()}) for c in found]

    def networks(self) -> list[int]:
        """The seeds of the networks' initial weights, pair after pair."""
        return [seed for pair in self.seed_list() for seed in (2 * pair, 2 * pair + 1)]


def train_name(condition: Condition) -> str:
    return f"similarity-train-{condition.name}"


def compare_name(configuration: Configuration) -> str:
    return f"similarity-compare-{configuration.name}"


def recover_name(configuration: Configuration, noise: float) -> str:
    return f"similarity-recover-{configuration.name}-{noise:g}"


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, SimilarityConfig)
    chosen = config.chosen()
    conditions = {c.name: c for one in chosen for c in one.roles.values()}
    shared = {"seeds": config.networks(), "data_seed": config.data_seed}
    found = [
        Step(train_name(c), train_networks, shared | {"condition": c.record()})
        for c in sorted(conditions.values(), key=lambda c: -c.steps)  # what takes longest comes first
    ]
    shared |= config.model_dump(mode="json", include={"stimuli", "fit_stimuli"})
    brains = config.model_dump(mode="json", include={"brains", "neurons"})
    inputs = {}
    for one in chosen:
        own = shared | {"configuration": record(one)}
        weights = {role: train_name(condition) for role, condition in one.roles.items()}
        found.append(
            Step(
                compare_name(one),
                compare_networks,
                own | {"draws": config.draws, "measures": list(config.measures)},
                weights,
            )
        )
        inputs[compare_name(one)] = compare_name(one)
        for noise in config.noise:
            found.append(Step(recover_name(one, noise), recover_networks, own | brains | {"noise": noise}, weights))
            inputs[recover_name(one, noise)] = recover_name(one, noise)
    settings = {
        "configurations": [record(one) for one in chosen],
        "noise": list(config.noise),
        "not_judged": not_judged,
    }
    return [*found, Step(JUDGE, judge_claims, settings, inputs)]


def record(one: Configuration) -> dict[str, Any]:
    """A configuration as a step's settings hold it: all but what a reader is told."""
    return {"name": one.name, "roles": {role: c.record() for role, c in one.roles.items()}}


def configuration_from(given: Mapping[str, Any]) -> Configuration:
    roles = {role: condition_from(given["roles"][role]) for role in ROLES}
    return Configuration(given["name"], "", roles)


# What the steps do is loaded when they run.


def compare_networks(ctx: StepContext) -> None:
    from heldout.studies import similarity_compare

    similarity_compare.compare_networks(ctx)


def recover_networks(ctx: StepContext) -> None:
    from heldout.studies import similarity_recover

    similarity_recover.recover_networks(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import similarity_judge

    similarity_judge.judge_claims(ctx)


def claims() -> list[Claim]:
    """F9, an existence claim over the configurations."""
    return [
        Claim(
            id="F9",
            title="Two networks that compute both may be less alike than either is to one that computes the easy feature",
            estimand="the smaller of the similarities of two networks trained on both features, each to the one of the "
            "other seed that was trained on the easy feature alone, minus the similarity of the two to each other; "
            "mean over pairs",
            delta=DELTA,
            scope=f"existence over {', '.join(CONFIGURATIONS)}: four hidden layers, penultimate layer after its "
            "nonlinearity; RSA, correlation distance, Pearson correlation of distances, test rows",
            gates=tuple(LEARNT.format(name) for name in CONFIGURATIONS),
            published="arXiv 2405.05847, an author: can be much less similar; no figure known",
            kind="existence",
        )
    ]


def page(run: Run) -> Page:
    from heldout.studies.similarity_page import similarity_page

    return similarity_page(run, SimilarityConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="similarity",
    title="Alike in what is loud",
    summary="networks that learn one feature or two, compared: does what they compute decide how similar they are?",
    config=SimilarityConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "configurations": ("adam",),
            "share": 0.01,
            "rows": 400,
            "stimuli": 60,
            "fit_stimuli": 120,
            "measures": ("cka", "rsa"),
            "draws": 100,
            "brains": 10,
            "noise": (1.0,),
        },
        "laptop": {},
        "paper": {"seeds": 20, "stimuli": 1000, "fit_stimuli": 2000, "draws": 1000, "brains": 500},
    },
    claims=claims,
    steps=steps,
    page=page,
)
