"""What does not matter in a network, and what is left. Bushnaq et al. 2024, *Using Degeneracy in the Loss Landscape* and
*The Local Interaction Basis*.

Parameters that do nothing hide a network's structure. This study counts them over training and where they were planted, and
asks whether the interaction basis, which they leave alone, needs fewer edges than principal components, finds purer features
and a more modular graph in a transformer that adds modulo p, and whether it gains anything on a language model. Beside it
stand learning coefficients: over networks of one training loss, and of a network in blocks beside a dense one.

This is the study's steps; what they do is in `degeneracy_modular`, `degeneracy_counts`, `degeneracy_population` and
`degeneracy_blocks`, settings, claims, verdicts and page in the files named after them. Decoders of source code are those of
the `code` study, and shared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from heldout.runs import Run, Step, StepContext
from heldout.studies.base import SMOKE, Config, Study
from heldout.studies.degeneracy_claims import claims
from heldout.studies.degeneracy_settings import WAYS, DegeneracyConfig

if TYPE_CHECKING:
    from heldout.figures.page import Page

Together = Callable[[Sequence[StepContext]], None] | None

JUDGE = "degeneracy-judge"

MODULAR = ("modulus", "share", "corner", "data_seed", "width", "heads", "hidden")
TRAINING = ("steps", "settled", "learning_rate", "schedule", "weight_decay", "look_every")
MEASURING = ("tolerance", "relative", "shuffles")


RELATIVE = (1e-12, 1e-6, 1e-4, 1e-3)  # tolerances of the ranks of digits' networks


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, DegeneracyConfig)
    every = config.model_dump(mode="json")

    def some(*names: str) -> dict[str, Any]:
        return {name: every[name] for name in names}

    digits = {name.removeprefix("digits_"): every[name] for name in every if name.startswith("digits_")}
    digits |= some("items", "moments") | {"relative": list(RELATIVE)}
    population = every["population"] | {"ways": {way: WAYS[way] for way in config.population.ways}}
    found: list[Step] = []
    inputs: dict[str, str] = {}
    for seed in config.seed_list():

        def add(
            kind: str,
            function: Any,
            settings: dict[str, Any],
            after: str = "",
            *,
            together: Together = None,
            seed: int = seed,
        ) -> None:
            name = f"degeneracy-{kind}-s{seed}"
            weights = {"weights": f"degeneracy-{after}-s{seed}"} if after else {}
            found.append(Step(name, function, {"seed": seed, **settings}, weights, together=together))
            inputs[f"{kind}-{seed}"] = name

        add("train-modular", train_modular, some(*MODULAR, *TRAINING), together=train_modular_together)
        add("modular", measure_modular, some(*MODULAR, *MEASURING), "train-modular")
        add("count", count_digits, digits)
        add("plant", plant_kinds, {})
        pictures = without(every["pictures"], "tolerances", "derivatives")
        add("train-pictures", train_pictures, pictures, together=train_pictures_together)
        add("pictures", measure_pictures, every["pictures"], "train-pictures")
        add("train-population", train_population, without(population, "sampling"))
        add(
            "population",
            measure_population,
            without(population, "ways", "level", "tolerance", "steps"),
            "train-population",
        )
        add("train-blocks", train_blocks, without(every["blocks"], "sampling", "cuts"))
        add("blocks", measure_blocks, every["blocks"], "train-blocks")
    decoders = language_models(config)
    scored = {
        f"stream-{seed}": step.name for seed, step in zip(config.seed_list(), decoders[-config.seeds :], strict=True)
    }
    settings = {"seeds": config.seed_list(), "not_judged": not_judged}
    return [*found, *decoders, Step(JUDGE, judge_claims, settings, inputs | scored)]


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def language_models(config: DegeneracyConfig) -> list[Step]:
    """Steps of the `code` study: its corpus, decoders, and the last of them, their streams scored."""
    from heldout.studies import code

    seeds = {"seeds": config.seeds, "first_seed": config.first_seed}
    asked, _ = code.STUDY.configure(config.language_model, seeds)
    assert isinstance(asked, code.CodeConfig)
    return [*code.trained_steps(asked), *code.stream_steps(asked)]


# What the steps do is loaded when they run.


def train_modular(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_modular

    degeneracy_modular.train_network(ctx)


def train_modular_together(contexts: Sequence[StepContext]) -> None:
    from heldout.studies import degeneracy_modular

    degeneracy_modular.train_networks(contexts)


def measure_modular(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_modular

    degeneracy_modular.measure_network(ctx)


def count_digits(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_counts

    degeneracy_counts.count_over_training(ctx)


def plant_kinds(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_counts

    degeneracy_counts.plant(ctx)


def train_pictures(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_pictures

    degeneracy_pictures.train_pictures(ctx)


def train_pictures_together(contexts: Sequence[StepContext]) -> None:
    from heldout.studies import degeneracy_pictures

    degeneracy_pictures.train_networks(contexts)


def measure_pictures(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_pictures

    degeneracy_pictures.measure_pictures(ctx)


def train_population(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_population

    degeneracy_population.train_population(ctx)


def measure_population(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_population

    degeneracy_population.measure_population(ctx)


def train_blocks(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_blocks

    degeneracy_blocks.train_blocks(ctx)


def measure_blocks(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_blocks

    degeneracy_blocks.measure_blocks(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import degeneracy_judge

    degeneracy_judge.judge_claims(ctx)


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
            "look_every": 5,
            "settled": 5,
            "shuffles": 2,
            "items": 60,
            "digits_hidden": 4,
            "digits_steps": 20,
            "moments": (5,),
            "population": {
                "items": 100,
                "hidden": (8,),
                "ways": ("sgd", "momentum", "adam", "adam-full-batch"),
                "level": 0.2,
                "steps": 800,
                "sampling": {"burn_in": 50, "draws": 400, "localisation": 200.0},
            },
            "blocks": {
                "inputs": 3,
                "teacher": 4,
                "items": 200,
                "held_items": 200,
                "width": 6,
                "layers": 1,
                "learning_rate": 0.01,
                "batch": 50,
                "level": 0.2,
                "steps": 2000,
                "sampling": {"burn_in": 50, "draws": 400, "localisation": 200.0},
            },
            "pictures": {"hidden": (5,), "epochs": 2},
            "language_model": SMOKE,
        },
        "laptop": {},
        "paper": {
            "modulus": 113,
            "share": 0.3,
            "corner": 0,
            "width": 128,
            "hidden": 512,
            "steps": 60_000,
            "pictures": {
                "source": "cifar10",
                "path": "cifar10",
                "hidden": (100, 100),
                "epochs": 12,
                "select": 0.1,
                "derivatives": 5000,
            },
            "language_model": "paper",
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
