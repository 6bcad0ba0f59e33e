"""Writes docs/errors.md: every message that a user can cause, read from the source.

    python scripts/errors_page.py            # writes the page
    python scripts/errors_page.py --check    # writes nothing; exit code 1 where the page is out of date

A message is the first argument of a `raise` of a `HeldoutError`; in studies and audits of a `ValueError` too, which pydantic
hands to the user as a `ConfigError`. What a message fills in is shown in angle quotes, in the source's own words.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE, PAGE = ROOT / "src" / "heldout", ROOT / "docs" / "errors.md"

AREAS = {
    "cli": "The command line",
    "audits": "Specs and audits",
    "studies": "Studies and their settings",
    "runs": "Runs, steps and the store",
    "report": "Pages",
    "figures": "Figures",
    "tasks": "Data and splits",
    "networks": "Networks and weights",
    "training": "Training",
    "activations": "Sites, edits and passes",
    "proxies": "Proxies and bases",
    "analyses": "Faithfulness and scoring",
    "analyses.equivalence": "Rules behind answers",
    "analyses.features": "Features",
    "analyses.similarity": "Similarity",
    "analyses.degeneracy": "Degeneracy",
    "analyses.geometry": "Geometry",
    "statistics": "Statistics",
    "evidence": "Evidence",
}
OPENING = """# Every error that you can cause

A message says what was wrong, where, and what would be accepted. On the command line it stands alone behind `error:`, and
the command ends with exit code 2 (`--debug` adds the traceback). In Python it is an exception of the class named here, each
of them a `heldout.HeldoutError` ([classes](reference/evidence.md#errors)). Anything else is a defect of heldout and keeps
its traceback. Ctrl-C ends with 130, and what was finished is kept.

This page is made from the source by `scripts/errors_page.py`. What a message fills in stands in ‹angle quotes›; where a
message names what would be accepted, it lists the nearest names.
"""


class Message(NamedTuple):
    area: str
    module: str
    function: str
    error: str
    text: str


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the page is up to date")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text)
        return 0
    current = PAGE.is_file() and PAGE.read_text() == text
    print(
        f"{PAGE.relative_to(ROOT)} is {'up to date' if current else 'out of date: run python scripts/errors_page.py'}"
    )
    return 0 if current else 1


def page() -> str:
    """The whole page: a section an area, a line a message."""
    found = sorted(set(messages()), key=lambda m: (list(AREAS).index(m.area), m.module, m.function, m.text))
    parts = [OPENING]
    for area, title in AREAS.items():
        lines = [m for m in found if m.area == area]
        if lines:
            parts.append(f"\n## {title}\n")
            parts += [f"- **{m.error}** {_code(m.text)} *in {_code(f'{m.module}.{m.function}')}*" for m in lines]
    return "\n".join(parts) + "\n"


def messages() -> Iterator[Message]:
    """Every message of the package that has words of its own."""
    errors = _error_classes()
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        area = max((a for a in AREAS if module == a or module.startswith(f"{a}.")), key=len, default="")
        if not area:
            continue
        settings = area in ("audits", "studies")
        for function, call, scope in _raised(ast.parse(path.read_text())):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            error = "ConfigError" if name == "ValueError" and settings else name
            if error not in errors or not call.args:
                continue
            text = " ".join(_text(call.args[0], scope).split())
            if re.search(r"\w", re.sub("‹[^›]*›", "", text)):
                yield Message(area, module, function, error, text)


def _error_classes() -> set[str]:
    """HeldoutError and its subclasses, by the source of `heldout.errors`."""
    known = {"HeldoutError"}
    for node in ast.parse((SOURCE / "errors.py").read_text()).body:
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id in known for b in node.bases):
            known.add(node.name)
    return known


def _raised(tree: ast.Module) -> Iterator[tuple[str, ast.Call, dict[str, ast.expr]]]:
    """Each raised call with the name of the function around it and what that function and the module assign, by name."""

    constants = {
        t.id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)
        for t in n.targets
        if isinstance(t, ast.Name)
    }

    def walk(node: ast.AST, names: tuple[str, ...], scope: dict[str, ast.expr]) -> Iterator:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, (*names, child.name), scope)
            elif isinstance(child, ast.FunctionDef):
                assigned = {
                    t.id: n.value
                    for n in ast.walk(child)
                    if isinstance(n, ast.Assign)
                    for t in n.targets
                    if isinstance(t, ast.Name)
                }
                yield from walk(child, (*names, child.name), constants | assigned)
            else:
                if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
                    yield ".".join(names), child.exc, scope
                yield from walk(child, names, scope)

    yield from walk(tree, (), constants)


def _text(node: ast.expr, scope: dict[str, ast.expr], depth: int = 0) -> str:
    """The words of a message, with what is filled in between angle quotes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v, scope, depth) for v in node.values)
    if isinstance(node, ast.FormattedValue):
        return _filled(node.value, scope, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, scope, depth) + _text(node.right, scope, depth)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "unknown" and len(node.args) == 3:
            kind, given, _ = (_text(a, scope, depth) for a in node.args)
            return f"unknown {kind} {given}; choose from ‹names›"
        if node.func.id == "choices":
            return "choose from ‹names›"
        if node.func.id.startswith("_") and node.args:  # a helper of the module that adds to a message
            return _text(node.args[0], scope, depth)
    return _filled(node, scope, depth)


