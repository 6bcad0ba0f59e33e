"""Sections of the nuclear page on errors: beside baselines, on nuclei measured later, and over the chart of nuclides."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from heldout.figures import Chart, Figure, forest, nuclides
from heldout.figures.nuclides_chart import nuclide
from heldout.figures.page import Section, Table
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.features_shown import interval, rounded, share
from heldout.studies.nuclear_estimates import LEVEL
from heldout.studies.nuclear_shown import BASELINES, TRAINED_ON, Shown, kev, model
from heldout.tasks.nuclear import REGIONS

SPLITS = {
    "train": "train",
    "select": "select",
    "id": "held out at random",
    "new": "measured later",
}
INTERVALS = {
    "gaussian": "spread of the networks, as a normal",
    "constant": "conformal, one margin",
    "following": "conformal, follows the spread",
}


def errors(here: Shown) -> Section:
    rows = here.rows("rms")
    rows = rows.sort_values("reference", kind="stable")  # networks before baselines
    rows = rows.assign(model=[model(n) for n in rows["network"]], where=[SPLITS[s] for s in rows["split"]])
    later = rows["network"].str.startswith("vintage") | (rows["reference"] == "baselines-vintage")
    figures = [errors_of(rows[~later], "errors", f"Errors on AME{here.config.table}", ("train", "id"))]
    if here.trained(("vintage", "vintage-residual")):
        figures.append(
            errors_of(
                rows[later], "errors-later", f"Errors on nuclei measured after AME{here.config.old}", ("id", "new")
            )
        )
    tables = [errors_table(rows[~later], f"Errors on AME{here.config.table}, every split")]
    if later.any():
        tables.append(errors_table(rows[later], f"Trained on AME{here.config.old}, every split"))
        tables.append(by_region(here))
    tables.append(composition(here))
    figures += coverage(here)
    tables.append(widths(here))
    text = (
        "A network sees a nucleus as two tokens, its numbers of protons and neutrons, and predicts its binding energy. "
        "Errors are of whole nuclei. Formulas, neighbours and the kernel method are fitted to the same training "
        "nuclei; coefficients as published were fitted elsewhere, to nuclei that may be held out here.",
        f"By vintage, everything is trained on values of AME{here.config.old} and tested on nuclei that "
        f"AME{here.config.new} is the first to have measured.",
    )
    there = tuple(table for table in tables if table.rows)
    title = "How well do networks predict masses?"
    return Section("errors", title, (*text, *edges(here)), figures=tuple(figures), tables=there)


def edges(here: Shown) -> tuple[str, ...]:
    """What must be said where a baseline's hyperparameters are at the end of what was tried."""
    found = [
        f"{BASELINES[label]}, fitted to AME{year}: {', '.join(own['at_edge'])}"
        for year, record in here.chosen()
        for label, own in record.items()
        if own["at_edge"]
    ]
    if not found:
        return ()
    return (f"Chosen at the end of what was tried, so that a wider choice might do better: {'; '.join(found)}.",)


def errors_of(rows: pd.DataFrame, key: str, title: str, splits: tuple[str, ...]) -> Figure:
    return forest(
        rows[rows["split"].isin(splits)],
        id=key,
        title=title,
        label="model",
        group="where",
        x="root mean square error, keV",
        limits="Of single networks the mean over seeds, with its interval over seeds. The others are one fit each: "
        "nothing is said on other nuclei. Neighbours and kernel method have each training nucleus among those "
        "they predict it from; their errors on train would say nothing and are absent.",
        unit="networks (one network) or nuclei (others)",
    )


def errors_table(rows: pd.DataFrame, title: str) -> Table:
    splits = [s for s in SPLITS if s in set(rows["split"])]
    found = {(r["model"], r["split"]): r for r in rows.to_dict("records")}
    out = []
    for name in dict.fromkeys(rows["model"]):
        cells = []
        for split in splits:
            r = found.get((name, split))
            value, between = interval(r, kev) if r else ("", "")
            cells.append("–" if value == "none" else f"{value} [{between}]" if between else value)
        out.append((name, *cells))
    return Table(
        title=title,
        columns=("", *(SPLITS[s] for s in splits)),
        rows=out,
        caption="Root mean square error, keV, in brackets the 95% interval over seeds. Hyperparameters of networks "
        "are fixed; those of neighbours and kernel are chosen on train, where a dash stands for the two: "
        "each training nucleus is among those they predict it from, so that their error there says nothing.",
        folded=True,
    )


def by_region(here: Shown) -> Table:
    """Errors on nuclei measured later, by where they lie."""
    rows = here.ensemble("vintage") if here.trained(["vintage"]) else pd.DataFrame({"split": [], "region": []})
    rows = rows[rows["split"] == "new"]
    names = ("predicted", *baselines.BASELINES)
    out = []
    for number, region in enumerate(REGIONS):
        part = rows[rows["region"] == number]
        if len(part):
            out.append((region, len(part), *(kev(rms(part, name)) for name in names)))
    return Table(
        title="On nuclei measured later, by where they lie",
        columns=("region", "nuclei", "mean of networks", *(BASELINES[name] for name in names[1:])),
        rows=out,
        caption="Root mean square error, keV. neutron-rich: beyond the heaviest isotope of its element that was "
        "measured before; proton-rich: below the lightest; interior: between. One fit each, and few nuclei: no "
        "interval is shown.",
    )


