"""What a page of a run consists of, as plain data; `heldout.report.render` makes HTML of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heldout.figures.base import Figure
    from heldout.statistics.verdict import Judgement


@dataclass(frozen=True)
class IdentityCheck:
    """What happened when the edits were replaced by one that changes nothing.

    `label` says which network (and seed), `site` where it was edited. `max_abs_difference` is the largest absolute
    difference between any output with and without the identity edit, in units of the output; `passed` is whether it
    stayed within `tolerance`. `replay` says whether remembered outputs were used: ``used``, or ``not used: reason``.
    """

    label: str
    site: str
    max_abs_difference: float
    tolerance: float
    passed: bool
    replay: str


@dataclass(frozen=True)
class Table:
    """A small table: `rows` hold one entry for each of `columns`; `caption` says units, n and what an interval is.

    A `folded` one shows its title, and opens when that is clicked."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: plain paragraphs, then figures, then tables."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report. Every string is plain text: markup in it is shown, never obeyed.

    - `question`: one sentence that the study answers.
    - `summary`: plain sentences made from the evidence by the study.
    - `identity`: every check that an edit which changes nothing changes nothing; `edited` is False where no network was
      edited, so that there is nothing to check.
    - `sections`: in the order shown; the first holds the gap figure.
    - `manifest`: config, versions, device, seeds, wall times, hashes; nested mappings are shown with dotted names.
    - `warnings`: what a reader must know before the first number (the evidence predates the source; a smoke preset).
    """

    title: str
    question: str
    summary: tuple[str, ...] = ()
    identity: tuple[IdentityCheck, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    sections: tuple[Section, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    edited: bool = True
