"""The page of the code study: the shared sections, and what is its own: the text, kinds of character, heads, warnings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from heldout.evidence import read_estimates
from heldout.figures import forest
from heldout.figures.page import Section, Table
from heldout.studies.audited import AUDITS, ESTIMATES
from heldout.studies.code import CORPUS, DATA, FAMILIES, INTERACTION, PACKAGES, STUDY, CodeConfig
from heldout.studies.code_audit import (
    BASELINES,
    COMPOSITION,
    HEADS,
    INDUCTION,
    RANDOM,
    joint_site,
    load_split,
    test_names,
)
from heldout.studies.interaction import stream_section
from heldout.studies.simplify import Shown, simplification_page

if TYPE_CHECKING:
    from heldout.figures.base import Figure
    from heldout.figures.page import Page
    from heldout.runs import Run

UNIT = "packages or folders"


def code_page(run: Run) -> Page:
    """The page of a finished run."""
    config = CodeConfig(**run.manifest["config"])
    corpus = run.output(CORPUS)
    names = ("train", "fit", "train_sample", "id_select", "id", *test_names(corpus))
    shown = Shown(
        title=STUDY.title,
        question="Do simplified models of code stand in for their network on new packages and new languages?",
        reference="id",
        families=FAMILIES,
        unit=UNIT,
        judge="code-judge",
        training={f"decoder {s}": f"code-train-s{s}" for s in config.seed_list()},
    )
    estimates = read_estimates(run.output("code-judge") / ESTIMATES)
    heads = json.loads((run.output("code-judge") / HEADS).read_text())
    composition = json.loads((corpus / COMPOSITION).read_text())
    baselines = json.loads((corpus / BASELINES).read_text())
    site = joint_site({"shape": {"layers": config.layers}})
    audits = json.loads((run.output("code-judge") / AUDITS).read_text())
    more = (
        kinds(estimates, reached(audits, site)),
        induction(estimates, heads),
        *stream_section(run, INTERACTION, UNIT),
        early_warning(estimates),
        text(composition, baselines),
    )
    return simplification_page(run, shown, {n: load_split(corpus, n) for n in names}, more)


def reached(audits: Sequence[Mapping[str, Any]], site: str) -> tuple[str, ...]:
    """The families fitted on data for which the rank rule found a size at `site` in every seed; all where it found none."""
    short = {c["family"] for a in audits for c in a["chosen"] if c["site"] == site and not c["reached"]}
    return tuple(f for f in DATA if f not in short) or DATA


def kinds(estimates: pd.DataFrame, families: Sequence[str]) -> Section:
    """F7: where in the text the simplifications of `families` stop being the network."""
    estimates = estimates[estimates["edit"].isin(families)]
    parts = estimates["quantity"].str.extract(r"^(?P<how>gap|excess gap) by (?P<axis>[^:]+): (?P<kind>.+)$")
    rows = estimates.join(parts)[parts["how"].notna()]
    rows["group"] = rows["split"].str.replace("_", " ") + ", " + rows["edit"]
    words = {"gap": "same prediction on id minus on the split", "excess gap": "that gap minus its null's"}
    figures = [
        forest(
            part[part["how"] == how],
            id=f"kinds-{axis}" if how == "gap" else f"kinds-{axis}-excess",
            title=f"The {how} by {axis}",
            label="kind",
            group="group",
            x=f"{words[how]}, this kind only",
            limits="The null agrees as often as the simplification on id as a whole, not kind by kind.",
            unit=UNIT,
        )
        for axis, part in rows.groupby("axis", sort=False)
        for how in words
    ]
    return Section(
        id="kinds",
        title="Which characters the simplification gets wrong",
        text=(
            "Each target character has one label on each axis; role is a lexer's. A word is repeated where the same word "
            "stood earlier in the window; a suffix is what stands before the target, of three to eight characters. Kinds "
            "differ in how sure the network is, so beside each gap stands what is left of it beyond that of its null.",
            f"Shown: {' and '.join(families)}, those fitted on data that keep 95% of the predictions on id_select in every "
            "seed (all, where none does).",
        ),
        figures=tuple(figures),
    )


def induction(estimates: pd.DataFrame, heads: dict[str, Any]) -> Section:
    """F8: induction heads against as many random ones, and every head's scores."""
    figures: list[Figure] = []
    rows = estimates[estimates["quantity"].str.startswith("lost: ")].copy()
    rows = rows[rows["site"].isin([INDUCTION, RANDOM]) & rows["split"].isin(["id", PACKAGES])]
    rows["kind"] = rows["quantity"].str.removeprefix("lost: ") + ", " + rows["split"].str.replace("_", " ")
    if len(rows):
        figures.append(
            forest(
                rows,
                id="induction",
                title="What simplifying induction heads costs, and as many other heads",
                label="kind",
                group="site",
                x="share of predictions changed",
                limits="Heads share layers and make up for each other; a small cost does not show that a head is idle.",
                unit=UNIT,
            )
        )
    single = estimates[estimates["quantity"] == "lost by one head"]
    if len(single):
        figures.append(
            forest(
                single,
                id="single-heads",
                title="What simplifying one head costs on id",
                label="site",
                x="share of predictions changed",
                limits="Costs of single heads do not add up to those of several.",
                unit=UNIT,
            )
        )
    scores = Table(
        title="What the heads attend to",
        columns=("seed", "layer", "head", "previous token", "induction", "among the induction heads"),
        rows=[
            (
                *(seed, h["module"], h["head"], round(h["previous"], 3), round(h["induction"], 3)),
                "yes" if h in record["induction"] else "",
            )
            for seed, record in heads.items()
            for h in record["heads"]
        ],
        caption="Mean share of attention, on random strings that stand twice: on the position before, and on the position "
        "after the earlier occurrence of the current character.",
    )
    return Section(
        id="heads",
        title="Induction heads against others",
        text=("Simplified: queries and keys of the heads, projected on the leading directions of both.",),
        figures=tuple(figures),
        tables=(scores,),
    )


