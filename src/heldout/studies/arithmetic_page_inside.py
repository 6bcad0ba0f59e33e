"""The page of the arithmetic study, from inside: the classes that activations form, and what hangs on them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from heldout.figures import Figure, Matrix, forest, heatmap, scatter_components
from heldout.figures.page import Section, Table
from heldout.studies.arithmetic_claims import CLASS_SITE
from heldout.studies.arithmetic_inside import BESIDE, RANDOM, SCALED, STRUCTURE
from heldout.studies.arithmetic_shown import UNIT, Shown, read, rounded


def inside(here: Shown) -> Section:
    words = {"nearest": "trained", "nearest_untrained": "untrained", "nearest_permuted": "permuted labels"}
    figures: list[Figure] = []
    for name in here.sums:
        rows = here.rows(name, words, edit=STRUCTURE)
        rows["where"] = rows["site"] + ", " + rows["lengths"]
        figures.append(
            forest(
                rows,
                id=f"classes-{name}",
                title=f"{name}: activations nearest to the centroid of their own units digit",
                label="where",
                group="how",
                x="share of activations, last prompt position",
                limits="Components and centroids are fitted on training pairs. That classes persist does not show that "
                "the answer is read from them.",
                unit=UNIT,
            )
        )
    for name in here.sums:
        figures += [_points(here, name), _tiles(here, name)]
    return Section(
        id="inside",
        title="The classes that activations form",
        figures=tuple(figures),
        tables=(_structure(here), _spectrum(here), _distances(here)),
    )


def _points(here: Shown, name: str) -> Figure:
    seed, arrays, frames = here.config.first_seed, here.pictures(name), []
    for split in [key.removesuffix("/points") for key in arrays if key.endswith("/points")]:
        frame = pd.DataFrame(arrays[f"{split}/points"][:, :2], columns=["component 1", "component 2"])
        units = arrays[f"{split}/units"].astype(str)
        frames.append(frame.assign(**{"units digit, operands": np.char.add(units, f", {read(split)}")}))
    return scatter_components(
        pd.concat(frames, ignore_index=True),
        id=f"points-{name}",
        title=f"{name}, seed {seed}: activations in and out of distribution",
        x="component 1",
        y="component 2",
        by="units digit, operands",
        limits="Components fitted in distribution; out-of-distribution points are projected on them. Two of many.",
        unit="pairs",
    )


def _tiles(here: Shown, name: str) -> Figure:
    """The first component by the units of both operands: stripes, if it is a function of their sum's units."""
    arrays, digits = here.pictures(name), list(range(10))
    splits = [key.removesuffix("/by_units") for key in arrays if key.endswith("/by_units")]
    return heatmap(
        [Matrix(read(s), arrays[f"{s}/by_units"][0], arrays[f"{s}/counts"]) for s in splits],
        rows=digits,
        columns=digits,
        id=f"tiles-{name}",
        title=f"{name}, seed {here.config.first_seed}: the first component by the operands' units",
        row_title="units of a",
        column_title="units of b",
        value_title="coordinate",
        limits="Fitted in distribution, last norm, last prompt position. A mean hides what varies within a cell.",
        difference=True,
        reason="no pairs",
    )


def _structure(here: Shown) -> Table:
    rows = []
    for name in here.sums:
        for r in here.inside_means(name, "structure", ("site", "split")).itertuples():
            rows.append((name, r.site, read(r.split), *rounded(r.explained, r.silhouette, r.silhouette_components)))
    return Table(
        title="Silhouettes of the ten classes",
        columns=("network", "site", "operands", "variance in components", "silhouette", "in the components"),
        rows=rows,
        caption=f"Mean over seeds; {here.config.components} components fitted in distribution. Silhouette: -1 to 1, by "
        "units digit, up to 500 pairs. The paper's released network had .85 at its last norm on pairs in and out of "
        "distribution together.",
        folded=True,
    )


def _spectrum(here: Shown) -> Table:
    rows = []
    for name in here.sums:
        by_site: dict[str, list[list[float]]] = {}
        for seed in here.config.seed_list():
            for r in here.inside_records[f"{name}/{seed}"]["spectrum"]:
                by_site.setdefault(r["site"], []).append(r["energy"])
        rows += [(name, site, *rounded(*np.mean(energies, axis=0))) for site, energies in by_site.items()]
    shown = max((len(row) - 2 for row in rows), default=0)
    return Table(
        title="Fourier energy of the ten class centroids",
        columns=("network", "site", *(f"frequency {k + 1}" for k in range(shown))),
        rows=rows,
        caption="Share of the centroids' scatter at each frequency around the ten digits, mean over seeds; sums to 1. "
        "A circle that goes round k times has all its energy at k.",
    )


