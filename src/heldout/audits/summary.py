"""From the scores of an audit's networks to its estimates, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heldout.analyses.damage import NULL
from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.analyses.quantities import of_outputs
from heldout.analyses.summary import CURVE_DRAWS, explained, gap_at_equal_margins
from heldout.analyses.warning import WARNINGS as EARLY
from heldout.analyses.warning import over_runs
from heldout.audits.alike import CAUTIONS, VALUE
from heldout.audits.alike import FIGURES as ALIKE_FIGURES
from heldout.audits.features import FIGURES, WARNINGS, over_training
from heldout.audits.steps import read_parts, slug
from heldout.audits.work import MARGIN_BINS, SEED_IT
from heldout.errors import NetworkError
from heldout.evidence import Cell, Estimate, read_estimates, write_estimates
from heldout.runs import StepContext

ESTIMATES, AUDITS, WORST, RULES = "estimates.parquet", "audits.json", "worst.json", "rules.json"
FEATURES, LABELLED = "features.parquet", "features.json"
ALIKE, ALIKE_CAUTIONS = "similarity.parquet", "similarity.json"


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

    def oracle(self, view: View) -> dict[str, Any]:
        return {"edit": f"{self.labels[view.seed]}-oracle", "site": self.site}

    def null(self, view: View) -> dict[str, Any]:
        return {"edit": f"{self.name}+{NULL}{self.labels[view.seed].removeprefix(self.name)}", "site": self.site}


def write_summary(ctx: StepContext) -> None:
    """Read every part of an audit and write `ESTIMATES`, `AUDITS`, `WORST`, `RULES`, `FEATURES`, `LABELLED`, `ALIKE` and its
    cautions."""
    s = ctx.settings
    found = {"score": "agreement.json", "null": "worst.json", "oracle": "oracle.json"}
    scores = Scores.read(p.parent for kind, name in found.items() for _, _, p in read_parts(ctx, kind, name))
    chosen = {who: json.loads(p.read_text()) for who, _, p in read_parts(ctx, "match", "chosen.json")}
    identity = {who: json.loads(p.read_text()) for who, _, p in read_parts(ctx, "fit", "identity.json")}
    splits = json.loads((ctx.inputs["splits"] / "splits.json").read_text())
    labelled = [x["name"] for x in splits if x["targets"] and s["kind"] != "embedding"]
    audit = Audit(scores, s["kind"], s["tests"], s["scored"], labelled, s["seed"])
    rows = audit.estimates(_looked(chosen))
    rows += early_warnings([p for _, _, p in read_parts(ctx, "warn", EARLY)])
    write_estimates(ctx.out / ESTIMATES, rows)
    oracles: dict[tuple[str, int], dict[str, str]] = {who: {} for who in identity}
    for who, split, path in read_parts(ctx, "oracle", "oracle.json"):
        oracles[who] |= {split: r} if (r := json.loads(path.read_text())["reason"]) else {}
    audits = [
        {"network": n, "seed": r, "identity": check, "chosen": chosen[n, r], "oracles_not_fitted": oracles[n, r]}
        for (n, r), check in identity.items()
    ]
    (ctx.out / AUDITS).write_text(json.dumps(audits))
    worst = [
        {"network": n, "seed": r, "split": split, **row}
        for (n, r), split, path in read_parts(ctx, "null", "worst.json")
        for row in json.loads(path.read_text())
    ]
    (ctx.out / WORST).write_text(json.dumps(worst))
    (ctx.out / RULES).write_text(json.dumps(_rules(ctx)))
    write_estimates(ctx.out / FEATURES, features([p for _, _, p in read_parts(ctx, "features", FIGURES)]))
    (ctx.out / LABELLED).write_text(json.dumps(_labelled(ctx)))
    alike, cautions = similarities(ctx)
    write_estimates(ctx.out / ALIKE, alike)
    (ctx.out / ALIKE_CAUTIONS).write_text(json.dumps(cautions))
    (ctx.out / "splits.json").write_text(json.dumps(splits))


def _rules(ctx: StepContext) -> list[dict[str, Any]]:
    """The record of every network, run and split whose answers a rule was looked for in, without the hypotheses that were
    ruled out: `set` are those that were not, `best` the first of them, or the best of all where there is no relation.

    Raises `NetworkError` where a network came out otherwise on one split than on another.
    """
    rows: list[dict[str, Any]] = []
    weights: dict[tuple[str, int], str] = {}
    for (network, run), split, path in read_parts(ctx, "rule", "rule.json"):
        record = json.loads(path.read_text())
        _require_same(weights, network, run, split, record["weights"])
        hypotheses = record.pop("candidates")
        left = [c for c in hypotheses if c["in_set"]]
        best = next((c for c in left if c["rule"] == record["rule"]), hypotheses[0])
        rows.append({"network": network, "seed": run, "split": split, **record, "set": left, "best": best})
    return rows


def features(paths: Sequence[Path]) -> list[Estimate]:
    """Every figure of every label over all runs, by network, site and split."""
    groups: dict[tuple[str, ...], list[Estimate]] = {}
    for row in read_estimates(paths).to_dict("records") if paths else ():
        one = Estimate(**{**row, "parameter": None, "seed": int(row["seed"])})
        groups.setdefault((one.quantity, one.network, one.site, one.split), []).append(one)
    return [over_training(rows) for rows in groups.values()]


def similarities(ctx: StepContext) -> tuple[list[Estimate], dict[str, list[str]]]:
    """Every figure of every split, with its fall from the reference; and split -> cautions.

    The fall is between two independent sets of stimuli, so its limits follow from those of both (Zou and Donner 2008,
    Statistics in Medicine 27, 1693). Where networks have several runs they are the same on both, and it is too wide.
    """
    found: list[Estimate] = []
    cautions: dict[str, list[str]] = {}
    references: dict[tuple[str, str, str], Estimate] = {}
    for split in ctx.settings["tests"]:
        if (key := f"similarity-{slug(split)}") not in ctx.inputs:
            continue
        cautions[split] = json.loads((ctx.inputs[key] / CAUTIONS).read_text())
        for row in read_estimates(ctx.inputs[key] / ALIKE_FIGURES).to_dict("records"):
            one = Estimate(**{**row, "parameter": None, "seed": None})
            found.append(one)
            if not one.quantity.startswith(f"{VALUE}:"):
                continue
            which = (one.quantity, one.network, one.site)
            if split == ctx.settings["tests"][0]:
                references[which] = one
            else:
                found.append(_fall(references[which], one))
    return found, cautions


def _fall(reference: Estimate, there: Estimate) -> Estimate:
    """How much less alike than on the reference."""
    value = reference.value - there.value
    down = np.hypot(reference.value - reference.low, there.high - there.value)
    up = np.hypot(reference.high - reference.value, there.value - there.low)
    return replace(
        there,
        quantity=there.quantity.replace(VALUE, f"{VALUE}_fall", 1),
        value=value,
        low=float(value - down),
        high=float(value + up),
        null=math.nan,
        method="limits from those of both splits",
        reference=reference.split,
    )


def _labelled(ctx: StepContext) -> list[dict[str, Any]]:
    """What is said beside the figures of each network, run and split. Raises `NetworkError` as `_rules` does."""
    rows: list[dict[str, Any]] = []
    weights: dict[tuple[str, int], str] = {}
    for (network, run), split, path in read_parts(ctx, "features", WARNINGS):
        record = json.loads(path.read_text())
        _require_same(weights, network, run, split, record.pop("weights"))
        rows.append({"network": network, "seed": run, "split": split, **record})
    return rows


def _require_same(seen: dict[tuple[str, int], str], network: str, run: int, split: str, weights: str) -> None:
    if seen.setdefault((network, run), weights) != weights:
        raise NetworkError(f"{network}, run {run}, had other weights on split {split!r} than before; {SEED_IT}")


@dataclass(frozen=True)
class Audit:
    """All scores of an audit, and what they are of: the kind of scoring, the test splits (the reference first), every
    split that is scored, and those whose items have targets."""

    scores: Scores
    kind: str
    tests: Sequence[str]
    scored: Sequence[str]
    labelled: Sequence[str]
    seed: int

    @property
    def reference(self) -> str:
        return self.tests[0]

    def estimates(self, looked: Sequence[Looked]) -> list[Estimate]:
        """Every quantity of every network, edit and split, over all its runs.

        Of every edit: ``same_prediction`` and what its kind of scoring adds. Of those looked at closely: ``chosen_same``,
        accuracies and ``kappa`` (where there are targets), and for each split but the reference ``gap`` with its null,
        ``excess_gap``, ``gap_reweighted`` (where predictions have margins) and ``gap_oracle`` (where one was fitted).
        """
        rows: list[Estimate] = []
        for network in self.scores.networks():
            subjects = [(network, s) for s in self.scores.seeds(network)]
            for cell in _edits(self.scores, network):
                for split in self.scored:
                    rows += self._curve(subjects, cell, split)
            for one in (k for k in looked if k.network == network):
                for split in self.tests:
                    rows += self._close(subjects, one, split)
        return explained(rows)

    def _curve(self, subjects: Sequence[tuple[str, int]], cell: Cell, split: str) -> list[Estimate]:
        o = cell.edit
        what = {"network": cell.network, "site": o.site, "split": split, "edit": o.name, "parameter": o.parameter}
        found = of_outputs(self.kind, split=split, edit=o.label, site=o.site)
        wanted = [(estimand, what | {"quantity": quantity}) for quantity, estimand in found.items()]
        rng = self._rng(cell.network, o.site, o.label, split)
        return describe(self.scores, subjects, wanted, rng=rng, draws=CURVE_DRAWS)

    def _close(self, subjects: Sequence[tuple[str, int]], one: Looked, split: str) -> list[Estimate]:
        """All that is said about an edit that is looked at closely, on one split."""
        what: dict[str, Any] = {"network": one.network, "site": one.site, "edit": one.name, "split": split}
        what["parameter"] = one.parameter
        reference = self.reference

        def of(metric: str) -> Estimand:
            return lambda view: view.ratio(metric, split=split, **one.at(view))

        def gap(view: View) -> Floats:
            return view.gap(reference=reference, split=split, **one.at(view))

        def null(view: View) -> Floats:
            return view.gap(reference=reference, split=split, **one.null(view))

        def reweighted(view: View) -> Floats:
            return gap_at_equal_margins(view, split=split, reference=reference, bins=MARGIN_BINS, **one.at(view))

        def oracle(view: View) -> Floats:
            there = view.ratio("same", split=split, **one.oracle(view))
            return view.ratio("same", split=reference, **one.at(view)) - there

        wanted: list[tuple[Estimand, Mapping[str, Any]]] = [(of("same"), what | {"quantity": "chosen_same"})]
        if split in self.labelled:
            wanted += [
                (of("proxy_correct"), what | {"quantity": "accuracy_proxy"}),
                (of("net_correct"), what | {"quantity": "accuracy_network"}),
                (lambda view: view.kappa(split=split, **one.at(view)), what | {"quantity": "kappa"}),
            ]
        if split != reference:
            what["reference"] = reference
            points = [View(n, r, lambda c: np.array([self.scores.sums(c)[1].sum()])) for n, r in subjects]
            beside = float(np.mean([null(view) for view in points]))
            wanted += [
                (gap, what | {"quantity": "gap", "null": beside}),
                (lambda view: gap(view) - null(view), what | {"quantity": "excess_gap"}),
            ]
            if self.kind != "regression":  # numbers have no margin
                wanted.append((reweighted, what | {"quantity": "gap_reweighted"}))
            if all(self.scores.has(*who, split, f"{one.labels[who[1]]}-oracle", one.site) for who in subjects):
                wanted.append((oracle, what | {"quantity": "gap_oracle", "oracle": True}))
        rng = self._rng(one.network, one.site, one.name, f"{one.parameter}", split)
        return describe(self.scores, subjects, wanted, rng=rng)

    def _rng(self, *names: str) -> np.random.Generator:
        """One stream for each estimate, so that what is added elsewhere moves no interval."""
        return np.random.default_rng([self.seed, *"\0".join(names).encode()])


def early_warnings(paths: Sequence[Path]) -> list[Estimate]:
    """Every AUROC over all runs: quantity ``auroc: SCORE``, by network, site, edit and split; and by size, unless each run
    has one of its own by the rank rule."""
    groups: dict[tuple[str, ...], list[Estimate]] = {}
    for row in read_estimates(paths).to_dict("records") if paths else ():
        size = None if row["parameter"] != row["parameter"] else row["parameter"]
        one = Estimate(**{**row, "parameter": size, "seed": int(row["seed"])})
        groups.setdefault((one.quantity, one.network, one.site, one.edit, one.split), []).append(one)
    found = []
    for rows in groups.values():
        if len({e.seed for e in rows}) == len(rows):
            found.append(over_runs(rows))
        else:
            found += [
                over_runs([e for e in rows if e.parameter == size]) for size in dict.fromkeys(e.parameter for e in rows)
            ]
    return found


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
    kept = [c for c in cells.values() if not c.edit.oracle and not c.edit.name.endswith(f"+{NULL}")]
    return sorted(kept, key=lambda c: (c.edit.site, c.edit.name, c.edit.parameter or 0.0))
