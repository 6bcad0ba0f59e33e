"""docs/similarity.md runs as it stands and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from heldout.analyses.similarity.measures import MEASURES

DOCS = Path(__file__).resolve().parents[3] / "docs" / "similarity.md"


def printed() -> list[tuple[str, str]]:
    """What each block prints, run one after the other as one program, and what the page says that it prints."""
    names: dict[str, object] = {}
    found = []
    for code, told in re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", DOCS.read_text(), re.DOTALL):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, str(DOCS), "exec"), names)
        found.append((out.getvalue(), told))
    return found


def test_every_block_prints_what_the_page_says() -> None:
    blocks = printed()
    assert len(blocks) == DOCS.read_text().count("```python")
    for said, told in blocks:
        assert said == told


def test_every_measure_stands_in_the_table() -> None:
    rows = {
        name: int(row.split("|")[5])
        for row in re.findall(r"^\| `.*$", DOCS.read_text(), re.MULTILINE)
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])
    }
    assert rows == {name: measure.least for name, measure in MEASURES.items()}
