"""The claim of the similarity study judged, and every quantity of its page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.evidence import Estimate, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.rule import MeanTest, mean_test
from heldout.statistics.verdict import Finding, judge
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features_measured import SITE
from heldout.studies.similarity import (
    APART,
    CONFIGURATIONS,
    LEARNT,
    LEAST,
    MEASURE,
    Configuration,
    claims,
    compare_name,
    configuration_from,
)
from heldout.studies.similarity_compare import ACCURACIES, CELLS, THETA

GATES = "gates.json"
THETA_QUANTITY = "less_alike"
Thetas = Mapping[str, Any]  # measure -> values, variance, stimuli


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    chosen = {given["name"]: configuration_from(given) for given in s["configurations"]}
    folders = {name: ctx.inputs[compare_name(one)] for name, one in chosen.items()}
    gates = {name: gate_of(chosen.get(name), folders.get(name), name) for name in CONFIGURATIONS}
    thetas = {name: json.loads((folder / THETA).read_text()) for name, folder in folders.items()}
    found = [e for name, folder in folders.items() for e in estimates(name, folder, thetas[name])]
    write_estimates(ctx.out / ESTIMATES, found)
    judged = judge([finding(thetas, gates)], not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    record = [{"name": g.name, "passed": g.passed, "value": g.value} for n, g in gates.items() if n in chosen]
    (ctx.out / GATES).write_text(json.dumps(record))


def finding(thetas: Mapping[str, Thetas], gates: Mapping[str, Gate]) -> Finding:
    """The claim with one test a configuration, or with why there is none."""
    (claim,) = claims()
    named = tuple(gates.values())
    missing = [name for name in CONFIGURATIONS if name not in thetas]
    if missing:
        return Finding(claim, {}, named, f"this run does not train {', '.join(missing)}")
    undefined = [name for name, found in thetas.items() if not np.isfinite(found[MEASURE]["values"]).all()]
    if undefined:
        return Finding(claim, {}, named, f"the similarity is undefined in {', '.join(undefined)}")
    return Finding(claim, {name: test(thetas[name][MEASURE], claim.delta) for name in CONFIGURATIONS}, named)


def test(found: Thetas, delta: float) -> MeanTest:
    """One value a pair of networks, and the variance of their mean over other stimuli."""
    return mean_test(found["values"], unit_variance=found["variance"], n_clusters=int(found["stimuli"]), delta=delta)


def estimates(name: str, folder: Path, thetas: Thetas) -> Iterator[Estimate]:
    """Similarities of every two roles, mean over pairs, and the claim's estimand by every measure."""
    where: dict[str, Any] = {"network": name, "split": "test", "site": SITE}
    cells = pd.read_parquet(folder / CELLS)
    for (measure, correction, a, b), group in cells.groupby(["measure", "correction", "a", "b"], sort=False):
        edit = f"{measure}, {correction}"
        yield over_pairs(f"similarity:{a} | {b}", group["value"].tolist(), edit=edit, **where)
    for measure, found in thetas.items():
        values = found["values"]
        shared = where | {"quantity": THETA_QUANTITY, "edit": measure, "seeds": len(values), "n": found["stimuli"]}
        if len(values) < 2 or not np.isfinite(values).all():
            yield Estimate(value=math.nan, reason="undefined in a pair, or a single pair", **shared)
            continue
        over = test(found, 0.0)
        yield Estimate(value=over.value, low=over.low, high=over.high, method="t over pairs and stimuli", **shared)


def over_pairs(quantity: str, values: Sequence[float], **where: Any) -> Estimate:
    """The mean of one value a pair with its t interval over pairs, on the same stimuli; the reason where one has none."""
    undefined = int(np.isnan(values).sum())
    if undefined:
        why = f"undefined in {undefined} of {len(values)} pairs: activations without what is compared"
        return Estimate(quantity, math.nan, seeds=len(values), reason=why, **where)
    if len(values) < 2:
        return Estimate(quantity, values[0], n=1, seeds=1, method="one pair", **where)
    over = mean_test(values, unit_variance=0.0, n_clusters=None, delta=0.0)
    return Estimate(
        quantity, over.value, over.low, over.high, "t over pairs", n=len(values), seeds=len(values), **where
    )


def gate_of(one: Configuration | None, folder: Path | None, name: str) -> Gate:
    """Every network learns its features above `LEAST`, those of both within `APART` of each other."""
    if one is None or folder is None:
        return Gate(LEARNT.format(name), False, "not run")
    found: dict[str, list[dict[str, float]]] = json.loads((folder / ACCURACIES).read_text())
    rows = [(role, i, right) for role, networks in found.items() for i, right in enumerate(networks)]
    worst = min(rows, key=lambda row: min(row[2].values()))
    apart = max(max(r.values()) - min(r.values()) for _, _, r in rows)
    failed = [
        row for row in rows if min(row[2].values()) <= LEAST or max(row[2].values()) - min(row[2].values()) > APART
    ]
    text = (
        f"{len(rows) - len(failed)} of {len(rows)} networks; least accuracy {min(worst[2].values()):.4f} ({worst[0]}, "
        f"network {worst[1]}), above {LEAST} needed; features at most {apart:.4f} apart, {APART} allowed"
    )
    return Gate(LEARNT.format(name), not failed, text)
