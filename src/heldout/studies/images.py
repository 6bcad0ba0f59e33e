"""Colour and shape in convolutional networks with and without residual connections: experiment E12, exploratory.

Networks answer the shape and the colour of a picture, each with an output of its own; how much of the variance of their maps
does each explain? A residual network and its plain twin differ in the addition alone. There is no claim here: figures with
intervals, and no verdict. This module is the study's settings and steps; what they do is in `images_train`, `images_measure`
and `images_estimates`, the page in `images_page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from heldout.errors import HeldoutError
from heldout.runs import Run, Step, StepContext
from heldout.studies.base import SMOKE, Config, Study
from heldout.studies.schema import Seeds
from heldout.tasks.images import COLOURS, SHAPES, TEXTURES, ImagesSettings

if TYPE_CHECKING:
    from heldout.figures.page import Page

KINDS = ("plain", "residual")
BLOCKS: dict[int, tuple[int, ...]] = {8: (1, 1, 1), 10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}  # by depth
EASY, HARD = "colour", "shape"  # in the words of the paper
LEAST, APART = 0.95, 0.01  # accuracy that every output exceeds, and how far outputs may differ in it

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ImagesConfig(Config):
    """Settings of the images study; every field can be given as ``--set field=value``.

    `size` to `held_out` are those of the pictures (see `heldout.tasks.images`). `depths` are weight layers, `width` the
    channels of the first stage (see `heldout.networks.resnet`). Training: Adam, `learning_rate` falling along a cosine over
    `training_steps` updates of `batch` pictures. `band_draws`: rescalings of units that leave the function unchanged. A seed
    draws its own pictures, initial weights and order of batches, the same for both kinds of network.
    """

    seeds: Seeds = 5
    size: PositiveInt = 64
    shapes: Names = SHAPES
    textures: Names = TEXTURES
    colours: Names = tuple(COLOURS)
    outputs: Names = (HARD, EASY)
    train: PositiveInt = 9000
    val: PositiveInt = 1800
    test: PositiveInt = 1800
    held_out: int = 10
    depths: Annotated[tuple[Literal[8, 10, 18], ...], Field(min_length=1)] = (10,)
    width: PositiveInt = 8
    training_steps: PositiveInt = 1500
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    band_draws: PositiveInt = 100

    @model_validator(mode="after")
    def _pictures_exist(self) -> Self:
        try:
            settings_from(self.task())
        except HeldoutError as error:
            raise ValueError(str(error)) from None
        if not {EASY, HARD} <= set(self.outputs):
            raise ValueError(f"outputs must have {EASY} and {HARD} among them, got {self.outputs}")
        if len(set(self.depths)) < len(self.depths):
            raise ValueError(f"depths: name each once, got {self.depths}")
        for depth in self.depths:
            halved = len(BLOCKS[depth])
            if self.size < 2**halved:
                raise ValueError(
                    f"size: a network of depth {depth} halves pictures {halved} times; at least {2**halved} pixels are "
                    f"needed, got {self.size}"
                )
        return self

    def task(self) -> dict[str, Any]:
        """The pictures' settings as a step's settings hold them."""
        own = {"size", "shapes", "textures", "colours", "outputs", "train", "val", "test", "held_out"}
        return self.model_dump(mode="json", include=own)

    def networks(self) -> dict[str, dict[str, Any]]:
        """Name -> how the network is built."""
        return {
            f"{kind}-{depth}": {"residual": kind == "residual", "depth": depth, "width": self.width}
            for depth in self.depths
            for kind in KINDS
        }


def settings_from(record: Mapping[str, Any]) -> ImagesSettings:
    """The settings of the task that `ImagesConfig.task` describes."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return ImagesSettings(**plain)


def train_name(network: str, seed: int) -> str:
    return f"images-train-{network}-s{seed}"


def measure_name(network: str, seed: int) -> str:
    return f"images-measure-{network}-s{seed}"


SUMMARY = "images-summary"


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, ImagesConfig)
    training = config.model_dump(mode="json", include={"training_steps", "batch", "learning_rate"})
    found: list[Step] = []
    measured = {}
    # What takes longest comes first: it decides when the run ends.
    for name, built in sorted(config.networks().items(), key=lambda item: -item[1]["depth"]):
        for seed in config.seed_list():
            own = {"task": config.task(), "network": built, "seed": seed}
            found.append(Step(train_name(name, seed), train_network, own | training))
            weights = {"weights": train_name(name, seed)}
            found.append(
                Step(measure_name(name, seed), measure_network, own | {"band_draws": config.band_draws}, weights)
            )
            measured[f"{name} {seed}"] = measure_name(name, seed)
    settings = {"networks": list(config.networks()), "seeds": config.seed_list(), "outputs": list(config.outputs)}
    return [*found, Step(SUMMARY, summarise, settings, measured)]


# What the steps do is loaded when they run.


def train_network(ctx: StepContext) -> None:
    from heldout.studies import images_train

    images_train.train_network(ctx)


def measure_network(ctx: StepContext) -> None:
    from heldout.studies import images_measure

    images_measure.measure_network(ctx)


def summarise(ctx: StepContext) -> None:
    from heldout.studies import images_estimates

    images_estimates.summarise(ctx)


def page(run: Run) -> Page:
    from heldout.studies.images_page import images_page

    return images_page(run, ImagesConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="images",
    title="Colour and shape, with and without residual connections",
    summary="CNNs that name the shape and the colour of a picture: which do they represent more loudly? Exploratory.",
    config=ImagesConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "size": 32,
            "shapes": ("square", "circle", "star", "plus"),
            "textures": ("solid", "grid"),
            "colours": ("red", "green", "blue", "white"),
            "train": 320,
            "val": 160,
            "test": 160,
            "held_out": 2,
            "depths": (8,),
            "width": 4,
            "training_steps": 20,
            "band_draws": 5,
        },
        "laptop": {},
        "paper": {
            "seeds": 10,
            "size": 224,
            "outputs": (HARD, "texture", EASY),
            "train": 90_000,
            "val": 9_000,
            "test": 9_000,
            "depths": (10, 18),
            "width": 64,
            "training_steps": 50_000,
            "learning_rate": 3e-4,
        },
    },
    claims=list,
    steps=steps,
    page=page,
)