def rms(rows: pd.DataFrame, name: str) -> float:
    return float(np.sqrt(np.mean((rows[name] - rows["value"]) ** 2)))


def composition(here: Shown) -> Table:
    """What splits are made of, and what no network can score."""
    rows = []
    for vintage, year in ((False, here.config.table), (True, here.config.old)):
        record = here.composition(vintage)
        for one in record["splits"]:
            lost = [nuclide(z, n) for z, n in record["unscorable"].get(one["split"], [])]
            regions = ", ".join(f"{k} {v}" for k, v in one["by_region"].items() if v and k != "known")
            note = one["note"] + (f": {regions}" if regions else "")
            rows.append(
                (f"AME{year}", SPLITS[one["split"]], one["nuclei"], one["precise"], len(lost), ", ".join(lost), note)
            )
    dropped = here.composition(True).get("dropped", 0)
    return Table(
        title="Nuclei, and those that no network can score",
        columns=("trained on", "split", "nuclei", "known to 100 keV", "not scorable", "which", "what they are"),
        rows=rows,
        caption="Not scorable: a number of protons or neutrons that no training nucleus has; such nuclei are in no "
        f"split and in no error on this page, a baseline's included. {dropped} nuclei that AME{here.config.old} has "
        f"as measured are not measured in AME{here.config.new}; they are trained on all the same.",
        folded=True,
    )


def coverage(here: Shown) -> Iterable[Figure]:
    rows = here.rows("coverage")
    if rows.empty:  # one seed: no ensemble
        return
    where = [f"{TRAINED_ON[n]}: {SPLITS[s]}" for n, s in zip(rows["network"], rows["split"], strict=True)]
    yield forest(
        rows.assign(where=where, kind=[INTERVALS[e] for e in rows["edit"]]),
        id="coverage",
        title=f"How often intervals of {LEVEL:.0%} hold",
        label="where",
        group="kind",
        x=f"share of nuclei whose energy lies in its interval; {LEVEL:.0%} is promised",
        limits="Margins are set on select, where conformal ones hold by construction. They are promised for nuclei "
        "drawn as those were, not for nuclei measured later. Chains are not resampled: intervals take nuclei as "
        "independent.",
        unit="nuclei",
        marks=(LEVEL,),
    )


def widths(here: Shown) -> Table:
    """How wide intervals are, and whether the spread of networks says where they err."""
    found = here.rows("width", "coverage", "knows_where").set_index(["network", "split", "quantity", "edit"])["value"]
    pairs = dict.fromkeys(zip(here.rows("width")["network"], here.rows("width")["split"], strict=True))
    rows = [
        (
            TRAINED_ON[network],
            SPLITS[split],
            *(
                f"{share(found[network, split, 'coverage', k])}, {kev(found[network, split, 'width', k])}"
                for k in INTERVALS
            ),
            rounded(found[network, split, "knows_where", ""]),
        )
        for network, split in pairs
    ]
    return Table(
        title="Coverage and width of intervals",
        columns=("networks on", "split", *INTERVALS.values(), "rank correlation of spread and error"),
        rows=rows,
        caption="Coverage, then mean full width in keV. The correlation is over nuclei; at 0 the spread does not say "
        "where networks err.",
        folded=True,
    )


def chart(here: Shown) -> Section:
    figures = [
        chart_of(here, "binding", "id", "chart", f"Errors on nuclei of AME{here.config.table} held out at random")
    ]
    if here.trained(["vintage"]):
        title = f"Errors on nuclei that AME{here.config.new} is the first to have measured"
        figures.append(chart_of(here, "vintage", "new", "chart-later", title))
    text = (
        "Predicted minus measured binding energy of each nucleus that was not trained on. Above 0 a nucleus is "
        "predicted to be bound more tightly than it is.",
    )
    return Section("chart", "Where do they err?", text, figures=tuple(figures))


def chart_of(here: Shown, network: str, split: str, key: str, title: str) -> Figure:
    rows = here.ensemble(network)
    own, train = rows[rows["split"] == split], rows[rows["split"] == "train"]
    place = {"z": own["z"].to_numpy(), "n": own["n"].to_numpy()}
    place |= {"other_z": train["z"].to_numpy(), "other_n": train["n"].to_numpy()}
    names = {"predicted": f"mean of {len(here.seeds)} networks", baselines.FORMULA: BASELINES[baselines.FORMULA]}
    charts = [
        Chart(words, values=((own[name] - own["value"]) / 1e3).to_numpy(), **place) for name, words in names.items()
    ]
    limits = "Grey: trained on. Nuclei that cannot be scored are absent."
    value = "predicted minus measured energy"
    return nuclides(charts, id=key, title=title, value=value, unit="MeV", limits=limits)
