"""docs/audit.md runs as it stands, as a new user would run it: in an empty folder, from the command line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heldout.audits.parts import Families, Features, Part, Rule, Similarity, SplitSpec
from heldout.audits.spec import Spec, read_spec
from heldout.networks.load import importable

DOCS = Path(__file__).resolve().parents[2] / "docs" / "audit.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def write_files(folder: Path) -> None:
    for block in [*blocks("python"), *blocks("yaml")]:
        name = re.match(r"# (\S+)\n", block)
        assert name is not None, block
        (folder / name[1]).write_text(block)


@pytest.mark.slow
def test_every_file_and_command_of_the_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    write_files(tmp_path)
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) == 11
    said = ""
    for command in commands:
        program, *rest = command.split()
        start = [sys.executable] if program == "python" else [sys.executable, "-m", "heldout"]
        done = subprocess.run([*start, *rest], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said += done.stdout
    assert "transformer.h.0.attn@attn.pattern" in said
    assert len(list(tmp_path.glob("runs/audit-counting-*/report.html"))) == 1
    assert "excess_gap" in said
    assert len(list(tmp_path.glob("runs/audit-theirs-*/report.html"))) == 1
    (page,) = tmp_path.glob("runs/audit-adder-*/report.html")
    assert "longer: the answers follow (a mod 100) + (b mod 100): 100.0%" in page.read_text()
    (page,) = tmp_path.glob("runs/audit-shapes-*/report.html")
    assert "carry: colour is the loudest label on id" in page.read_text()
    assert "computed but quiet: shape" in page.read_text()
    assert len(list(tmp_path.glob("runs/audit-recordings-*/report.html"))) == 1
    (page,) = tmp_path.glob("runs/audit-twins-*/report.html")
    assert "one | two at 3: CKA (linear, debiased)" in page.read_text()


def test_its_specs_are_valid(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert {read_spec(p).name for p in tmp_path.glob("*.yaml")} == {
        "counting",
        "theirs",
        "adder",
        "shapes",
        "recordings",
        "twins",
    }


def test_the_ten_lines_of_python_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check.py of the tutorial, on the network of mine.py beside it; ten statements besides data and imports."""
    write_files(tmp_path)
    code = (tmp_path / "check.py").read_text()
    assert len([n for n in ast.parse(code).body if not isinstance(n, ast.Import | ast.ImportFrom)]) <= 10
    with importable(tmp_path):
        sys.modules.pop("mine", None)
        try:
            exec(compile(code, "check.py", "exec"), {})
        finally:
            sys.modules.pop("mine", None)
    said = capsys.readouterr().out
    assert "gap minus null" in said
    assert said.count("Disagreement(") == 5


def test_every_field_of_a_spec_is_documented() -> None:
    text = DOCS.read_text()
    missing = [name for name in Spec.model_fields if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def documented(section: str) -> set[str]:
    """The names in the first column of a section's table of fields."""
    text = DOCS.read_text().split(f"## {section}")[1].split("\n## ")[0]
    return {n for f in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE) for n in re.findall(r"`(\w+)`", f)}


@pytest.mark.parametrize(
    ("section", "part"),
    [("Splits", SplitSpec), ("The rule behind", Rule), ("Loud, quiet", Features), ("How alike", Similarity)],
)
def test_it_names_fields_that_exist(section: str, part: type[Part]) -> None:
    found = documented(section)
    assert found
    assert found <= set(part.model_fields)


def test_every_family_is_documented() -> None:
    rows = "".join(
        re.findall(r"^\| [^|]*\|", DOCS.read_text().split("## Readings")[1].split("| kind |")[0], re.MULTILINE)
    )
    families = {n for n in Families.model_fields if n != "sample" and not n.endswith("_draws")}
    assert set(re.findall(r"`(\w+)`", rows)) == families


def test_every_field_of_a_rule_is_documented() -> None:
    assert documented("The rule behind") == set(Rule.model_fields)


def test_every_field_of_features_is_documented() -> None:
    assert documented("Loud, quiet") == set(Features.model_fields)


def test_every_field_of_similarity_is_documented() -> None:
    assert documented("How alike") == set(Similarity.model_fields)
