"""Text that fits, and colours that can be told apart."""

from __future__ import annotations

import html
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.figures.style import PALETTE, faint, number, plain, wrap


@pytest.mark.parametrize(
    ("text", "width", "wrapped"),
    [
        ("short", 20, "short"),
        ("unseen_depth_length_matched", 20, "unseen_depth_length_<br>matched"),
        ("a b c", 1, "a<br>b<br>c"),
        ("abcdefgh", 3, "abc<br>def<br>gh"),
        ("one two three four", 5, "one<br>two<br>thre…"),
        ("<b>", 10, "&lt;b&gt;"),
        ("", 10, ""),
    ],
)
def test_text_breaks_where_a_reader_would(text: str, width: int, wrapped: str) -> None:
    assert wrap(text, width) == wrapped


@given(st.text(max_size=80), st.integers(2, 30), st.integers(1, 4))
def test_no_line_is_too_long_and_there_are_not_too_many(text: str, width: int, lines: int) -> None:
    out = [html.unescape(line).replace("\u2060", "") for line in wrap(text, width, lines).split("<br>")]
    assert len(out) <= lines
    assert all(len(line) <= max(width, 1) for line in out)


@given(st.text(alphabet="ab_- /", min_size=1, max_size=40))
def test_nothing_but_spaces_at_line_ends_is_lost_where_there_is_room(text: str) -> None:
    assert wrap(text, 100).split() == text.split()


def test_a_template_is_broken_without_a_trace_for_the_eye() -> None:
    assert "%{" not in plain("%{x}")
    assert plain("%{x}").replace("\u2060", "") == "%{x}"


def test_numbers_for_json() -> None:
    assert number(float("nan")) is None
    assert number(float("inf")) is None
    assert number(0.1) == 0.1
    assert faint("#ff8000", 0.5) == "rgba(255,128,0,0.5)"


def test_colours_differ_in_lightness_or_hue_on_white() -> None:
    def luminance(colour: str) -> float:
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(set(PALETTE)) == len(PALETTE)
    assert all(1.05 / (luminance(c) + 0.05) > 2 for c in PALETTE)  # contrast with white, for marks (text is INK)


def test_describing_a_page_loads_no_library_and_every_public_name_is_there() -> None:
    code = (
        "import sys, heldout.figures, heldout.figures.page\n"
        "print(sorted({'pandas', 'numpy', 'torch', 'plotly'} & set(sys.modules)))\n"
        "assert not [n for n in heldout.figures.__all__ if isinstance(getattr(heldout.figures, n), type(sys))]\n"
        "print('torch' in sys.modules, 'plotly' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False False"]
