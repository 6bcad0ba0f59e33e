"""The page of the features study: how loud each feature is, where that turns, and whether it matters."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from heldout.evidence import read_estimates
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features import HEADLINE, JUDGE, FeaturesConfig, sides
from heldout.studies.features_conditions import CONDITIONS, Condition
from heldout.studies.features_measured import SITE
from heldout.studies.features_page_causes import causes, robustness
from heldout.studies.features_page_importance import importance
from heldout.studies.features_page_inside import components, units
from heldout.studies.features_page_loudness import loudness, shares
from heldout.studies.features_page_readable import readable
from heldout.studies.features_shown import Shown
from heldout.studies.simplify import lasting, run_warnings

TOLERANCE = 1e-5  # between logits computed in one pass and through the penultimate layer


def features_page(run: Run, config: FeaturesConfig, title: str) -> Page:
    """The whole page of a finished run."""
    folder = run.output(JUDGE)
    here = Shown(run, config, read_estimates(folder / ESTIMATES), folder)
    sections = (loudness, readable, shares, units, components, causes, importance, robustness, setting)
    return Page(
        title=title,
        question="Networks compute several features equally well: which of them do they represent with more variance?",
        summary=tuple(summary(here)),
        identity=tuple(identity(here)),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text())),
        sections=tuple(make(here) for make in sections),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences."""
    if HEADLINE in here.conditions:
        loud = here.rows("variance_explained", [HEADLINE])
        words = [f"{r.feature} explains {100 * r.value:.1f}%" for r in loud.itertuples() if np.isfinite(r.value)]
        if words:
            yield f"In the headline condition {' and '.join(words)} of the penultimate layer's variance."
        read = here.rows("decoded", [HEADLINE])
        words = [f"{r.feature} in {100 * r.value:.1f}%" for r in read.itertuples() if np.isfinite(r.value)]
        if words:
            yield f"A linear probe of the same layer reads {' and '.join(words)} of held-out rows."
    gaps = here.rows("gap")
    gaps = gaps[gaps["value"].notna()]
    pairs = gaps[[here.differ(n) for n in gaps["network"]]]
    if len(pairs):
        above, below = int((pairs["low"] > 0).sum()), int((pairs["high"] < 0).sum())
        yield (
            f"Of {len(pairs)} conditions with a simpler and a more complex feature the interval of the gap is above 0 in "
            f"{above} and below 0 in {below}."
        )
    failed = sum(not g["passed"] for g in here.gates if g["name"].split(" ")[0] in here.conditions)
    yield (
        f"{failed} of {len(here.conditions)} conditions miss the accuracy gate (every feature above .95 and within .01 of "
        "the others, in every seed), controls that are not trained on both among them; they are shown and not judged."
    )


def identity(here: Shown) -> Iterable[IdentityCheck]:
    """That decisions read from the penultimate layer are those of the network."""
    for name in here.rows("difference_of_passes")["network"]:
        most = max(v[1] for rows in here.values(name).values() for v in rows if v[0] == "difference_of_passes")
        yield IdentityCheck(name, SITE, most, TOLERANCE, most <= TOLERANCE, "not used: rows are held")


def setting(here: Shown) -> Section:
    """What was trained and compared, and which gates hold."""
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Networks that miss a gate are not dropped: they are shown, and claims about them are not judged.",
    )
    made = Table(
        title="Conditions",
        columns=("condition", "what it is", "simpler against more complex", "updates", "rows of train, val, test"),
        rows=[
            (c.name, c.note, _against(c), c.steps, f"{c.task.train}, {c.task.val}, {c.task.test}")
            for c in here.conditions.values()
        ],
        caption=f"{len(here.config.seed_list())} seeds each, trained side by side on the same rows in the same order.",
        folded=True,
    )
    left_out = [c for c in CONDITIONS.values() if c.name not in here.conditions]
    others = Table(
        title="Conditions that were not run here",
        columns=("condition", "what it is"),
        rows=[(c.name, c.note) for c in left_out],
        caption="The preset full has them all; --set 'conditions=[...]' chooses.",
        folded=True,
    )
    text = (
        f"{len(here.conditions)} of {len(CONDITIONS)} conditions were run. A gap is between the two sides named here."
    )
    tables = (gates, made, others) if left_out else (gates, made)
    return Section("setting", "What was compared", (text,), tables=tables)


def _against(condition: Condition) -> str:
    """The two sides of a condition's gap; empty where it has one feature."""
    simple, complex_ = sides(condition.task)
    return f"{', '.join(simple)} against {', '.join(complex_)}" if complex_ else ""
