"""The page of the sequences study: variance explained by the place at which a feature is answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import pandas as pd

from heldout.evidence import read_estimates
from heldout.figures import Figure, forest, training_curves
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features_shown import interval, share
from heldout.studies.sequences import (
    ENCODER,
    FIRST,
    HEADLINE,
    JUDGE,
    MIXED,
    Configuration,
    SequencesConfig,
    measure_name,
    train_name,
)
from heldout.studies.sequences_judge import GATES
from heldout.studies.sequences_measure import DIFFERENCES, decoder_site, place, read_curves
from heldout.studies.simplify import lasting, run_warnings

TOLERANCE = 1e-4  # between logits of a whole pass and those read from the states that are measured
UNIT = "test sequences"
EXPLAINED = "pooled variance explained, held out"


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: SequencesConfig) -> None:
        self.run, self.config, self.chosen = run, config, config.chosen()
        self.folder = run.output(JUDGE)
        estimates = read_estimates(self.folder / ESTIMATES)
        kind, what = zip(*(q.partition(":")[::2] for q in estimates["quantity"]), strict=True)
        self.estimates = estimates.assign(kind=kind, what=what)
        self.gates = json.loads((self.folder / GATES).read_text())

    def rows(self, kind: str, network: str | None = None, site: str | None = None) -> pd.DataFrame:
        e = self.estimates[self.estimates["kind"] == kind]
        e = e if network is None else e[e["network"] == network]
        return e if site is None else e[e["site"] == site]

    @cached_property
    def headline(self) -> Configuration:
        """The headline configuration, or the first that was run."""
        return next((one for one in self.chosen if one.name == HEADLINE), self.chosen[0])


def sequences_page(run: Run, config: SequencesConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    return Page(
        title=title,
        question="A transformer answers several features of a sequence one after another: are those answered early louder?",
        summary=tuple(summary(here)),
        identity=tuple(identity(here)),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((here.folder / CLAIMS).read_text())),
        sections=(by_place(here), grid(here), along(here), setting(here)),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences."""
    one = here.headline
    for site, words in ((ENCODER, "the encoder's mean state"), (FIRST, "the decoder's first state")):
        rows = here.rows("variance_explained", one.name, site)
        values = ", ".join(f"{100 * v:.1f}%" for v in rows["value"])
        yield f"{one.note.capitalize()}: the features answered at place 1 to {len(rows)} explain {values} of {words}."
    rows = here.rows("first_minus_last", site=ENCODER)
    rows = rows[rows["value"].notna()]
    if len(rows):
        above, below = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
        yield (
            f"In {above} of {len(rows)} configurations with equal features the interval of first minus last place in the "
            f"encoder lies above 0, in {below} below 0."
        )
    yield (
        "What the decoder's first state holds is what it has to answer next, nearly by construction; the encoder has to "
        "pass on all features, so that its figure is the telling one."
    )
    failed = [g["name"].removesuffix(" learnt") for g in here.gates if not g["passed"]]
    if failed:
        yield f"Not every network of {', '.join(failed)} passes the accuracy gate; they are shown and not judged."


def identity(here: Shown) -> Iterable[IdentityCheck]:
    """That the readout of the states that are measured gives the network's logits."""
    for one in here.chosen:
        found = json.loads((here.run.output(measure_name(one)) / DIFFERENCES).read_text())
        most = max(found.values())
        yield IdentityCheck(one.name, "decoder", most, TOLERANCE, most <= TOLERANCE, "not used: states are held")


def by_place(here: Shown) -> Section:
    one = here.headline
    rows = pd.concat([here.rows("variance_explained", one.name, site) for site in (ENCODER, FIRST)])
    figure = forest(
        rows,
        id="by-place",
        title="Variance explained, by the place at which a feature is answered",
        label="what",
        group="site",
        x=EXPLAINED,
        limits="Mean over orders in which every feature stands once at every place. Features need not sum to 1.",
        unit=UNIT,
    )
    text = (
        "Every network answers four features of equal complexity and equal weight in the loss, in one of four orders that "
        "form a Latin square. Variance explained: a linear map from a feature's value to the state, fitted on val, scored "
        "on test, pooled over units. The encoder's state is the mean over positions; the decoder's is that at the start, "
        "where no label is given yet.",
    )
    return Section("by-place", "By place in the answer", text, figures=(figure,), tables=(_states(here, one),))


