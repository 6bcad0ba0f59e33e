"""The documentation builds without a warning, its links lead somewhere, and every public name has its entry."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html import unescape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

import heldout
from heldout.studies.base import STUDIES, find_study

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them, where a warning is an error."""
    out = tmp_path_factory.mktemp("docs")
    build = [sys.executable, "-m", "sphinx", "--quiet", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(out / "doctrees"), str(DOCS), str(out / "html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def ids(page: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page))


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    anchors = {path: ids(text) for path, text in pages.items()}
    broken, followed = [], 0
    for path, text in pages.items():
        for link in map(unescape, re.findall(r'<a [^>]*?href="([^"]+)"', text)):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            followed += 1
            if not target.is_file() or (anchor and target in anchors and anchor not in anchors[target]):
                broken.append(f"{path.name}: {link}")
    assert sorted(set(broken)) == []
    assert followed > 1000


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*?src="([^"]+)"', path.read_text())
        loaded += re.findall(r'<link [^>]*?rel="stylesheet"[^>]*?href="([^"]+)"', path.read_text())
        assert [link for link in loaded if re.match(r"(?:https?:)?//", link)] == []


def test_every_public_name_has_its_entry(site: Path) -> None:
    there = set().union(*(ids(path.read_text()) for path in (site / "reference").glob("*.html")))
    assert {f"heldout.{name}" for name in heldout.__all__ if name != "__version__"} - there == set()


def test_names_in_the_text_are_there() -> None:
    """Every `heldout.…` that a page names can be imported."""
    text = "".join(path.read_text() for path in [ROOT / "README.md", *DOCS.rglob("*.md")] if path.name != "errors.md")
    for name in sorted(set(re.findall(r"\bheldout(?:\.[A-Za-z_]\w*)+", text))):
        found: object = heldout
        parts = name.split(".")
        for i, part in enumerate(parts[1:], 2):
            try:
                found = getattr(found, part) if hasattr(found, part) else import_module(".".join(parts[:i]))
            except ModuleNotFoundError:
                pytest.fail(f"{name} does not exist")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_page_with_its_claims(name: str) -> None:
    text = (DOCS / "studies" / f"{name}.md").read_text()
    assert f"heldout run {name}" in text
    missing = [c.id for c in find_study(name).claims() if not re.search(rf"\b{c.id.split('-')[0]}\b", text)]
    assert missing == []


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_errors_is_up_to_date() -> None:
    made = load(ROOT / "scripts" / "errors_page.py")
    assert (DOCS / "errors.md").read_text() == made.page(), "run python scripts/errors_page.py"
    assert "- **SplitError** `there is no split with role 'test'" in made.page()


def test_docstrings_become_what_they_look_like() -> None:
    conf = load(DOCS / "conf.py")
    assert conf.to_rst(["p = 2 * min(a, b) of *these* x_ and |x|"]) == [r"p = 2 \* min(a, b) of *these* x\_ and \|x\|"]
    assert conf.to_rst(["`Split`s of `f(x)`, ``fit`` and `seed`"]) == [
        r":py:obj:`Split`\ s of ``f(x)``, ``fit`` and ``seed``"
    ]
    code = ["An example.", "", "    a * b", "", "More * text."]
    assert conf.to_rst(code) == ["An example.", "", ".. code-block:: text", "", "    a * b", "", r"More \* text."]
