"""Features answered one after another. Lampinen, Chan & Hermann, *Learned feature representations are biased* (2024).

A transformer reads a sequence and answers several features of it in a fixed order. Does it represent those that it answers
early more strongly? Orders form a Latin square, so that a feature's place and the feature itself are not confounded. This
module is the study's settings, claims and steps; what the steps do is in `sequences_measure` and `sequences_judge`, the page
in `sequences_page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, known_once
from heldout.tasks.sequences.settings import SequencesSettings, latin_square

if TYPE_CHECKING:
    from heldout.figures.page import Page

HEADLINE = "headline"
LEAST, APART = 0.95, 0.01  # the accuracy that every feature must exceed, and how far apart a network's may be
LEARNT = "{} learnt"
DELTA = 0.05
ENCODER, FIRST = "encoder mean", "decoder start"  # where states are read: see `sequences_measure`
JUDGE = "sequences-judge"
Orders = tuple[tuple[int, ...], ...]
SQUARE: Orders = latin_square(4)


@dataclass(frozen=True)
class Configuration:
    """What one set of networks learns and what they are: `orders` (each trained on its own), and all else alike.

    `simple` and `complex` are features by number whose variance is compared where a configuration has kinds of both.
    """

    name: str
    note: str
    features: tuple[str, ...] = ("phrase",) * 4
    orders: Orders = SQUARE
    arrangement: Literal["moved", "fixed"] = "moved"
    layers: int = 2
    dropout: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether its features are of one kind."""
        return len(set(self.features)) == 1

    def task(self, order: int, rows: Mapping[str, int]) -> SequencesSettings:
        return SequencesSettings(features=self.features, order=self.orders[order], arrangement=self.arrangement, **rows)

    def record(self) -> dict[str, Any]:
        """Every setting but the note, which no step's output depends on."""
        return asdict(self) | {"note": ""}

    def network(self, order: int) -> str:
        """How the networks of one order are called in tables."""
        return f"{self.name}, order {order + 1}"


MIXED = "mixed"
EASY, HARD = (0, 1), (2, 3)  # of the mixed configuration: the features that are simpler, and those that are not

_CONFIGURATIONS = [
    Configuration(HEADLINE, "four phrases, two layers"),
    Configuration("parity", "four parities, two layers", features=("parity",) * 4),
    Configuration("one-layer", "four phrases, one layer", layers=1),
    Configuration("fixed", "four phrases at fixed places of the sequence", arrangement="fixed"),
    Configuration("dropout", "four phrases, dropout .1", dropout=0.1),
    Configuration(
        MIXED,
        "two tokens and two parities, simpler first, more complex first, and two orders between",
        features=("contains", "contains", "parity", "parity"),
        orders=((0, 1, 2, 3), (2, 3, 0, 1), (0, 2, 1, 3), (2, 0, 3, 1)),
    ),
]
CONFIGURATIONS: dict[str, Configuration] = {c.name: c for c in _CONFIGURATIONS}
LAPTOP = (HEADLINE, "parity", "one-layer", MIXED)  # what two cores train in a quarter of an hour


