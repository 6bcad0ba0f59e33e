"""What does not matter in a network, and what is left. Bushnaq et al. 2024, *Using Degeneracy in the Loss Landscape* and
*The Local Interaction Basis*.

Parameters that do nothing hide a network's structure. This study counts them over training and where they were planted, and
asks whether the interaction basis, which they leave alone, needs fewer edges than principal components, finds purer features
and a more modular graph in a transformer that adds modulo p. It is the study's settings, claims and steps; what the steps do
is in `degeneracy_modular` and `degeneracy_counts`, verdicts in `degeneracy_judge`, the page in `degeneracy_page`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study

if TYPE_CHECKING:
    from heldout.figures.page import Page

JUDGE = "degeneracy-judge"
LEARNT, UNDERSTOOD = "modular networks have learnt", 0.99
TOLERANCE = "1e-06"  # of the ranks behind D1, relative to the largest eigenvalue
PURE = 8  # features of each stream whose purity is compared
UNMOVED, MOVED = 1e-6, 1e-3  # relative changes that count as none, and as one

Rate = Annotated[float, Field(gt=0)]


class DegeneracyConfig(Config):
    """Settings of the degeneracy study; every field can be given as ``--set field=value``.

    - `modulus`, `share`, `corner`: of the modular task; a transformer of one layer, `width` wide, with `heads` and `hidden`
      ReLUs, trained for `steps` full batches.
    - `tolerance`: how much accuracy an ablation may cost on select. `relative`: edges below this share of the largest one of
      their section are none in the graph; `shuffles`: graphs it is compared with.
    - `digits_*`: an MLP on handwritten digits whose free directions are counted on `items` images, before training, after
      `moments` updates, and at the end.
    """

    modulus: Annotated[int, Field(ge=5)] = 53
    share: Annotated[float, Field(gt=0, lt=1)] = 0.7
    corner: NonNegativeInt = 8
    data_seed: NonNegativeInt = 0
    width: PositiveInt = 64
    heads: PositiveInt = 4
    hidden: PositiveInt = 256
    steps: PositiveInt = 5000
    learning_rate: Rate = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 1.0
    looks: PositiveInt = 50
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.001
    relative: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    shuffles: Annotated[int, Field(ge=2)] = 100
    items: PositiveInt = 200
    digits_hidden: PositiveInt = 16
    digits_steps: PositiveInt = 4000
    moments: tuple[PositiveInt, ...] = (100, 1000)
    digits_batch: PositiveInt = 64
    digits_learning_rate: Rate = 0.1
    digits_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    digits_weight_decay: Annotated[float, Field(ge=0)] = 1e-4

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.hidden % self.width:
            raise ValueError(
                "width must be a multiple of heads and hidden one of width, got "
                f"width {self.width}, {self.heads} heads and {self.hidden} hidden"
            )
        parameters = 64 * self.digits_hidden + 11 * self.digits_hidden + 10
        if 10 * self.items < parameters:
            raise ValueError(
                f"items must be at least {-(-parameters // 10)} for {parameters} parameters, got {self.items}"
            )
        if any(not 0 < moment < self.digits_steps for moment in self.moments):
            raise ValueError(f"moments must lie between 0 and digits_steps ({self.digits_steps}), got {self.moments}")
        return self


MODULAR = ("modulus", "share", "corner", "data_seed", "width", "heads", "hidden")
TRAINING = ("steps", "learning_rate", "schedule", "weight_decay", "looks")
MEASURING = ("tolerance", "relative", "shuffles")


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, DegeneracyConfig)
    every = config.model_dump(mode="json")

    def some(*names: str, seed: int) -> dict[str, Any]:
        return {"seed": seed, **{name: every[name] for name in names}}

    found: list[Step] = []
    inputs: dict[str, str] = {}
    for seed in config.seed_list():
        trained, measured = f"degeneracy-train-modular-s{seed}", f"degeneracy-measure-modular-s{seed}"
        found.append(Step(trained, train_modular, some(*MODULAR, *TRAINING, seed=seed)))
        found.append(Step(measured, measure_modular, some(*MODULAR, *MEASURING, seed=seed), {"weights": trained}))
        inputs |= {f"modular-{seed}": measured, f"trained-{seed}": trained}
    digits = {name.removeprefix("digits_"): every[name] for name in every if name.startswith("digits_")}
    digits |= {"items": config.items, "moments": list(config.moments), "relative": [1e-12, 1e-6, 1e-4, 1e-3]}
    for seed in config.seed_list():
        counted, planted = f"degeneracy-count-s{seed}", f"degeneracy-plant-s{seed}"
        found.append(Step(counted, count_digits, {"seed": seed, **digits}))
        found.append(Step(planted, plant_kinds, {"seed": seed}))
        inputs |= {f"count-{seed}": counted, f"plant-{seed}": planted}
    settings = {"seeds": config.seed_list(), "not_judged": not_judged}
    return [*found, Step(JUDGE, judge_claims, settings, inputs)]


# What the steps do is loaded when they run.


def train_modular(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_modular

    degeneracy_modular.train_network(ctx)


def measure_modular(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_modular

    degeneracy_modular.measure_network(ctx)


def count_digits(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_counts

    degeneracy_counts.count_over_training(ctx)


def plant_kinds(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_counts

    degeneracy_counts.plant(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_judge

    degeneracy_judge.judge_claims(ctx)


def claims() -> list[Claim]:
    """D1 and D4 to D8."""
    modular = (
        "addition modulo 53, transformer of one layer without norms; residual stream behind embedding, attention and "
        "feed-forward, and logits; bases and edges (gradient rule) on train"
    )
    published = "arXiv 2405.10928"
    return [
        Claim(
            id="D1",
            title="Free directions increase over training",
            estimand="share of parameters that are free after training, minus before; relative tolerance of ranks 1e-6",
            delta=0.01,
            scope="MLP 64-16-10 on handwritten digits, behavioural loss (mean over images of the squared change of "
            "outputs), 200 training images",
            published="arXiv 2405.10927: an argument, no figure known",
        ),
        Claim(
            id="D4",
            title="Each kind of degeneracy, planted, is counted exactly",
            estimand="share of the three kinds whose planted free directions are counted to the unit with nothing "
            "unexplained, minus .95",
            delta=0.0,
            scope="random ReLU networks 6-8-3 in general position, 150 inputs",
            published="arXiv 2405.10927: an argument, no figure known",
        ),
        Claim(
            id="D5",
            title="Planting leaves the interaction basis unchanged and changes principal components",
            estimand=f"over the three kinds, log10 of {UNMOVED:g} over the largest relative change of interaction "
            f"features and edges; and log10 of the smallest change of principal components and their edges over {MOVED:g}",
            delta=0.0,
            scope="random ReLU networks 6-8-3 in general position, 150 inputs",
            kind="conjunction",
            published="arXiv 2405.10927: an argument, no figure known",
        ),
        Claim(
            id="D6",
            title="The interaction basis needs fewer edges than principal components",
            estimand="log of the number of edges needed in principal components over that in the interaction basis, "
            "mean over three sections; accuracy within .001 on select",
            delta=math.log(1.05),
            scope=modular,
            gates=(LEARNT,),
            published=f"{published}: log(117.4/86.6), log(85.2/74.0), log(662.6/634.2) from its published data, modulo 113",
        ),
        Claim(
            id="D7",
            title="Its features are purer Fourier features",
            estimand=f"mean over the first {PURE} features of the largest share of one frequency, interaction basis "
            "minus principal components, mean over three streams",
            delta=0.02,
            scope=modular,
            gates=(LEARNT,),
            published=f"{published}: purer, no figure known",
        ),
        Claim(
            id="D8",
            title="Its graph is more modular",
            estimand="z-score of layered modularity beside graphs with as many edges at each feature, interaction "
            "basis minus principal components",
            delta=1.0,
            scope=f"{modular}; edges above 1e-3 of the largest of their section, logits left out",
            gates=(LEARNT,),
            null="edges dealt out anew, each feature keeping its number of them",
            published=f"{published}: modular, no figure known",
        ),
    ]


def page(run: Run) -> Page:
    from heldout.studies.degeneracy_page import degeneracy_page

    return degeneracy_page(run, DegeneracyConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="degeneracy",
    title="What does not matter, and what is left",
    summary="free directions counted, and the interaction basis against principal components in addition modulo p",
    config=DegeneracyConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "modulus": 7,
            "corner": 2,
            "width": 4,
            "heads": 2,
            "hidden": 8,
            "steps": 10,
            "looks": 2,
            "shuffles": 2,
            "items": 60,
            "digits_hidden": 4,
            "digits_steps": 20,
            "moments": (5,),
        },
        "laptop": {},
        "paper": {"modulus": 113, "share": 0.3, "corner": 0, "width": 128, "hidden": 512, "steps": 60_000},
    },
    claims=claims,
    steps=steps,
    page=page,
)
