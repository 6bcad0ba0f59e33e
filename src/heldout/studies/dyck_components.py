"""Beside the headline: other layers and targets, another seed, attention's divergence, what the components carry.

Written for each seed: ``scores/`` (other places and another network), ``attention/`` (scores of the headline's grid with
the divergence of its patterns), ``contents.parquet``, ``addback.parquet``, ``maps.npz``, and ``example.npz`` with
``points.parquet`` for the pictures of one network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.analyses.attention import depth_maps, divergence_of
from heldout.analyses.components import component_contents
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.pairs import compare_networks
from heldout.analyses.tables import Folder, Memory
from heldout.proxies.attention import both_modules, capture_operands, keep_largest, place, single_directions
from heldout.proxies.fit import Family, fit_edits
from heldout.proxies.svd import SVD
from heldout.runs import StepContext
from heldout.studies import interaction
from heldout.studies.audited import AUDIT
from heldout.studies.dyck import DEPTH, TESTS
from heldout.studies.dyck_audit import BATCH, head_families, load_subject, module, module_edits, some, splits
from heldout.tasks.base import Batch, Split
from heldout.tasks.dyck import levels
from heldout.tasks.ragged import everywhere

SCORED = ("id", *TESTS, "train")
ATTENTION_SPLITS = ("id", *TESTS)
SHOWN = 24  # tokens of the sentence whose attention is drawn, about
POINTS = 1_500  # rows behind a picture of components


def examine_components(ctx: StepContext) -> None:
    """Everything of one seed that is not the audit of the last layer."""
    s = ctx.settings
    subject = load_subject(s, ctx.inputs["weights"], s["seed"], ctx.device)
    every = splits(s["task"])
    fewer = {name: some(every[name], s["side_sentences"]) for name in SCORED}
    record = json.loads((ctx.inputs["audit"] / AUDIT).read_text())
    rank = next(int(c["parameter"]) for c in record["chosen"] if c["family"] == "svd")

    (ctx.out / "scores").mkdir()
    ctx.progress(0, 5, "other layers and targets")
    with Folder(ctx.out / "scores") as sink:
        faithfulness(subject, list(fewer.values()), side_edits(subject, every["fit"], s), sink, batch_size=BATCH)
        if "other" in ctx.inputs:
            other = load_subject(s, ctx.inputs["other"], s["seed"], ctx.device).network
            compare_networks(subject, other, [every[name] for name in SCORED], sink, batch_size=BATCH)

    (ctx.out / "attention").mkdir()
    ctx.progress(1, 5, "divergence of attention")
    patterns = [place(module(s, -1), "pattern", head) for head in range(s["network"]["heads"])]
    once = [f for f in head_families(s, None) if f.draw == 0]
    with Folder(ctx.out / "attention") as sink:
        faithfulness(
            subject,
            [fewer[name] for name in ATTENTION_SPLITS],
            module_edits(subject, every["fit"], module(s, -1), once, s),
            sink,
            read=patterns,
            extra=divergence_of(patterns),
            batch_size=BATCH,
        )

    ctx.progress(2, 5, "single components")
    add_back(subject, every["fit"], [fewer["id"], fewer[DEPTH]], s, rank).to_parquet(
        ctx.out / "addback.parquet", index=False
    )
    ctx.progress(3, 5, "what components carry")
    contents(subject, every, s).to_parquet(ctx.out / "contents.parquet", index=False)
    points(subject, every["fit"], s).to_parquet(ctx.out / "points.parquet", index=False)
    ctx.progress(4, 5, "depth by depth")
    save_arrays(ctx.out / "maps.npz", maps(subject, every, s, rank))
    save_arrays(ctx.out / "example.npz", example(subject, every["id"], s))


def score_stream(ctx: StepContext) -> None:
    """The interaction basis of one network's residual stream, beside its principal components."""
    s = ctx.settings
    subject = load_subject(s, ctx.inputs["weights"], s["seed"], ctx.device)
    every = splits(s["task"])
    fewer = [some(every[name], s["side_sentences"]) for name in SCORED]
    asked = {**s, "sites": interaction.stream(s["network"]["layers"])}
    interaction.score_stream(ctx.out, subject, everywhere(every["fit"]), fewer, asked, batch_size=BATCH)


def join_stream(ctx: StepContext) -> None:
    asked = {**ctx.settings, "sites": interaction.stream(ctx.settings["network"]["layers"])}
    interaction.write_stream_estimates(ctx.out, list(ctx.inputs.values()), SCORED, asked)


