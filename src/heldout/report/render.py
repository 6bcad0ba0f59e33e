"""A page as one HTML file that opens offline and asks nobody for anything.

Three things keep a user's text from becoming markup or code: Jinja escapes every string; figures travel as JSON in
which no tag can begin or end; and the page's content security policy runs the two scripts named by their hash only. One
of them, the library that draws figures, travels compressed and is put in its place when the first figure is drawn.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from heldout.errors import EvidenceError, StoreError
from heldout.figures.page import Page
from heldout.report import text
from heldout.report.strip import forest_strip

if TYPE_CHECKING:
    from heldout.figures.base import Figure

ROWS_SHOWN = 200  # of the table behind a figure; the file holds all


def render(page: Page) -> str:
    """`page` as HTML. The same page gives the same bytes."""
    figures = [figure for section in page.sections for figure in section.figures]
    _unique("figure", [figure.id for figure in figures])
    _unique("section", [section.id for section in page.sections])
    script, library = _asset("page.js"), _plotly() if figures else ""
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            style=Markup(_asset("page.css")),
            policy=_policy([s for s in (script, library) if s]),
            manifest=list(text.flat(page.manifest)),
            figure_data={figure.id: _behind(figure) for figure in figures},
            script=Markup(script),
            library=_packed(library),
        )
    )


def write(page: Page, path: Path) -> Path:
    """Render `page` to `path`, which appears whole or not at all; returns `path`.

    Raises `StoreError` where it cannot be written.
    """
    content = render(page).encode()
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write the report {path}: {error.strerror or error}; give a place that can be written and has room"
        ) from error
    return path


def _behind(figure: Figure) -> dict[str, Any]:
    """What the page shows of a figure besides its title and caption."""
    shown = figure.data.head(ROWS_SHOWN)
    return {
        "plot": _json(figure.plot, where=figure.id),
        "height": int(figure.plot["layout"].get("height", 400)),
        "columns": [str(c) for c in figure.data.columns],
        "rows": [[text.cell(v) for v in row] for row in shown.itertuples(index=False, name=None)],
        "numeric": [not isinstance(v, str) for v in (shown.iloc[0] if len(shown) else [])],
        "total": len(figure.data),
        "csv": text.csv_uri(figure.data),
        "file": f"{text.slug(figure.id)}.csv",
    }


def _json(value: Any, *, where: str) -> Markup:
    """`value` as JSON that is safe inside a script element: no tag, comment or entity can begin in it."""
    try:
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise EvidenceError(f"figure {where!r} is not plain JSON: {error}") from error
    for char in "<>&\u2028\u2029":
        plain = plain.replace(char, f"\\u{ord(char):04x}")
    return Markup(plain)


def _unique(what: str, ids: list[str]) -> None:
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise EvidenceError(f"a page names each {what} once; more than one is called {', '.join(map(repr, twice))}")


@cache
def _packed(script: str) -> str:
    """`script` as base64 of a gzip file, a third as long; the same bytes each time."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode() if script else ""


def _policy(scripts: list[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return resources.files("heldout.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # A browser reads line ends as \n before it hashes a script.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": text.cell,
        "estimate": text.estimate,
        "p_value": text.p_value,
        "slug": text.slug,
    }
    environment.globals |= {"interval": text.interval, "strip": forest_strip, "isnan": lambda x: x != x}
    return environment
