"""The page of the dyck study: the shared sections, and its own on attention, depth, other places and components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.analyses.pairs import OTHER_SEED, WHOLE
from heldout.evidence import read_estimates
from heldout.figures import Figure, Matrix, faithfulness_curves, forest, heatmap, scatter_components
from heldout.figures.page import Page, Section, Table
from heldout.runs import Run
from heldout.studies.audited import ESTIMATES
from heldout.studies.dyck import DEPTH, FAMILIES, INTERACTION, NETWORK, DyckConfig, step_settings
from heldout.studies.dyck_audit import dyck, module, splits
from heldout.studies.dyck_components import side_grid
from heldout.studies.interaction import stream_section
from heldout.studies.simplify import Shown, simplification_page
from heldout.tasks.dyck import Vocabulary

UNIT = "sentences"
LEAST = 20  # queries behind a cell of a map that is drawn


def dyck_page(run: Run, config: DyckConfig, title: str) -> Page:
    """The whole page of a finished run."""
    s = step_settings(config)
    head = module(s, -1)
    estimates = read_estimates(run.output("dyck-judge") / ESTIMATES)
    parts = {seed: run.output(f"dyck-components-s{seed}") for seed in config.seed_list()}
    shown = Shown(
        title=title,
        question="Are simplified transformers faithful on structures and depths that they were not fitted on?",
        reference="id",
        families=FAMILIES,
        unit=UNIT,
        judge="dyck-judge",
        training={f"{NETWORK} {seed}": f"dyck-train-s{seed}" for seed in config.seed_list()},
        sites=(head,),
    )
    more = (
        _attention(estimates, parts, config),
        _references(estimates),
        _depths(estimates, parts, config),
        _elsewhere(estimates, s),
        *stream_section(run, INTERACTION, UNIT),
        _components(parts, config),
        _data(s),
    )
    return simplification_page(run, shown, splits(s["task"]), more)


def _attention(estimates: pd.DataFrame, parts: Mapping[int, Path], config: DyckConfig) -> Section:
    """F2 and F3: what the heads look at, and how fast simplified attention departs from it."""
    seed = config.first_seed
    with np.load(parts[seed] / "example.npz") as arrays:
        words = Vocabulary(config.brackets).decode(arrays["tokens"]).split()
        layers = [Matrix(f"layer {i + 1}", arrays[f"layer {i}"]) for i in range(config.layers)]
    pictures: list[Figure] = [
        heatmap(
            [Matrix(m.title, np.where(np.tri(len(words), dtype=bool), m.values, np.nan)) for m in layers],
            rows=words,
            columns=words,
            id="attention-example",
            title=f"Attention of the network of seed {seed} on one sentence",
            row_title="query",
            column_title="key",
            value_title="attention",
            limits="One sentence of one network; a letter is a type, ^ the start.",
            reason="a later position",
        )
    ]
    points = pd.read_parquet(parts[seed] / "points.parquet")
    points["bracket"] = np.where(points["opens"] == 1, "opens", "closes")
    points["type"] = points["type"].astype(float)
    for name, by in (("keys", "depth"), ("keys", "type"), ("values", "bracket")):
        where = "last-layer keys" if name == "keys" else "first-layer values"
        pictures.append(
            scatter_components(
                points.assign(depth=points["depth"].astype(float)),
                id=f"points-{name}-{by}",
                title=f"{where[0].upper()}{where[1:]} by {by}, seed {seed}",
                x=f"{name}: component 1",
                y=f"{name}: component 2",
                by=by,
                limits="Two components of many; what lies in the others is not seen.",
                unit="brackets of the fit sentences",
            )
        )
    curves = faithfulness_curves(
        estimates,
        quantity="attention_jsd",
        id="attention-jsd",
        title="Divergence of the simplified attention",
        unit=UNIT,
    )
    return Section(
        id="attention",
        title="What the heads look at",
        text=(
            "Simplified attention can differ without changing a prediction, and the reverse; beside it stands agreement.",
        ),
        figures=(curves, *pictures),
    )


def _references(estimates: pd.DataFrame) -> Section:
    """The gap from seen structures, the narrower sense of in distribution."""
    rows = estimates[estimates["quantity"].isin(["gap_from_seen", "excess_gap_from_seen"])].copy()
    rows["how"] = rows["quantity"].map({"gap_from_seen": "gap", "excess_gap_from_seen": "excess over null"})
    rows["label"] = rows["split"] + ", " + rows["edit"]
    figure = forest(
        rows,
        id="gap-from-seen",
        title="The gap from seen structures",
        label="label",
        group="how",
        x="same prediction on seen_structure minus on the split",
        limits="Most sentences of id have structures that are not in train; here the reference has none of those.",
        unit=UNIT,
    )
    return Section(id="references", title="Measured from structures that were trained on", figures=(figure,))


def _depths(estimates: pd.DataFrame, parts: Mapping[int, Path], config: DyckConfig) -> Section:
    """F5: attention and errors by depth of query and key; kappa on both sides of the training depth."""
    rows = estimates[estimates["quantity"].isin(["kappa_shallow", "kappa_deep"])].copy()
    names = {"kappa_shallow": f"up to depth {config.depth}", "kappa_deep": f"beyond depth {config.depth}"}
    rows["how"] = rows["quantity"].map(names)
    figures = [
        forest(
            rows,
            id="kappa-by-depth",
            title="Do network and simplification err on the same brackets?",
            label="edit",
            group="how",
            x="error consistency (kappa) on unseen_depth; 1: same errors, 0: as independent ones",
            limits="Kappa does not say that two wrong answers are the same answer.",
            unit=UNIT,
        )
    ]
    sums: dict[str, np.ndarray] = {}
    for folder in parts.values():
        with np.load(folder / "maps.npz") as arrays:
            for key in arrays:
                sums[key] = sums.get(key, 0) + arrays[key]
    axis = {"rows": list(range(1, config.deeper + 1)), "columns": list(range(config.deeper + 1))}
    for name in ("svd", "onehot"):
        pair = [Matrix(who, *_share(sums[f"{who}/mass"], sums[f"{who}/queries"][:, None])) for who in ("network", name)]
        figures.append(
            heatmap(
                pair,
                **axis,
                id=f"mass-{name}",
                title=f"Attention by depth: network and {name}",
                row_title="depth of the query",
                column_title="depth of the key",
                value_title="share of attention",
                limits="Attention on a depth does not say on which bracket of that depth.",
                difference=True,
                reason=f"fewer than {LEAST} queries",
            )
        )
        pair = [Matrix(who, *_share(sums[f"{who}/wrong"], sums[f"{who}/looked"])) for who in ("network", name)]
        figures.append(
            heatmap(
                pair,
                **axis,
                id=f"errors-{name}",
                title=f"Errors by depth: network and {name}",
                row_title="depth of the query",
                column_title="depth of the key most attended to",
                value_title="share of errors",
                limits="Cells away from the diagonal hold few queries.",
                difference=True,
                reason=f"fewer than {LEAST} queries",
            )
        )
    return Section(
        id="depths",
        title="Depth by depth",
        text=(
            f"On {DEPTH}, summed over seeds: what the last layer's head looks at when a closing bracket is predicted, and "
            "where the answer is wrong. Depth 0 is the start of the sentence. SVD has the size that the rank rule chose.",
        ),
        figures=tuple(figures),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`part` over `whole` without depth 0 of the query, NaN where few queries are behind it; and those counts."""
    whole = np.broadcast_to(whole, part.shape)[1:]
    part = part[1:]
    enough = whole >= LEAST
    return np.where(enough, part / np.where(enough, whole, 1), np.nan), whole


