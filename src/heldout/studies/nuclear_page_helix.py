"""The section of the nuclear page on the helix: the picture with its spectrum, the test, and what the helix is worth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from heldout.figures import Figure, Spectrum, forest, lines, space
from heldout.figures.page import Section, Table
from heldout.studies.features_shown import interval, rounded, share
from heldout.studies.nuclear import UNTRAINED
from heldout.studies.nuclear_estimates import AS_MUCH, OF_THE_SAME
from heldout.studies.nuclear_helix import HELIX, PROFILES
from heldout.studies.nuclear_shown import NUMBERS, TRAINED_ON, Shown, kev
from heldout.studies.nuclear_structure import ALONG, CHANGES

FAMILIES = ("random walk", "gaussian process", "permuted")
EDITS = {
    "full": "as it is",
    "removed": "curve removed",
    AS_MUCH: "as much at random",
    OF_THE_SAME: "as much of its components",
    "wave removed": "wave alone removed",
    f"wave {AS_MUCH}": "as much as the wave, at random",
    f"wave {OF_THE_SAME}": "as much of the wave's components",
    "alone": "nothing but the curve",
    "wave alone": "nothing but the wave",
}
PARTS = {"curve": "whole curve", "wave": "cosine and sine"}
NEAR = 10  # neutrons or protons beyond measured nuclei up to which a chain is shown
AS_IS, SMALLER, LARGER, MEASURED = "as it is", "smaller factor", "larger factor", "measured"


def helix(here: Shown) -> Section:
    text = (
        "Three components of a table of embeddings can be drawn in space, whatever share of the variance they hold. "
        "Many smooth tables look like a helix there, random walks among them, so that a picture or a good fit shows "
        "nothing.",
        "T is the largest product of aspect (1: a circle seen square on, 0: a flat wave) and gain in R² over a "
        "quadratic, from 1.75 turns to one turn in six tokens. It is compared with T of random walks, of Gaussian "
        "processes as smooth as the table, and of permuted tokens; the helix has to exceed the 95th percentile of "
        "each.",
        smooth(here),
    )
    arrays = here.structure
    figures = [figure for column in ("n", "z") for figure in curves(here, arrays, column)]
    figures += [profiles(here), excess(here), worth(here), chains(here, arrays)]
    title = "Do embeddings lie on a helix, and is it used?"
    return Section("helix", title, text, figures=tuple(figures), tables=(removals(here), every_network(here)))


def smooth(here: Shown) -> str:
    """What a helix does not show, and what stands beside to show it."""
    beside = [TRAINED_ON[name] for name in here.trained(("semf", "asymmetry"))]
    words = "A helix that does is no evidence of shells: smooth functions may give one too."
    if not beside:
        return f"{words} No network on a smooth function was trained in this run."
    return f"{words} Networks on smooth functions stand beside: {' and '.join(beside)}."


def curves(here: Shown, arrays: dict[str, np.ndarray], column: str) -> tuple[Figure, Figure]:
    """One table in space, and in planes beside its spectrum."""
    tokens = arrays[f"{column} tokens"]
    name = {"z": "Z", "n": "N"}[column]
    return space(
        arrays[f"{column} helix scores"],
        [f"{name} = {t}" for t in tokens],
        tokens.astype(np.float64).tolist(),
        id=f"helix-{column}",
        title=f"Embeddings of numbers of {NUMBERS[column]}, seed {here.seed}",
        by=f"number of {NUMBERS[column]}",
        spectrum=Spectrum(arrays[f"{column} share"], arrays[f"{column} level"]),
        fitted=arrays[f"{column} helix"],
        limits="The fit is the helix of largest T, drawn whether it beats its nulls or not.",
    )


def profiles(here: Shown) -> Figure:
    frames = []
    with np.load(here.output(f"helix-binding-s{here.seed}") / PROFILES) as a:
        for column in ("n", "z"):
            own = {"embeddings": a[f"{column} profile"]}
            own |= {f"{f}, 95th percentile": a[f"{column} {f}"] for f in FAMILIES}
            for name, values in own.items():
                frames.append(
                    pd.DataFrame({"panel": NUMBERS[column], "name": name, "x": a[f"{column} grid"], "y": values})
                )
    return lines(
        pd.concat(frames),
        id="profile",
        title=f"Aspect x gain over turns, seed {here.seed}",
        x="turns over all tokens",
        y="aspect x gain",
        caption=(
            f"One network; n = {here.config.draws} surrogates in each null family. Percentiles are pointwise: T is "
            "the largest value anywhere, and its own threshold, in the table, lies higher.",
        ),
        thin=tuple(f"{f}, 95th percentile" for f in FAMILIES),
    )


def excess(here: Shown) -> Figure:
    rows = here.rows("helix_excess")
    return forest(
        rows.assign(what=[TRAINED_ON[n] for n in rows["network"]], table=[NUMBERS[s] for s in rows["site"]]),
        id="excess",
        title="How far the helix exceeds its nulls",
        label="what",
        group="table",
        x="T minus the 95th percentile of the worst null family, by what networks were trained on",
        limits="Above 0 it exceeds them. That a network has a helix does not say that it uses it.",
        unit="networks",
    )


def every_network(here: Shown) -> Table:
    rows = []
    for network in (*here.config.networks, UNTRAINED):
        for column in ("n", "z"):
            found = [pd.read_parquet(folder / HELIX) for folder in here.each(f"helix-{network}")]
            found = [f[f["column"] == column] for f in found]
            first = [f.iloc[0] for f in found]
            rows.append(
                (
                    TRAINED_ON[network],
                    NUMBERS[column],
                    span(f["statistic"] for f in first),
                    span(f["threshold"].max() for f in found),
                    ", ".join(rounded(f["p"]) for f in first),
                    ", ".join(rounded(f["turns"]) for f in first),
                    span(f["aspect"] for f in first),
                    span(f["gain"] for f in first),
                    share(float(np.mean([f["r2"] for f in first]))),
                    share(float(np.mean([f["share"] for f in first]))),
                )
            )
    return Table(
        title="The helix test of every network",
        columns=(
            *("trained on", "table", "T", "threshold", "p, by seed", "turns, by seed", "aspect", "gain", "R²"),
            "variance in three components",
        ),
        rows=rows,
        caption=f"{len(here.seeds)} networks each; T, threshold, aspect and gain from least to greatest, R² and "
        f"variance are means. p is the largest over null families, each of {here.config.draws} surrogates. A number "
        "of turns says little where the helix does not beat its nulls.",
    )


def span(values: Iterable[float]) -> str:
    there = sorted(float(v) for v in values)
    low, high = rounded(there[0]), rounded(there[-1])
    return low if low == high else f"{low} to {high}"


def worth(here: Shown) -> Figure:
    rows = here.rows("rms_helix")
    rows = rows.assign(what=[EDITS[e] for e in rows["edit"]], table=[NUMBERS[s] for s in rows["site"]])
    order = {name: i for i, name in enumerate(EDITS)}
    return forest(
        rows.sort_values("edit", key=lambda e: e.map(order), kind="stable"),
        id="worth",
        title="What the helix is worth to predictions",
        label="what",
        group="table",
        x="RMS error on nuclei held out at random, keV",
        limits="One table is changed at a time. The fitted curve is a parabola over the tokens (its drift) and a wave, "
        "cosine and sine beyond the parabola. Removed: curve or wave is taken out of the embeddings, all else stays. "
        "Nothing but: it and the mean alone are left in them. At random: random directions, until as much variance is "
        "gone. Of its components: as much of the three components that hold the curve, by random functions of the token. "
        "Controls are means over draws.",
        unit="networks",
    )


def removals(here: Shown) -> Table:
    """Each removal beside its control: how much variance goes, and how often chance costs as much."""
    rows = []
    for column in ("n", "z"):
        records = [record["helix"][column] for record in here.records()]
        for part, words in PARTS.items():
            each = [r["wave"] if part == "wave" else r for r in records]
            rows.append(
                (
                    NUMBERS[column],
                    words,
                    share(float(np.mean([one["held"] for one in each]))),
                    kev(float(np.mean([one["removed"] for one in each]))),
                    kev(float(np.mean([np.mean(one["random"]) for one in each]))),
                    span(one["p"] for one in each),
                    kev(float(np.mean([np.mean(one["same"]) for one in each]))),
                    span(one["p_same"] for one in each),
                )
            )
    draws = len(here.records()[0]["helix"]["n"]["random"])
    return Table(
        title="The helix removed, beside as much at random",
        columns=(
            *("table", "what is removed", "its variance", "RMS without it, keV"),
            *("at random, keV", "p, at random", "same components, keV", "p, same components"),
        ),
        rows=rows,
        caption=f"Means over {len(here.seeds)} networks, nuclei held out at random. Its variance: the share of the table's. "
        f"p by seed, from least to greatest, of {draws} draws: the chance of one that costs as much, {1 / (1 + draws):.2g} "
        "at the least. At random: random directions of the whole table. Same components: as much of the three that hold the "
        "curve, by random functions of the token, so that nothing but the shape differs. The wave is what the test of the "
        "helix is about; that the drift matters says no more than that neighbours lie near each other.",
    )


def chains(here: Shown, arrays: dict[str, np.ndarray]) -> Figure:
    """Energies along a chain with the fitted helix as it is and changed."""
    nuclei = here.ensemble("binding")
    frames = []
    for column, (other, held) in ALONG.items():
        own = nuclei[nuclei[other] == held]
        a = own["z"] + own["n"]
        measured = pd.DataFrame({"x": own[column].astype(float), "y": own["value"] / a / 1e3, "name": MEASURED})
        tokens = arrays[f"{column} chain"][:, ("z", "n").index(column)]
        shown = np.ones(len(tokens), dtype=bool)
        if len(own):
            shown = (tokens >= own[column].min() - NEAR) & (tokens <= own[column].max() + NEAR)
        for what, changes in CHANGES.items():
            small, large = sorted(next(f for f in change if f != 1) for change in changes)
            panel = f"{NUMBERS[column]} along {other.upper()} = {held}: {what} x {small:g} and x {large:g}"
            drawn = {AS_IS: AS_IS, SMALLER: f"{what} x {small:g}", LARGER: f"{what} x {large:g}"}
            for name, key in drawn.items():
                y = arrays[f"{column} chain {key}"][shown] / 1e3
                frames.append(pd.DataFrame({"panel": panel, "name": name, "x": tokens[shown], "y": y}))
            frames.append(measured.assign(panel=panel))
    return lines(
        pd.concat(frames),
        id="chains",
        title=f"Energies along a chain with the helix changed, seed {here.seed}",
        x="neutrons or protons",
        y="binding energy per nucleon, MeV",
        caption=(
            f"One network; predictions up to {NEAR} tokens beyond measured nuclei, which are drawn as points whether "
            "trained on or not. What the fit leaves of each embedding is put back.",
            "No interval is drawn. Fits differ between networks, so that the effect of a factor need not carry over.",
        ),
        points=(MEASURED,),
        columns=3,
        height=220,
    )


def helix_summary(here: Shown) -> str:
    """T beside its threshold, by what networks were trained on."""
    rows = here.rows("helix")
    rows = rows[(rows["site"] == "n") & rows["network"].isin(["binding", "semf", "asymmetry", "noise", UNTRAINED])]
    words = "; ".join(
        f"{TRAINED_ON[r['network']]} {interval(r)[0]} ({rounded(r['null'])})" for r in rows.to_dict("records")
    )
    return f"Helix in the embeddings of neutrons, T (threshold of the worst null): {words}."