def side_families(s: Mapping[str, Any]) -> list[Family]:
    """What is done in other layers: SVD and k-means at a few sizes, and one-hot attention."""
    sizes = tuple(s["side_sizes"])
    return [Family("svd", sizes), Family("kmeans", sizes, options={"restarts": s["kmeans_restarts"]}), Family("onehot")]


def side_grid(s: Mapping[str, Any]) -> dict[str, dict[str, tuple[float | None, ...]]]:
    """Site -> family -> sizes of all that `side_edits` does."""
    sizes: tuple[float | None, ...] = tuple(s["side_sizes"])
    layers: dict[str, tuple[float | None, ...]] = {"svd": sizes, "kmeans": sizes, "onehot": (None,)}
    first, last = module(s, 0), module(s, -1)
    return {first: layers, f"{first} + {last}": layers} | {site: {"svd": sizes} for site in target_sites(s).values()}


def target_sites(s: Mapping[str, Any]) -> dict[str, str]:
    """Other things to simplify in the last layer, by the name of the option."""
    last = s["network"]["layers"] - 1
    sites = {"value": f"blocks.{last}.attn@attn.value", "residual": f"blocks.{last}", "mlp": f"blocks.{last}.mlp"}
    return {name: sites[name] for name in s["targets"]}


def side_edits(subject: Subject, fit: Split, s: Mapping[str, Any]) -> list[Edit]:
    """The first layer, first and last together, and the values, residual stream and MLP of the last."""
    first, last = (module_edits(subject, fit, module(s, layer), side_families(s), s) for layer in (0, -1))
    edits = [*first, *both_modules(first, last)]
    if s["targets"]:
        sizes = Family("svd", tuple(s["side_sizes"]))
        sites = target_sites(s).values()
        edits += fit_edits(subject.network, everywhere(fit), sites, [sizes], batch_size=BATCH, device=subject.device)
    return edits


def add_back(subject: Subject, fit: Split, where: list[Split], s: Mapping[str, Any], chosen: int) -> pd.DataFrame:
    """One row a rank, component and split: agreement at the rank, and with one further component added back."""
    path, heads = module(s, -1), s["network"]["heads"]
    seen = capture_operands(
        subject.network, everywhere(fit), path, heads=heads, batch_size=BATCH, device=subject.device
    )
    spectrum = SVD().fit_moments(seen.joint(0)).spectrum_
    assert spectrum is not None
    share = (spectrum / spectrum.sum()).tolist()
    rows = []
    for rank in sorted({*s["addback_ranks"], chosen}):
        singles = single_directions(seen, path, rank, heads=heads, fit_split=fit.name)
        if not singles:
            continue
        (base,) = (e for e in module_edits(subject, fit, path, [Family("svd", (rank,))], {**s, "basis": "joint"}))
        edits = [base, *(edit for _, edit in singles)]
        agreement = faithfulness(subject, where, edits, Memory(), batch_size=BATCH).agreement
        for (component, _), found in zip(singles, agreement[1:], strict=True):
            rows += [
                {
                    "seed": s["seed"],
                    "rank": rank,
                    "chosen": rank == chosen,
                    "component": component,
                    "share": share[component],
                    "split": split,
                    "base": agreement[0][split],
                    "same": found[split],
                }
                for split in found
            ]
    columns = ["seed", "rank", "chosen", "component", "share", "split", "base", "same"]
    return pd.DataFrame(rows, columns=columns)


