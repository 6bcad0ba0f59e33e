"""Which room may use which: read from the imports, wherever in a file they stand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "heldout"
ORDER = [  # each may use itself and what stands below
    "cli",
    "report",
    "audits",
    "studies",
    "figures",
    "runs",
    "analyses",
    "proxies",
    "activations",
    "training",
    "networks",
    "tasks",
    "statistics",
    "evidence",
    "errors",
]
FREE = {"__init__", "__main__"}  # the public names, and `python -m heldout`
FILES = sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str:
    """``heldout.tasks.digits`` -> ``tasks``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts)


def is_module(name: str) -> bool:
    path = SOURCE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import of this package, those inside functions and for type checkers too."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            module = node.module or ""
            # What is imported may be a module itself: `from heldout import errors`.
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                found.append((node.lineno, whole if is_module(whole) else module))
    return [(line, module) for line, module in found if module.split(".")[0] == "heldout"]


def upward(path: Path) -> list[str]:
    own = room(name_of(path))
    if own in FREE:
        return []
    allowed = ORDER[ORDER.index(own) :]
    return [
        f"{name_of(path)}:{line} uses {module}, which stands above {own}"
        for line, module in imports(path)
        if room(module) not in [*allowed, "__init__"]  # the version stands in the package itself
    ]


def test_every_room_has_its_place() -> None:
    rooms = {room(name_of(path)) for path in FILES} - FREE
    assert rooms == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_uses_what_stands_above_it(path: Path) -> None:
    assert upward(path) == []


def test_an_upward_import_is_seen_wherever_it_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path / "heldout")
    file = tmp_path / "heldout" / "tasks" / "some.py"
    file.parent.mkdir(parents=True)
    (tmp_path / "heldout" / "cli.py").touch()
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "from heldout.errors import ConfigError\n"
        "if TYPE_CHECKING:\n    from heldout.runs import Run\n"
        "def f():\n    import heldout.activations.tap\n    from heldout import cli\n"
    )
    assert [line.split()[2].rstrip(",") for line in upward(file)] == [
        "heldout.runs",
        "heldout.activations.tap",
        "heldout.cli",
    ]


def _later(statement: ast.stmt) -> bool:
    """Whether what stands in it is not imported when the file is loaded."""
    return isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.If)


def _imports_in(statement: ast.stmt) -> list[ast.Import | ast.ImportFrom]:
    return [n for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_rooms_do_not_use_each_other_in_circles() -> None:
    """Below the rooms: no two files import each other when they are loaded."""
    graph = {}
    for path in FILES:
        inside = {n.lineno for top in ast.parse(path.read_text()).body if _later(top) for n in _imports_in(top)}
        graph[name_of(path).removesuffix(".__init__")] = {m for line, m in imports(path) if line not in inside}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join([*trail, module])}"
        if module in done:
            return
        for other in graph.get(module, ()):
            if other in graph:
                visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())
