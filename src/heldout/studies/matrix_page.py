"""The page of the matrix: the grid, then each cell by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from heldout.figures.grid_figure import Square, grid
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import MIN_CLUSTERS, Judgement
from heldout.studies.audited import CLAIMS
from heldout.studies.matrix import JUDGE, MatrixConfig, cell_name
from heldout.studies.matrix_claims import CLAIMED
from heldout.studies.matrix_columns import COLUMNS, null_of, registration, unit_of
from heldout.studies.matrix_evidence import Evidence
from heldout.studies.matrix_judge import CELLS
from heldout.studies.matrix_rows import ROWS
from heldout.studies.simplify import lasting, run_warnings

Cell = tuple[str, str]
BEFORE = 2  # sections in front of the first cell's


class Shown:
    """A finished run with its cells at hand."""

    def __init__(self, run: Run, config: MatrixConfig) -> None:
        self.run, self.config, folder = run, config, run.output(JUDGE)
        records = json.loads((folder / CELLS).read_text())
        self.cells: dict[Cell, Evidence] = {}
        for record in records:
            row, column = record.pop("row"), record.pop("column")
            self.cells[row, column] = Evidence(**record)
        every = [Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text())]
        self.judgements = tuple(j for j, cell in zip(every, CLAIMED, strict=True) if cell in self.cells)
        self.verdicts = {cell: j.verdict for cell, j in zip(CLAIMED, every, strict=True) if cell in self.cells}

    def anchor(self, cell: Cell) -> str:
        """Where a page's renderer puts the section of a cell: sections are numbered from 1."""
        return f"#section-{BEFORE + 1 + list(self.cells).index(cell)}"


def matrix_page(run: Run, config: MatrixConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    return Page(
        title=title,
        question="What does each analysis say of each study's trained network, and where does it make no sense?",
        summary=tuple(summary(here)),
        identity=tuple(identities(here)),
        judgements=here.judgements,
        sections=(overview(here), networks(here), *(cell_section(here, cell) for cell in here.cells)),
        manifest=lasting(run.manifest) | {"registration": registration()},
        warnings=run_warnings(run),
    )


def summary(here: Shown) -> Iterable[str]:
    told = [square for square in squares(here).values() if square.strength]
    yield (
        f"{len(here.cells)} cells of {len(here.config.rows)} networks and {len(here.config.columns)} analyses; in "
        f"{len(told)} the interval excludes the null."
    )
    for cell, verdict in here.verdicts.items():
        claim = CLAIMED[cell]
        yield f"{titled(cell)} is claim {claim.claim} of the {claim.study} study: {verdict}."
    yield f"What each cell estimates is fixed in code; SHA-256 of that table: {registration()}."


def titled(cell: Cell) -> str:
    return f"{ROWS[cell[0]].title}: {COLUMNS[cell[1]].title}"


def squares(here: Shown) -> dict[Cell, Square]:
    found = {}
    for row in here.config.rows:
        for name in here.config.columns:
            column = COLUMNS[name]
            if why := column.absent(row):
                found[row, name] = Square(reason=why, absent=True)
                continue
            e = here.cells[row, name]
            found[row, name] = Square(
                value=e.value,
                low=e.low,
                high=e.high,
                null=e.null,
                about=f"{column.of(row)}; {unit_of(row, column)}",
                verdict=here.verdicts.get((row, name), ""),
                reason=e.reason,
                anchor=here.anchor((row, name)),
                few=0 < e.n < MIN_CLUSTERS,
            )
    return found


def overview(here: Shown) -> Section:
    named = {(ROWS[row].title, COLUMNS[column].title): square for (row, column), square in squares(here).items()}
    figure = grid(
        named,
        rows=[ROWS[row].title for row in here.config.rows],
        columns=[COLUMNS[column].title for column in here.config.columns],
        id="matrix",
        title="Networks and analyses",
        limits=f"Cells of fewer than {MIN_CLUSTERS} units, or whose interval has no width, are not coloured. "
        "Intervals are each cell's own, corrected neither for cells nor for claims: of so many, one in twenty would exclude "
        "its null by chance. Only cells that are a claim of the row's study have a verdict.",
    )
    absent = Table(
        title="What makes no sense, and why",
        columns=("network", "analysis", "why"),
        rows=[
            (ROWS[row].title, COLUMNS[column].title, COLUMNS[column].absent(row))
            for row in here.config.rows
            for column in here.config.columns
            if COLUMNS[column].absent(row)
        ],
        caption="These cells are grey.",
    )
    return Section("matrix", "The matrix", (), figures=(figure,), tables=(absent,))


def networks(here: Shown) -> Section:
    rows = [
        (r.title, r.study, here.config.networks, r.site, r.shifted, r.unit) for r in (ROWS[n] for n in here.config.rows)
    ]
    table = Table(
        title="Rows",
        columns=("network", "study", "preset", "read at", "shifted split", "unit"),
        rows=rows,
        caption=f"{here.config.seeds} training seeds each; claims have all that their study has. Sites are what the output "
        "is read from. The networks are those of runs of their studies with the same preset and seeds.",
    )
    return Section("networks", "The networks", (), tables=(table,))


def cell_section(here: Shown, cell: Cell) -> Section:
    """One cell: what it estimates, what was found, and its tables."""
    row, column = cell
    e, about = here.cells[cell], COLUMNS[column]
    text = [f"Estimand: {about.of(row)}. Unit: {unit_of(row, about)}. Null: {null_of(row, about)}."]
    if cell in CLAIMED:
        text.append(
            f"This is claim {CLAIMED[cell].claim} of the {CLAIMED[cell].study} study, from that study's own steps. Verdict: "
            f"{here.verdicts[cell]}. Holm's correction is over the claims of this page."
        )
    if e.reason:
        text.append(f"Not estimable: {e.reason}.")
    values = Table(
        title="Value",
        columns=("value", "low", "high", "null", "units", "seeds", "interval", "by seed"),
        rows=[
            (e.value, e.low, e.high, e.null, e.n, e.seeds, e.method or "none", ", ".join(f"{v:.4g}" for v in e.by_seed))
        ],
        caption="Seed by seed where the quantity is one network's.",
    )
    own = tuple(Table(t["title"], t["columns"], t["rows"], t["caption"]) for t in e.tables)
    settings = Table(
        title="Settings",
        columns=("setting", "value"),
        rows=[(name, json.dumps(value)) for name, value in asked(here, cell).items()],
        caption="What the cell's step read.",
        folded=True,
    )
    return Section(f"{row}-{column}", titled(cell), tuple(text), tables=(values, *own, settings))


def asked(here: Shown, cell: Cell) -> Mapping[str, Any]:
    settings = here.run.record(cell_name(*cell))["settings"]
    return {name: value for name, value in settings.items() if name not in ("row", "column", "estimand")}


def identities(here: Shown) -> Iterable[IdentityCheck]:
    for (row, _), evidence in here.cells.items():
        for check in evidence.identity:
            yield IdentityCheck(
                label=f"{ROWS[row].title}, seed {check['seed']}",
                site=", ".join(check["sites"]),
                max_abs_difference=check["difference"],
                tolerance=check["tolerance"],
                passed=check["difference"] <= check["tolerance"],
                replay=check["replay"],
            )
