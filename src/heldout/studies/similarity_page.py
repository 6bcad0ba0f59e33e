"""The page of the similarity study: who is like whom, by which measure, after which correction, and what is recovered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from heldout.analyses.similarity.measures import MEASURES
from heldout.analyses.similarity.recovered import ALL
from heldout.evidence import read_estimates
from heldout.figures import Figure, Matrix, forest, heatmap
from heldout.figures.page import Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features_shown import interval, share
from heldout.studies.similarity import (
    BOTH,
    EASY,
    JUDGE,
    MEASURE,
    ROLES,
    Configuration,
    SimilarityConfig,
    recover_name,
)
from heldout.studies.similarity_compare import RAW
from heldout.studies.similarity_judge import GATES, THETA_QUANTITY
from heldout.studies.simplify import lasting, run_warnings

AMONG, TO_EASY = f"{BOTH} | {BOTH}", f"{EASY} | {BOTH}"
WORDS = {AMONG: "two that learnt both", TO_EASY: "one that learnt both, one the easy feature alone"}
SHOWN = ("rsa", "cka", "encoding")  # measures that are taken under every correction
LIMITS = "Similarity says nothing of what is computed: see recovery below."
PAIRS = "pairs of networks"


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: SimilarityConfig) -> None:
        self.run, self.config, self.chosen = run, config, config.chosen()
        self.folder = run.output(JUDGE)
        estimates = read_estimates(self.folder / ESTIMATES)
        kind, pair = zip(*(q.partition(":")[::2] for q in estimates["quantity"]), strict=True)
        measure, correction = zip(*(e.partition(", ")[::2] for e in estimates["edit"]), strict=True)
        self.estimates = estimates.assign(kind=kind, pair=pair, measure=measure, correction=correction)
        self.gates = json.loads((self.folder / GATES).read_text())

    def cells(self, network: str, measure: str, correction: str = RAW) -> pd.DataFrame:
        """Similarities of every two roles in one configuration."""
        e = self.estimates
        of = (e["network"] == network) & (e["measure"] == measure) & (e["correction"] == correction)
        return e[of & (e["kind"] == "similarity")].drop_duplicates("pair")

    def recovered(self, table: str) -> pd.DataFrame:
        """One table of model recovery, all configurations and noises below each other."""
        found = []
        for one in self.chosen:
            for noise in self.config.noise:
                rows = pd.read_parquet(self.run.output(recover_name(one, noise)) / f"{table}.parquet")
                found.append(rows.assign(configuration=one.name, noise=noise))
        return pd.concat(found, ignore_index=True)


def similarity_page(run: Run, config: SimilarityConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    return Page(
        title=title,
        question="Are two networks that compute the same more alike than two that do not?",
        summary=tuple(summary(here)),
        identity=(),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((here.folder / CLAIMS).read_text())),
        sections=(alike(here), by_measure(here), corrections(here), recovered(here), setting(here)),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
        edited=False,
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences."""
    for one in here.chosen:
        cells = here.cells(one.name, MEASURE).set_index("pair")["value"]
        yield (
            f"{one.note}: two networks that learnt both features correlate at {_number(cells[AMONG])} (RSA), one that "
            f"learnt both and one that learnt the easy feature alone at {_number(cells[TO_EASY])}."
        )
    rates = here.recovered("rates")
    total = (
        rates[(rates["truth"] == ALL) & (rates["correction"] == RAW)]
        .groupby("measure", sort=False)[["right", "n"]]
        .sum()
    )
    words = ", ".join(
        f"{m} in {100 * r.right / r.n:.0f}%" for m, r in zip(total.index, total.itertuples(), strict=True)
    )
    chance = 100 * float(rates["chance"].iloc[0])
    yield f"Of all synthetic brains the true computation is ranked first by {words} (chance {chance:.0f}%)."


