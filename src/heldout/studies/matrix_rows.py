"""The rows of the matrix: trained networks of other studies, and the steps that train them.

A new row is one entry of `ROWS` and one loader, named in `matrix_load`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from heldout.runs import Step
from heldout.studies.base import Config, find_study


@dataclass(frozen=True)
class Row:
    """One kind of network.

    - `study`: whose steps train it; `training`: the name of the step, with ``{seed}``; a ``*`` stands for what the preset
      decides (the first step of that name is taken). `together`: one step trains all seeds of the study.
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
    together: bool = False

    def step(self, steps: Mapping[str, Step], seed: int) -> str:
        """The name of the step that trains the network of a seed."""
        name = self.training.format(seed=seed)
        if name in steps:  # a search for each of a thousand seeds takes minutes
            return name
        return next(found for found in steps if fnmatchcase(found, name))

    def seeds(self, steps: Mapping[str, Step], wanted: Sequence[int]) -> list[int]:
        """The training seeds that are looked at: those `wanted`, or as many of those that one step trains together."""
        if not self.together:
            return list(wanted)
        return list(steps[self.step(steps, wanted[0])].settings["seeds"])[: len(wanted)]

    def inputs(self, steps: Mapping[str, Step], seeds: Sequence[int]) -> dict[str, str]:
        """Input of a cell -> step: the weights of each seed, and what else the loader reads."""
        if self.together:
            return {"weights": self.step(steps, seeds[0])} | dict(self.beside)
        return {f"weights-{seed}": self.step(steps, seed) for seed in seeds} | dict(self.beside)


def _sums(name: str, title: str, trained: str) -> Row:
    return Row(
        name,
        title,
        "arithmetic",
        f"arithmetic-train-{trained}-s{{seed}}",
        "stream behind the last block, where the answer is given",
        "operands one digit longer than trained",
        "unordered pairs of low parts",
    )


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
            "digits_cnn",
            "digits, CNN",
            "digits",
            "digits-train-cnn-s{seed}",
            "maps behind the last block, flattened",
            "images turned by the study's angle",
            "images",
        ),
        Row(
            "images",
            "shape and colour, residual CNN",
            "images",
            "images-train-residual-*-s{seed}",
            "mean of the last stage's maps over positions",
            "combinations of shape, texture and colour that were kept back",
            "pictures",
        ),
        Row(
            "features",
            "bit and exclusive or, MLP, SGD",
            "features",
            "features-train-headline",
            "last hidden layer",
            "rows of which nine in ten bits are set (half are, elsewhere)",
            "rows of bits",
            together=True,
        ),
        Row(
            "similarity",
            "bit and exclusive or, MLP, Adam",
            "similarity",
            "similarity-train-adam",
            "last hidden layer",
            "rows of which nine in ten bits are set (half are, elsewhere)",
            "rows of bits",
            together=True,
        ),
        Row(
            "sequences",
            "four phrases, encoder-decoder",
            "sequences",
            "sequences-train-headline-1",
            "decoder's final state (where labels are asked about: at its first place)",
            "decoder given the labels of another sequence",
            "sequences",
            together=True,
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
        _sums("arithmetic", "sums of at most n digits", "sum_at_most"),
        _sums("arithmetic_exactly", "sums of exactly n digits", "sum_exactly"),
        _sums("product", "products of at most n digits", "product"),
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

PRESETS = {("features", "paper"): "full"}  # a study's own word for a preset, where it is another
_TOGETHER = {row.study for row in ROWS.values() if row.together}


def study_config(study: str, preset: str, seeds: int, first_seed: int) -> Config:
    """A study's preset with these seeds. Where one step trains all of them, the study's own number if that is more: only
    then is the step that of the study's own runs."""
    found, name = find_study(study), PRESETS.get((study, preset), preset)
    if study in _TOGETHER:
        seeds = max(seeds, found.configure(name)[0].seeds)
    return found.configure(name, {"seeds": seeds, "first_seed": first_seed})[0]


def study_steps(study: str, config: Config) -> dict[str, Step]:
    """Every step of a study's configuration, by name. Steps that are taken from here are shared with its runs."""
    return {step.name: step for step in find_study(study).steps(config, "")}


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
