"""From a spec to a finished run, and to the text that `heldout show` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heldout.audits.spec import Spec, read_spec
from heldout.audits.steps import slug, steps
from heldout.errors import HeldoutError
from heldout.runs import Run, execute
from heldout.runs._json import digest
from heldout.studies.running import pick_device

STUDY = "audit"  # what a run directory of an audit calls its study


def run_audit(
    path: Path,
    *,
    runs: Path | None = None,
    device: str | None = None,
    engine: str = "inline",
    workers: int | None = None,
    address: str | None = None,
    fresh: Sequence[str] = (),
    progress: Any = "auto",
) -> Run:
    """Audit what a spec says, or go on with it: the run's directory is named after the spec and a hash of what it asks for.

    `runs`, `device` replace the spec's `out`, `device`. Errors of a step say that what was computed is kept.
    """
    spec = read_spec(path)
    folder = path.resolve().parent
    made = steps(spec, folder)
    place = runs if runs is not None else folder / spec.out if spec.out else Path("runs")
    manifest = {
        "config": spec.model_dump(mode="json", by_alias=True),
        "preset": "",
        "not_judged": "an audit has no claims",
        "reference": spec.tests[0],
        "spec": path.name,
    }
    out = place / directory_name(spec, [dict(step.settings) for step in made])
    before = _finished(out)
    try:
        return execute(
            STUDY,
            made,
            out=out,
            engine=engine,
            workers=workers,
            address=address,
            device=pick_device(device or spec.device),
            fresh=fresh,
            manifest=manifest,
            progress=progress,
        )
    except HeldoutError as error:
        done = _finished(out)
        if not done or done < before:
            raise
        raise type(error)(
            f"{error}\n{done} of {len(made)} steps are finished and kept in {out}; once this is mended, the same command "
            "goes on from there"
        ) from error


def directory_name(spec: Spec, settings: Sequence[dict[str, Any]]) -> str:
    """``audit-NAME-1a2b3c4d``: the same for the same spec and the same files behind it, wherever they lie."""
    return f"audit-{slug(spec.name)}-{digest(list(settings))[:8]}"


def _finished(out: Path) -> int:
    """How many steps of a run directory are finished."""
    try:
        manifest = json.loads((out / "manifest.json").read_text())
        return sum(step["wall_seconds"] is not None for step in manifest["steps"].values())
    except (OSError, ValueError, KeyError):
        return 0
