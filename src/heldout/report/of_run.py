"""The page of a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heldout.report.render import write
from heldout.runs import Run
from heldout.studies.base import find_study

if TYPE_CHECKING:
    from heldout.figures.page import Page

PAGE = "report.html"


def render_run(path: Path) -> tuple[Page, Path]:
    """Build the page of the finished run in `path`, write it there, and return both. Raises `StoreError` where a step's
    output is missing: the run is not finished, or was damaged."""
    run = Run.open(path)
    page = find_study(run.manifest["study"]).page(run)
    return page, write(page, path / PAGE)
