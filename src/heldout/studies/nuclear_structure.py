"""The structure of the ``binding`` network's embeddings, beside untrained ones: order, parity, and the helix removed, alone
and changed.

Scored on nuclei held out at random, energies of whole nuclei in keV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.geometry.evolution import evolution
from heldout.analyses.geometry.helix import at_random, with_helix
from heldout.analyses.geometry.interventions import ALONE, FULL, REMOVED, Structure, TokenCurve, intervene
from heldout.analyses.geometry.order import orderedness_test, period_split_test
from heldout.analyses.geometry.passes import embedded, errors, predict
from heldout.analyses.geometry.spectrum import noise_floor, principal
from heldout.analyses.geometry.topography import respond, topography
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.helix import drift
from heldout.proxies.helix_fit import HelixFit, helix_fit
from heldout.runs import StepContext
from heldout.statistics.permutation import null_p
from heldout.studies.nuclear_measure import TABLE_SITES, mass, table_of, untrained_network, weights_of
from heldout.studies.nuclear_train import COLUMNS, TABLES, Trained, loaded, task_of
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.nuclear import Nuclear

STRUCTURE, ARRAYS = "structure.json", "arrays.npz"
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
    """RMS on id, keV, with the fitted curve removed, with nothing else left, and with as much variance removed at random;
    under ``wave`` the same of cosine and sine alone, beyond the drift, which stays where it is."""
    return {
        **worth_of(network, task, column, fit, fit.fitted, s),
        "wave": worth_of(network, task, column, fit, fit.fitted - drift(fit), s, beyond=2),
        "turns": fit.turns,
        "aspect": fit.aspect,
        "gain": fit.gain,
        "r2": fit.r2,
        "statistic": fit.statistic,
        "share": fit.share.tolist(),
    }


def worth_of(
    network: TokenMLP,
    task: Nuclear,
    column: str,
    fit: HelixFit,
    curve: Floats,
    s: Mapping[str, Any],
    *,
    beyond: int = 0,
) -> dict[str, Any]:
    """The interventions on `curve` (n, K), a part of the fit's scores. `held`: its share of the table's variance.

    ``random``: as much of the whole table's variance, in random directions. ``same``: as much of the same components, by
    random functions of the token (beyond polynomials of degree `beyond`); the curve's shape is all that differs.
    """
    weights, site = weights_of(network, column), TABLE_SITES[column]
    held, scale = task.splits["id"], mass(task, "id")

    def part(scores: Floats) -> Structure:
        structure = np.zeros_like(weights)
        structure[fit.tokens] = scores @ fit.components
        return TokenCurve(weights, structure, COLUMNS.index(column), fit.tokens)

    def without(scores: Floats) -> float:
        return float(np.sqrt(np.mean(errors(network, held, part(scores).removed(site), scale=scale) ** 2)))

    found = intervene(network, held, {site: part(curve)}, seed=s["seed"], scale=scale)
    size = float((curve**2).sum())
    seeds = np.random.SeedSequence(s["seed"]).generate_state(len(found.overlap)).tolist()
    same = [without(at_random(fit, size, seed=seed, beyond=beyond)) for seed in seeds]
    removed = found.squares.rms(REMOVED)
    return {
        "full": found.squares.rms(FULL),
        "removed": removed,
        "alone": found.squares.rms(ALONE),
        "random": (found.random + found.squares.rms(FULL)).tolist(),
        "same": same,
        "overlap": float(found.overlap.mean()),
        "held": part(curve).displacement / float(np.var(weights[fit.tokens], axis=0).sum()),
        "p": found.p,
        "p_same": null_p(removed, same),
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
