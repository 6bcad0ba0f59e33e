"""The rows of the matrix: trained networks of other studies, and the steps that train them.

A new row is one entry of `ROWS` and one loader in `matrix_load`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heldout.runs import Step
from heldout.studies.base import Config, find_study


@dataclass(frozen=True)
class Row:
    """One kind of network.

    - `study`: whose steps train it; `training`: the name of the step, with ``{seed}``.
    - `beside`: further steps that its loader reads, by the name that it uses.
    - `site`: where analyses read, in words: always what the output is read from; `shifted`: the split on which the
      network is looked at out of distribution; `unit`: what is resampled.
    """

    name: str
    title: str
    study: str
    training: str
    site: str
    shifted: str
    unit: str
    beside: tuple[tuple[str, str], ...] = ()


ROWS = {
    row.name: row
    for row in (
        Row(
            "digits",
            "digits, MLP",
            "digits",
            "digits-train-mlp-s{seed}",
            "second hidden layer",
            "images turned by the study's angle",
            "images",
        ),
        Row(
            "dyck",
            "dyck, transformer",
            "dyck",
            "dyck-train-s{seed}",
            "stream behind the last block, at closing brackets",
            "sentences deeper than any trained on",
            "sentences",
        ),
        Row(
            "code",
            "code, decoder",
            "code",
            "code-train-s{seed}",
            "stream behind the last block",
            "the corpus's last out-of-distribution split",
            "source packages",
            (("corpus", "code-corpus"),),
        ),
        Row(
            "arithmetic",
            "arithmetic, sums of at most n digits",
            "arithmetic",
            "arithmetic-train-sum_at_most-s{seed}",
            "stream behind the last block, where the answer is given",
            "operands one digit longer than trained",
            "unordered pairs of low parts",
        ),
        Row(
            "modular",
            "addition modulo p",
            "degeneracy",
            "degeneracy-train-modular-s{seed}",
            "stream behind the feed-forward, last position",
            "pairs of which both operands are among the largest",
            "unordered pairs",
        ),
        Row(
            "nuclear",
            "nuclear, binding energies",
            "nuclear",
            "nuclear-train-binding-s{seed}",
            "penultimate layer",
            "held-out nuclei",
            "isotopic chains",
        ),
    )
}


def study_steps(study: str, preset: str, seeds: int, first_seed: int) -> dict[str, Step]:
    """Every step of a study's preset with these seeds, by name. Steps that are taken from here are shared with its runs."""
    found = find_study(study)
    config: Config = found.configure(preset, {"seeds": seeds, "first_seed": first_seed})[0]
    return {step.name: step for step in found.steps(config, "")}


def with_sources(steps: dict[str, Step], wanted: Iterable[str]) -> list[Step]:
    """The steps named and all that they are built on, inputs first."""
    found: dict[str, Step] = {}

    def add(name: str) -> None:
        if name not in found:
            for source in steps[name].inputs.values():
                add(source)
            found[name] = steps[name]

    for name in wanted:
        add(name)
    return list(found.values())


def training_names(row: Row, seeds: Sequence[int]) -> dict[str, str]:
    """Input of a cell -> step: the weights of each seed, and what else the loader reads."""
    weights = {f"weights-{seed}": row.training.format(seed=seed) for seed in seeds}
    return weights | dict(row.beside)
