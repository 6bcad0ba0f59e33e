"""Reading a table of answers: what is accepted, and what is named by line and column where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from heldout.errors import SplitError
from heldout.tasks.predictions import read_predictions


def write(folder: Path, text: str) -> Path:
    path = folder / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_operands_and_answers_are_read(tmp_path: Path) -> None:
    text = '\ufeffid, a ,b,answer\n0,007,12,19\n1,"5",  6 ,\n\n2,123456789012345678901234567890,0,1x\n'
    found = read_predictions(write(tmp_path, text))
    assert found.a == (7, 5, 123456789012345678901234567890)
    assert found.b == (12, 6, 0)
    assert found.answers == ("19", "", "1x")
    assert found.notes == ()


def test_other_bases_and_columns(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, "x,y,said\nfF,10,10f\n1,2,3\n"), base=16, columns=("x", "y", "said"))
    assert found.a == (255, 1)
    assert found.answers == ("10f", "3")


def test_repeated_lines_count_once(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, "a,b,answer\n1,2,3\n2,1,3\n1,2,3\n01,2,3\n4,5,9\n"))
    assert found.a == (1, 2, 4)
    assert found.notes == ("2 lines repeat earlier ones and are counted once (line 4 repeats line 2)",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,anser\n1,2,3\n", "no column 'answer'; choose from a, b, anser"),
        ("a,a,b,answer\n1,1,2,3\n", "2 columns 'a'"),
        ("", "no column 'a'"),
        ("a,b,answer\n", "no lines below the header"),
        ("a,b,answer\n1,2,3\n1.5,2,3\n", "line 3, column 'a': '1.5' is no whole number; a whole number from 0"),
        ("a,b,answer\n1,-2,3\n", "line 2, column 'b': '-2' is negative"),
        ("a,b,answer\n1,,3\n", "line 2, column 'b': '' is no whole number"),
        ("a,b,answer\n1,2,3\n" + "1" * 31 + ",2,3\n", "line 3, column 'a': .* has 31 digits; .* at most 30 digits"),
        ("a,b,answer\n1,2\n", "line 2: 2 cells where the header has 3 columns"),
        ("a,b,answer\n1,2,3\n5,6,3\n7,8,3\n", "column 'answer': '3' on all 3 lines"),
        ("a,b,answer\n1,2,x\n5,6,y\n", "none of 2 answers is a whole number in base 10"),
        (
            "a,b,answer\n1,2,3\n5,6,7\n1,2,4\n",
            "line 4, column 'answer': '4' is answered to the pair that line 2 .* '3'",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        read_predictions(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    write(tmp_path, "a,b,answer\n1,2,3\n")
    with pytest.raises(SplitError, match=r"does not exist; choose from predictions\.csv"):
        read_predictions(tmp_path / "prediction.csv")
    (tmp_path / "binary.csv").write_bytes(b"a,b,answer\n\xff\xfe\x00,1,2\n")
    with pytest.raises(SplitError, match="no CSV file in UTF-8"):
        read_predictions(tmp_path / "binary.csv")
