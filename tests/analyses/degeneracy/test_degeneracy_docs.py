"""docs/degeneracy.md runs as it stands and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs" / "degeneracy.md"


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


def test_every_block_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = printed()
    assert len(blocks) == DOCS.read_text().count("```python")
    for said, told in blocks:
        assert said == told
    picture = (tmp_path / "modules.html").read_text()
    assert "Two comparisons" in picture
    assert "module 0" in picture
