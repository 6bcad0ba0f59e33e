"""Features that are computed equally well are represented unequally. Lampinen, Chan & Hermann, *Learned feature
representations are biased by complexity, learning order, position, and more* (2024).

Networks answer several Boolean features of a row of bits; how much of their penultimate layer's variance does each
explain? This module is the study's settings, steps and claims. What is trained is data (`features_conditions`); what
the steps do is in `features_training`, `features_measure` and `features_judge`, the page in `features_page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, known_once
from heldout.studies.features_conditions import CONDITIONS, FULL, LAPTOP, Condition, Phase, find_condition
from heldout.studies.schema import Seeds
from heldout.tasks.features import FeaturesSettings

if TYPE_CHECKING:
    from heldout.figures.page import Page

LEAST, APART = 0.95, 0.01  # accuracy that every feature exceeds, and how far features may differ in it
DELTA, DELTA_AGREEMENT, DELTA_WIDTH = 0.05, 0.02, 0.1

# What each claim compares; every one of these is in the laptop preset.
HEADLINE = "headline"
GRADED = (HEADLINE, "majority5", "parity3", "lookup4", "adam-xor_of_xors")
HARD_FIRST = "hard-first"
PREVALENCES = {"rare-mask-0.1": 0.1, "rare-mask-0.25": 0.25, "rare-mask-0.5": 0.5, "equal": 1.0}
ADAM, DROPPED = "adam", "adam-dropout-0.25"
DEPTHS = {"depth-2": 2, "depth-3": 3, "depth-4": 4, "depth-6": 6}
WIDTHS = {"width-0.5": -1, HEADLINE: 0, "width-2": 1}  # in doublings

# gates
LEARNT = "{} computes its features equally well"
SAME_ROWS = "prevalences are measured on one set of rows"


class FeaturesConfig(Config):
    """Settings of the features study; every field can be given as ``--set field=value``.

    `conditions` are ways of training, by name (see `features_conditions`), each with all seeds side by side. `data_seed`
    seeds what the networks of a condition share: rows, and the order of batches. `share` of every condition's updates
    are made, and where `rows` is given every split has so many. `density_draws`: of the nulls of density; `row_draws`:
    resamples of test rows behind its interval; `band_draws`: rescalings of units that leave the function unchanged;
    `probe_rows`: test rows that probes are fitted to and tested on, `probe_strengths`: C that they may choose.
    """

    seeds: Seeds = 10
    conditions: Annotated[tuple[str, ...], Field(min_length=1)] = LAPTOP
    data_seed: NonNegativeInt = 0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Annotated[int, Field(ge=100)] | None = None
    density_draws: Annotated[int, Field(ge=19)] = 999
    row_draws: Annotated[int, Field(ge=2)] = 400
    band_draws: PositiveInt = 100
    probe_rows: Annotated[int, Field(ge=100)] = 1024
    probe_strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1e-3, 1e-1, 10.0)

    @model_validator(mode="after")
    def _conditions_exist(self) -> Self:
        known_once("condition", self.conditions, CONDITIONS)
        return self

    def chosen(self) -> list[Condition]:
        """The conditions, shortened where the settings say so."""
        size = {} if self.rows is None else {"train": self.rows, "val": self.rows, "test": self.rows}
        found = [find_condition(name) for name in self.conditions]
        return [c.shortened(self.share, **size) for c in found] if size or self.share < 1 else found


def condition_from(record: Mapping[str, Any]) -> Condition:
    """The condition that `Condition.record` describes, as a step's settings hold it."""
    plain = {key: _tuples(value) for key, value in record.items()}
    task = FeaturesSettings(**{key: _tuples(value) for key, value in record["task"].items()})
    phases = tuple(Phase(**{key: _tuples(value) for key, value in phase.items()}) for phase in record["phases"])
    return Condition(**{**plain, "note": "", "task": task, "phases": phases})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def sides(task: FeaturesSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a task's simpler features and of its more complex ones: those of the first one's kind, and the others.

    Where all are of one kind, the first stands against the others."""
    names = [planted.name for planted in task.planted()]
    same = [n for n, written in zip(names, task.features, strict=True) if written == task.features[0]]
    first = same if len(same) < len(names) else names[:1]
    return tuple(first), tuple(n for n in names if n not in first)


def train_name(condition: str) -> str:
    return f"features-train-{condition}"


def measure_name(condition: str) -> str:
    return f"features-measure-{condition}"


JUDGE = "features-judge"


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, FeaturesConfig)
    sizes = {"density_draws", "row_draws", "band_draws", "probe_rows", "probe_strengths"}
    draws = config.model_dump(mode="json", include=sizes)
    # What takes longest comes first: it decides when the run ends.
    conditions = sorted(config.chosen(), key=lambda c: -c.steps)
    found: list[Step] = []
    for condition in conditions:
        own = {"condition": condition.record(), "seeds": config.seed_list(), "data_seed": config.data_seed}
        found.append(Step(train_name(condition.name), train_networks, own))
        weights = {"weights": train_name(condition.name)}
        found.append(Step(measure_name(condition.name), measure_networks, own | draws, weights))
    settings = {"conditions": [c.record() for c in config.chosen()], "seeds": config.seed_list()}
    settings |= {"not_judged": not_judged}
    measured = {c.name: measure_name(c.name) for c in conditions}
    return [*found, Step(JUDGE, judge_claims, settings, measured)]


# What the steps do is loaded when they run.


def train_networks(ctx: StepContext) -> None:
    """Every seed of one condition."""
    from heldout.studies.features_training import Seeds, train_condition

    s = ctx.settings
    train_condition(
        condition_from(s["condition"]),
        Seeds(tuple(s["seeds"]), data=s["data_seed"], order=s["data_seed"]),
        ctx.out,
        progress=lambda done, total, loss: ctx.progress(done, total, f"loss {loss:.3f}"),
    )


def measure_networks(ctx: StepContext) -> None:
    from heldout.studies import features_measure

    features_measure.measure_networks(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import features_judge

    features_judge.judge_claims(ctx)


def learnt(conditions: Sequence[str]) -> tuple[str, ...]:
    """The gates of a claim about some conditions."""
    return tuple(LEARNT.format(name) for name in conditions)


def claims() -> list[Claim]:
    """F1 to F4, F6 to F8 and F10, each on the configuration that its scope names."""
    paper = "arXiv 2405.05847"
    pair = "bit and parity:2 of 32 bits, four hidden layers, SGD; penultimate layer after its nonlinearity"
    fitted = "maps are fitted on val and scored on test"
    gap = "gap (pooled variance explained, held out: simpler minus more complex feature)"
    return [
        Claim(
            id="F1",
            title="The simpler feature explains more variance",
            estimand=gap,
            delta=DELTA,
            scope=f"{pair}; {fitted}",
            gates=learnt([HEADLINE]),
            published=f"{paper}: .55 and .05, stated by an author for its own set-up",
        ),
        Claim(
            id="F1-graded",
            title="and does so beside features of other kinds",
            estimand=f"{gap}, mean over the more complex features parity:2, majority:5, parity:3, lookup:4 and xor_of_xors",
            delta=DELTA,
            scope=f"a bit beside each, four hidden layers, SGD (xor_of_xors: Adam); {fitted}",
            gates=learnt(GRADED),
            published=f"{paper}: simpler features more strongly, no figure known",
        ),
        Claim(
            id="F2",
            title="The simpler feature is spread over more units",
            estimand="density (participation ratio of debiased r^2 over live units), simpler minus more complex feature",
            delta=DELTA,
            scope=f"{pair}; test rows, only where the pooled figure exceeds its permutation null",
            gates=learnt([HEADLINE]),
            null="permuted labels, and random directions of the activations",
            published=f"{paper}: easy features more densely, no figure known",
        ),
        Claim(
            id="F3",
            title="Training the complex feature first narrows the gap",
            estimand=f"{gap} when both are trained together, minus that after training the complex one first; paired by "
            "seed",
            delta=DELTA,
            scope=f"{pair}; 5000 updates on parity:2, then 5000 on both; {fitted}",
            gates=learnt([HEADLINE, HARD_FIRST]),
            published=f"{paper}: narrows, and the simple feature still leads; no figure known",
        ),
        Claim(
            id="F4",
            title="A feature that is present more often explains more variance",
            estimand="least-squares slope of the first feature's pooled variance explained on its prevalence .1, .25, .5, "
            "1; paired by seed",
            delta=DELTA,
            scope="two bits, the first one's label masked in the other rows of train; measured on one balanced set; "
            f"{fitted}",
            gates=(*learnt(tuple(PREVALENCES)), SAME_ROWS),
            published=f"{paper}: rises, no figure known",
        ),
        Claim(
            id="F6",
            title="Adam with dropout narrows the gap",
            estimand=f"{gap} with Adam, minus that with Adam and dropout .25; paired by seed",
            delta=DELTA,
            scope=f"bit and parity:2 of 32 bits, four hidden layers, Adam; {fitted}",
            gates=learnt([ADAM, DROPPED]),
            published=f"{paper}: can reverse it, no figure known",
        ),
        Claim(
            id="F7",
            title="Depth widens the gap",
            estimand=f"least-squares slope of the {gap} on the number of hidden layers 2, 3, 4, 6, times 4 (from 2 layers "
            "to 6); paired by seed",
            delta=DELTA,
            scope=f"{pair.replace('four', '2 to 6')}, 8000 updates each; {fitted}",
            gates=learnt(tuple(DEPTHS)),
            published=f"{paper}: wider with depth, no figure known",
        ),
        Claim(
            id="F8",
            title="Width does not change the gap",
            estimand=f"least-squares slope of the {gap} on log2 of the width, times 2 (from half the width to twice it); "
            "paired by seed",
            delta=DELTA_WIDTH,
            scope=f"{pair}, half as wide, as wide and twice as wide; {fitted}",
            gates=learnt(tuple(WIDTHS)),
            published=f"{paper}: little effect, no figure known",
            kind="equivalence",
        ),
        Claim(
            id="F10",
            title="A linear classifier relies on the simpler feature",
            estimand="share of test rows on which the features disagree that a classifier, fitted on rows on which they "
            "agree, labels as the simpler one says, minus .5",
            delta=DELTA_AGREEMENT,
            scope=f"{pair}; logistic regression, its penalty chosen by cross-validation on val",
            gates=learnt([HEADLINE]),
            null="chance, .5",
            published=f"{paper}: relies on the easy one, a figure without known numbers",
        ),
    ]


def page(run: Run) -> Page:
    from heldout.studies.features_page import features_page

    return features_page(run, FeaturesConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="features",
    title="Loud and quiet features",
    summary="MLPs that compute several Boolean features equally well: which do they represent loudly, and does it matter?",
    config=FeaturesConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "conditions": (HEADLINE, HARD_FIRST),
            "share": 0.01,
            "rows": 400,
            "density_draws": 19,
            "row_draws": 10,
            "band_draws": 5,
            "probe_rows": 200,
            "probe_strengths": (0.1,),
        },
        "laptop": {},
        "full": {"conditions": FULL},
    },
    claims=claims,
    steps=steps,
    page=page,
)
