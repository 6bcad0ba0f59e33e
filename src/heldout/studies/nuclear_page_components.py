"""Sections of the nuclear page on components: how many predictions need, and which terms of a formula they carry."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from heldout.analyses.geometry.derived import COMPONENTS, DIRECT, FORMULA
from heldout.analyses.geometry.interventions import FULL
from heldout.figures import Figure, Matrix, forest, heatmap, lines
from heldout.figures.page import Section, Table
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.features_shown import interval, rounded
from heldout.studies.nuclear import READ
from heldout.studies.nuclear_claims import WITHIN
from heldout.studies.nuclear_judge import best_rank, kept_squares
from heldout.studies.nuclear_measure import DERIVED, TERMS_FOUND, squares_of
from heldout.studies.nuclear_shown import BASELINES, TRAINED_ON, Shown, kev

SITES = {
    "penultimate": "penultimate layer",
    "z": "embeddings of protons",
    "n": "embeddings of neutrons",
    "both": "embeddings of both",
}
NULLS = {
    "partial": "strongest component",
    "partial_permuted": "permuted residuals, 95th percentile",
    "partial_untrained": "untrained networks, 95th percentile",
}
RIVALS = {
    FORMULA: "the five-term formula",
    COMPONENTS: "terms that components point at",
    DIRECT: "terms that energies point at, no network",
    "random terms, median": "random terms, median",
}
WHOLE, REFERENCE = "full network", BASELINES[baselines.FORMULA]


def components(here: Shown) -> Section:
    text = (
        "Only the first principal components of a layer are kept, the others stand at their mean over training nuclei "
        "(in the tables: over tokens). Errors are on nuclei held out at random.",
        f"The claim is about the penultimate layer: the number of components, at most {here.config.most}, with the "
        f"least error on select, and whether the error on held-out nuclei is within {WITHIN - 1:.0%} of the full "
        "network's.",
    )
    title = "How many components does a prediction need?"
    return Section("components", title, text, figures=(kept_figure(here),), tables=(chosen(here),))


def kept_figure(here: Shown) -> Figure:
    rows = here.rows("rms_kept")
    rows = rows[rows["split"] == "id"]
    curves = rows[rows["parameter"].notna()].assign(name="components kept")
    curves = curves.rename(columns={"value": "y"}).assign(x=curves["parameter"].astype(float))
    formula = here.rows("rms").query("split == 'id' and network == @baselines.FORMULA and reference == 'baselines'")[
        "value"
    ]
    parts = [curves.assign(panel=[SITES[s] for s in curves["site"]])]
    for site, words in SITES.items():
        full = rows[(rows["site"] == site) & rows["parameter"].isna()]["value"]
        for name, level in ((WHOLE, full), (REFERENCE, formula)):
            ends = curves["x"].min(), curves["x"].max()
            parts.append(pd.DataFrame({"panel": words, "name": name, "x": ends, "y": float(level.iloc[0])}))
    order = {words: i for i, words in enumerate(SITES.values())}
    frame = pd.concat(parts)[["panel", "name", "x", "y", "low", "high"]]
    return lines(
        frame.sort_values("panel", key=lambda p: p.map(order), kind="stable"),
        id="kept",
        title="Error with the leading components kept",
        x="components kept",
        y="RMS error, keV",
        caption=(
            f"Means over n = {len(here.seeds)} networks; bands: 95% interval over seeds. Both axes are logarithmic.",
            "Components are ordered by variance, and not by what they are worth to predictions. That a few suffice "
            "does not say what they stand for.",
        ),
        thin=(WHOLE, REFERENCE),
        log_x=True,
        log_y=True,
    )


def chosen(here: Shown) -> Table:
    rows = []
    for seed, folder in zip(here.seeds, here.each("kept"), strict=True):
        select, held = (kept_squares(folder, "penultimate", split) for split in ("select", "id"))
        rank, full = best_rank(select, here.config.most), held.rms(FULL)
        rows.append((seed, rank, kev(held.rms(str(rank))), kev(full), f"{held.rms(str(rank)) / full:.2f}"))
    return Table(
        title=f"At most {here.config.most} components of the penultimate layer",
        columns=("seed", "components, chosen on select", "error with them, keV", "of the full network, keV", "ratio"),
        rows=rows,
        caption=f"On nuclei held out at random. The claim asks for a ratio below {WITHIN:g}.",
    )


# -- terms -------------------------------------------------------------------------------------------------------------


def terms(here: Shown) -> Section:
    networks = here.trained(READ)
    figures = [terms_map(here, networks), *(strongest(here, network) for network in networks)]
    text = [
        "What the readout makes of one component of the penultimate layer, times A, is compared with the terms of an "
        "extended mass formula on nuclei held out at random. Correlations are partial: the other ten terms are taken "
        "out of both sides, because terms such as volume and surface are almost the same function of Z and N.",
        "Nulls: signs of residuals flipped by groups of neighbouring isotopic chains, and networks that were never "
        "trained.",
    ]
    if "asymmetry" in networks:
        text.append(
            "A network trained on (N − Z)² / A, which has neither shells nor pairing, stands beside as a control."
        )
    else:
        text.append("No network on a smooth function was trained in this run, so that control is missing.")
    tables = (formulas(here), tolerances(here))
    title = "Do components carry the terms of a mass formula?"
    return Section("terms", title, tuple(text), figures=tuple(figures), tables=tables)


def terms_map(here: Shown, networks: list[str]) -> Figure:
    matrices = []
    for network in networks:
        with np.load(here.output(f"terms-{network}-s{here.seed}") / TERMS_FOUND) as a:
            names, partial = [named(n) for n in a["names"]], np.abs(a["partial"])
        nuclei = np.full(partial.T.shape, held(here))
        matrices.append(Matrix(f"network on {TRAINED_ON[network]}", partial.T, nuclei))
    return heatmap(
        matrices,
        rows=names,
        columns=range(1, matrices[0].values.shape[1] + 1),
        id="partial",
        title=f"Components and terms, seed {here.seed}",
        row_title="term",
        column_title="component",
        value_title="size of the partial correlation",
        limits="One network of several; signs of components are arbitrary, so sizes are shown. A component may be "
        "correlated with a term that it has nothing to do with.",
    )


def held(here: Shown) -> int:
    """Nuclei held out at random."""
    return int(next(one["nuclei"] for one in here.composition(False)["splits"] if one["split"] == "id"))


def strongest(here: Shown, network: str) -> Figure:
    rows = here.rows(*NULLS)
    rows = rows[rows["network"] == network]
    return forest(
        rows.assign(term=[named(e) for e in rows["edit"]], what=[NULLS[q] for q in rows["quantity"]]),
        id=f"strongest-{network}",
        title=f"The component closest to each term, network on {TRAINED_ON[network]}",
        label="term",
        group="what",
        x="size of the partial correlation, strongest of the components read",
        limits="A term is carried where the strongest component lies above both nulls. Bars of nulls are over seeds.",
        unit="networks",
        marks=(0.0, 1.0),
    )


def named(term: object) -> str:
    return str(term).replace("_", " ")


def formulas(here: Shown) -> Table:
    values = {r["edit"]: r for r in here.rows("rms_formula").to_dict("records")}
    records = [json.loads((folder / DERIVED).read_text()) for folder in here.each("terms-binding")]
    rows: list[tuple[str | int, ...]] = []
    for name, words in RIVALS.items():
        rows.append((words, "mean", *interval(values[name], kev), "", ""))
        for seed, record in zip(here.seeds, records, strict=True):
            if name in record["terms"]:
                error = squares_of(pd.DataFrame(record["squares"])).rms(name)
                p = rounded(record["p_random"]) if name == COMPONENTS else ""
                rows.append(("", seed, kev(error), "", ", ".join(map(named, record["terms"][name])), p))
    return Table(
        title="Formulas of five terms, refitted to the same nuclei",
        columns=("terms", "seed", "RMS error, keV", "95% interval", "which", "p against random terms"),
        rows=rows,
        caption="On nuclei held out at random. p: the share of as many terms drawn at random that do as well or "
        "better; one of a hundred at the least.",
    )


def tolerances(here: Shown) -> Table:
    rows = here.rows("tolerance")
    rows = rows[rows["network"] == "binding"]
    return Table(
        title="What is left of a term beside the others",
        columns=("term", "tolerance"),
        rows=[(named(r["edit"]), float(r["value"])) for r in rows.to_dict("records")],
        caption="Share of the term's variance over held-out nuclei that the other ten do not explain. Near 0 the term "
        "can hardly be told from them, and its partial correlation rests on very little.",
        folded=True,
    )
