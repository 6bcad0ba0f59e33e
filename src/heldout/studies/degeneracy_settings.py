"""Settings of the degeneracy study."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from heldout.studies.base import Config, known_once
from heldout.studies.schema import Schema

Rate = Annotated[float, Field(gt=0)]

# Ways of training of the population (D2): one optimiser after another, and of each what noise and decay change.
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "batch": 32},
    "sgd-small-batch": {"optimizer": "sgd", "learning_rate": 0.1, "batch": 4},
    "sgd-decay": {"optimizer": "sgd", "learning_rate": 0.1, "batch": 32, "weight_decay": 1e-3},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.1, "batch": 32, "momentum": 0.9},
    "adam": {"optimizer": "adam", "learning_rate": 3e-3, "batch": 32},
    "adam-full-batch": {"optimizer": "adam", "learning_rate": 1e-2, "batch": 100_000},
    "adamw-decay": {"optimizer": "adamw", "learning_rate": 3e-3, "batch": 32, "weight_decay": 0.3},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 1e-3, "batch": 32},
}


class Part(Schema):
    """Settings of one part of the study; given as a whole: ``--set 'population={"items": 200}'``."""


class Chains(Part):
    """Of the learning coefficient; see `heldout.analyses.degeneracy.sgld.Sampling`."""

    burn_in: NonNegativeInt = 300
    draws: PositiveInt = 1500
    localisation: Rate = 20.0


class Population(Part):
    """Networks of one training loss (D2): an MLP with `hidden` units on `items` digits, trained in several `ways` until its
    loss is `level` nats within a share `tolerance` of it, `steps` updates at most."""

    items: PositiveInt = 300
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (24,)
    ways: Annotated[tuple[str, ...], Field(min_length=4)] = tuple(WAYS)
    level: Rate = 0.05
    tolerance: Rate = 1e-3
    steps: PositiveInt = 4000
    sampling: Chains = Chains()

    @field_validator("ways")
    @classmethod
    def _known(cls, ways: tuple[str, ...]) -> tuple[str, ...]:
        known_once("way of training", ways, WAYS)
        return ways


class Blocks(Part):
    """A network in two blocks and a dense one (D3): two halves of `inputs` numbers each, targets from a teacher with
    `teacher` units a half, blocks of `layers` hidden layers `width` wide; trained to `level` (mean squared error of
    targets of variance 1). `cuts`: further cut-offs at which effective parameters are counted."""

    inputs: PositiveInt = 4
    teacher: PositiveInt = 8
    items: PositiveInt = 1024
    held_items: PositiveInt = 2048
    width: PositiveInt = 16
    layers: PositiveInt = 2
    activation: Literal["relu", "tanh", "gelu"] = "tanh"
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: Rate = 3e-3
    batch: PositiveInt = 128
    steps: PositiveInt = 6000
    level: Rate = 0.02
    tolerance: Rate = 1e-3
    sampling: Chains = Chains(burn_in=500, draws=2500, localisation=100.0)
    cuts: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 0.1, 1.0)


class Pictures(Part):
    """MLPs on images (spec 3.2): `source` digits (scikit-learn's), or mnist or cifar10 in local files at `path`; a share
    `select` of the training images is set aside. `derivatives`: training images that derivatives are taken on, 0 for all."""

    source: Literal["digits", "mnist", "cifar10"] = "digits"
    path: str = ""
    select: Annotated[float, Field(gt=0, lt=1)] = 0.25
    data_seed: NonNegativeInt = 0
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 32)
    epochs: PositiveInt = 100
    batch: PositiveInt = 64
    learning_rate: Rate = 1e-3
    tolerances: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.001, 0.01)
    derivatives: NonNegativeInt = 0


class DegeneracyConfig(Config):
    """Settings of the degeneracy study; every field can be given as ``--set field=value``.

    - `modulus`, `share`, `corner`: of the modular task; a transformer of one layer, `width` wide, with `heads` and `hidden`
      ReLUs, trained with full batches until pairs set aside have been right for `settled` updates, `steps` at most.
    - `tolerance`: how much accuracy an ablation may cost on select. `relative`: edges below this share of the largest one of
      their section are none in the graph; `shuffles`: graphs it is compared with.
    - `digits_*`: an MLP on handwritten digits whose free directions are counted on `items` images, before training, after
      `moments` updates, and at the end.
    - `population` (D2), `blocks` (D3), `pictures`: see there. `language_model`: the preset of the `code` study whose
      decoders are read (D9).
    """

    modulus: Annotated[int, Field(ge=5)] = 53
    share: Annotated[float, Field(gt=0, lt=1)] = 0.8
    corner: NonNegativeInt = 8
    data_seed: NonNegativeInt = 0
    width: PositiveInt = 64
    heads: PositiveInt = 4
    hidden: PositiveInt = 256
    steps: PositiveInt = 10_000
    settled: PositiveInt = 1000
    learning_rate: Rate = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 1.0
    look_every: PositiveInt = 250
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
    population: Population = Population()
    blocks: Blocks = Blocks()
    pictures: Pictures = Pictures()
    language_model: Literal["smoke", "demo", "laptop", "paper"] = "laptop"

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
