"""The claims of the nuclear study judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heldout.analyses.geometry.derived import COMPONENTS, FORMULA
from heldout.analyses.geometry.interventions import FULL
from heldout.analyses.geometry.squares import Squares, squares
from heldout.errors import HeldoutError, StatisticsError
from heldout.evidence import write_estimates
from heldout.runs import StepContext
from heldout.statistics.bootstrap import bootstrap_variance
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.rule import MeanTest, mean_test
from heldout.statistics.verdict import Finding, judge
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.nuclear_claims import BEATS, WITHIN, claims
from heldout.studies.nuclear_helix import HELIX
from heldout.studies.nuclear_measure import DERIVED, KEPT, TERMS_FOUND, squares_of
from heldout.studies.nuclear_primer import primer_gates, primer_theta
from heldout.studies.nuclear_train import PREDICTIONS
from heldout.studies.seeds import defined

GATES = "gates.json"
DRAWS = 2000
NETWORK = "network"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What the steps left, by folder: `folder("kept-s0")`."""

    seeds: Sequence[int]
    networks: Sequence[str]
    most: int
    folders: Mapping[str, Path]

    def folder(self, name: str) -> Path:
        return self.folders[name]

    def each(self, kind: str) -> list[Path]:
        """One folder a seed."""
        return [self.folders[f"{kind}-s{seed}"] for seed in self.seeds]

    def starting(self, kind: str) -> list[Path]:
        """Every folder of a kind of step that is no seed's own."""
        return [path for name, path in sorted(self.folders.items()) if name.startswith(kind)]

    @property
    def cells(self) -> list[Path]:
        return [
            path for name, path in sorted(self.folders.items()) if name.startswith("primer-") and "train" not in name
        ]


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies.nuclear_estimates import estimates

    s = ctx.settings
    found = Found(s["seeds"], s["networks"], s["most"], ctx.inputs)
    gates = {gate.name: gate for gate in all_gates(found)}
    write_estimates(ctx.out / ESTIMATES, list(estimates(found)))
    judged = judge([finding(claim, found, gates) for claim in claims()], not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    (ctx.out / GATES).write_text(json.dumps([vars(gate) for gate in gates.values()]))


def finding(claim: Claim, found: Found, gates: Mapping[str, Gate]) -> Finding:
    """A claim with its tests, or why there are none."""
    named = tuple(gates[name] for name in claim.gates if name in gates)
    try:
        tests = TESTS[claim.id](found, claim.delta)
    except HeldoutError as error:
        return Finding(claim, {}, named, reason=str(error))
    return Finding(claim, tests, named)


# -- ratios of errors over nuclei, which chains are resampled for ------------------------------------------------------


def paired(
    each: Sequence[Squares], top: Sequence[str], bottom: Sequence[str], delta: float, *, shift: float = 0.0
) -> MeanTest:
    """`shift` + log RMS(top) - log RMS(bottom), mean over seeds, of one `Squares` a seed over the same units.

    One draw of units is shared by all seeds.
    """
    units = each[0].units
    if any(not np.array_equal(one.units, units) for one in each):
        raise StatisticsError("seeds were scored on different units; their draws cannot be shared")
    ratios = [one.log_ratio(a, b) for one, a, b in zip(each, top, bottom, strict=True)]
    theta = [shift + float(ratio(one.table.sum(0)[None])[0]) for one, ratio in zip(each, ratios, strict=True)]
    wide = np.concatenate([one.table for one in each], axis=1)
    cuts = np.cumsum([0, *(one.table.shape[1] for one in each)])

    def mean_ratio(totals: Floats) -> Floats:
        one_by_one = [ratio(totals[:, a:b]) for ratio, a, b in zip(ratios, cuts, cuts[1:], strict=False)]
        return np.asarray(np.mean(one_by_one, axis=0))

    variance = bootstrap_variance(wide, mean_ratio, rng=np.random.default_rng(0), draws=DRAWS)
    return mean_test(theta, unit_variance=variance, n_clusters=len(units), delta=delta)


def few_components(found: Found, delta: float) -> dict[str, MeanTest]:
    """N1."""
    each, chosen = [], []
    for folder in found.each("kept"):
        select, held = (kept_squares(folder, "penultimate", split) for split in ("select", "id"))
        chosen.append(str(best_rank(select, found.most)))
        each.append(held)
    return {"": paired(each, [FULL] * len(each), chosen, delta, shift=math.log(WITHIN))}


def kept_squares(folder: Path, site: str, split: str) -> Squares:
    import pandas as pd

    frame = pd.read_parquet(folder / KEPT)
    return squares_of(frame[(frame["site"] == site) & (frame["split"] == split)])


def best_rank(select: Squares, most: int) -> int:
    """The number of components, at most `most`, with the least error on select."""
    ranks = sorted(int(name) for name in select.names if name != FULL and int(name) <= most)
    return min(ranks, key=lambda rank: select.rms(str(rank)))


def better_formula(found: Found, delta: float) -> dict[str, MeanTest]:
    """N4."""
    import pandas as pd

    each = [
        squares_of(pd.DataFrame(json.loads((folder / DERIVED).read_text())["squares"]))
        for folder in found.each("terms-binding")
    ]
    return {"": paired(each, [FORMULA] * len(each), [COMPONENTS] * len(each), delta)}


def later_nuclei(found: Found, delta: float) -> dict[str, MeanTest]:
    """N6: every model on the new nuclei that networks can score."""
    if "vintage" not in found.networks:
        raise StatisticsError("no network was trained on 'vintage'")
    each = [beside_baselines(found, "vintage", seed, "new") for seed in found.seeds]
    return {name: paired(each, [name] * len(each), [NETWORK] * len(each), delta) for name in baselines.BASELINES}


def beside_baselines(found: Found, network: str, seed: int, split: str) -> Squares:
    """Errors of one network and of every baseline on the same nuclei."""
    import pandas as pd

    own = pd.read_parquet(found.folder(f"train-{network}-s{seed}") / PREDICTIONS)
    other = pd.read_parquet(found.folder(baselines_of(network)) / baselines.PREDICTED)
    own, other = (t[t["split"] == split].reset_index(drop=True) for t in (own, other))
    if not own[["z", "n"]].equals(other[["z", "n"]]):
        raise StatisticsError(f"{network} and the baselines were scored on different nuclei of {split}")
    names = (*baselines.BASELINES, *baselines.PUBLISHED)
    errors = {name: other[name] - other["value"] for name in names} | {NETWORK: own["predicted"] - own["value"]}
    return squares({name: e.to_numpy() for name, e in errors.items()}, own["unit"].to_numpy())


def baselines_of(network: str) -> str:
    return "baselines-vintage" if network.startswith("vintage") else "baselines"


# -- structure ---------------------------------------------------------------------------------------------------------


def terms_carried(found: Found, delta: float) -> dict[str, MeanTest]:
    """N2."""
    theta = []
    for folder in found.each("terms-binding"):
        with np.load(folder / TERMS_FOUND) as a:
            strongest, permuted, untrained = strongest_by_term(a)
            theta.append(float(np.mean(strongest - np.maximum(permuted, untrained))))
    return {"": alone(theta, delta)}


def strongest_by_term(arrays: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """(P,) the strongest component's |partial correlation| with each term, and the 95th percentiles of both nulls."""
    strongest = np.abs(arrays["partial"]).max(axis=0)
    permuted = np.quantile(arrays["null"], 0.95, axis=0)
    untrained = np.quantile(np.abs(arrays["untrained"]).max(axis=1), 0.95, axis=0)
    return strongest, permuted, untrained


def helix_there(found: Found, delta: float) -> dict[str, MeanTest]:
    """N3."""
    return {"": alone([helix_row(folder, "n")["excess"] for folder in found.each("helix-binding")], delta)}


def helix_row(folder: Path, column: str) -> dict[str, Any]:
    """The test of one table; its families stand in rows of their own, with this in common."""
    import pandas as pd

    frame = pd.read_parquet(folder / HELIX)
    row: dict[str, Any] = frame[frame["column"] == column].iloc[0].to_dict()
    return row


def algorithms(found: Found, delta: float) -> dict[str, MeanTest]:
    """N5."""
    return {"": alone(defined(primer_theta(found.cells)), delta)}


def alone(values: Sequence[float], delta: float) -> MeanTest:
    """Quantities of trained networks, of which there is no sampling over test units."""
    return mean_test(values, unit_variance=0.0, n_clusters=None, delta=delta)


TESTS: dict[str, Callable[[Found, float], dict[str, MeanTest]]] = {
    "N1": few_components,
    "N2": terms_carried,
    "N3": helix_there,
    "N4": better_formula,
    "N5": algorithms,
    "N6": later_nuclei,
}


# -- gates -------------------------------------------------------------------------------------------------------------


def all_gates(found: Found) -> Iterable[Gate]:
    """Networks beat the formula; closed-form networks are named right at every modulus; sweeps answer unseen pairs."""
    ratios = {}
    for seed in found.seeds:
        errors = beside_baselines(found, "binding", seed, "id")
        ratios[seed] = errors.rms(NETWORK) / errors.rms(baselines.FORMULA)
    worst = max(ratios, key=lambda seed: ratios[seed])
    yield Gate(BEATS, ratios[worst] < 1, f"largest error {ratios[worst]:.2f} of the formula's (seed {worst}), on id")
    every = [primer_gates(found.cells, known) for known in found.starting("known-")]
    for same in zip(*every, strict=True):
        failed = [gate for gate in same if not gate.passed]
        yield failed[0] if failed else same[0]
