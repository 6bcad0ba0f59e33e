"""Every quantity of the nuclear page as an estimate: a mean over seeds with an interval, or one number alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from heldout.analyses.ensembles import Forecast, uncertainty
from heldout.analyses.geometry.derived import COMPONENTS, DIRECT, FORMULA
from heldout.analyses.geometry.interventions import FULL
from heldout.evidence import Estimate
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.nuclear import READ, UNTRAINED
from heldout.studies.nuclear_faithful import faithful
from heldout.studies.nuclear_helix import HELIX
from heldout.studies.nuclear_judge import (
    NETWORK,
    Found,
    baselines_of,
    beside_baselines,
    kept_squares,
    strongest_by_term,
)
from heldout.studies.nuclear_measure import DERIVED, SITES, TABLE_SITES, TERMS_FOUND, squares_of
from heldout.studies.nuclear_primer import both_shares, primer_networks
from heldout.studies.nuclear_structure import STRUCTURE
from heldout.studies.nuclear_train import PREDICTIONS
from heldout.studies.seeds import over

ON_NUCLEI = ("binding", "residual", "vintage", "vintage-residual")  # networks that predict energies of nuclei
AS_MUCH, OF_THE_SAME = "as much removed at random", "as much removed of the same components"
LEVEL = 0.9  # of intervals of prediction


def estimates(found: Found) -> Iterator[Estimate]:
    yield from errors(found)
    yield from honesty(found)
    yield from components(found)
    yield from faithful(found)
    yield from terms(found)
    yield from derived(found)
    yield from helices(found)
    yield from structure(found)
    yield from primer(found)


def errors(found: Found) -> Iterator[Estimate]:
    """RMS, keV: the mean of single networks, their ensemble, and baselines, all on the same nuclei of each split."""
    for network in (n for n in ON_NUCLEI if n in found.networks):
        for split in ("train", "select", "id", *(["new"] if network.startswith("vintage") else [])):
            each = [beside_baselines(found, network, seed, split) for seed in found.seeds]
            nuclei = int(each[0].n.sum())
            yield over("rms", [one.rms(NETWORK) for one in each], network=network, split=split)
            together = forecast(found, network, split)
            if together is not None:
                yield Estimate(
                    "rms",
                    together.rms,
                    method="ensemble",
                    n=nuclei,
                    seeds=len(found.seeds),
                    network=f"{network} (ensemble)",
                    split=split,
                )
            if network not in ("binding", "vintage"):
                continue  # its baselines are the same
            for name in (*baselines.BASELINES, *baselines.PUBLISHED):
                where: dict[str, Any] = {"network": name, "reference": baselines_of(network), "split": split}
                if split == "train" and name in baselines.REMEMBER:
                    yield Estimate(
                        "rms", math.nan, n=nuclei, reason="predicted from the nucleus itself among others", **where
                    )
                else:
                    yield Estimate("rms", each[0].rms(name), method="one fit", n=nuclei, **where)


def forecast(found: Found, network: str, split: str) -> Forecast | None:
    """Networks of all seeds as an ensemble; None where there is one seed."""
    import pandas as pd

    tables = [pd.read_parquet(found.folder(f"train-{network}-s{seed}") / PREDICTIONS) for seed in found.seeds]
    tables = [t[t["split"] == split] for t in tables]
    if len(tables) < 2:
        return None
    first = tables[0]
    return Forecast.of(
        np.stack([t["predicted"].to_numpy() for t in tables]),
        first["value"].to_numpy(),
        uncertainty=first["uncertainty"].to_numpy(),
        groups=first["region"].to_numpy(),
    )


def honesty(found: Found) -> Iterator[Estimate]:
    """How often intervals of prediction of the ensemble hold, by split; margins come from select."""
    for network in (n for n in ON_NUCLEI if n in found.networks):
        splits = ("select", "id", *(["new"] if network.startswith("vintage") else []))
        forecasts = {split: f for split in splits if (f := forecast(found, network, split)) is not None}
        if not forecasts:
            continue
        for one in uncertainty(forecasts, level=LEVEL):
            for kind, covered in (("gaussian", one.gaussian), ("constant", one.constant), ("following", one.following)):
                where: dict[str, Any] = {"network": network, "split": one.split, "edit": kind, "method": "ensemble"}
                where["seeds"] = len(found.seeds)
                low, high = wilson(covered.covered, covered.n)
                yield Estimate("coverage", covered.rate, low, high, n=covered.n, null=LEVEL, **where)
                yield Estimate("width", covered.width, n=covered.n, **where)
            yield Estimate(
                "knows_where",
                one.correlation,
                n=one.n,
                seeds=len(found.seeds),
                method="ensemble",
                network=network,
                split=one.split,
            )


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95% score interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def components(found: Found) -> Iterator[Estimate]:
    """RMS, keV, with the leading components kept."""
    for site in SITES:
        for split in ("select", "id"):
            each = [kept_squares(folder, site, split) for folder in found.each("kept")]
            for name in each[0].names:
                rank = None if name == FULL else float(name)
                yield over(
                    "rms_kept",
                    [one.rms(name) for one in each],
                    network="binding",
                    site=site,
                    split=split,
                    parameter=rank,
                )


def terms(found: Found) -> Iterator[Estimate]:
    """Partial correlations by term, of the strongest component, with both nulls."""
    for network in (n for n in READ if n in found.networks):
        read = []
        for folder in found.each(f"terms-{network}"):
            with np.load(folder / TERMS_FOUND) as a:
                read.append((list(a["names"]), *strongest_by_term(a), a["tolerance"]))
        for i, name in enumerate(read[0][0]):
            strongest, permuted, untrained, tolerance = ([float(r[part][i]) for r in read] for part in (1, 2, 3, 4))
            where: dict[str, Any] = {"network": network, "edit": str(name)}
            yield over("partial", strongest, null=float(np.mean(np.maximum(permuted, untrained))), **where)
            yield over("partial_permuted", permuted, **where)
            yield over("partial_untrained", untrained, **where)
            yield over("tolerance", tolerance, **where)


def derived(found: Found) -> Iterator[Estimate]:
    """RMS, keV, of formulas of as many terms."""
    import pandas as pd

    records = [json.loads((folder / DERIVED).read_text()) for folder in found.each("terms-binding")]
    each = [squares_of(pd.DataFrame(record["squares"])) for record in records]
    for name in (FORMULA, COMPONENTS, DIRECT):
        yield over("rms_formula", [one.rms(name) for one in each], split="id", edit=name)
    random = [float(np.median([one.rms(n) for n in one.names if n.startswith("random")])) for one in each]
    yield over("rms_formula", random, split="id", edit="random terms, median")


def helices(found: Found) -> Iterator[Estimate]:
    """The helix test of every network's tables."""
    import pandas as pd

    for network in (*found.networks, UNTRAINED):
        frames = [pd.read_parquet(folder / HELIX) for folder in found.each(f"helix-{network}")]
        for column in TABLE_SITES:
            rows = [frame[frame["column"] == column] for frame in frames]
            where = {"network": network, "site": column}
            worst = [float(r["threshold"].max()) for r in rows]
            yield over("helix", [r["statistic"].iloc[0] for r in rows], null=float(np.mean(worst)), **where)
            for quantity in ("turns", "aspect", "gain", "r2", "share", "excess", "p"):
                yield over(f"helix_{quantity}", [r[quantity].iloc[0] for r in rows], **where)


