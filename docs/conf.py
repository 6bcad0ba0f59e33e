"""How the documentation is built: `make docs`, or `python -m sphinx -W -b html docs docs/_build/html`.

Pages are Markdown and read well where they lie. Docstrings are Markdown-flavoured; `to_rst` turns what differs into
reStructuredText, which is what Sphinx reads in docstrings.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.util.inspect import object_description

import heldout

project = "heldout"
author = "The heldout maintainers"
project_copyright = author
version = release = heldout.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = False  # types of other libraries have no page here; links between our own pages are checked by MyST

html_theme = "furo"
html_title = "heldout"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["heldout.css"]

myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # a class in a signature whose name two modules have: which one, its module says

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
highlight_language = "python"

LITERAL = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)
EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)[^*\n]*(?:\n[^*\n]+)?(?<=\S)\*(?![\w*])")
NAME = re.compile(r"`[A-Za-z_][\w.]*`")


def to_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: code blocks marked, stars and bars of formulas escaped, names linked."""
    text: list[str] = []
    block, start = False, 0
    paragraph = ""  # the last line of prose
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        after_gap = i > 0 and not lines[i - 1].strip()
        if block and line.strip() and indent < start:
            block = False
        if not block and line.strip() and after_gap and indent >= _indent(paragraph) + 4:
            block, start = True, indent
            if not paragraph.rstrip().endswith("::"):
                text += [" " * (indent - 4) + ".. code-block:: text", ""]
        if line.strip() and not block:
            paragraph = line
        text.append(line if block else "\0" + line)
    return _prose("\n".join(text)).split("\n")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _prose(text: str) -> str:
    """Inline markup of the runs of lines that are marked as prose (by a leading NUL)."""
    prose = re.compile(r"(?:^\0.*$\n?)+", re.MULTILINE)
    return prose.sub(lambda run: _inline(run[0].replace("\0", "")), text)


def _inline(text: str) -> str:
    parts, at = [], 0
    for found in LITERAL.finditer(text):
        parts += [_escaped(text[at : found.start()]), _literal(found[0])]
        at = found.end()
        if text[at : at + 1].isalnum():  # a literal must end before a letter: `Split`s
            parts.append("\\ ")
    return "".join([*parts, _escaped(text[at:])])


def _literal(text: str) -> str:
    if text.startswith("``"):
        return text
    # A plain lower-case word is more often an argument than the function of that name.
    named = NAME.fullmatch(text) and (text != text.lower() or "_" in text or "." in text)
    return f":py:obj:{text}" if named else f"`{text}`"


def _escaped(text: str) -> str:
    """Stars, bars and final underscores are what they look like, unless stars stand around words."""
    kept = [m.span() for m in EMPHASIS.finditer(text)]
    out = []
    for i, c in enumerate(text):
        inside = any(a <= i < b for a, b in kept)
        mark = c in "*|\\" and not inside
        mark |= c == "_" and not text[i + 1 : i + 2].isalnum() and text[i - 1 : i].isalnum()
        out.append("\\" + c if mark else c)
    return "".join(out)


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


class _Written:
    """Stands in a signature for what the source says there."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(app: Any, what: str, name: str, obj: Any, options: Any, args: str | None, returns: str | None) -> Any:
    """Types as they are written: what ArrayLike stands for would fill three lines."""
    if not args:
        return None
    try:
        found = inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    parameters = [
        p.replace(
            annotation=_Written(p.annotation) if isinstance(p.annotation, str) else p.annotation,
            default=p.default if p.default is p.empty else _Written(object_description(p.default)),
        )
        for p in found.parameters.values()
        if p.name not in ("self", "cls")
    ]
    result = found.return_annotation
    text = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return text, result if isinstance(result, str) else returns


def _elsewhere(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A class named without its module, or by the module that it is written in, links to its one entry."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or not name[:1].isupper() or target not in (name, *_paths(name)):
        return None
    domain = env.get_domain("py")
    entries = [full for full in domain.objects if full.rpartition(".")[2] == name]
    if len(entries) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", entries[0], node, contnode)


def _paths(name: str) -> list[str]:
    return [f"{heldout._PUBLIC[name]}.{name}"] if name in heldout._PUBLIC else []


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _elsewhere)
    return {"parallel_read_safe": True}
