"""``heldout rule``: docs/rule.md runs as it stands, files are written where asked for, bad input ends with code 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import heldout
from heldout.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs" / "rule.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[0]
    assert code.startswith("# answers.py\n")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    return tmp_path


def test_the_session_in_the_docs(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [console] = blocks("console")
    command, expected = console.split("\n", 1)
    run(command.removeprefix("$ heldout ").split())
    assert capsys.readouterr().out.rstrip() == expected.rstrip()


def test_the_python_in_the_docs(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("python")[1]
    exec(compile(code, str(DOCS), "exec"), {})
    said = capsys.readouterr().out
    assert "(a mod 1000) + (b mod 1000)" in said


def test_files_are_written(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["rule", "predictions.csv", "--json", "found.json", "--csv", "pairs.csv", "--examples", "0"])
    said = capsys.readouterr().out
    assert "follows the rule" not in said
    assert "found.json" in said
    record = json.loads(Path("found.json").read_text())
    assert record["found"]
    assert record["rule"] == "(a mod 1000) + (b mod 1000)"
    assert record["candidates"][0]["rule"] == record["rule"]
    assert sum(row["all"] for row in record["mixture"]) == pytest.approx(1)
    given, written = (pd.read_csv(name, dtype=str) for name in ("predictions.csv", "pairs.csv"))
    assert written["a"].tolist() == given["a"].tolist()
    assert (written["rule"].astype(int) == given["a"].astype(int) % 1000 + given["b"].astype(int) % 1000).all()
    follows = written["follows_rule"] == "True"
    assert (written["answer"] == written["rule"]).equals(follows)
    assert record["strata"][0]["n"] + record["strata"][1]["n"] == pytest.approx(len(given) / 2, abs=1)


def test_no_relation_is_an_answer_and_leaves_with_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "few.csv"
    path.write_text("a,b,answer\n" + "".join(f"{i},{i * 7},{i * i % 11}\n" for i in range(12)))
    run(["rule", str(path), "--json", str(tmp_path / "few.json")])
    assert "no relation" in capsys.readouterr().out
    record = json.loads((tmp_path / "few.json").read_text())
    assert record["rule"] is None
    assert record["reason"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b,answer\n1,2,3\nx,2,4\n", [], "line 3, column 'a': 'x' is no whole number"),
        ("a,b\n1,2\n", [], "no column 'answer'"),
        ("a,b,answer\n1,2,3\n1,5,4\n", ["--operation", "plus"], "unknown operation 'plus'"),
        ("a,b,answer\n1,2,3\n1,5,4\n", ["--operation", "mod_add"], "needs a modulus"),
        ("a,b,answer\n1,2,3\n1,5,4\n", ["--base", "40"], "between 2 and 36"),
        ("a,b,answer\n1,2,3\n", [], "1 pairs; at least 2"),
        ("a,b,answer\n" + "".join(f"{i},{i},{i}\n" for i in range(9)), ["--csv", "no/such/x.csv"], "cannot be written"),
    ],
)
def test_bad_input_ends_with_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text(text)
    with pytest.raises(SystemExit) as leave:
        main(["rule", "p.csv", *options])
    assert leave.value.code == 2
    assert message in capsys.readouterr().err


def test_public_names() -> None:
    assert heldout.discover_rule.__name__ == "discover_rule"
    assert heldout.Relation.__name__ == "Relation"


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(arguments)
    assert leave.value.code == 0