def structure(found: Found) -> Iterator[Estimate]:
    """Order, parity, and what the helix is worth to predictions."""
    records = [json.loads((folder / STRUCTURE).read_text()) for folder in found.each("structure")]
    for column in TABLE_SITES:
        for who in ("trained", UNTRAINED):
            for what in ("parity", "order"):
                each = [record["order"][column][who] for record in records]
                null = float(np.mean([one[f"{what}_null"] for one in each]))
                yield over(what, [one[what] for one in each], network=who, site=column, null=null)
        whole = [record["helix"][column] for record in records]
        for part, words in (([r["wave"] for r in whole], "wave "), (whole, "")):
            for what in ("removed", "alone"):
                yield over("rms_helix", [r[what] for r in part], site=column, edit=f"{words}{what}", split="id")
            for what, control in (("random", AS_MUCH), ("same", OF_THE_SAME)):
                each = [float(np.mean(r[what])) for r in part]
                yield over("rms_helix", each, site=column, edit=f"{words}{control}", split="id")
        yield over("rms_helix", [r["full"] for r in whole], site=column, edit="full", split="id")
        for what in ("participation", "above"):
            yield over(what, [record["spectrum"][column][what] for record in records], network="binding", site=column)


def primer(found: Found) -> Iterator[Estimate]:
    """Which algorithms networks of the sweep use, by pooling."""
    table, shares = primer_networks(found.cells), both_shares(found.cells)
    for pooling, rows in table.groupby("pooling"):
        for label, n in rows["label"].value_counts().items():
            yield Estimate("networks", float(n), n=len(rows), method="count", network=str(pooling), edit=str(label))
    for pooling, rows in shares.groupby("pooling"):
        for what in ("both", "mixed"):
            yield over(f"share_{what}", rows[what].tolist(), network=str(pooling))
