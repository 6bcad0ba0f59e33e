"""Take a picture of the first figure of a report (or of the one named): the picture in the README.

    python docs/picture.py RUN_DIRECTORY_OR_HTML OUT.png [--figure gap] [--width 1100] [--scale 2]

Needs a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "report"))

from browser import browser, find


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", type=Path, help="a run directory that holds report.html, or an HTML file")
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--figure", help="the figure's id; the first figure where it is left out")
    parser.add_argument("--width", type=int, default=1100, help="of the window, in CSS pixels")
    parser.add_argument("--scale", type=float, default=2, help="pixels of the picture to a CSS pixel")
    given = parser.parse_args()
    page = given.report / "report.html" if given.report.is_dir() else given.report
    if not page.is_file():
        parser.error(f"{page} does not exist; give a run directory with a report.html, or an HTML file")
    executable = find()
    if executable is None:
        parser.error("no chromium or chrome on the PATH; install one")
    chosen = f"figure[data-figure={json.dumps(given.figure)}]" if given.figure else "figure"
    with browser(executable) as tab:
        tab.open(page, width=given.width)
        if not tab.evaluate(f"document.querySelector({json.dumps(chosen)}) !== null"):
            names = tab.evaluate("[...document.querySelectorAll('figure')].map(f => f.dataset.figure)")
            parser.error(f"no such figure in {page}; there are {', '.join(names) or 'none'}")
        # Alone on its page, and without what only a reader who can click needs.
        tab.evaluate(
            "(f => { f.querySelectorAll('details, .modebar-container').forEach(e => e.remove());"
            " document.body.replaceChildren(f); document.body.style.padding = '0 2rem' })"
            f"(document.querySelector({json.dumps(chosen)}))"
        )
        tab.picture(given.out, selector=chosen, scale=given.scale)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
