"""From the scores of an audit's networks to its estimates, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.analyses.damage import NULL
from heldout.analyses.estimates import Column, Estimand, Floats, Scores, View, describe
from heldout.analyses.summary import CURVE_DRAWS, explained
from heldout.audits.steps import read_parts
from heldout.evidence import Cell, Estimate, write_estimates
from heldout.runs import StepContext

ESTIMATES, AUDITS, WORST = "estimates.parquet", "audits.json", "worst.json"
RATIOS = {  # kind of scoring -> quantity -> metric that is averaged over predictions
    "regression": {"mean_squared": "squared"},
    "embedding": {"neighbour_agreement": "neighbours", "cosine": "cosine"},
}
OF_CLASSES = {"kl": "kl", "jsd": "jsd"}


@dataclass(frozen=True)
class Looked:
    """An edit that is looked at closely, in every run of a network: its name in tables, and its scores' label by run."""

    network: str
    site: str
    name: str
    parameter: float | None
    labels: Mapping[int, str]

    def at(self, view: View) -> dict[str, Any]:
        return {"edit": self.labels[view.seed], "site": self.site}

    def null(self, view: View) -> dict[str, Any]:
        return {"edit": f"{self.name}+{NULL}{self.labels[view.seed].removeprefix(self.name)}", "site": self.site}


def write_summary(ctx: StepContext) -> None:
    """Read every part of an audit and write `ESTIMATES`, `AUDITS` and `WORST`."""
    s = ctx.settings
    score = [p.parent for _, _, p in read_parts(ctx, "score", "agreement.json")]
    null = [p.parent for _, _, p in read_parts(ctx, "null", "worst.json")]
    scores = Scores.read([*score, *null])
    chosen = {who: json.loads(p.read_text()) for who, _, p in read_parts(ctx, "match", "chosen.json")}
    identity = {who: json.loads(p.read_text()) for who, _, p in read_parts(ctx, "fit", "identity.json")}
    rows = estimates(scores, _looked(chosen), kind=s["kind"], tests=s["tests"], scored=s["scored"], seed=s["seed"])
    write_estimates(ctx.out / ESTIMATES, rows)
    audits = [{"network": n, "seed": r, "identity": identity[n, r], "chosen": chosen[n, r]} for n, r in identity]
    (ctx.out / AUDITS).write_text(json.dumps(audits))
    worst = [
        {"network": n, "seed": r, "split": split, **row}
        for (n, r), split, path in read_parts(ctx, "null", "worst.json")
        for row in json.loads(path.read_text())
    ]
    (ctx.out / WORST).write_text(json.dumps(worst))
    splits = json.loads((ctx.inputs["splits"] / "splits.json").read_text())
    (ctx.out / "splits.json").write_text(json.dumps(splits))


def estimates(
    scores: Scores, looked: Sequence[Looked], *, kind: str, tests: Sequence[str], scored: Sequence[str], seed: int
) -> list[Estimate]:
    """Every quantity of every network, edit and split, over all its runs.

    Of every edit: ``same_prediction`` and the metrics of its kind of scoring. Of those looked at closely: ``chosen_same``,
    accuracy (where there are targets), ``kappa``, and for each split but the reference ``gap`` with its null and
    ``excess_gap``.
    """
    rng = np.random.default_rng(seed)
    rows: list[Estimate] = []
    for network in scores.networks():
        subjects = [(network, s) for s in scores.seeds(network)]
        for cell in _edits(scores, network):
            for split in scored:
                rows += _curve(scores, subjects, cell, split, kind, rng)
        own = [k for k in looked if k.network == network]
        for one in own:
            for split in tests:
                rows += _close(scores, subjects, one, split, tests[0], kind, rng)
    return explained(rows)