def alike(here: Shown) -> Section:
    """Who is like whom, by the claim's measure."""
    matrices = []
    for one in here.chosen:
        cells = here.cells(one.name, MEASURE).set_index("pair")["value"]
        square = np.array([[cells.get(f"{a} | {b}", cells.get(f"{b} | {a}", np.nan)) for b in ROLES] for a in ROLES])
        matrices.append(Matrix(one.note, square, np.full(square.shape, here.config.seeds)))
    figure = heatmap(
        matrices,
        rows=ROLES,
        columns=ROLES,
        id="alike",
        title="Similarity of networks by what they learnt",
        row_title="learnt",
        column_title="learnt",
        value_title="RSA, correlation of distances",
        limits=f"Networks of different seeds; mean over pairs. The diagonal is the consistency of a condition. {LIMITS}",
    )
    text = (
        f"Four hidden layers, the last one compared on {here.config.stimuli} test rows: the correlation distance "
        "between every two rows, then the correlation of the distances of two networks. Networks differ in their "
        "initial weights alone and are never compared with one that shares them.",
    )
    return Section("alike", "Who is like whom", text, figures=(figure,), tables=(_every_cell(here),))


def _every_cell(here: Shown) -> Table:
    rows = [
        (one.name, MEASURES[measure].label, r["pair"], *interval(r, share))
        for one in here.chosen
        for measure in here.config.measures
        for r in here.cells(one.name, measure).to_dict("records")
    ]
    return Table(
        title="Every measure of every two roles",
        columns=("configuration", "measure", "roles", "mean over pairs", "95% interval"),
        rows=rows,
        caption=f"t intervals over {here.config.seeds} {PAIRS}, all on the same stimuli.",
        folded=True,
    )


def by_measure(here: Shown) -> Section:
    """The claim's estimand by every measure."""
    rows = here.estimates[here.estimates["kind"] == THETA_QUANTITY]
    labels = [MEASURES[name].label for name in rows["edit"]]
    figure = forest(
        rows.assign(what=labels),
        id="by-measure",
        title="How much more alike to an easy network than to each other",
        label="what",
        group="network",
        x="similarity to one that learnt the easy feature, minus that of two that learnt both",
        limits="Above 0, networks that compute the same are less alike. Measures have different scales and nulls.",
        unit="stimuli",
    )
    text = ("The same comparison by every measure; the claim is judged by RSA with Pearson correlation alone.",)
    return Section("by-measure", "Does it hang on the measure?", text, figures=(figure,))


def corrections(here: Shown) -> Section:
    """Similarities under corrections for loudness."""
    figures = [_corrected(here, one) for one in here.chosen]
    rows = [
        (one.name, measure, correction, *_pair(here, one, measure, correction))
        for one in here.chosen
        for measure in SHOWN
        for correction in _corrections(here, one)
    ]
    table = Table(
        title="Every measure under every correction",
        columns=(
            "configuration",
            "measure",
            "correction",
            "two of both",
            "95% interval",
            "easy and both",
            "95% interval",
        ),
        rows=rows,
        caption=f"Mean over {here.config.seeds} {PAIRS} and t intervals over them. encoding: held-out R^2 of one network's "
        "units from the other's.",
        folded=True,
    )
    text = (
        "Corrections are fitted on val and applied to test. Whitened: loud and quiet directions count alike, in part "
        "below a power of 1. Removed: without the direction of the easy feature. Partial: its model RDM, or its label, "
        "held constant. Equalised: all features made equally loud.",
        "A network that learnt the easy feature alone has little left once that is taken out; its similarity then falls "
        "whatever the other computes.",
    )
    return Section("corrections", "After correction for loudness", text, figures=tuple(figures), tables=(table,))


def _corrections(here: Shown, one: Configuration) -> list[str]:
    e = here.estimates[(here.estimates["network"] == one.name) & (here.estimates["measure"] == "encoding")]
    return list(dict.fromkeys(e["correction"]))


def _corrected(here: Shown, one: Configuration) -> Figure:
    found = pd.concat([here.cells(one.name, MEASURE, c).assign(correction=c) for c in _corrections(here, one)])
    found = found[found["pair"].isin(WORDS)]
    return forest(
        found.assign(who=[WORDS[pair] for pair in found["pair"]]),
        id=f"corrected-{one.name}",
        title=f"{one.note}: RSA under corrections",
        label="correction",
        group="who",
        x="RSA, correlation of distances",
        limits=LIMITS,
        unit=PAIRS,
    )


def _pair(here: Shown, one: Configuration, measure: str, correction: str) -> Sequence[str]:
    cells = {r["pair"]: r for r in here.cells(one.name, measure, correction).to_dict("records")}
    return [text for pair in (AMONG, TO_EASY) for text in interval(cells[pair], share)]