class SequencesConfig(Config):
    """Settings of the sequences study; every field can be given as ``--set field=value``.

    `configurations` are trained, `seeds` networks for each order of each. A network makes `training_steps` updates; the rate
    rises over the first `warmup` and falls along a cosine to 0.
    """

    configurations: Annotated[tuple[str, ...], Field(min_length=1)] = LAPTOP
    width: PositiveInt = 32
    heads: PositiveInt = 2
    training_steps: PositiveInt = 1500
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: NonNegativeInt = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch: PositiveInt = 64
    train: PositiveInt = 16_384
    val: PositiveInt = 2048
    test: PositiveInt = 2048
    looks: PositiveInt = 20
    data_seed: NonNegativeInt = 0

    @field_validator("configurations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("configuration", names, CONFIGURATIONS)
        return names

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and {self.heads} heads")
        return self

    def chosen(self) -> list[Configuration]:
        return [CONFIGURATIONS[name] for name in self.configurations]

    def rows(self) -> dict[str, int]:
        return {"train": self.train, "val": self.val, "test": self.test}


def train_name(configuration: Configuration, order: int) -> str:
    return f"sequences-train-{configuration.name}-{order + 1}"


def measure_name(configuration: Configuration) -> str:
    return f"sequences-measure-{configuration.name}"


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, SequencesConfig)
    shared: dict[str, Any] = config.model_dump(
        mode="json",
        include={"width", "heads", "learning_rate", "warmup", "weight_decay", "batch", "looks", "data_seed"},
    )
    shared |= {"seeds": config.seed_list(), "rows": config.rows()}
    found: list[Step] = []
    for one in sorted(config.chosen(), key=lambda c: -c.layers):  # what takes longest comes first
        own = shared | {"configuration": one.record(), "updates": config.training_steps}
        for order in range(len(one.orders)):
            found.append(Step(train_name(one, order), train_networks, own | {"order": order}))
        inputs = {str(order): train_name(one, order) for order in range(len(one.orders))}
        found.append(Step(measure_name(one), measure_networks, own, inputs))
    settings = {"configurations": [c.record() for c in config.chosen()], "seeds": config.seed_list()}
    measured = {c.name: measure_name(c) for c in config.chosen()}
    return [*found, Step(JUDGE, judge_claims, settings | {"not_judged": not_judged}, measured)]


def configuration_from(record: Mapping[str, Any]) -> Configuration:
    """A configuration as a step's settings hold it."""
    lists = {"features": tuple(record["features"]), "orders": tuple(tuple(o) for o in record["orders"])}
    return Configuration(**{**record, **lists})


# What the steps do is loaded when they run.


def train_networks(ctx: StepContext) -> None:
    from heldout.studies import sequences_measure

    sequences_measure.train_networks(ctx)


def measure_networks(ctx: StepContext) -> None:
    from heldout.studies import sequences_measure

    sequences_measure.measure_networks(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import sequences_judge

    sequences_judge.judge_claims(ctx)


def claims() -> list[Claim]:
    """F5, on what the encoder passes on and on what the decoder begins with."""
    scope = (
        "four phrases of equal complexity in four orders that form a Latin square, encoder-decoder transformer of two "
        "layers each, AdamW; maps are fitted on val and scored on test"
    )
    estimand = (
        "least-squares slope of the pooled variance explained by the feature answered at place 1, 2, 3, 4, times -3 (first "
        "place minus last), mean over orders; {}"
    )
    published = "arXiv 2405.05847: features that are decoded earlier are represented more strongly, no figure known"
    return [
        Claim(
            id="F5",
            title="What is answered earlier is louder in the encoder",
            estimand=estimand.format("the encoder's final states, mean over positions"),
            delta=DELTA,
            scope=scope,
            gates=(LEARNT.format(HEADLINE),),
            published=published,
        ),
        Claim(
            id="F5-start",
            title="What is answered earlier is louder where the decoder begins",
            estimand=estimand.format("the decoder's final state at its first place, where no label is given yet"),
            delta=DELTA,
            scope=scope,
            gates=(LEARNT.format(HEADLINE),),
            published=published,
        ),
    ]


def page(run: Run) -> Page:
    from heldout.studies.sequences_page import sequences_page

    return sequences_page(run, SequencesConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="sequences",
    title="Answered first, represented louder?",
    summary="transformers that answer several features of a sequence one after another: are early ones louder?",
    config=SequencesConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "configurations": (HEADLINE, MIXED),
            "width": 16,
            "heads": 2,
            "training_steps": 15,
            "warmup": 5,
            "train": 512,
            "val": 200,
            "test": 200,
            "looks": 3,
        },
        "laptop": {},
        "paper": {
            "seeds": 10,
            "configurations": tuple(CONFIGURATIONS),
            "width": 128,
            "heads": 4,
            "training_steps": 20_000,
            "learning_rate": 3e-4,
            "warmup": 500,
            "batch": 256,
            "train": 65_536,
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
