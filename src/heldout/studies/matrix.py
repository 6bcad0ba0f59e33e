"""Every analysis on every study's trained network, where it is defined, on one page.

Rows are networks that other studies train (`matrix_rows`), and share with them through the store; columns are analyses of
the library (`matrix_columns`); a cell is one step. What each cell estimates is fixed in code. A cell that coincides with a
claim of the row's own study is judged as that claim (`matrix_claims`), with Holm's correction over the page; the others show
value, interval and null, and no verdict. What makes no sense says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator

from heldout.runs import Run, Step, StepContext
from heldout.studies.base import SMOKE, Config, Study, known_once
from heldout.studies.matrix_claims import CLAIMED, claims, step_names
from heldout.studies.matrix_columns import COLUMNS
from heldout.studies.matrix_rows import ROWS, study_config, study_steps, with_sources

if TYPE_CHECKING:
    from heldout.figures.page import Page

JUDGE = "matrix-judge"


class MatrixConfig(Config):
    """Settings of the matrix; every field can be given as ``--set field=value``.

    - `networks`: the preset of the studies whose networks are the rows; `rows`, `columns`: which of them.
    - `items`: the most stimuli of a split, one a unit, that are read, and items that simplifications are judged on.
    - `ranks` of simplifications below the width, which is always tried; `null_draws`: noise of the same damage.
    - `permutations` behind each null; `shuffles` of answers behind that of rules.
    - `strengths` of the penalty that a linear probe chooses from.
    """

    networks: Literal["smoke", "laptop", "paper"] = "laptop"
    rows: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(ROWS)
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(COLUMNS)
    items: Annotated[int, Field(ge=20)] = 1000
    ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 64)
    null_draws: PositiveInt = 20
    permutations: Annotated[int, Field(ge=19)] = 999
    shuffles: Annotated[int, Field(ge=19)] = 100
    strengths: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.01, 0.1, 1.0)

    @field_validator("rows")
    @classmethod
    def _rows(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("row", names, ROWS)
        return names

    @field_validator("columns")
    @classmethod
    def _columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("column", names, COLUMNS)
        return names


def cell_name(row: str, column: str) -> str:
    return f"matrix-{row}-{column}"


def cells(config: MatrixConfig) -> list[tuple[str, str]]:
    """(row, column) of every cell that there is."""
    return [(row, column) for row in config.rows for column in config.columns if not COLUMNS[column].absent(row)]


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, MatrixConfig)
    every = config.model_dump(mode="json")
    studies = {
        study: study_config(study, config.networks, config.seeds, config.first_seed)
        for study in dict.fromkeys(ROWS[row].study for row in config.rows)
    }
    of_studies = {study: study_steps(study, own) for study, own in studies.items()}
    found: dict[str, Step] = {}
    finished: dict[str, str] = {}
    for name, column in cells(config):
        row, claimed = ROWS[name], CLAIMED.get((name, column))
        theirs, seeds = of_studies[row.study], row.seeds(of_studies[row.study], config.seed_list())
        own: dict[str, Any] = {"row": name, "column": column, "estimand": COLUMNS[column].of(name)}
        if claimed:
            given = studies[claimed.study]
            names = step_names(claimed, given.seed_list(), theirs)
            inputs, last = {step: step for step in names}, theirs[names[-1]].settings
            own |= {"seeds": given.seed_list()} | {field: last[field] for field in claimed.of_step}
            own |= {field: getattr(given, field) for field in claimed.of_config}
            step = Step(cell_name(name, column), find_claim, own, inputs)
        else:
            inputs = row.inputs(theirs, seeds)
            trained = dict(theirs[row.step(theirs, seeds[0])].settings)
            own |= {"seeds": seeds, "trained": trained} | {field: every[field] for field in COLUMNS[column].reads}
            step = Step(cell_name(name, column), measure_cell, own, inputs)
        found |= {source.name: source for source in with_sources(theirs, inputs.values())}
        found[step.name] = step
        finished[f"{name}-{column}"] = step.name
    settings = {"cells": [list(cell) for cell in cells(config)], "not_judged": not_judged}
    return [*found.values(), Step(JUDGE, judge_cells, settings, finished)]


# What the steps do is loaded when they run.


def measure_cell(ctx: StepContext) -> None:
    from heldout.studies import matrix_judge

    matrix_judge.measure_cell(ctx)


def find_claim(ctx: StepContext) -> None:
    from heldout.studies import matrix_judge

    matrix_judge.find_claim(ctx)


def judge_cells(ctx: StepContext) -> None:
    from heldout.studies import matrix_judge

    matrix_judge.judge_cells(ctx)


def page(run: Run) -> Page:
    from heldout.studies.matrix_page import matrix_page

    return matrix_page(run, MatrixConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="matrix",
    title="Every analysis on every network",
    summary="all analyses on the networks of all studies, on one page: values, intervals, nulls, and what makes no sense",
    config=MatrixConfig,
    presets={
        SMOKE: {
            "networks": SMOKE,
            "seeds": 2,
            "items": 150,
            "ranks": (2, 8),
            "null_draws": 2,
            "permutations": 39,
            "shuffles": 19,
            "strengths": (0.1,),
        },
        "laptop": {},
        "paper": {"networks": "paper", "items": 4000},
    },
    claims=claims,
    steps=steps,
    page=page,
)