def _curve(
    scores: Scores, subjects: Sequence[tuple[str, int]], cell: Cell, split: str, kind: str, rng: np.random.Generator
) -> list[Estimate]:
    o = cell.edit
    at: dict[str, Any] = {"split": split, "edit": o.label, "site": o.site}
    what = {"network": cell.network, "site": o.site, "split": split, "edit": o.name, "parameter": o.parameter}
    metrics = {"same_prediction": "same", **RATIOS.get(kind, OF_CLASSES)}
    wanted: list[tuple[Estimand, Mapping[str, Any]]] = [
        (_ratio(metric, at), what | {"quantity": quantity}) for quantity, metric in metrics.items()
    ]
    if kind == "regression":
        wanted.append(
            (
                lambda view: 1 - view.total("squared", **at) / view.total("spread", **at),
                what | {"quantity": "r_squared"},
            )
        )
    return describe(scores, subjects, wanted, rng=rng, draws=CURVE_DRAWS)


def _close(
    scores: Scores,
    subjects: Sequence[tuple[str, int]],
    one: Looked,
    split: str,
    reference: str,
    kind: str,
    rng: np.random.Generator,
) -> list[Estimate]:
    """All that is said about an edit that is looked at closely, on one split."""
    what: dict[str, Any] = {"network": one.network, "site": one.site, "edit": one.name, "split": split}
    what["parameter"] = one.parameter

    def of(metric: str) -> Estimand:
        return lambda view: view.ratio(metric, split=split, **one.at(view))

    wanted: list[tuple[Estimand, Mapping[str, Any]]] = [(of("same"), what | {"quantity": "chosen_same"})]
    if _has_targets(scores, one, split, kind):
        wanted += [
            (of("proxy_correct"), what | {"quantity": "accuracy_proxy"}),
            (of("net_correct"), what | {"quantity": "accuracy_network"}),
            (lambda view: view.kappa(split=split, **one.at(view)), what | {"quantity": "kappa"}),
        ]
    if split == reference:
        return describe(scores, subjects, wanted, rng=rng)
    what["reference"] = reference

    def gap(view: View) -> Floats:
        return view.gap(reference=reference, split=split, **one.at(view))

    def null(view: View) -> Floats:
        return view.gap(reference=reference, split=split, **one.null(view))

    points = [View(n, r, lambda c: np.array([scores.sums(c)[1].sum()])) for n, r in subjects]
    beside = float(np.mean([null(view) for view in points]))
    wanted += [
        (gap, what | {"quantity": "gap", "null": beside}),
        (lambda view: gap(view) - null(view), what | {"quantity": "excess_gap"}),
    ]
    return describe(scores, subjects, wanted, rng=rng)


def _looked(chosen: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> list[Looked]:
    """The choices of all runs joined: by size where none was chosen, else by site and family alone."""
    joined: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for (network, run), rows in chosen.items():
        for row in rows:
            key = (network, row["site"], row["name"], None if row["ruled"] else row["parameter"])
            joined.setdefault(key, {})[run] = row
    found = []
    for (network, site, name, _), runs in joined.items():
        sizes = {row["parameter"] for row in runs.values()}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        found.append(Looked(network, site, name, size, {run: row["label"] for run, row in runs.items()}))
    return found


def _edits(scores: Scores, network: str) -> list[Cell]:
    """One cell of each edit of a network that is no null."""
    cells = {(c.edit.site, c.edit.label): c for c in reversed(scores.cells) if c.network == network}
    kept = [c for c in cells.values() if not c.edit.name.endswith(f"+{NULL}")]
    return sorted(kept, key=lambda c: (c.edit.site, c.edit.name, c.edit.parameter or 0.0))


def _has_targets(scores: Scores, one: Looked, split: str, kind: str) -> bool:
    """Whether there are targets on a split: without them every loss is zero, and embeddings have none."""
    if kind == "embedding":
        return False
    run, edit = next(iter(one.labels.items()))
    _, losses = scores.sums(Column(one.network, run, split, edit, one.site, "net_loss", None, None))
    return bool(losses.any())


def _ratio(metric: str, at: Mapping[str, Any]) -> Estimand:
    return lambda view: view.ratio(metric, **at)
