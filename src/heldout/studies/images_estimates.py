"""The estimates of the images study: means over seeds with t intervals, and differences paired by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from heldout.evidence import Estimate, write_estimates
from heldout.runs import StepContext
from heldout.statistics.rule import mean_test
from heldout.studies.audited import ESTIMATES
from heldout.studies.images import APART, EASY, HARD, LEAST
from heldout.studies.images_measure import INITIAL, TRAINED, read_values

GATES, EVERY = "gates.json", "every_value.parquet"
GAP = "gap"  # of variance explained, the easy feature minus the hard one
PLACE = ["when", "split", "stage", "view", "quantity"]


def summarise(ctx: StepContext) -> None:
    s = ctx.settings
    values = read_values(ctx.inputs)
    values = pd.concat([values, gaps(values)], ignore_index=True)
    values = pd.concat([values, differences(values)], ignore_index=True)
    write_estimates(ctx.out / ESTIMATES, estimates(values, len(s["seeds"])))
    values.to_parquet(ctx.out / EVERY, index=False)
    (ctx.out / GATES).write_text(json.dumps([gate(values, network) for network in s["networks"]]))


def gaps(values: pd.DataFrame) -> pd.DataFrame:
    """Variance explained by the easy feature minus that by the hard one, wherever both were measured."""
    loud = values[values["quantity"] == "variance_explained"]
    wide = loud.pivot(index=["network", "seed", *PLACE], columns="feature", values="value")
    return (wide[EASY] - wide[HARD]).rename("value").reset_index().assign(quantity=GAP, feature="")


def differences(values: pd.DataFrame) -> pd.DataFrame:
    """Plain minus residual network of the same depth and seed, as a network of its own; see `paired`."""
    some = values[values["quantity"].isin([GAP, "variance_explained"])]
    wide = some.pivot(index=["seed", *PLACE, "feature"], columns="network", values="value")
    found = [
        (wide[name] - wide[other]).rename("value").reset_index().assign(network=paired(name))
        for name in wide
        if name.startswith("plain") and (other := name.replace("plain", "residual")) in wide
    ]
    return pd.concat(found, ignore_index=True) if found else values.iloc[:0]


def paired(plain: str) -> str:
    """What the difference of a plain network and its residual twin is called."""
    return f"{plain} minus {plain.replace('plain', 'residual')}"


def estimates(values: pd.DataFrame, seeds: int) -> Iterator[Estimate]:
    """Mean over seeds with its t interval; the reason where it was not measured in every one."""
    for (network, when, split, stage, view, quantity, feature), rows in values.groupby(
        ["network", *PLACE, "feature"], sort=False
    ):
        where: dict[str, Any] = {"network": called(network, when), "split": split, "site": site(stage, view)}
        where |= {"quantity": f"{quantity}:{feature}" if feature else quantity, "n": seeds, "seeds": seeds}
        known = rows["value"].dropna()
        if len(known) < seeds:
            why = f"not estimable in {seeds - len(known)} of {seeds} seeds: the maps do not vary there"
            yield Estimate(value=math.nan, reason=why, **where)
            continue
        test = mean_test(known, unit_variance=0.0, n_clusters=None, delta=0.0)
        yield Estimate(value=test.value, low=test.low, high=test.high, method="t over seeds", **where)


def called(network: str, when: str) -> str:
    return f"{network}, untrained" if when == INITIAL else network


def site(stage: int, view: str) -> str:
    """``stem, each position``, ``stage 2, mean over positions``; empty for the answers."""
    return "" if stage < 0 else f"{'stem' if stage == 0 else f'stage {stage}'}, {view}"


def gate(values: pd.DataFrame, network: str) -> dict[str, Any]:
    """Whether every seed of a network answers each output above `LEAST` on test, and its outputs within `APART`."""
    own = values[(values["network"] == network) & (values["when"] == TRAINED) & (values["split"] == "test")]
    right = own[own["quantity"] == "accuracy"].pivot(index="seed", columns="feature", values="value")
    loss = own[own["quantity"] == "cross_entropy"].groupby("feature", sort=False)["value"].mean()
    least, apart = right.min(axis=1), right.max(axis=1) - right.min(axis=1)
    failed = (least <= LEAST) | (apart > APART)
    seed = least.idxmin()
    return {
        "name": f"{network} computes its features equally well",
        "passed": not failed.any(),
        "value": f"{int((~failed).sum())} of {len(right)} seeds; least accuracy {least[seed]:.4f} "
        f"({right.loc[seed].idxmin()}, seed {seed}), above {LEAST} needed; outputs at most {apart.max():.4f} apart, {APART} "
        f"allowed; mean cross-entropies {', '.join(f'{f} {v:.2g}' for f, v in loss.items())} nats",
    }
