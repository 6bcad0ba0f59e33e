"""Public names: each exported once, each there, and none of them heavy to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import heldout


def test_every_public_name_is_there():
    for name in heldout.__all__:
        assert getattr(heldout, name) is not None
    assert len(set(heldout.__all__)) == len(heldout.__all__)
    assert set(heldout.__all__) <= set(dir(heldout))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        heldout.chek  # noqa: B018 - the access is the test


def test_the_type_checker_sees_what_python_sees():
    """The names under TYPE_CHECKING are those that load lazily."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(heldout.__file__).read_text())
    checked = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert checked == set(heldout.__all__) - {"__version__"}


@pytest.mark.parametrize("command", ["import heldout", "import heldout.cli"])
def test_importing_loads_nothing_heavy(command: str):
    heavy = "{'torch', 'pandas', 'scipy', 'sklearn', 'plotly', 'transformers'}"
    code = f"{command}; import sys; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
