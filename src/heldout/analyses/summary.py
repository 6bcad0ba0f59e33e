"""From the scores of many audited networks to the table of estimates that claims and figures read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heldout.analyses.audit import Plan
from heldout.analyses.damage import NULL
from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.evidence import Estimate, Origin
from heldout.statistics.ratios import ratio
from heldout.statistics.reweight import standardised_ratio

RATIOS = {  # quantity -> metric that is averaged over predictions
    "same_prediction": "same",
    "kl": "kl",
    "jsd": "jsd",
    "accuracy_proxy": "proxy_correct",
}
LEAST_RANGE = 0.1  # nats between the mean ablation's loss and the network's, below which no share of it is estimable
UNDEFINED = {  # quantity -> what it means that there is no value
    "kappa": "network and proxy are both right or both wrong on every prediction",
    "loss_recovered": f"the mean ablation costs less than {LEAST_RANGE} nats more than the network",
    "gap_reweighted": "no margin of the network is found on both splits",
}
CURVE_DRAWS = 400  # resamples behind an interval that is drawn; those that are judged have estimates.DRAWS

Grid = Callable[[str], Mapping[str, Sequence[float | None]]]  # site -> family -> parameters
Key = tuple[str, int, str, str]  # network, seed, site, family
Rows = list[tuple[Estimand, Mapping[str, Any]]]


def label(name: str, parameter: float | None, *, oracle: bool = False) -> str:
    """How the scores call an edit."""
    return Origin(name, parameter=parameter, oracle=oracle).label


@dataclass(frozen=True)
class Chosen:
    """What the rank rule chose for every network, seed, site and family, and the quantities of those edits.

    Each seed's network is simplified at its own size. Methods return (R,) arrays, R resamples, and serve as estimands.
    """

    parameters: Mapping[Key, float | None]
    reference: str

    @staticmethod
    def from_records(records: Mapping[tuple[str, int], Mapping[str, Any]], reference: str) -> Chosen:
        """From the records that `audit` returned, by (network, seed)."""
        parameters = {
            (network, seed, row["site"], row["family"]): row["parameter"]
            for (network, seed), record in records.items()
            for row in record["chosen"]
        }
        return Chosen(parameters, reference)

    def size(self, view: View, site: str, family: str) -> float | None:
        return self.parameters[view.network, view.seed, site, family]

    def ratio(self, view: View, site: str, family: str, split: str, metric: str, *, oracle: bool = False) -> Floats:
        """Mean of a metric over a split's predictions (and draws)."""
        edit = label(family, self.size(view, site, family), oracle=oracle)
        return view.ratio(metric, split=split, edit=edit, site=site)

    def gap(self, view: View, site: str, family: str, split: str) -> Floats:
        """Agreement on the reference minus on the split."""
        return self.ratio(view, site, family, self.reference, "same") - self.ratio(view, site, family, split, "same")

    def null_gap(self, view: View, site: str, family: str, split: str) -> Floats:
        """The gap of noise with the same agreement on the reference, over its draws."""
        edit = label(f"{family}+{NULL}", self.size(view, site, family))
        return view.gap(reference=self.reference, split=split, edit=edit, site=site)

    def excess(self, view: View, site: str, family: str, split: str) -> Floats:
        """What claims on gaps are about: the gap minus the null's."""
        return self.gap(view, site, family, split) - self.null_gap(view, site, family, split)

    def oracle_gap(self, view: View, site: str, family: str, split: str) -> Floats:
        """Agreement on the reference minus, on the split, that of the same simplification fitted on its other half."""
        usual = self.ratio(view, site, family, self.reference, "same")
        return usual - self.ratio(view, site, family, split, "same", oracle=True)

    def kappa(self, view: View, site: str, family: str, split: str) -> Floats:
        """Error consistency of network and proxy."""
        return view.kappa(split=split, edit=label(family, self.size(view, site, family)), site=site)

    def loss_recovered(self, view: View, site: str, family: str, split: str) -> Floats:
        """(L_mean - L_proxy) / (L_mean - L_net); NaN where the mean ablation costs less than `LEAST_RANGE` nats."""
        worst = view.ratio("proxy_loss", split=split, edit="mean", site=site)
        room = worst - self.ratio(view, site, family, split, "net_loss")
        share = (worst - self.ratio(view, site, family, split, "proxy_loss")) / np.where(room == 0, 1.0, room)
        return np.where(room >= LEAST_RANGE, share, np.nan)

    def reweighted_gap(self, view: View, site: str, family: str, split: str, bins: int) -> Floats:
        """The gap, had the split's predictions the reference's margins: what smaller margins cannot explain."""
        edit = label(family, self.size(view, site, family))
        return gap_at_equal_margins(view, edit=edit, site=site, split=split, reference=self.reference, bins=bins)


