"""The page: what it leads with, that nothing on it is code but ours, and that it asks nobody for anything."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import io
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fake_evidence as fake
import pages
import pandas as pd
import pytest

from heldout.errors import EvidenceError, StoreError
from heldout.figures import gap_figure
from heldout.report import Page, Section, render, write

FRIENDLY, HOSTILE = pages.page(), pages.hostile()


class Reader(HTMLParser):
    """What a browser finds: elements, contents of scripts, text by nearest tag, and everything that could be loaded."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def friendly() -> Reader:
    return Reader(render(FRIENDLY))


@pytest.fixture(scope="module")
def hostile() -> Reader:
    return Reader(render(HOSTILE))


def test_the_same_page_is_the_same_bytes() -> None:
    assert render(pages.page()) == render(pages.page())


def test_the_page_leads_with_identity_then_claims_then_the_gap(friendly: Reader) -> None:
    order = [
        "Are simplified",
        "predates the source",
        "Identity check passed",
        "SVD of rank 8",
        "Claims",
        "G1",
        "How much agreement",
        "claims hash",
    ]
    main = friendly.words.split("How this was made", 1)[1]  # after the contents
    places = [main.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize("page", [FRIENDLY, HOSTILE], ids=["friendly", "hostile"])
def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    reader = Reader(render(page))
    for tag, attrs in reader.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "source", "video", "audio"}
        assert "src" not in attrs
        assert "srcset" not in attrs
        assert not any(name.startswith("on") for name in attrs)
        if "href" in attrs:
            assert tag == "a"
            assert (attrs["href"] or "").startswith(("#", "data:text/csv"))
    styles = re.findall(r"<style>(.*?)</style>", render(page), re.S)
    assert not any("url(" in style or "@import" in style for style in styles)


@pytest.mark.parametrize("page", [FRIENDLY, HOSTILE], ids=["friendly", "hostile"])
def test_only_our_two_scripts_may_run(page: Page) -> None:
    reader = Reader(render(page))
    scripts = list(zip(reader.scripts, reader.all("script"), strict=True))
    runs = [s for s, attrs in scripts if "type" not in attrs]
    packed = [s for s, attrs in scripts if attrs.get("id") == "library"]
    assert (len(runs), len(packed)) == (1, 1)
    runs.append(gzip.decompress(base64.b64decode(packed[0])).decode())
    policy = next(a["content"] or "" for a in reader.all("meta") if a.get("http-equiv"))
    hashes = {"'sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() + "'" for s in runs}
    assert set(re.search(r"script-src ([^;]*);", policy).group(1).split()) == hashes  # type: ignore[union-attr]
    assert policy.startswith("default-src 'none'")


def test_names_that_are_markup_are_shown_as_they_are_written(hostile: Reader) -> None:
    figures = HOSTILE.sections[0].figures
    assert len(hostile.scripts) == 2 + len(figures)
    assert not [1 for tag, _ in hostile.tags if tag == "b" and "bold" in hostile.text]
    assert "bold" not in [t.strip() for t in hostile.text]
    for place in ("title", "h1", "h2", "h3"):
        assert place in {tag for tag, _ in hostile.tags}
    assert hostile.words.count(fake.HOSTILE) > 30


@pytest.mark.parametrize("page", [FRIENDLY, HOSTILE], ids=["friendly", "hostile"])
def test_figures_and_their_data_arrive_unchanged(page: Page) -> None:
    reader = Reader(render(page))
    figures = [f for s in page.sections for f in s.figures]
    plots = [
        s for s, a in zip(reader.scripts, reader.all("script"), strict=True) if a.get("type") == "application/json"
    ]
    files = [a["href"] or "" for a in reader.all("a") if "download" in a]
    assert len(plots) == len(files) == len(figures)
    for figure, plot, file in zip(figures, plots, files, strict=True):
        assert json.loads(plot) == json.loads(json.dumps(figure.plot))
        text = base64.b64decode(file.split(",", 1)[1]).decode()
        read = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], engine="python")
        assert list(read.columns) == list(figure.data.columns)
        for column in figure.data.columns:
            if pd.api.types.is_float_dtype(figure.data[column]):
                pd.testing.assert_series_equal(read[column], figure.data[column], check_exact=True, check_dtype=False)