def _distances(here: Shown) -> Table:
    rows = []
    for name in here.sums:
        for r in here.inside_means(name, "distances", ("network", "site")).itertuples():
            rows.append((name, r.network, r.site, *rounded(r.distance, r.ratio, r.ratio_same_class)))
    return Table(
        title="How far the operands' low parts are from the operands themselves",
        columns=("network", "weights", "site", "distance", "ratio to control", "ratio within the class"),
        rows=rows,
        caption="Euclidean distance at the last prompt position between a problem one digit too long and its low parts, "
        "mean over 500 pairs and seeds. Control: as many digits changed where the rule looks, the same next token. "
        "Within the class: another pair with the same units digit.",
        folded=True,
    )


def causes(here: Shown) -> Section:
    """C4, swaps and probes."""
    return Section(
        id="causes",
        title="Does accuracy hang on the classes?",
        figures=tuple(draw(here, name) for name in here.sums for draw in (_removed, _swapped, _probed)),
        tables=(_matched(here),),
    )


def _removed(here: Shown, name: str) -> Figure:
    e = here.estimates
    own = e[(e["network"] == name) & (e["quantity"] == "exact") & (e["split"] == "id")].copy()
    draw = own["edit"].str.replace(r" \d+$", "", regex=True)
    own["how"] = draw.map({RANDOM: "random, equal variance", SCALED: "as many random, scaled"}).fillna(draw)
    kept = {"value": "mean", "n": "min", "seeds": "min", "reason": "first", "method": "first"}
    mean = own.groupby(["site", "how"], sort=False, as_index=False).agg(kept | {"low": "min", "high": "max"})
    return forest(
        mean,
        id=f"removed-{name}",
        title=f"{name}: what removing the classes costs in distribution",
        label="site",
        group="how",
        x="exact match that is left",
        limits=f"For random directions: the mean over {here.config.random_draws} draws at {CLASS_SITE} and at most {BESIDE} "
        "elsewhere, the interval from the lowest to the highest end of the draws' intervals. At the last norm only the "
        "units digit is read from this position, so that removal there is close to removing the answer itself.",
        unit=UNIT,
    )


def _swapped(here: Shown, name: str) -> Figure:
    e = here.estimates
    return forest(
        e[(e["network"] == name) & (e["quantity"] == "changed")],
        id=f"swapped-{name}",
        title=f"{name}: answers changed by swapping positions",
        label="site",
        group="edit",
        x="share of answers changed",
        limits="Spare positions: between a problem and its low parts. Used positions: between two problems, where answers "
        "must change. What a later block has already read is not undone.",
        unit=UNIT,
    )


def _probed(here: Shown, name: str) -> Figure:
    e = here.estimates
    probed = e[(e["network"] == name) & e["edit"].str.startswith("probe.") & (e["site"] == CLASS_SITE)].copy()
    words = {"decoded": "decoded", "decoded_shuffled": "shuffled labels", "decoded_majority": "largest class"}
    probed["how"] = probed["quantity"].map(words)
    probed["what"] = probed["edit"].str.removeprefix("probe.") + ", " + [read(s) for s in probed["split"]]
    return forest(
        probed,
        id=f"probes-{name}",
        title=f"{name}: what a linear probe reads at the last norm",
        label="what",
        group="how",
        x="share read right",
        limits="Fitted on training pairs; the ignored digit on the other half of the same split (an oracle). Decodable is "
        "not used.",
        unit=UNIT,
    )


def _matched(here: Shown) -> Table:
    rows = []
    for name in here.sums:
        for r in here.inside_means(name, "removal", ("site",)).itertuples():
            rows.append((name, r.site, round(r.rank), *rounded(r.share, r.control_rank, r.overlap, r.scale)))
    return Table(
        title="What was removed",
        columns=("network", "site", "class directions", "share of variance", "random directions", "overlap", "scale"),
        rows=rows,
        caption="Random directions are removed until the mean squared change is the class subspace's. Overlap: the share of "
        "the class subspace that lies in them; near 1 the two interventions are one. Scale: what the deviation along as "
        "many random directions is multiplied with; above 1 it is pushed beyond the mean. Means over seeds.",
    )