def _states(here: Shown, one: Configuration) -> Table:
    sites = (ENCODER, *(decoder_site(k) for k in range(len(one.features))))
    rows = []
    for site in sites:
        found = here.rows("variance_explained", one.name, site)
        rows.append((site, *(share(v) for v in found["value"])))
    return Table(
        title="Every state, every place",
        columns=("state", *(place(k) for k in range(len(one.features)))),
        rows=rows,
        caption=f"{EXPLAINED}, {one.name}, means over orders and seeds. From the second place on the labels before are "
        "given to the decoder, so that what it holds of them need not be its own finding: shown, and never a headline.",
    )


def grid(here: Shown) -> Section:
    """Where the answer turns: every configuration."""
    figures: list[Figure] = []
    differences = here.rows("first_minus_last")
    if len(differences):
        figures.append(
            forest(
                differences,
                id="grid",
                title="First place minus last, by configuration",
                label="network",
                group="site",
                x=f"first minus last place in {EXPLAINED} (slope)",
                limits="The slope is fitted to all places; a figure of 0 does not mean that all places are equal.",
                unit=UNIT,
            )
        )
    text = ["The same in other configurations. Those that miss the accuracy gate are drawn too: see the last table."]
    gaps = here.rows("simpler_minus_complex", MIXED)
    if len(gaps):
        figures.append(
            forest(
                gaps,
                id="mixed",
                title="Simpler minus more complex features, by which is answered first",
                label="what",
                x=f"simpler minus more complex in {EXPLAINED}, encoder mean",
                limits="Two features of each kind; complexity and place are crossed, each order has networks of its own.",
                unit=UNIT,
            )
        )
        text.append(
            "In the mixed configuration two features are whether a token occurs and two the parity of its number. If place "
            "mattered alone, the gap would change its sign with the order."
        )
    rows = [
        (r["network"], r["site"], r["what"], *interval(r, share))
        for r in here.rows("variance_explained").to_dict("records")
        if r["site"] in (ENCODER, FIRST)
    ]
    table = Table(
        title="Variance explained, every configuration",
        columns=("configuration", "state", "place", "mean", "95% interval"),
        rows=rows,
        caption=f"{EXPLAINED}; t intervals over seeds and {UNIT}.",
        folded=True,
    )
    return Section("grid", "Where it turns", tuple(text), figures=tuple(figures), tables=(table,))


def along(here: Shown) -> Section:
    """Accuracy by place while training: is what is answered early also learnt early?"""
    frames = []
    for one in here.chosen:
        for seed in here.config.seed_list():
            runs = [read_curves(here.run.output(train_name(one, o)))[seed] for o in range(len(one.orders))]
            for points in zip(*runs, strict=True):
                for k in range(len(one.features)):
                    value = float(np.mean([values[f"test/{place(k)}"] for _, values in points]))
                    row = {"network": one.name, "seed": seed, "split": place(k), "step": points[0][0], "value": value}
                    frames.append(row | {"n": here.config.test * len(one.orders)})
    figure = training_curves(
        pd.DataFrame(frames),
        metric="accuracy on test",
        id="along",
        title="Accuracy by place while training, mean over orders",
        unit=UNIT,
    )
    text = (
        "Accuracy of the answers that the network gives by itself. Where places part, what is answered first may be loud "
        "because it was learnt first; where they do not, that is no explanation.",
    )
    return Section("along", "Learnt first?", text, figures=(figure,))


def setting(here: Shown) -> Section:
    """What was trained, how well, and which gates hold."""
    made = Table(
        title="Configurations",
        columns=("configuration", "what it is", "features", "orders (first place to last, by feature)"),
        rows=[
            (
                c.name,
                c.note,
                ", ".join(c.features),
                "; ".join(" ".join(str(f + 1) for f in order) for order in c.orders),
            )
            for c in here.chosen
        ],
        caption=f"{here.config.seeds} seeds for each order, all on the same {here.config.train} sequences.",
    )
    right = Table(
        title="Accuracy and cross-entropy",
        columns=("configuration", "place", "quantity", "mean", "95% interval"),
        rows=[
            (r["network"], r["what"], kind.replace("_", "-"), *interval(r))
            for kind in ("accuracy", "cross_entropy")
            for r in here.rows(kind).to_dict("records")
        ],
        caption="Accuracy of the network's own answers; cross-entropy in nats where the labels before are given.",
        folded=True,
    )
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Networks that miss a gate are not dropped: they are shown, and claims about them are not judged.",
    )
    return Section("setting", "What was compared", (), tables=(made, right, gates))
