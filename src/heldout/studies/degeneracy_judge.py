"""The claims of the degeneracy study judged, and every quantity of its page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heldout.analyses.estimates import Scores, View, describe
from heldout.analyses.summary import CURVE_DRAWS
from heldout.errors import EvidenceError, StatisticsError
from heldout.evidence import Estimate, Origin, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.rule import MeanTest, mean_test
from heldout.statistics.verdict import Finding, judge
from heldout.studies import degeneracy_blocks
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.degeneracy_blocks import COUNTS, DENSE, NETWORKS, blocks_theta
from heldout.studies.degeneracy_claims import GAIN, LEARNT, MOVED, PURE, TOLERANCE, UNDERSTOOD, UNMOVED, claims
from heldout.studies.degeneracy_counts import FOUND, PLANTS
from heldout.studies.degeneracy_modular import ARRAYS, BASES, LAYERS, MEASURED, SECTIONS, purity
from heldout.studies.degeneracy_pictures import pictures_estimates
from heldout.studies.degeneracy_population import PREDICTORS, left_out, population_theta, population_variance
from heldout.studies.judging import Judging
from heldout.studies.seeds import defined, over

GATES = "gates.json"
IB, PCA = "ib", "pca"  # what scores of language models call the bases
LEAST = 1e-16  # a change below rounding is taken for this


@dataclass(frozen=True, eq=False)
class Found:
    """What the steps left, one entry a seed: `modular` networks, the Fourier `shares` of their features, ``basis site`` ->
    (K, 1 + p // 2); `counts` over training; `plants`; folders of `population`, `blocks` and `pictures`; scores of language
    models (`streams`)."""

    seeds: Sequence[int]
    modular: Sequence[Mapping[str, Any]]
    shares: Sequence[Mapping[str, np.ndarray]]
    counts: Sequence[Sequence[Mapping[str, Any]]]
    plants: Sequence[Mapping[str, Any]]
    population: Sequence[Path]
    blocks: Sequence[Path]
    pictures: Sequence[Path]
    streams: Scores

    @staticmethod
    def read(seeds: Sequence[int], folders: Mapping[str, Path]) -> Found:
        def every(kind: str, name: str) -> list[Any]:
            return [json.loads((folders[f"{kind}-{seed}"] / name).read_text()) for seed in seeds]

        shares = []
        for seed in seeds:
            with np.load(folders[f"modular-{seed}"] / ARRAYS) as arrays:
                fourier = {k: arrays[k] for k in arrays if " fourier " in k}
            shares.append({name.replace(" fourier ", " "): array for name, array in fourier.items()})

        def where(kind: str) -> list[Path]:
            return [folders[f"{kind}-{seed}"] for seed in seeds]

        return Found(
            seeds,
            every("modular", MEASURED),
            shares,
            every("count", FOUND),
            every("plant", FOUND),
            where("population"),
            where("blocks"),
            where("pictures"),
            Scores.read(where("stream")),
        )


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    found = Found.read(s["seeds"], ctx.inputs)
    gate = learnt_gate(found)
    write_estimates(ctx.out / ESTIMATES, list(estimates(found)))
    judged = judge([finding(claim, found, gate) for claim in claims()], not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    (ctx.out / GATES).write_text(json.dumps([{"name": gate.name, "passed": gate.passed, "value": gate.value}]))


def finding(claim: Claim, found: Found, gate: Gate) -> Finding:
    """A claim with its tests, or why there are none."""
    named = (gate,) if gate.name in claim.gates else ()
    try:
        tests = tests_of(claim, found)
    except (StatisticsError, EvidenceError) as error:
        return Finding(claim, {}, named, reason=str(error))
    return Finding(claim, tests, named)


def tests_of(claim: Claim, found: Found) -> dict[str, MeanTest]:
    """Part -> test. Raises `StatisticsError` or `EvidenceError` where the claim's quantity is undefined."""
    if claim.id == "D2":
        values = defined(population_theta(found.population))
        variance, images = population_variance(found.population)
        return {"": mean_test(values, unit_variance=variance, n_clusters=images, delta=claim.delta)}
    if claim.id == "D9":
        judging = Judging(found.streams)
        (network,) = found.streams.networks()
        return {"": judging.test(claim, lambda view: GAIN - gain(found.streams, view), network)}
    return {label: test(values, claim.delta) for label, values in theta(claim.id, found).items()}


def gain(scores: Scores, view: View) -> np.ndarray:
    """(R,) agreement on id of the interaction basis minus that of principal components, mean over the grid."""
    return np.asarray(
        np.mean([agreement(view, IB, at) - agreement(view, PCA, at) for at in stream_grid(scores)], axis=0)
    )


def agreement(view: View, family: str, at: tuple[str, float]) -> np.ndarray:
    return view.ratio("same", split="id", edit=Origin(family, parameter=at[1]).label, site=at[0])


def stream_grid(scores: Scores) -> list[tuple[str, float]]:
    """Sites and numbers of features kept, but for the largest number, at which both bases are the network itself."""
    every = {
        (c.edit.site, c.edit.parameter) for c in scores.cells if c.edit.name == IB and c.edit.parameter is not None
    }
    whole = max(parameter for _, parameter in every)
    return sorted((site, parameter) for site, parameter in every if parameter < whole)


def test(values: Sequence[float], delta: float) -> MeanTest:
    """Quantities of trained networks, of which there is no sampling over test units."""
    return mean_test(values, unit_variance=0.0, n_clusters=None, delta=delta)


def theta(claim: str, found: Found) -> dict[str, list[float]]:
    """Part -> one value a seed, of claims about networks as they are. Raises `StatisticsError` where one is undefined."""
    if claim == "D1":
        return {"": [rows[-1]["share"][TOLERANCE] - rows[0]["share"][TOLERANCE] for rows in found.counts]}
    if claim == "D3":
        return {"": defined(blocks_theta(found.blocks))}
    if claim == "D4":
        return {"": [float(np.mean([exact(p[kind]) for kind in PLANTS])) - 0.95 for p in found.plants]}
    if claim == "D5":
        worst = [max(p[kind]["interaction"] for kind in PLANTS) for p in found.plants]
        least = [min(p[kind]["components"] for kind in PLANTS) for p in found.plants]
        return {
            "interaction basis unchanged": [math.log10(UNMOVED / max(change, LEAST)) for change in worst],
            "principal components changed": [math.log10(max(change, LEAST) / MOVED) for change in least],
        }
    if claim == "D6":
        return {"": [float(np.mean([edge_ratio(m, section) for section in SECTIONS])) for m in found.modular]}
    if claim == "D7":
        return {"": [float(np.mean([purer(shares, site) for site in LAYERS[:-1]])) for shares in found.shares]}
    return {"": [m["lib"]["z_layered"] - m["pca"]["z_layered"] for m in found.modular]}


def exact(planted: Mapping[str, Any]) -> bool:
    """Whether one kind was counted to the unit, with nothing left unexplained."""
    return bool(planted["counted"] == planted["expected"] and planted["unexplained"] == 0)


def edge_ratio(measured: Mapping[str, Any], section: str) -> float:
    """log of the edges that principal components need over those that the interaction basis needs."""
    pca, lib = (measured[kind]["edges"][section]["count"] for kind in ("pca", "lib"))
    if min(pca, lib) < 1:
        raise StatisticsError(
            f"no edge is needed in the {section} of a network: it answers no better without it than with"
        )
    return math.log(pca / lib)


def purer(shares: Mapping[str, np.ndarray], site: str) -> float:
    return purity(shares[f"lib {site}"], PURE) - purity(shares[f"pca {site}"], PURE)


def learnt_gate(found: Found) -> Gate:
    """Every network answers pairs that it has not seen."""
    right = [m["accuracy"]["id/accuracy"] for m in found.modular]
    worst = int(np.argmin(right))
    text = f"least accuracy on unseen pairs {right[worst]:.4f} (seed {found.seeds[worst]}); {UNDERSTOOD} needed"
    return Gate(LEARNT, min(right) >= UNDERSTOOD, text)


# -- estimates ----------------------------------------------------------------------------------------------------


def estimates(found: Found) -> Iterator[Estimate]:
    """Every quantity of the page, mean over seeds."""
    for kind in BASES:
        for site in LAYERS[:-1]:
            where: dict[str, Any] = {"network": "modular", "site": site, "edit": kind}
            yield over("features", [m[kind]["features"][site] for m in found.modular], **where)
            yield over("features_needed", [m[kind]["kept"][site]["count"] for m in found.modular], **where)
            try:
                yield over("purity", [purity(shares[f"{kind} {site}"], PURE) for shares in found.shares], **where)
            except StatisticsError as error:
                yield Estimate("purity", math.nan, reason=str(error), **where)
        for section in SECTIONS:
            where = {"network": "modular", "site": section, "edit": kind}
            own = [m[kind]["edges"][section] for m in found.modular]
            yield over("edges_needed", [o["count"] for o in own], **where)
            for split in ("whole", "select", "id", "corner"):
                if split in own[0]:
                    yield over("accuracy", [o[split] for o in own], split=split, **where)
        for quantity in ("modularity", "z", "z_layered", "modules"):
            yield over(quantity, [m[kind][quantity] for m in found.modular], network="modular", edit=kind)
    for tolerance in found.counts[0][0]["share"]:
        for at in range(len(found.counts[0])):
            values = [rows[at]["share"][tolerance] for rows in found.counts]
            step = float(found.counts[0][at]["step"])
            yield over(f"free_share:{tolerance}", values, network="digits", parameter=step)
    for at, row in enumerate(found.counts[0]):
        for cause in row["causes"]:
            values = [float(rows[at]["causes"][cause]) for rows in found.counts]
            yield over(f"free:{cause}", values, network="digits", parameter=float(row["step"]))
    for kind in PLANTS:
        for quantity in ("expected", "counted", "interaction", "components", "change"):
            yield over(quantity, [float(p[kind][quantity]) for p in found.plants], network="planted", edit=kind)
    yield from population_estimates(found)
    yield from blocks_estimates(found)
    yield from stream_estimates(found)
    yield from pictures_estimates(found.pictures)


def population_estimates(found: Found) -> Iterator[Estimate]:
    """Every predictor's rank correlation with the held-out loss, and how many networks could not be used."""
    for predictor in PREDICTORS:
        thetas = population_theta(found.population, predictor=predictor)
        where: dict[str, Any] = {"network": "population", "edit": predictor}
        try:
            values = defined(thetas)
            variance, images = population_variance(found.population, predictor=predictor)
        except StatisticsError as error:
            yield Estimate("rank_correlation", math.nan, reason=str(error), **where)
            continue
        t = mean_test(values, unit_variance=variance, n_clusters=images, delta=0.0)
        yield Estimate(
            "rank_correlation", t.value, t.low, t.high, "t over seeds and images", n=images, seeds=len(values), **where
        )
    for kind, count in left_out(found.population).items():
        yield Estimate(f"population_{kind}", float(count), n=count, method="count", network="population")


def blocks_estimates(found: Found) -> Iterator[Estimate]:
    """Counts of both networks, and the log ratio at every cut-off."""
    import pandas as pd

    tables = [pd.read_parquet(folder / degeneracy_blocks.MEASURED).set_index("network") for folder in found.blocks]
    finer = [c for c in tables[0] if c.startswith("quadratic@")]
    for network in NETWORKS:
        for quantity in (*COUNTS, *finer, "parameters", "held_loss"):
            values = [float(t.loc[network, quantity]) for t in tables]
            yield over(f"blocks:{quantity}", values, network=network)
    for count in (*COUNTS, *finer):
        try:
            values = defined(blocks_theta(found.blocks, count=count))
        except StatisticsError as error:
            yield Estimate(f"log_ratio:{count}", math.nan, reason=str(error), network=DENSE)
            continue
        yield over(f"log_ratio:{count}", values, network=DENSE)


def stream_estimates(found: Found) -> list[Estimate]:
    """Agreement of both bases with a language model, by layer and number of features."""
    scores = found.streams
    (network,) = scores.networks()
    subjects = [(network, seed) for seed in scores.seeds(network)]
    wanted = [
        (
            partial(agreement, family=family, at=at),
            {
                "quantity": "agreement",
                "network": "code",
                "site": at[0],
                "edit": family,
                "parameter": at[1],
                "split": "id",
            },
        )
        for at in stream_grid(scores)
        for family in (IB, PCA)
    ]
    return describe(scores, subjects, wanted, rng=np.random.default_rng(0), draws=CURVE_DRAWS)
