"""The page of a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from heldout.audits.page import audit_page
from heldout.audits.running import STUDY as AUDIT
from heldout.errors import StoreError
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
    try:
        page = audit_page(run) if run.manifest["study"] == AUDIT else find_study(run.manifest["study"]).page(run)
    except ValidationError as error:
        raise StoreError(
            f"{path} was made by another version: its configuration is not one that this version knows "
            f"({error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}); run the study again"
        ) from None
    return page, write(page, path / PAGE)