def _elsewhere(estimates: pd.DataFrame, s: Mapping[str, Any]) -> Section:
    """Other layers and targets, and another seed's network."""
    rows = estimates[estimates["site"].isin(side_grid(s))]
    figures = [
        faithfulness_curves(
            rows,
            id="elsewhere",
            title="The same simplifications at other places",
            unit=UNIT,
            parameter="rank or clusters",
        )
    ]
    known = {"onehot": "one-hot attention", OTHER_SEED: "another training seed"}
    same = estimates[
        estimates["edit"].isin(known)
        & estimates["site"].isin([*side_grid(s), WHOLE])
        & (estimates["quantity"] == "same_prediction")
    ].copy()
    same["label"] = same["split"]
    same["how"] = same["edit"].map(known) + np.where(same["site"] == WHOLE, "", " at " + same["site"])
    figures.append(
        forest(
            same,
            id="other-seed",
            title="Agreement with one-hot attention elsewhere and with another training seed",
            label="label",
            group="how",
            x="same prediction",
            limits="Agreement between seeds is a yardstick, not a bound: a simplification may agree more or less.",
            unit=UNIT,
            marks=(1.0,),
        )
    )
    return Section(
        id="elsewhere",
        title="Other layers, other targets, another seed",
        text=(
            f"On {s['side_sentences']} sentences of each split, at a few sizes, without nulls: what is said here is where "
            "else a simplification could have been made, not how its gap compares with equal damage.",
        ),
        figures=tuple(figures),
    )