def recovered(here: Shown) -> Section:
    """How often the true computation is ranked first."""
    rates = here.recovered("rates")
    whole = rates[rates["truth"] == ALL]
    measures, fixes = (list(dict.fromkeys(whole[c])) for c in ("measure", "correction"))
    figures = []
    for noise in here.config.noise:
        matrices = []
        for one in here.chosen:
            some = whole[(whole["configuration"] == one.name) & (whole["noise"] == noise)]
            at = some.set_index(["measure", "correction"])
            grid = [[at["rate"].get((m, c), np.nan) for c in fixes] for m in measures]
            counts = [[at["n"].get((m, c), 0) for c in fixes] for m in measures]
            matrices.append(Matrix(one.note, np.array(grid, dtype=float), np.array(counts)))
        figures.append(
            heatmap(
                matrices,
                rows=measures,
                columns=fixes,
                id=f"recovery-{noise:g}",
                title=f"True computation ranked first, noise of {noise:g} times the signal's deviation",
                row_title="measure",
                column_title="correction",
                value_title="share of synthetic brains",
                limits="Chance is one in four. Brains come from the same family as the candidates; real ones do not.",
            )
        )
    named = [(r["configuration"], f"{r['noise']:g}", r["measure"], r["correction"]) for r in rates.to_dict("records")]
    table = Table(
        title="How often the true computation is ranked first",
        columns=("configuration", "noise", "measure", "correction", "truth", "right", "of", "share", "95% interval"),
        rows=[
            (*name, "all" if r["truth"] == ALL else r["truth"], r["right"], r["n"], *_rate(r))
            for name, r in zip(named, rates.to_dict("records"), strict=True)
        ],
        caption="Intervals over synthetic brains of these networks; ties and undefined scores count as failures.",
        folded=True,
    )
    text = (
        "A synthetic brain mixes the units of one network at random and adds noise. Each method compares it with one "
        "network of each kind, of other seeds, and should rank the kind that it was made from first.",
    )
    return Section(
        "recovery",
        "Is the true computation recognised?",
        text,
        figures=tuple(figures),
        tables=(table, _confused(here), _gains(here)),
    )


def _rate(r: dict[str, float]) -> tuple[str, str]:
    return share(r["rate"]), f"{share(r['low'])} to {share(r['high'])}"


def _confused(here: Shown) -> Table:
    found = here.recovered("confusion")
    found = found[(found["correction"] == RAW) & (found["count"] > 0)]
    return Table(
        title="What is ranked first, without correction",
        columns=("configuration", "noise", "measure", "truth", "ranked first", "brains", "share"),
        rows=[
            (
                r["configuration"],
                f"{r['noise']:g}",
                r["measure"],
                r["truth"],
                r["chosen"],
                r["count"],
                share(r["share"]),
            )
            for r in found.to_dict("records")
        ],
        caption="Rows of one truth add up to its brains.",
        folded=True,
    )


def _gains(here: Shown) -> Table:
    found = here.recovered("gains")
    found = found[found["truth"] == ALL]
    return Table(
        title="What corrections change, brain by brain",
        columns=("configuration", "noise", "measure", "correction", "before", "after", "gained", "lost", "p"),
        rows=[
            (
                r["configuration"],
                f"{r['noise']:g}",
                r["measure"],
                r["correction"],
                share(r["before"]),
                share(r["after"]),
                r["gained"],
                r["lost"],
                f"{r['p']:.2g}",
            )
            for r in found.to_dict("records")
        ],
        caption="Share ranked right before and after; brains that only one of the two gets right; McNemar's exact "
        "test, which speaks of other brains of these networks and not of other networks, and is not corrected for the "
        "number of rows.",
        folded=True,
    )


def setting(here: Shown) -> Section:
    """What was trained, and which gates hold."""
    made = Table(
        title="Configurations",
        columns=("configuration", "role", "condition", "updates", "optimiser"),
        rows=[
            (one.name, role, condition.note, condition.steps, condition.optimizer)
            for one in here.chosen
            for role, condition in one.roles.items()
        ],
        caption=f"{here.config.seeds} pairs of networks each, {len(here.config.networks())} networks, on the same rows.",
    )
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Networks that miss a gate are not dropped: they are shown, and the claim is not judged.",
    )
    return Section("setting", "What was compared", (), tables=(made, gates))


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "no defined figure"
