"""A table of a model's answers to arithmetic: two operands and an answer a line, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heldout.errors import SplitError, choices
from heldout.tasks.arithmetic.numerals import SYMBOLS, check_base

LONGEST = 30  # digits of an operand


@dataclass(frozen=True)
class Predictions:
    """N pairs in the order of the file: operands, answers as written, and what the reader should be told."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    answers: tuple[str, ...]
    notes: tuple[str, ...]


def read_predictions(
    path: Path, *, base: int = 10, columns: Sequence[str] = ("a", "b", "answer"), longest: int = LONGEST
) -> Predictions:
    """The pairs and answers in a CSV file with a header.

    Operands are whole numbers from 0, of at most `longest` digits, written in `base`. An answer may be anything: what is
    no number is a wrong answer. A line that repeats an earlier one is counted once, with a note; a pair that has two
    different answers is an error, as is a file whose answers are all the same or none of them a number. Raises
    `SplitError` with the line and column at the first thing that cannot be read.
    """
    check_base(base)
    a: list[int] = []
    b: list[int] = []
    answers: list[str] = []
    seen: dict[tuple[int, int], tuple[str, int]] = {}
    repeats: list[tuple[int, int]] = []
    for line, cells in _lines(path, columns):
        x, y = (
            _operand(text, base, longest, f"{path}, line {line}, column {name!r}")
            for text, name in zip(cells[:2], columns[:2], strict=True)
        )
        answer = cells[2].strip()
        if (x, y) in seen:
            before, where = seen[x, y]
            if before != answer:
                raise SplitError(
                    f"{path}, line {line}, column {columns[2]!r}: {answer or 'nothing'!r} is answered to the pair that line "
                    f"{where} answers with {before or 'nothing'!r}; one answer a pair would be accepted (write the "
                    "samples of a model that answers at random to files of their own)"
                )
            repeats.append((line, where))
            continue
        seen[x, y] = answer, line
        a.append(x)
        b.append(y)
        answers.append(answer)
    _check_answers(path, columns[2], answers, base)
    return Predictions(tuple(a), tuple(b), tuple(answers), _notes(repeats))


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line of the file, the cells asked for), without blank lines."""
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise SplitError(f"{path} does not exist; {choices(path.name, near)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            at = _places(path, header, columns)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise SplitError(
                        f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)} columns "
                        f"({', '.join(header)})"
                    )
                yield reader.line_num, [row[i] for i in at]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SplitError(f"{path} is no CSV file in UTF-8: {error}") from None


def _places(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    for name in columns:
        if header.count(name) != 1:
            found = "no column" if name not in header else f"{header.count(name)} columns"
            raise SplitError(
                f"{path}: {found} {name!r}; {choices(name, header)}. Two operands and an answer are read, by default from "
                "columns a, b and answer"
            )
    return [header.index(name) for name in columns]


def _operand(text: str, base: int, longest: int, where: str) -> int:
    text = text.strip().lower()
    accepted = f"a whole number from 0, of at most {longest} digits in base {base}, would be accepted"
    symbols = SYMBOLS[:base]
    if not text or any(c not in symbols for c in text):
        negative = text[:1] == "-" and len(text) > 1 and all(c in symbols for c in text[1:])
        raise SplitError(f"{where}: {text!r} is {'negative' if negative else 'no whole number'}; {accepted}")
    digits = text.lstrip("0") or "0"
    if len(digits) > longest:
        raise SplitError(f"{where}: {text!r} has {len(digits)} digits; {accepted}")
    return int(digits, base)


def _check_answers(path: Path, column: str, answers: Sequence[str], base: int) -> None:
    if not answers:
        raise SplitError(f"{path}: no lines below the header; one pair a line would be accepted")
    if len(answers) > 1 and len(set(answers)) == 1:
        raise SplitError(
            f"{path}, column {column!r}: {answers[0] or 'nothing'!r} on all {len(answers)} lines; a constant answer follows "
            "from no operands. Answers that vary would be accepted"
        )
    symbols = SYMBOLS[:base]
    if not any(a.lstrip("+-") and all(c in symbols for c in a.lstrip("+-").lower()) for a in answers):
        raise SplitError(
            f"{path}, column {column!r}: none of {len(answers)} answers is a whole number in base {base} (line 2 has "
            f"{answers[0]!r})"
        )


def _notes(repeats: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    if not repeats:
        return ()
    line, where = repeats[0]
    count = (
        "1 line repeats an earlier one and is"
        if len(repeats) == 1
        else f"{len(repeats)} lines repeat earlier ones and are"
    )
    return (f"{count} counted once (line {line} repeats line {where})",)