def _components(parts: Mapping[int, Path], config: DyckConfig) -> Section:
    """What components carry, and what comes back with each one that was dropped."""
    contents = pd.concat([pd.read_parquet(folder / "contents.parquet") for folder in parts.values()], ignore_index=True)
    leading = contents[contents["first"] == 0]
    keys = ["what", "split", "label", "last"]
    mean = leading.groupby(keys, sort=False, as_index=False)[["score", "baseline", "variance"]].mean()
    table = Table(
        title="What is read from the leading components",
        columns=("of", "components", "on", "their share of variance", "depth (R^2)", "type", "opens or closes"),
        rows=[
            (what, int(last) + 1, split, *(round(v, 3) for v in (group["variance"].iloc[0], *_read(group))))
            for (what, last, split), group in mean.groupby(["what", "last", "split"], sort=False)
        ],
        caption=f"Held-out linear readings, mean over {len(parts)} seeds: R^2 of regression, accuracy of linear "
        f"discriminant analysis ({config.brackets} types, by chance {1 / config.brackets:.2f}). "
        "What can be read there need not be what the network uses.",
    )
    back = pd.concat([pd.read_parquet(folder / "addback.parquet") for folder in parts.values()], ignore_index=True)
    figures = []
    if len(back):
        back["gain"] = back["same"] - back["base"]
        chosen = back[back["split"] == DEPTH].assign(rank=lambda t: "rank " + t["rank"].astype(str))
        figures.append(
            scatter_components(
                chosen.rename(columns={"share": "share of the second moment", "gain": "gain in same prediction"})
                .assign(
                    **{
                        "share of the second moment": lambda t: np.log10(
                            t["share of the second moment"].clip(lower=1e-12)
                        )
                    }
                )
                .rename(columns={"share of the second moment": "share of the second moment, log10"}),
                id="addback",
                title=f"What one further component brings back on {DEPTH}",
                x="share of the second moment, log10",
                y="gain in same prediction",
                by="rank",
                limits="Components are added one at a time; what two bring back together is not seen.",
                unit="components (of all seeds)",
            )
        )
    return Section(
        id="components",
        title="What the dropped directions carry",
        text=(
            "The joint basis of keys and queries, cut at a rank, with one further component added back: a component of "
            "small share that brings much back is what a choice by variance overlooks.",
        ),
        figures=tuple(figures),
        tables=(table,),
    )


def _read(group: pd.DataFrame) -> list[float]:
    by_label = group.set_index("label")["score"]
    return [float(by_label[label]) for label in ("depth", "type", "opens")]


def _data(s: Mapping[str, Any]) -> Section:
    """T1: what the splits are made of."""
    table = Table(
        title="What the splits are made of",
        columns=("split", "sentences", "scored brackets", "of them beyond m", "mean length", "median", "accepted"),
        rows=[
            (
                *(row["split"], row["sentences"], row["scored"], round(row["scored_deep"], 3)),
                *(round(row["mean_length"], 1), row["median_length"], round(row["accepted"], 3)),
            )
            for row in dyck(s["task"]).composition()
        ],
        caption=f"At most {s['task']['cap']} tokens. Scored: closing brackets ten or more tokens after their opening one; "
        "sentences without any are drawn and counted here, and take no part in the comparison. Accepted: share of drawn "
        "sentences that meet the split's definition and are not in train.",
    )
    return Section(id="data", title="The sentences", tables=(table,))