def contents(subject: Subject, every: Mapping[str, Split], s: Mapping[str, Any]) -> pd.DataFrame:
    """What leading components of last-layer keys and queries and of first-layer values carry, in and out of distribution."""
    ranks = [r for r in s["ranks"] if r <= s["network"]["width"] // s["network"]["heads"]]
    sites = {"queries": place(module(s, -1), "query", 0), "keys": place(module(s, -1), "key", 0)}
    sites["first-layer values"] = place(module(s, 0), "value", 0)
    halves = [every["fit"].subset(np.arange(i, len(every["fit"]), 2)) for i in (0, 1)]
    read = [labelled_rows(subject, half, sites, s) for half in (*halves, some(every[DEPTH], s["side_sentences"]))]
    joint = np.concatenate([read[0]["queries"], read[0]["keys"]])
    rows = []
    for name in sites:
        components = _directions(joint if name in ("queries", "keys") else read[0][name])
        for split, test in (("held-out half of the fit sentences", read[1]), (DEPTH, read[2])):
            found = component_contents(
                read[0][name],
                test[name],
                components,
                numbers={"depth": (read[0]["depth"], test["depth"])},
                classes={"type": (read[0]["type"], test["type"]), "opens": (read[0]["opens"], test["opens"])},
                ranks=ranks,
            )
            rows += [{"seed": s["seed"], "what": name, "split": split, **row} for row in found]
    return pd.DataFrame(rows)


def labelled_rows(
    subject: Subject, split: Split, sites: Mapping[str, str], s: Mapping[str, Any], *, most: int = 4_000
) -> dict[str, np.ndarray]:
    """Rows of each site at brackets (N, d), with ``depth``, ``type`` (0 to k - 1) and ``opens`` (0, 1) of the bracket.

    At most `most` brackets, evenly over the split.
    """
    k = s["task"]["brackets"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*sites, "depth", "type", "opens")}
    with Tap(subject.network, read=list(sites.values())) as tap:
        for batch in everywhere(split).batches(BATCH):
            batch = batch.to(subject.device)
            tokens: Tensor = batch.inputs
            brackets = tokens < 2 * k
            reading = tap(batch)
            labels = {"depth": levels(tokens, k), "type": tokens % k, "opens": (tokens < k).long()}
            for name, site in sites.items():
                parts[name].append(reading[site][brackets].cpu().numpy().astype(np.float64))
            for name, values in labels.items():
                parts[name].append(values[brackets].cpu().numpy())
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    kept = np.unique(np.linspace(0, len(joined["depth"]) - 1, most).astype(np.int64))
    return {name: array[kept] for name, array in joined.items()}


def points(subject: Subject, fit: Split, s: Mapping[str, Any]) -> pd.DataFrame:
    """The first two components of brackets' keys in the last layer and values in the first, with depth and type."""
    sites = {"keys": place(module(s, -1), "key", 0), "values": place(module(s, 0), "value", 0)}
    rows = labelled_rows(subject, fit, sites, s, most=POINTS)
    table = pd.DataFrame({"depth": rows["depth"], "type": rows["type"], "opens": rows["opens"]})
    for name in sites:
        centred = rows[name] - rows[name].mean(axis=0)
        projected = centred @ _directions(centred)[:2].T
        table[f"{name}: component 1"], table[f"{name}: component 2"] = projected.T
    return table


def maps(subject: Subject, every: Mapping[str, Split], s: Mapping[str, Any], rank: int) -> dict[str, np.ndarray]:
    """Attention and errors by depth of query and key on unseen depth: network, SVD at the chosen rank, one-hot."""
    path, k, deeper = module(s, -1), s["task"]["brackets"], s["task"]["deeper"]
    (svd,) = module_edits(subject, every["fit"], path, [Family("svd", (rank,))], s)
    hard = keep_largest(path, 1, heads=s["network"]["heads"], name="onehot", parameter=None)

    def key_depth(batch: Batch) -> Tensor:
        return levels(batch.inputs["tokens"], k)

    def query_depth(batch: Batch) -> Tensor:
        tokens: Tensor = batch.inputs["tokens"]
        after: Tensor = (levels(tokens, k) - ((tokens >= k) & (tokens < 2 * k)).long()).gather(1, batch.inputs["at"])
        return after.clamp(min=0)

    found = depth_maps(
        subject,
        some(every[DEPTH], s["side_sentences"]),
        {"svd": svd.functions, "onehot": hard.functions},
        pattern=place(path, "pattern", 0),
        query_depth=query_depth,
        key_depth=key_depth,
        rows=deeper + 1,
        columns=deeper + 1,
        batch_size=BATCH,
    )
    return {key: array for name, m in found.items() for key, array in m.as_arrays(name).items()}


def example(subject: Subject, split: Split, s: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The attention of every layer on one sentence: ``tokens`` (T,) and ``layer 0``, ``layer 1``, ... (T, T), head 0."""
    lengths = split.items.lengths
    item = int(np.abs(lengths - SHOWN).argmin())
    sites = [place(module(s, layer), "pattern", 0) for layer in range(s["network"]["layers"])]
    with Tap(subject.network, read=sites) as tap, torch.no_grad():
        batch = everywhere(split).items.take(np.array([item])).to(subject.device)
        reading = tap(batch)
    arrays = {f"layer {i}": reading[site][0].cpu().numpy() for i, site in enumerate(sites)}
    return {"tokens": batch.inputs[0].cpu().numpy(), **arrays}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Named arrays as one ``.npz`` file."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _directions(rows: np.ndarray) -> np.ndarray:
    """(D, D) orthonormal components of rows, uncentred, largest first."""
    components = SVD().fit(torch.from_numpy(rows)).components_
    assert components is not None
    return components.numpy()
