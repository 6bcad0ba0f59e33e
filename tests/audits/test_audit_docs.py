"""docs/audit.md runs as it stands, as a new user would run it: in an empty folder, from the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from heldout.audits.spec import SplitSpec, read_spec

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
    assert len(commands) == 5
    said = ""
    for command in commands:
        program, *rest = command.split()
        start = [sys.executable] if program == "python" else [sys.executable, "-m", "heldout"]
        done = subprocess.run([*start, *rest], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said += done.stdout
    assert "transformer.h.0.attn@attn.pattern" in said
    assert len(list(tmp_path.glob("runs/audit-counting-*/report.html"))) == 1
    assert len(list(tmp_path.glob("runs/audit-theirs-*/report.html"))) == 1


def test_its_specs_are_valid(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert {read_spec(p).name for p in tmp_path.glob("*.yaml")} == {"counting", "theirs"}


def test_it_names_fields_that_exist() -> None:
    table = DOCS.read_text().split("## Splits")[1].split("## Networks")[0]
    for field in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", field)) <= set(SplitSpec.model_fields)
