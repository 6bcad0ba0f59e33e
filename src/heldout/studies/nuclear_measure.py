"""What the ``binding`` network of the nuclear study is read for, beside untrained ones: components, terms, structure.

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
from heldout.analyses.geometry.evolution import evolution
from heldout.analyses.geometry.helix import with_helix
from heldout.analyses.geometry.interventions import ALONE, FULL, REMOVED, Structure, TokenCurve, intervene
from heldout.analyses.geometry.kept import fit_rows, fit_table, kept
from heldout.analyses.geometry.library import Library, library
from heldout.analyses.geometry.order import orderedness_test, period_split_test
from heldout.analyses.geometry.partial_null import partial_null
from heldout.analyses.geometry.passes import embedded, predict
from heldout.analyses.geometry.spectrum import noise_floor, principal
from heldout.analyses.geometry.squares import Squares
from heldout.analyses.geometry.terms import component_features, correlations
from heldout.analyses.geometry.topography import respond, topography
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.helix_fit import HelixFit, helix_fit
from heldout.proxies.svd import SVD
from heldout.runs import StepContext
from heldout.studies.nuclear_train import COLUMNS, TABLES, Trained, loaded, network_of, nuclei, tables_of, task_of
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.nuclear import Nuclear
from heldout.tasks.nuclear.formulas import BW2, SEMF, TERMS, columns

KEPT, TERMS_FOUND, DERIVED, STRUCTURE, ARRAYS = (
    "kept.parquet",
    "terms.npz",
    "derived.json",
    "structure.json",
    "arrays.npz",
)
PENULTIMATE = "readout:input"
TABLE_SITES = {"z": "embeddings.0", "n": "embeddings.1"}
SITES: dict[str, tuple[str, ...]] = {  # what components are kept of, together
    "penultimate": (PENULTIMATE,),
    "z": (TABLE_SITES["z"],),
    "n": (TABLE_SITES["n"],),
    "both": tuple(TABLE_SITES.values()),
}
PERIOD = 2  # pairing
CHANGES = {  # factors on the fitted helix
    "radius": ((1.5, 1, 1), (0.5, 1, 1)),
    "turns": ((1, 2, 1), (1, 3, 1)),
    "pitch": ((1, 1, 1.2), (1, 1, 0.8)),
}
ALONG = {"n": ("z", 50), "z": ("n", 80)}  # which chain each changed table is looked at along: the other number held
TOPOGRAPHY = {"z": 100, "n": 70}  # a token's plane is drawn with the other number at this
SHOWN_COMPONENTS = 3
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


# -- structure ---------------------------------------------------------------------------------------------------------


def read_structure(ctx: StepContext) -> None:
    """Of the trained network and an untrained one: spectra, order, parity, the helix removed, kept alone and changed, the
    plane of a token, and how embeddings came to be."""
    s, kind = ctx.settings, Trained.named("binding")
    task = task_of(s, kind)
    network = loaded(ctx, kind, task)
    found: dict[str, Any] = {"order": {}, "helix": {}, "spectrum": {}}
    arrays: dict[str, Any] = {}
    for column, site in TABLE_SITES.items():
        ctx.progress(list(TABLE_SITES).index(column), len(TABLE_SITES), column)
        tokens = task.tokens[column]
        rows = {
            "trained": table_of(network, task, column),
            "untrained": table_of(untrained_network(s, task, 0), task, column),
        }
        found["order"][column] = {who: order_of(table, tokens, s) for who, table in rows.items()}
        table = rows["trained"]
        floor = noise_floor(table, seed=s["seed"])
        found["spectrum"][column] = {"participation": principal(table).participation, "above": floor.above}
        fit = helix_fit(table, tokens)
        found["helix"][column] = helix_of(network, task, column, fit, s)
        pca = principal(table)
        arrays |= {f"{column} tokens": tokens, f"{column} scores": pca.scores[:, :10], f"{column} share": pca.share}
        arrays |= {f"{column} level": floor.level, f"{column} helix": fit.fitted, f"{column} helix scores": fit.scores}
        arrays |= changed(network, task, column, fit, table)
        chart = topography(respond(network, site, other_tokens(column), column=COLUMNS.index(column)), pca)
        arrays |= {f"{column} chart {part}": getattr(chart, part) for part in ("x", "y", "values", "tokens")}
        arrays |= over_training(ctx, column, tokens)
    (ctx.out / STRUCTURE).write_text(json.dumps(found))
    np.savez_compressed(ctx.out / ARRAYS, **arrays)


def order_of(table: Floats, tokens: NDArray[Any], s: Mapping[str, Any]) -> dict[str, float]:
    """Parity split and orderedness with their nulls."""
    parity = period_split_test(table, tokens, PERIOD, seed=s["seed"], draws=s["draws"])
    order = orderedness_test(table, tokens, PERIOD, seed=s["seed"], draws=s["draws"])
    return {
        "parity": parity.observed,
        "parity_null": parity.threshold,
        "parity_p": parity.p,
        "order": order.observed,
        "order_null": order.threshold,
        "order_p": order.p,
    }


def helix_of(network: TokenMLP, task: Nuclear, column: str, fit: HelixFit, s: Mapping[str, Any]) -> dict[str, Any]:
    """RMS on id, keV, with the fitted helix removed, with nothing else left, and with as much variance removed at random."""
    weights = weights_of(network, column)
    structure = np.zeros_like(weights)
    structure[fit.tokens] = fit.fitted @ fit.components
    part: Structure = TokenCurve(weights, structure, COLUMNS.index(column), fit.tokens)
    found = intervene(network, task.splits["id"], {TABLE_SITES[column]: part}, seed=s["seed"], scale=mass(task, "id"))
    return {
        "full": found.squares.rms(FULL),
        "removed": found.squares.rms(REMOVED),
        "alone": found.squares.rms(ALONE),
        "random": (found.random + found.squares.rms(FULL)).tolist(),
        "overlap": float(found.overlap.mean()),
        "p": found.p,
        "turns": fit.turns,
        "aspect": fit.aspect,
        "gain": fit.gain,
        "r2": fit.r2,
        "statistic": fit.statistic,
        "share": fit.share.tolist(),
    }


def changed(network: TokenMLP, task: Nuclear, column: str, fit: HelixFit, table: Floats) -> dict[str, Floats]:
    """Energies per nucleon along one chain with the helix of `column` as it is and changed; see `CHANGES`, `ALONG`."""
    other, held = ALONG[column]
    chain = task.tokens[column]
    tokens = np.empty((len(chain), 2), dtype=np.int64)
    tokens[:, COLUMNS.index(column)], tokens[:, COLUMNS.index(other)] = chain, held
    split = chain_split(tokens)
    weights = weights_of(network, column)
    out = {f"{column} chain": tokens.astype(np.float64), f"{column} chain as it is": predict(network, split)}
    for what, factors in CHANGES.items():
        for radius, turns, pitch in factors:
            new = weights.copy()
            new[fit.tokens] = with_helix(fit, table, radius=radius, turns=turns, pitch=pitch)
            factor = next(f for f in (radius, turns, pitch) if f != 1)
            out[f"{column} chain {what} x {factor:g}"] = predict(
                network, split, embedded(TABLE_SITES[column], COLUMNS.index(column), new)
            )
    return out


def chain_split(tokens: NDArray[np.int64]) -> Split:
    """Nuclei of one's choice, which need not exist, without targets."""
    import torch

    return Split(
        "chain", "test", Rectangular(torch.from_numpy(tokens)), "nuclei along one chain, whether measured or not"
    )


def other_tokens(column: str) -> tuple[int, ...]:
    """Inputs of which `column` is replaced: the other number at `TOPOGRAPHY`."""
    tokens = [TOPOGRAPHY[column]] * len(COLUMNS)
    tokens[COLUMNS.index(column)] = 20
    return tuple(tokens)


def over_training(ctx: StepContext, column: str, tokens: NDArray[Any]) -> dict[str, Floats]:
    """How the table of one number came to be, from the embeddings kept along the way."""
    with np.load(ctx.inputs["weights"] / TABLES) as kept_:
        steps, tables = kept_["steps"], kept_[column][:, tokens]
    found = evolution(list(tables), steps.tolist(), components=SHOWN_COMPONENTS)
    names = ("share", "participation", "size", "similarity", "moved", "reshaped", "patterns", "scores")
    return {f"{column} evolution {name}": np.asarray(getattr(found, name)) for name in names} | {
        f"{column} evolution steps": found.steps.astype(np.float64)
    }
