"""``heldout rule``: a CSV file of answers in, what was found in words out, and files where they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from heldout.analyses.equivalence import showing
from heldout.analyses.equivalence.discovery import discover_rule
from heldout.errors import StoreError
from heldout.tasks.predictions import read_predictions


def describe_predictions(
    path: Path,
    *,
    operation: str = "add",
    modulus: int | None = None,
    base: int = 10,
    seed: int = 0,
    columns: Sequence[str] = ("a", "b", "answer"),
    examples: int = showing.EXAMPLES,
    probes: int = 0,
    record: Path | None = None,
    table: Path | None = None,
) -> str:
    """The relation in the answers of a file, in words.

    `examples` pairs that follow the rule and as many that do not; `probes` pairs that would separate the rules left.
    `record` is written as JSON: everything but the pairs; `table` as CSV: answer, rule and truth, pair by pair.
    """
    given = read_predictions(path, base=base, columns=columns)
    found = discover_rule(given.a, given.b, given.answers, operation=operation, modulus=modulus, base=base, seed=seed)
    parts = [*(f"note: {note}" for note in given.notes), str(found)]
    if examples > 0:
        parts += ["", showing.examples(found, examples)]
    if probes > 0:
        parts += ["", showing.probes(found, probes)]
    if record is not None:
        _write(record, json.dumps(found.record(), indent=1, allow_nan=False) + "\n")
        parts.append(f"\nrecord: {record}")
    if table is not None:
        _write(table, found.answers().to_csv(index=False))
        parts.append(f"\ntable: {table}")
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
