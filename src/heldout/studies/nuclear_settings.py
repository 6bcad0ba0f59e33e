"""Settings of the nuclear study."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from heldout.analyses.baselines import KERNELS
from heldout.studies.base import Config, known_once
from heldout.studies.schema import Schema

Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

# What a network is trained on. The first two are split at random by nucleus, the next two by vintage; the others are
# controls for what is read from the first.
NETWORKS = {
    "binding": "binding energy per nucleon",
    "residual": "what the refitted formula leaves of it",
    "vintage": "binding energy per nucleon, values of the old table",
    "vintage-residual": "what the formula refitted to the old table leaves of it",
    "no-decay": "binding energy per nucleon, without weight decay",
    "semf": "the published five-term formula in place of measurements",
    "asymmetry": "a smooth function without shells, (N - Z)^2 / A",
    "noise": "numbers drawn at random, one a nucleus",
}
CONTROLS = ("no-decay", "semf", "asymmetry", "noise")


class Primer(Schema):
    """The sweep of modular addition (N5): every combination of `moduli`, `poolings`, `widths` and `weight_decays` is a cell,
    with a network for each of `shares` of the pairs and each seed."""

    moduli: Counts = (11, 23)
    poolings: Annotated[tuple[Literal["mean", "concat"], ...], Field(min_length=1)] = ("mean", "concat")
    widths: Counts = (2, 4, 16, 64)
    weight_decays: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.1, 1.0, 3.0)
    shares: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.5, 0.8, 1.0)
    hidden: PositiveInt = 64
    steps: PositiveInt = 1500
    learning_rate: Rate = 1e-2

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if even := [p for p in self.moduli if p % 2 == 0 or p < 5]:
            raise ValueError(f"moduli must be odd and at least 5, got {even[0]}")
        return self


class NuclearConfig(Config):
    """Settings of the nuclear study; every field can be given as ``--set field=value``.

    - `above_z`, `above_n`: nuclei with more protons and neutrons than that. `train`, `select`: shares of the nuclei; the
      rest judges. `table`: the evaluation that random splits are of; `old` and `new`: trained on one, tested on nuclei first
      measured by the other.
    - `width`, `blocks`: of the network; `steps`, `batch`, `learning_rate` (highest, cosine) and `weight_decay` of its
      training; `weighting`: errors count per nucleon, or in all (times A).
    - `networks`: what is trained beside ``binding``, see `NETWORKS`; `untrained`: so many networks stand beside as null.
    - `components`: how many are kept, one after another; `most` of N1; `features`: components that are read (N2, N4).
    - `alike`: two predictions are, within so many keV per nucleon (about what networks of pilots err by); `null_draws`: of
      noise beside each simplified network.
    - `draws`: surrogates a family and permutations; `blocks_of`: isotopic chains moved together in the null of N2.
    - `kernels`: those that the kernel baseline chooses from. `looks`: moments of training at which embeddings are kept.
      `primer`: see there.
    """

    above_z: NonNegativeInt = 8
    above_n: NonNegativeInt = 8
    train: Share = 0.8
    select: Share = 0.1
    table: Literal[2003, 2012, 2016, 2020] = 2020
    old: Literal[2003, 2012, 2016] = 2003
    new: Literal[2012, 2016, 2020] = 2020
    data_seed: NonNegativeInt = 0

    width: PositiveInt = 128
    blocks: PositiveInt = 2
    steps: PositiveInt = 12_000
    batch: PositiveInt = 512
    learning_rate: Rate = 5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.3
    weighting: Literal["nucleon", "total"] = "nucleon"
    networks: tuple[str, ...] = tuple(NETWORKS)
    untrained: PositiveInt = 5
    looks: PositiveInt = 10

    components: Counts = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
    most: PositiveInt = 8
    alike: Rate = 10.0
    null_draws: PositiveInt = 20
    features: PositiveInt = 10
    draws: Annotated[int, Field(ge=19)] = 999
    kernels: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(KERNELS)
    blocks_of: PositiveInt = 8
    primer: Primer = Primer()

    @field_validator("networks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("network", names, NETWORKS)
        if "binding" not in names:
            raise ValueError("networks: 'binding' must be among them, the network that the claims are about")
        return names

    @field_validator("kernels")
    @classmethod
    def _kernels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("kernel", names, KERNELS)
        return names

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.train + self.select >= 1:
            raise ValueError(f"train and select must leave nuclei to judge on, got {self.train} and {self.select}")
        if self.old >= self.new:
            raise ValueError(f"old must be an earlier evaluation than new, got {self.old} and {self.new}")
        if list(self.components) != sorted(set(self.components)):
            raise ValueError(f"components must rise, each number once, got {list(self.components)}")
        if max(self.components) > self.width:
            raise ValueError(f"components: {max(self.components)} of a network {self.width} wide")
        if not any(k <= self.most for k in self.components):
            raise ValueError(f"components: none is at most {self.most}")
        if self.features > self.width:
            raise ValueError(f"features: {self.features} of a network {self.width} wide")
        return self
