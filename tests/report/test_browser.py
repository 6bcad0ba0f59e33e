"""The page in a browser: no complaint, nothing asked of a network, nothing wider than the window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pages
import pytest
from browser import Tab, browser, find

from heldout.report import Page, write

GAP_ONLY = replace(pages.page(), sections=pages.page().sections[:1])  # draws in a moment
REQUIRED = os.environ.get("HELDOUT_REQUIRE_BROWSER") == "1"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    executable = find()
    if executable is None:
        if REQUIRED:
            pytest.fail("HELDOUT_REQUIRE_BROWSER=1, but no chromium or chrome is on the PATH")
        pytest.skip("no chromium or chrome on the PATH")
    with browser(executable) as tab:
        yield tab


@pytest.mark.parametrize("page", [pages.page(), pages.hostile()], ids=["friendly", "hostile"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_opens_without_complaint_and_fits(tab: Tab, tmp_path: Path, page: Page, width: int) -> None:
    tab.open(write(page, tmp_path / "report.html"), width=width)
    assert tab.errors == []
    assert {r.split(":")[0] for r in tab.requests} <= {"file", "data", "blob"}
    assert sum(r.startswith("file:") for r in tab.requests) == 1
    panels = sum(k.startswith("xaxis") for s in page.sections for f in s.figures for k in f.plot["layout"])
    assert tab.evaluate("document.querySelectorAll('.plot .cartesianlayer > .subplot').length") == panels
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("[...document.querySelectorAll('details')].map(d => d.open = true).length") > 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_panels_stack_when_the_window_becomes_narrow(tab: Tab, tmp_path: Path) -> None:
    tab.open(write(GAP_ONLY, tmp_path / "report.html"), width=1400)
    first = "document.querySelector('.plot').layout"
    assert tab.evaluate(f"{first}.xaxis2.domain[0]") > 0.4
    wide = tab.evaluate(f"{first}.height")
    tab.call("Emulation.setDeviceMetricsOverride", width=400, height=900, deviceScaleFactor=1, mobile=False)
    tab.wait(f"{first}.xaxis2.domain[0] === 0")
    tab.wait(f"document.querySelector('.plot').getBoundingClientRect().height > {wide}")
    tab.wait("document.documentElement.scrollWidth <= 400")
    assert tab.errors == []


def test_figures_fit_the_paper_and_come_back(tab: Tab, tmp_path: Path) -> None:
    tab.open(write(GAP_ONLY, tmp_path / "report.html"), width=1400)
    widths = "[...document.querySelectorAll('.plot')].map(p => p.layout.width)"
    screen = tab.evaluate(widths)
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert max(tab.evaluate(widths)) < 700
    assert tab.evaluate("document.querySelectorAll('.claim details:not([open])').length") == 0
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(widths) == screen
    assert tab.errors == []


def test_a_complaint_a_failure_and_a_wide_element_would_be_noticed(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><html data-drawn='true'><div style='width: 700px'>wide</div>"
        "<script>console.error('one')</script><script>throw new Error('two')</script><img src='missing.png'></html>"
    )
    tab.open(path, width=400)
    tab.wait("document.readyState === 'complete'")
    heard = " ".join(tab.errors)
    assert "one" in heard
    assert "two" in heard
    assert "ERR_FILE_NOT_FOUND" in heard
    assert tab.evaluate("document.documentElement.scrollWidth") > 400


def loaded(tab: Tab, path: Path, condition: str) -> None:
    """Open without waiting for the figures, until `condition` holds."""
    tab.errors, tab.requests = [], []
    tab.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
    tab.call("Page.navigate", url=path.resolve().as_uri())
    tab.wait(f"document.readyState === 'complete' && {condition}")


def test_a_page_printed_before_all_is_drawn_is_whole(tab: Tab, tmp_path: Path) -> None:
    loaded(tab, write(pages.page(), tmp_path / "report.html"), "window.Plotly !== undefined")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    undrawn = "[...document.querySelectorAll('.plot')].filter(p => !p.querySelector('.main-svg')).length"
    assert tab.evaluate(undrawn) == 0  # at once: printing does not wait
    tab.wait("document.documentElement.dataset.drawn === 'true'")
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert min(tab.evaluate("[...document.querySelectorAll('.plot')].map(p => p.layout.width)")) > 700
    assert tab.errors == []


def test_nothing_moves_when_figures_are_drawn(tab: Tab, tmp_path: Path) -> None:
    height = "document.documentElement.scrollHeight"
    loaded(tab, write(pages.page(), tmp_path / "report.html"), "true")
    before = tab.evaluate(height)
    tab.wait("document.documentElement.dataset.drawn === 'true'")
    assert tab.evaluate(height) == before


def test_a_figure_that_cannot_be_drawn_says_so_and_the_others_are(tab: Tab, tmp_path: Path) -> None:
    path = write(pages.page(), tmp_path / "report.html")
    markup = path.read_text()
    first = markup.index('<script type="application/json">')
    path.write_text(
        markup[:first] + '<script type="application/json">{"data": [' + markup[markup.index("</script>", first) :]
    )
    tab.open(path, width=1400)
    assert tab.evaluate("document.querySelector('.plot').textContent").startswith("This figure could not be drawn")
    figures = sum(len(s.figures) for s in pages.page().sections)
    assert tab.evaluate("document.querySelectorAll('.plot .main-svg').length") >= figures - 1
    assert len(tab.errors) == 1
