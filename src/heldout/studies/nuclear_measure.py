"""What networks of the nuclear study are read for, beside untrained ones: components and terms; see `nuclear_structure`.

Components are those of the penultimate layer and of the embeddings, fitted on training nuclei and tokens; everything is
scored on nuclei that were not trained on, energies of whole nuclei in keV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.geometry.derived import COMPONENTS, DIRECT, FORMULA, derive
from heldout.analyses.geometry.kept import fit_rows, fit_table, kept
from heldout.analyses.geometry.library import Library, library
from heldout.analyses.geometry.partial_null import partial_null
from heldout.analyses.geometry.squares import Squares
from heldout.analyses.geometry.terms import component_features, correlations
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.svd import SVD
from heldout.runs import StepContext
from heldout.studies.nuclear_train import COLUMNS, Trained, loaded, network_of, nuclei, tables_of, task_of
from heldout.tasks.base import Split
from heldout.tasks.nuclear import Nuclear
from heldout.tasks.nuclear.formulas import BW2, SEMF, TERMS, columns

KEPT, TERMS_FOUND, DERIVED = "kept.parquet", "terms.npz", "derived.json"
PENULTIMATE = "readout:input"
TABLE_SITES = {"z": "embeddings.0", "n": "embeddings.1"}
SITES: dict[str, tuple[str, ...]] = {  # what components are kept of, together
    "penultimate": (PENULTIMATE,),
    "z": (TABLE_SITES["z"],),
    "n": (TABLE_SITES["n"],),
    "both": tuple(TABLE_SITES.values()),
}
Floats = NDArray[np.float64]


# -- components (N1) ---------------------------------------------------------------------------------------------------


def keep_components(ctx: StepContext) -> None:
    """Errors on select and id with the leading components kept, at each of `SITES`: sums of squares by isotopic chain."""
    import pandas as pd

    s, kind = ctx.settings, Trained.named("binding")
    task = task_of(s, kind)
    network = loaded(ctx, kind, task)
    bases = bases_of(network, task)
    frames = []
    for i, (name, sites) in enumerate(SITES.items()):
        for split in ("select", "id"):
            ctx.progress(i, len(SITES), f"{name}, {split}")
            curve = kept(
                network,
                task.splits[split],
                {site: bases[site] for site in sites},
                s["components"],
                scale=mass(task, split),
            )
            frames.append(frame_of(curve.squares).assign(site=name, split=split))
    pd.concat(frames, ignore_index=True).to_parquet(ctx.out / KEPT, index=False)


def bases_of(network: TokenMLP, task: Nuclear) -> dict[str, SVD]:
    """Principal components by site: of training nuclei at the penultimate layer, of trained tokens in the tables."""
    tables = {site: fit_table(table_of(network, task, column)) for column, site in TABLE_SITES.items()}
    return {PENULTIMATE: fit_rows(network, task.splits["train"], PENULTIMATE), **tables}


def table_of(network: TokenMLP, task: Nuclear, column: str) -> Floats:
    """(n, D) float64 embeddings of the tokens that some training nucleus has, in their order."""
    return np.asarray(weights_of(network, column)[task.tokens[column]])


def weights_of(network: TokenMLP, column: str) -> Floats:
    """(tokens, D) float64 embeddings of every token there is, trained or not."""
    return tables_of(network)[COLUMNS.index(column)].astype(np.float64)


def mass(task: Nuclear, split: str) -> Floats:
    """(N,) A, from energies per nucleon to energies."""
    return np.asarray(np.sum(nuclei(task, split), axis=0), dtype=np.float64)


def frame_of(found: Squares) -> Any:
    """Columns unit, n and one sum of squares a predictor, long: unit, n, predictor, sum."""
    import pandas as pd

    wide = pd.DataFrame(found.sums, columns=list(found.names)).assign(unit=found.units, n=found.n)
    return wide.melt(id_vars=["unit", "n"], var_name="predictor", value_name="sum")


def squares_of(frame: Any) -> Squares:
    """The inverse of `frame_of`, for one site and split."""
    wide = frame.pivot_table(index=["unit", "n"], columns="predictor", values="sum", sort=True)
    units, n = (np.asarray(wide.index.get_level_values(level)) for level in ("unit", "n"))
    return Squares(tuple(wide.columns), units, n.astype(np.float64), wide.to_numpy(dtype=np.float64))


# -- terms (N2, N4) ----------------------------------------------------------------------------------------------------


def read_terms(ctx: StepContext) -> None:
    """Partial correlations of components with the terms of a mass formula, their null, and those of untrained networks; and,
    of a network on binding energies, whether terms that components point at make a better formula."""
    s, kind = ctx.settings, Trained.named(ctx.settings["network"])
    task = task_of(s, kind)
    network = loaded(ctx, kind, task)
    held = task.splits["id"]
    terms = terms_of(task, "id")
    features = features_of(network, task, held, s["features"])
    null = partial_null(
        features, terms, exchange="flips", groups=blocks(held, s["blocks_of"]), seed=s["seed"], draws=s["draws"]
    )
    found = correlations(features, terms)
    untrained = []
    for i in range(s["untrained"]):
        ctx.progress(i, s["untrained"], "untrained")
        fresh = untrained_network(s, task, i)
        untrained.append(correlations(features_of(fresh, task, held, s["features"]), terms).partial)
    np.savez_compressed(
        ctx.out / TERMS_FOUND,
        names=np.array(terms.names),
        pearson=found.pearson,
        spearman=found.spearman,
        partial=found.partial,
        tolerance=found.tolerance,
        null=null.draws.max(axis=1),  # (R, P): the strongest component of each draw
        p=null.p,
        untrained=np.stack(untrained),
    )
    if kind.target == "binding":
        (ctx.out / DERIVED).write_text(json.dumps(derived(network, task, s)))


def features_of(network: TokenMLP, task: Nuclear, split: Split, count: int) -> Floats:
    """(N, `count`) energies, keV, that the network predicts from one component of its penultimate layer at a time."""
    pca = fit_rows(network, task.splits["train"], PENULTIMATE)
    return component_features(network, split, PENULTIMATE, pca, count) * mass(task, split.name)[:, None]


def untrained_network(s: Mapping[str, Any], task: Nuclear, number: int) -> TokenMLP:
    """A network as it is initialised, with weights that no seed of the study starts from."""
    fresh = network_of({**s, "seed": 10_000 * (1 + number) + s["seed"]}, task).eval()
    fresh.fit_outputs(task.splits["train"])
    return fresh


def terms_of(task: Nuclear, split: str) -> Library:
    """The eleven terms of the extended formula."""
    return library(dict(zip(BW2.terms, columns(BW2.terms, *nuclei(task, split)).T, strict=True)))


def blocks(split: Split, of: int) -> NDArray[np.int64]:
    """(N,) isotopic chains that follow one another, `of` to a group: neighbouring chains are alike."""
    code = np.unique(split.unit_ids(), return_inverse=True)[1]
    return np.asarray(code // of, dtype=np.int64)


def derived(network: TokenMLP, task: Nuclear, s: Mapping[str, Any]) -> dict[str, Any]:
    """As many terms as the five-term formula has, chosen by components, beside it and choices without a network."""
    splits = ("train", "id")
    z, n = (np.concatenate(parts) for parts in zip(*(nuclei(task, name) for name in splits), strict=True))
    y = np.concatenate([task.rows[name].value for name in splits]) * (z + n)
    train = np.arange(len(z)) < len(task.splits["train"])
    features = features_of(network, task, task.splits["train"], s["features"])
    rivals = derive(
        features,
        dict(zip(TERMS, columns(TERMS, z, n).T, strict=True)),
        dict(zip(SEMF.terms, columns(SEMF.terms, z, n).T, strict=True)),
        y,
        train=train,
        units=np.concatenate([task.rows[name].unit for name in splits]),
        seed=s["seed"],
    )
    frame = frame_of(rivals.squares)
    return {
        "squares": frame.to_dict("list"),
        "terms": {name: list(rivals.fits[name].names) for name in (FORMULA, COMPONENTS, DIRECT)},
        "p_random": rivals.p_random,
    }
