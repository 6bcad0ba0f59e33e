"""Physics read from networks that predict nuclear masses. Kitouni et al. 2024, *From Neurons to Neutrons*.

A network that knows nuclei as two tokens, their numbers of protons and neutrons, learns binding energies. Do a few
components carry its predictions; do they carry the terms of a mass formula; do its embeddings lie on a helix; does what is
read off make a better formula? Each is set beside its nulls and on nuclei that were not trained on, at random and by when
they were measured. Modular addition is the primer: which algorithms do networks of one task use?

This is the study's steps. What they do is in `nuclear_data`, `nuclear_train`, `nuclear_baselines`, `nuclear_measure`,
`nuclear_structure`, `nuclear_faithful`, `nuclear_helix` and `nuclear_primer`; settings, claims, verdicts and page are in the
files named after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from heldout.runs import Run, Step, StepContext
from heldout.studies.base import SMOKE, Config, Study
from heldout.studies.nuclear_claims import claims
from heldout.studies.nuclear_settings import NuclearConfig

if TYPE_CHECKING:
    from heldout.figures.page import Page

JUDGE = "nuclear-judge"
UNTRAINED = "untrained"
DATA = ("above_z", "above_n", "train", "select", "table", "old", "new", "data_seed")
NETWORK = ("width", "blocks")
FAITHFUL_TO = ("binding", "vintage")  # networks that are simplified: nuclei held out at random, and by vintage
READ = ("binding", "asymmetry")  # networks whose components are compared with terms: the claim's, and a smooth control
TRAINING = ("steps", "batch", "learning_rate", "weight_decay", "weighting", "looks")


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, NuclearConfig)
    every = config.model_dump(mode="json")

    def some(*names: str) -> dict[str, Any]:
        return {name: every[name] for name in names}

    built = some(*DATA, *NETWORK)
    found: list[Step] = []
    inputs: dict[str, str] = {}

    def add(
        name: str, function: Any, settings: dict[str, Any], weights: str = "", version: int = 1, **more: Any
    ) -> None:
        read = {"weights": f"nuclear-{weights}"} if weights else {}
        found.append(Step(f"nuclear-{name}", function, settings, read, version, **more))
        inputs[name] = f"nuclear-{name}"

    add("data", check_data, some(*DATA, "blocks_of", "networks"))  # first: what cannot go well is known at once
    sweep = config.primer
    for modulus in sweep.moduli:
        add(f"known-{modulus}", name_known, {"modulus": modulus})
    for vintage in (False, True):
        name = "baselines-vintage" if vintage else "baselines"
        add(name, predict_without, some(*DATA, "kernels") | {"vintage": vintage}, version=2)
    for seed in config.seed_list():
        for network in config.networks:
            own = built | {"network": network, "seed": seed}
            add(f"train-{network}-s{seed}", train_network, own | some(*TRAINING), together=train_networks)
            add(f"helix-{network}-s{seed}", test_helix, own | some("draws"), f"train-{network}-s{seed}", version=2)
        untrained = built | {"network": UNTRAINED, "seed": seed}
        add(f"helix-{UNTRAINED}-s{seed}", test_helix, untrained | some("draws"), version=2)
        own, weights = built | {"seed": seed}, f"train-binding-s{seed}"
        add(f"kept-s{seed}", keep_components, own | some("components"), weights)
        for network in (n for n in READ if n in config.networks):
            reading = own | {"network": network} | some("features", "draws", "blocks_of", "untrained")
            add(f"terms-{network}-s{seed}", read_terms, reading, f"train-{network}-s{seed}")
        add(f"structure-s{seed}", read_structure, own | some("draws"), weights, version=2)
        for network in (n for n in FAITHFUL_TO if n in config.networks):
            cut = own | {"network": network} | some("components", "alike", "null_draws")
            add(f"faithful-{network}-s{seed}", simplify, cut, f"train-{network}-s{seed}")
    shared = {"shares": list(sweep.shares), "seeds": config.seed_list(), "hidden": sweep.hidden}
    shared |= {"steps": sweep.steps, "learning_rate": sweep.learning_rate}
    for cell in product(sweep.moduli, sweep.poolings, sweep.widths, sweep.weight_decays):
        own = dict(zip(("modulus", "pooling", "width", "weight_decay"), cell, strict=True)) | shared
        name = "-".join(map(str, cell))
        add(f"primer-train-{name}", train_cell, own)
        add(f"primer-{name}", measure_cell, own, f"primer-train-{name}")
    judged = {
        "seeds": config.seed_list(),
        "not_judged": not_judged,
        "networks": list(config.networks),
        "most": config.most,
    }
    judged |= {"old": config.old, "new": config.new}
    return [*found, Step(JUDGE, judge_claims, judged, inputs)]


# What the steps do is loaded when they run.


def check_data(ctx: StepContext) -> None:
    from heldout.studies import nuclear_data

    nuclear_data.check_data(ctx)


def predict_without(ctx: StepContext) -> None:
    from heldout.studies import nuclear_baselines

    nuclear_baselines.predict_without(ctx)


def train_network(ctx: StepContext) -> None:
    from heldout.studies import nuclear_train

    nuclear_train.train_network(ctx)


def train_networks(contexts: Sequence[StepContext]) -> None:
    from heldout.studies import nuclear_train

    nuclear_train.train_networks(contexts)


def test_helix(ctx: StepContext) -> None:
    from heldout.studies import nuclear_helix

    nuclear_helix.test_helix(ctx)


def keep_components(ctx: StepContext) -> None:
    from heldout.studies import nuclear_measure

    nuclear_measure.keep_components(ctx)


def read_terms(ctx: StepContext) -> None:
    from heldout.studies import nuclear_measure

    nuclear_measure.read_terms(ctx)


def read_structure(ctx: StepContext) -> None:
    from heldout.studies import nuclear_structure

    nuclear_structure.read_structure(ctx)


def simplify(ctx: StepContext) -> None:
    from heldout.studies import nuclear_faithful

    nuclear_faithful.simplify(ctx)


def train_cell(ctx: StepContext) -> None:
    from heldout.studies import nuclear_primer

    nuclear_primer.train_cell(ctx)


def measure_cell(ctx: StepContext) -> None:
    from heldout.studies import nuclear_primer

    nuclear_primer.measure_cell(ctx)


def name_known(ctx: StepContext) -> None:
    from heldout.studies import nuclear_primer

    nuclear_primer.name_known(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import nuclear_judge

    nuclear_judge.judge_claims(ctx)


def page(run: Run) -> Page:
    from heldout.studies.nuclear_page import nuclear_page

    return nuclear_page(run, NuclearConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="nuclear",
    title="Physics read from a network",
    summary="networks that predict nuclear masses: components, terms of a mass formula and a helix, tested with nulls",
    config=NuclearConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "above_z": 50,
            "above_n": 70,
            "kernels": ("matern",),
            "width": 32,
            "steps": 40,
            "looks": 2,
            "networks": ("binding", "residual", "vintage", "noise"),
            "untrained": 2,
            "components": (1, 2, 8, 32),
            "features": 3,
            "blocks_of": 4,
            "draws": 19,
            "null_draws": 2,
            "primer": {
                "moduli": (11,),
                "poolings": ("concat",),
                "widths": (4,),
                "weight_decays": (1.0,),
                "shares": (0.8, 1.0),
                "hidden": 16,
                "steps": 20,
            },
        },
        "laptop": {},
        "paper": {"width": 1024, "steps": 200_000, "learning_rate": 3e-4, "weight_decay": 0.01, "looks": 40},
    },
    claims=claims,
    steps=steps,
    page=page,
)
