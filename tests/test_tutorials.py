"""Tutorials whose blocks print what the page says. Others have tests of their own, beside the tests of what they show."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["circuit", "features", "statistics", "table"])
def test_every_block_prints_what_the_page_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = DOCS / f"{page}.md"
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", path.read_text(), re.DOTALL)
    for code, told in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, str(path), "exec"), names)
        assert out.getvalue() == told
    # The only blocks that print nothing are those that only prepare.
    assert len(blocks) == path.read_text().count("```python")