def _filled(node: ast.expr, scope: dict[str, ast.expr], depth: int) -> str:
    """What stands in a placeholder: one of two texts, a text assigned just above, or the name of a value."""
    if isinstance(node, ast.IfExp):
        sides = [_text(side, scope, depth) for side in (node.body, node.orelse)]
        written = [s for s in sides if s]
        return " / ".join(written) if len(written) == 2 else f"[{written[0]}]" if written else ""
    if isinstance(node, ast.Constant | ast.JoinedStr):
        return _text(node, scope, depth)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("unknown", "choices"):
        return _text(node, scope, depth)
    assigned = scope.get(node.id) if isinstance(node, ast.Name) else None
    if depth < 2 and (isinstance(assigned, ast.JoinedStr) or _is_fixed(node, assigned)):
        return _text(assigned, scope, depth + 1)
    return f"‹{_word(node)}›"


def _is_fixed(name: ast.expr, value: ast.expr | None) -> bool:
    """Words, or a constant of the module; another number that is assigned may change before the message is made."""
    return isinstance(value, ast.Constant) and (
        isinstance(value.value, str) or (isinstance(name, ast.Name) and name.id.isupper())
    )


def _word(node: ast.expr) -> str:
    """A short name for a value, from the expression that gives it."""
    if isinstance(node, ast.Name):
        return node.id.strip("_").replace("_", " ")
    if isinstance(node, ast.Attribute):
        if node.attr in ("__name__", "name", "names"):
            return _word(node.value) + (" name" if node.attr == "name" else "")
        return node.attr.strip("_").replace("_", " ")
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Subscript | ast.Starred | ast.UnaryOp):
        return _word(node.operand if isinstance(node, ast.UnaryOp) else node.value)
    if isinstance(node, ast.BinOp):
        sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "x", ast.Pow: "^"}.get(type(node.op), "/")
        return f"{_word(node.left)} {sign} {_word(node.right)}"
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp):
        return _word(node.generators[0].iter)
    if isinstance(node, ast.Call):
        return _called(node)
    return "value"


def _called(node: ast.Call) -> str:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "value")
    first = _word(node.args[0]) if node.args else ""
    if name == "len":
        return f"number of {first}"
    if name == "join":
        return f"{first}, …"
    if name == "type":
        return f"type of {first}"
    if name in ("min", "max") and first:
        return f"{'least' if name == 'min' else 'greatest'} of {first}"
    if isinstance(node.func, ast.Attribute) and not (isinstance(node.func.value, ast.Name) and node.args):
        return _word(node.func.value)
    return first or name.strip("_").replace("_", " ")


def _code(text: str) -> str:
    """A Markdown code span of any text."""
    ticks = "``" if "`" in text else "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


if __name__ == "__main__":
    sys.exit(main())