def gap_at_equal_margins(view: View, *, edit: str, site: str, split: str, reference: str, bins: int) -> Floats:
    """(R,) the gap of an edit, had the split's predictions the reference's margins, from scores with `bins` margin bins.

    Margins that the split never has cannot be compared: both sides leave them out. NaN where none is found on both.
    """
    at: dict[str, Any] = {"edit": edit, "site": site, "bins": bins}
    weight = view.binned("n", split=reference, **at)
    same, n = view.binned("same", split=split, **at), view.binned("n", split=split, **at)
    filled = n > 0
    there = ratio(
        np.where(filled, view.binned("same", split=reference, **at), 0.0).sum(axis=-1),
        np.where(filled, weight, 0.0).sum(axis=-1),
    )
    return np.asarray(there - standardised_ratio(same, n, weight).ratio)


def summarise(
    scores: Scores,
    *,
    plan: Plan,
    chosen: Chosen,
    grid: Grid,
    sites: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
    extra_ratios: Mapping[str, str] | None = None,
) -> list[Estimate]:
    """Every quantity of every network, site, edit and split, over all its seeds.

    `sites`: network -> sites; `extra_ratios`: further quantity -> metric, as in `RATIOS`.
    """
    rows: list[Estimate] = []
    ratios = {**RATIOS, **(extra_ratios or {})}
    splits = (plan.reference, *plan.tests, *plan.also)
    for network in scores.networks():
        subjects = [(network, s) for s in scores.seeds(network)]
        for site in sites[network]:
            families = grid(site)
            for split in splits:
                where = {"network": network, "site": site, "split": split}
                for family, parameters in families.items():
                    for parameter in parameters:
                        what = where | {"edit": family, "parameter": parameter}
                        edit = label(family, parameter)
                        curve: Rows = [
                            (_ratio(metric, split, edit, site), what | {"quantity": quantity})
                            for quantity, metric in ratios.items()
                        ]
                        rows += describe(scores, subjects, curve, rng=rng, draws=CURVE_DRAWS)
                first = next(label(f, p[0]) for f, p in families.items() if p)
                own: Rows = [(_ratio("net_correct", split, first, site), where | {"quantity": "accuracy_network"})]
                rows += describe(scores, subjects, own, rng=rng)
                for family in plan.families:
                    if all((*who, site, family) in chosen.parameters for who in subjects):
                        rows += _chosen_rows(scores, subjects, site, family, split, plan, chosen, rng)
    return rows


def _chosen_rows(
    scores: Scores,
    subjects: Sequence[tuple[str, int]],
    site: str,
    family: str,
    split: str,
    plan: Plan,
    chosen: Chosen,
    rng: np.random.Generator,
) -> list[Estimate]:
    """All that is said about the edit that the rank rule chose, on one split."""
    sizes = {chosen.parameters[(*who, site, family)] for who in subjects}
    what: dict[str, Any] = {"network": subjects[0][0], "site": site, "edit": family, "split": split}
    what["parameter"] = next(iter(sizes)) if len(sizes) == 1 else None

    def of(method: Callable[..., Floats], *more: Any) -> Estimand:
        return lambda view: method(view, site, family, split, *more)

    wanted: Rows = [
        (of(chosen.ratio, "same"), what | {"quantity": "chosen_same_prediction"}),
        (of(chosen.ratio, "proxy_correct"), what | {"quantity": "chosen_accuracy"}),
        (of(chosen.kappa), what | {"quantity": "kappa"}),
        (of(chosen.loss_recovered), what | {"quantity": "loss_recovered"}),
    ]
    if split not in plan.tests:
        return explained(describe(scores, subjects, wanted, rng=rng))
    what["reference"] = plan.reference
    subject_views = [View(n, s, lambda c: np.array([scores.sums(c)[1].sum()])) for n, s in subjects]
    null = float(np.mean([chosen.null_gap(view, site, family, split) for view in subject_views]))
    wanted += [
        (of(chosen.gap), what | {"quantity": "gap", "null": null}),
        (of(chosen.excess), what | {"quantity": "excess_gap"}),
        (of(chosen.reweighted_gap, plan.margin_bins), what | {"quantity": "gap_reweighted"}),
    ]
    oracles = [label(family, chosen.parameters[(*who, site, family)], oracle=True) for who in subjects]
    if family in plan.oracles and all(
        scores.has(*who, split, edit, site) for who, edit in zip(subjects, oracles, strict=True)
    ):
        wanted.append((of(chosen.oracle_gap), what | {"quantity": "gap_oracle", "oracle": True}))
    return explained(describe(scores, subjects, wanted, rng=rng))


def explained(rows: Sequence[Estimate]) -> list[Estimate]:
    """`rows`, with what an undefined value of its quantity means added to the reason."""
    return [replace(e, reason=f"{e.reason}: {UNDEFINED[e.quantity]}") if _unsaid(e) else e for e in rows]


def _unsaid(estimate: Estimate) -> bool:
    return bool(estimate.reason) and estimate.quantity in UNDEFINED


def _ratio(metric: str, split: str, edit: str, site: str) -> Estimand:
    return lambda view: view.ratio(metric, split=split, edit=edit, site=site)
