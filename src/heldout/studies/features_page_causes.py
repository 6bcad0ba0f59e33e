"""The page of the features study: what moves the gap, and where it turns."""

from __future__ import annotations

import numpy as np

from heldout.figures import Figure, Matrix, forest, heatmap
from heldout.figures.page import Section, Table
from heldout.studies.features import HEADLINE, PREVALENCES
from heldout.studies.features_conditions import ADAM_XOR, DROPOUTS, EXPERIMENTS, OPTIMISERS, SHARES
from heldout.studies.features_shown import EXPLAINED, UNIT, Shown, gaps, interval, rounded, section

PLAIN = {"sgd": HEADLINE, "adam": ADAM_XOR.name}  # optimiser -> its condition without dropout, where not of its name


def causes(here: Shown) -> Section:
    def of(experiment: str, key: str, title: str) -> Figure:
        return gaps(here, here.ran(EXPERIMENTS[experiment], least=2), key, title)

    return section(
        "causes",
        "What moves the gap",
        ("Gap: variance explained by the simpler feature minus that by the more complex one.",),
        {
            "order of learning (E4)": lambda: of("E4", "order", "Gap by order of learning"),
            "parts of the complex feature (E5)": lambda: _parts(here),
            "prevalence (E6)": lambda: _prevalence(here),
            "depth and width (E9)": lambda: of("E9", "depth-width", "Gap by depth and width"),
            "optimiser and dropout (E8)": lambda: _dropout(here),
        },
    )


def _parts(here: Shown) -> Figure:
    names = here.ran(EXPERIMENTS["E5"])
    rows = here.together({"variance_explained": "feature", "part": "part of it"}, names)
    rows = rows.assign(at=[names.index(n) for n in rows["network"]])
    return forest(
        rows.sort_values(["at", "where"], kind="stable"),
        id="parts",
        title="Features and their parts",
        label="where",
        group="how",
        x=EXPLAINED,
        limits="Parts of one feature are not independent, so their figures do not add up. n is test rows for features and "
        "networks for parts.",
        unit="rows or networks",
    )


def _prevalence(here: Shown) -> Figure:
    rare = (f"rare-{r}-{p:g}" for r in ("mask", "constant", "base_rate") for p in SHARES)
    rows = here.rows("variance_explained", here.ran(["equal", *rare], least=2))
    first = [here.features(n)[0] for n in rows["network"]]
    rows = rows.assign(which=np.where(rows["feature"] == first, "the rare feature", "its equal"))
    return forest(
        rows,
        id="prevalence",
        title="Two equal features, one of them rare in training",
        label="condition",
        group="which",
        x=EXPLAINED,
        limits="Prevalences "
        f"{', '.join(f'{p:g}' for p in sorted(PREVALENCES.values()))} by masked labels; the other ways of being rare are "
        "kept apart. All are measured on balanced rows.",
        unit=UNIT,
    )


def _dropout(here: Shown) -> Figure:
    names = here.ran(f"{o}-dropout-{p:g}" for o in OPTIMISERS for p in DROPOUTS)
    found = here.rows("gap").set_index("network")
    columns = (0.0, *DROPOUTS)
    values = np.full((len(OPTIMISERS), len(columns)), np.nan)
    for i, optimiser in enumerate(OPTIMISERS):
        for j, p in enumerate(columns):
            name = f"{optimiser}-dropout-{p:g}" if p else PLAIN.get(optimiser, optimiser)
            if name in found.index:
                values[i, j] = found.loc[name, "value"]
    n = np.where(np.isfinite(values), int(found["n"].max()), 0)
    return heatmap(
        [Matrix("", values, n)],
        rows=list(OPTIMISERS),
        columns=[f"{p:g}" for p in columns],
        id="dropout",
        title=f"Gap by optimiser and dropout ({len(names)} conditions with dropout)",
        row_title="optimiser",
        column_title="dropout",
        value_title=f"gap in {EXPLAINED}",
        limits="n is test rows. Mean over seeds; intervals are in the robustness grid.",
        reason="not run here",
    )


def robustness(here: Shown) -> Section:
    pairs = [n for n in here.conditions if here.differ(n)]
    narrowed = Table(
        title="The gap against a baseline",
        columns=("condition", "baseline", "baseline's gap minus this one's", "95% interval"),
        rows=[(r["network"], r["reference"], *interval(r)) for r in here.rows("gap_narrowed").to_dict("records")],
        caption="Paired by training seed; above 0 the condition narrows the gap. Not corrected for the number of rows.",
    )
    return section(
        "robustness",
        "Where it turns",
        ("Claims are judged on the configuration that each names. Everything else that was run stands here.",),
        {"the gap in every condition": lambda: gaps(here, here.ran(pairs), "robustness", "Gap, every condition")},
        (narrowed, _bands(here)),
    )


def _bands(here: Shown) -> Table:
    kinds = {
        "band_low": "least",
        "band_high": "greatest",
        "zscored": "z-scored",
        "whitened": "whitened",
        "before_nonlinearity": "before nonlinearity",
    }
    found = {kind: here.rows(kind).set_index(["network", "feature"])["value"] for kind in kinds}
    rows = []
    for r in here.rows("variance_explained").to_dict("records"):
        key = (r["network"], r["feature"])
        rows.append((*key, rounded(r["value"]), *(rounded(found[k].get(key, np.nan)) for k in kinds)))
    return Table(
        title="The band that variance explained moves in",
        columns=("condition", "feature", "as measured", *kinds.values()),
        rows=rows,
        caption="Under changes of the activations that leave the network's function as it is; means over seeds. Least and "
        f"greatest are over {here.config.band_draws} rescalings of units (standard deviation 1 in log) and the others.",
        folded=True,
    )
