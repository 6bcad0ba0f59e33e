"""The page of the nuclear study: networks on nuclear masses, what is read from them, and what it is set beside."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pandas as pd

from heldout.figures import lines
from heldout.figures.page import Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.audited import CLAIMS
from heldout.studies.nuclear_estimates import AS_MUCH, OF_THE_SAME
from heldout.studies.nuclear_page_components import components, terms
from heldout.studies.nuclear_page_errors import SPLITS, chart, errors
from heldout.studies.nuclear_page_faithful import faithful, identity
from heldout.studies.nuclear_page_helix import helix, helix_summary
from heldout.studies.nuclear_page_primer import primer
from heldout.studies.nuclear_page_structure import evolution, structure, topography
from heldout.studies.nuclear_settings import NETWORKS, NuclearConfig
from heldout.studies.nuclear_shown import TRAINED_ON, Shown, kev, spread
from heldout.studies.nuclear_train import CURVES
from heldout.studies.simplify import lasting, run_warnings


def nuclear_page(run: Run, config: NuclearConfig, title: str) -> Page:
    """The whole page of a finished run."""
    here = Shown(run, config)
    return Page(
        title=title,
        question="Do networks that predict nuclear masses hold physics that can be read, and does it hold up on other "
        "nuclei?",
        summary=tuple(summary(here)),
        identity=identity(here),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((here.folder / CLAIMS).read_text())),
        sections=(
            *(errors(here), chart(here), components(here), faithful(here), terms(here), helix(here), structure(here)),
            *(evolution(here), topography(here), primer(here), setting(here)),
        ),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences."""
    rms = here.rows("rms")
    for network, reference, split in (("binding", "baselines", "id"), ("vintage", "baselines-vintage", "new")):
        rows = rms[(rms["split"] == split) & ((rms["network"] == network) | (rms["reference"] == reference))]
        values = rows.set_index("network")["value"]
        if network in values:
            yield (
                f"RMS error on nuclei {SPLITS[split]}, keV: one network {kev(values[network])}, refitted formulas of "
                f"5 and 11 terms {kev(values[baselines.FORMULA])} and {kev(values[baselines.EXTENDED])}, neighbours "
                f"{kev(values['neighbours'])}, kernel method {kev(values['kernel'])}."
            )
    yield helix_summary(here)
    values = here.rows("rms_helix").set_index(["site", "edit"])["value"]
    wave, random, same = (kev(values["n", f"wave {edit}"]) for edit in ("removed", AS_MUCH, OF_THE_SAME))
    yield (
        f"RMS error with the wave of the neutrons' helix removed {wave} keV, with as much removed at random {random}, and "
        f"of the same components {same}; with nothing but the fitted curve {kev(values['n', 'alone'])}."
    )
    named = here.rows("networks").pivot_table(
        index="network", columns="edit", values="value", aggfunc="sum", fill_value=0
    )
    for pooling, row in named.iterrows():
        words = ", ".join(f"{label} {n:g}" for label, n in row.items() if n)
        yield f"Algorithms of networks that add ({'averaged' if pooling == 'mean' else 'concatenated'} embeddings): {words}."


def setting(here: Shown) -> Section:
    frames = []
    for network in here.config.networks:
        for folder in here.each(f"train-{network}"):
            own = pd.read_parquet(folder / CURVES)
            own = own[(own["metric"] == "rms") & (own["step"] > 0)]
            named = own.rename(columns={"split": "name", "step": "x", "value": "y"})
            frames.append(named.assign(panel=TRAINED_ON[network]))
    figure = lines(
        spread(pd.concat(frames), ("panel", "name", "x")),
        id="curves",
        title="How networks are trained",
        x="training step",
        y="RMS error, keV",
        caption=(
            f"Means over n = {len(here.seeds)} networks; bands: the least and the greatest. Errors are of whole "
            "nuclei; on (N − Z)² / A and on random numbers they are of the target itself, in its unit. Logarithmic "
            "axis; the initial networks are left out.",
        ),
        log_y=True,
        height=170,
        columns=3,
    )
    gates = Table(
        title="Gates",
        columns=("gate", "", "what was found"),
        rows=[(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in here.gates],
        caption="Where a gate fails, the page is shown and claims that need it are not judged.",
    )
    trained = Table(
        title="Networks",
        columns=("name", "trained on", "how"),
        rows=[(name, TRAINED_ON[name], NETWORKS[name]) for name in here.config.networks],
        caption=f"Each {here.config.width} wide with {here.config.blocks} residual blocks, {here.config.steps:,} "
        f"steps, {len(here.seeds)} seeds.",
    )
    return Section("setting", "The networks", (), figures=(figure,), tables=(gates, hyper(here), trained))


def hyper(here: Shown) -> Table:
    """What neighbours and kernel were chosen to be."""
    rows = []
    for year, record in here.chosen():
        for label, own in record.items():
            words = ", ".join(
                f"{k} {v:g}" if isinstance(v, float | int) else f"{k} {v}" for k, v in own.items() if k not in OTHER
            )
            rows.append((f"AME{year}", label, words, kev(own["score"]), ", ".join(own["at_edge"]) or "none"))
    return Table(
        title="Baselines as they were chosen",
        columns=("fitted to", "method", "chosen", "its error on train, keV", "at the edge of what was tried"),
        rows=rows,
        caption="The error is that of nuclei left out one by one or, by vintage, chain by chain. At the edge: the least or "
        "largest value that was tried, beyond which there might be a better one.",
        folded=True,
    )


OTHER = ("at_edge", "score")