def early_warning(estimates: pd.DataFrame) -> Section:
    """How well each score tells, within a split, where the simplification will disagree."""
    rows = estimates[estimates["quantity"].str.startswith("auroc: ")].copy()
    rows["score"] = rows["quantity"].str.removeprefix("auroc: ")
    rows = rows.assign(parameter=float("nan"))
    figures = [
        forest(
            rows[rows["edit"] == family],
            id=f"warning-{family}",
            title=f"Can one tell where {family} will disagree with its network?",
            label="split",
            group="score",
            x="area under the ROC curve, within the split",
            limits="0.5 is chance. It does not say how many warnings would be right, nor how splits compare.",
            unit=UNIT,
            marks=(0.5,),
        )
        for family in DATA
        if (rows["edit"] == family).any()
    ]
    return Section(
        id="warning",
        title="Early warning",
        text=(
            "Scores of single predictions that need neither labels nor the network's own answers. Reconstruction error and "
            "distance are of the query and key at the position; length, position and the simplification's entropy are "
            "what they must beat.",
        ),
        figures=tuple(figures),
    )


def text(composition: dict[str, Any], baselines: dict[str, Any]) -> Section:
    """What text there was, and what was made of it."""
    found = Table(
        title="Text found",
        columns=("pool", "files", "bytes", "left out because"),
        rows=[
            (p["pool"], p["files"], p["bytes"], composition["left_out"].get(p["pool"], ""))
            for p in composition["found"]
        ],
        caption="Home is the text that is trained on and, held out by package, tested on as id.",
    )
    made = Table(
        title="Windows",
        columns=("split", "windows", "characters", "files", "units", "bigram loss", "refused", "hash"),
        rows=[
            (
                *(w["split"], w["windows"], w["characters"], w["files"], w["units"]),
                round(baselines[w["split"]]["bigram"], 3) if w["split"] in baselines else "",
                ", ".join(f"{n} {why}" for why, n in w.get("refused", {}).items()),
                w["hash"],
            )
            for w in composition["splits"]
        ],
        caption="Units: packages, or folders where there are few packages. Bigram loss: nats a character of a table counted "
        "on the training text. Refused: files that were opened and not used.",
    )
    return Section(id="text", title="The text", tables=(found, made))