def test_every_figure_says_n_and_what_its_interval_is(friendly: Reader) -> None:
    figures = [f for s in FRIENDLY.sections for f in s.figures]
    for figure in figures:
        assert re.search(r"\bn = \d", figure.caption)
        assert "interval" in figure.caption
        assert figure.caption in friendly.words
    assert [a["aria-label"] for a in friendly.all("div") if a.get("class") == "plot"] == [
        f"{f.title}. {f.caption}" for f in figures
    ]


def test_a_claim_shows_its_verdict_estimate_interval_counts_and_parts(friendly: Reader) -> None:
    words = friendly.words
    for text in ("✓ supported", "✕ refuted", "~ inconclusive", "– not judged"):
        assert text in words
    assert "0.102 [0.083, 0.121] n = 5 seeds, 500 test units p (Holm) < .001" in words
    assert "−0.011 [−0.020, −0.002]" in words
    assert "about 10 points at depth 11 to 16" in words
    assert "no figure published for this estimand" in words
    assert "Not judged: gate failed: at least 50 network errors beyond depth 10 (31)." in words
    assert "Gate FAILED at least 50 network errors beyond depth 10 (31)" in words
    assert "0.081, 0.112, 0.094, 0.120, 0.103" in words
    assert "unseen_structure_short −0.011 [−0.020, −0.002] .600 < .001" in words
    strips = [a["aria-label"] for a in friendly.all("svg")]
    assert strips[0] == "estimate 0.102, interval [0.083, 0.121], zero, and delta at 0.020"
    assert len(strips) == 3  # none without an estimate


def test_the_identity_check_is_first_whether_it_passed_failed_or_was_not_made() -> None:
    assert "no output by more than 2.4 × 10⁻⁷ (tolerance 10⁻⁵), at 10 places" in Reader(render(FRIENDLY)).words
    one = replace(FRIENDLY.identity[3], passed=False, max_abs_difference=0.25)
    failed = Reader(render(replace(FRIENDLY, identity=(*FRIENDLY.identity, one)))).words
    assert "Identity check failed at 1 of 11 places" in failed
    assert "0.25" in failed
    assert "Identity check: not made." in Reader(render(replace(FRIENDLY, identity=()))).words


def test_a_page_without_figures_carries_no_plotting_library() -> None:
    assert len(render(Page(title="a", question="b"))) < 50_000


def test_only_the_beginning_of_a_long_table_is_printed() -> None:
    figure = gap_figure(fake.estimates(splits=tuple(f"split {i}" for i in range(120))))
    reader = Reader(render(Page("a", "b", sections=(Section("s", "s", figures=(figure,)),))))
    assert "480 rows; the first 200 are shown" in reader.words
    assert len(reader.all("tr")) == 201


def test_ids_are_unique_and_numbers_finite() -> None:
    figure = gap_figure(fake.estimates())
    with pytest.raises(EvidenceError, match="more than one is called 'gap'"):
        render(Page("a", "b", sections=(Section("s", "s", figures=(figure, figure)),)))
    with pytest.raises(EvidenceError, match="more than one is called 's'"):
        render(Page("a", "b", sections=(Section("s", "s"), Section("s", "s"))))
    broken = replace(figure, plot={"data": [{"x": [math.nan]}], "layout": {}})
    with pytest.raises(EvidenceError, match="'gap' is not plain JSON"):
        render(Page("a", "b", sections=(Section("s", "s", figures=(broken,)),)))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("a", "b")
    path = write(page, tmp_path / "report.html")
    assert path.read_text() == render(page)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write(Page("other", "b"), path)
    assert path.read_text() == render(page)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(StoreError, match="cannot write the report"):
        write(page, tmp_path / "nowhere" / "report.html")
