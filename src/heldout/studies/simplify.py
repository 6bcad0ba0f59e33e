"""The page that studies of simplified networks share: identity check, claims, gaps, curves, accuracy, oracles, training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from heldout.evidence import read_estimates
from heldout.figures import accuracy_figure, faithfulness_curves, forest, gap_figure, training_curves
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import AUDITS, CLAIMS, ESTIMATES

if TYPE_CHECKING:
    from heldout.runs import Run
    from heldout.tasks.base import Split

# Quantities of the edits that the rank rule chose.
_GAPS = ("gap", "excess_gap", "gap_reweighted", "gap_oracle")
CHOSEN = (*_GAPS, "chosen_same_prediction", "chosen_accuracy", "kappa", "loss_recovered")


@dataclass(frozen=True)
class Shown:
    """How a study of simplifications calls its parts."""

    title: str
    question: str
    reference: str
    families: tuple[str, ...]
    unit: str
    judge: str  # the step that wrote estimates, claims and audits
    training: Mapping[str, str]  # "network seed" -> the step that trained it
    sites: tuple[str, ...] = ()  # whose curves are shown with the gaps; all where empty


def simplification_page(run: Run, shown: Shown, splits: Mapping[str, Split], more: Sequence[Section] = ()) -> Page:
    """The page of a finished run; `more` are the study's own sections, after the shared ones."""
    folder = run.output(shown.judge)
    estimates = read_estimates(folder / ESTIMATES)
    judgements = tuple(Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text()))
    audits = json.loads((folder / AUDITS).read_text())
    found, without = _with_size(estimates, audits)
    return Page(
        title=shown.title,
        question=shown.question,
        summary=_summary(found, shown),
        identity=_identity(audits),
        judgements=judgements,
        sections=(
            _gaps(found, shown, without),
            _curves(estimates, shown),
            _accuracy(found, shown),
            _reasons(found, shown),
            *more,
            _training(run, shown, splits),
            _setting(splits, audits),
        ),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


def run_warnings(run: Run) -> tuple[str, ...]:
    """What a reader must know before the first number."""
    found = []
    if run.stale:
        found.append(
            f"The source has changed since {len(run.stale)} of {len(run.steps())} steps were computed: what this page shows "
            "may not be what the code now computes. Run with --fresh to be sure."
        )
    if why := run.manifest.get("not_judged", ""):
        found.append(f"No claim is judged here: {why}.")
    if run.manifest["config"].get("first_seed", 0):
        found.append(f"Training seeds start at {run.manifest['config']['first_seed']}: this is a tuning run.")
    return tuple(found)


def lasting(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without what differs each time that finished steps are gathered again: one run, one page."""
    kept = {k: v for k, v in manifest.items() if k not in ("started", "finished", "status")}
    steps = {name: {k: v for k, v in step.items() if k != "reused"} for name, step in manifest["steps"].items()}
    return kept | {"steps": steps}


def _identity(audits: Sequence[Mapping[str, Any]]) -> tuple[IdentityCheck, ...]:
    return tuple(
        IdentityCheck(
            label=f"{a['network']}, seed {a['seed']}",
            site=", ".join(a["identity"]["sites"]),
            max_abs_difference=a["identity"]["difference"],
            tolerance=a["identity"]["tolerance"],
            passed=a["identity"]["difference"] <= a["identity"]["tolerance"],
            replay=a["identity"]["replay"],
        )
        for a in audits
    )


def _summary(estimates: pd.DataFrame, shown: Shown) -> tuple[str, ...]:
    """For each network: where agreement falls most, how much of that equally damaging noise does not explain, and where
    it explains all of it."""
    sentences = []
    known = estimates[estimates["value"].notna()]
    for network, rows in known[known["quantity"] == "gap"].groupby("network", sort=False):
        excess = known[(known["quantity"] == "excess_gap") & (known["network"] == network)]
        gaps = rows.groupby("split", sort=False)["value"].mean()
        worst = str(gaps.idxmax())
        more = excess.groupby("split", sort=False)["value"].mean()
        beyond = excess.assign(above=excess["low"] > 0).groupby("split", sort=False)["above"].agg(["sum", "size"])
        sentences.append(
            f"{network}: agreement falls most on {worst}, by {100 * gaps[worst]:.1f} points over "
            f"{_counted(int(beyond.loc[worst, 'size']))}; equally damaging noise by {100 * (gaps - more)[worst]:.1f}."
        )
        clear = [f"{s} ({n} of {k})" for s, (n, k) in beyond.iterrows() if n]
        sentences.append(
            f"{network}: simplifications lose more than their null, with an interval above 0, on {', '.join(clear)}."
            if clear
            else f"{network}: no simplification loses more than its null, with an interval above 0, on any split."
        )
    return tuple(sentences)


def _counted(n: int) -> str:
    return f"{n} simplification" + ("" if n == 1 else "s")


def _with_size(estimates: pd.DataFrame, audits: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, str]:
    """`estimates` without the chosen edits of families for which the rank rule found no size in some seed, and a sentence
    that names those; all of them where it found none for any.
    """
    short: dict[tuple[str, str, str], float] = {}
    for a in audits:
        for c in a["chosen"]:
            if not c["reached"]:
                key = (a["network"], c["site"], c["family"])
                short[key] = min(c["agreement"], short.get(key, 1.0))
    of_chosen = estimates["quantity"].isin(CHOSEN)
    keys = zip(estimates["network"], estimates["site"], estimates["edit"], strict=True)
    dropped = of_chosen & pd.Series([key in short for key in keys], index=estimates.index)
    if not dropped.any() or dropped.sum() == of_chosen.sum():
        return estimates, ""
    named = "; ".join(
        f"{family} at {site} of {network} ({least:.2f})" for (network, site, family), least in short.items()
    )
    return estimates[
        ~dropped
    ], f"Left out, because no size tried agrees as often in every seed (least agreement): {named}."


def _gaps(estimates: pd.DataFrame, shown: Shown, without: str) -> Section:
    return Section(
        id="gaps",
        title="Where the simplification stops being the network",
        text=(
            "Each simplification has the smallest size that keeps 95% of the network's predictions on one half of the "
            f"held-out data ({shown.reference}); its gap is measured on the other half. Agreement with any disturbed "
            "network falls where the network is less sure, so each gap stands beside that of random noise at the same "
            f"place that agrees as often on {shown.reference}.",
            *([without] if without else []),
        ),
        figures=(gap_figure(_by_family(estimates), unit=shown.unit),),
    )


def _by_family(estimates: pd.DataFrame) -> pd.DataFrame:
    """Chosen edits called by their family alone: their sizes differ between seeds, and stand in a table of their own."""
    return estimates.assign(parameter=float("nan"))


def _curves(estimates: pd.DataFrame, shown: Shown) -> Section:
    grid = estimates[estimates["parameter"].notna() | (estimates["quantity"] != "same_prediction")]
    if shown.sites:
        grid = grid[grid["site"].isin(shown.sites)]
    figures = [faithfulness_curves(grid, unit=shown.unit)]
    figures.append(
        faithfulness_curves(
            grid[grid["edit"].isin(shown.families)],
            quantity="kl",
            id="kl",
            title="Divergence against the size of the simplification",
            unit=shown.unit,
        )
    )
    return Section(
        id="curves",
        title="Agreement against size",
        text=("haar: a random subspace of the same rank, the floor that any choice of directions has to beat.",),
        figures=tuple(figures),
    )


def _accuracy(estimates: pd.DataFrame, shown: Shown) -> Section:
    rows = _by_family(estimates[estimates["quantity"].isin(["accuracy_network", "chosen_accuracy"])])
    rows["quantity"] = rows["quantity"].replace({"chosen_accuracy": "accuracy_proxy"})
    return Section(
        id="accuracy",
        title="Is it right where the network is right?",
        figures=(accuracy_figure(rows, unit=shown.unit),),
    )


def _reasons(estimates: pd.DataFrame, shown: Shown) -> Section:
    """The gap again, as it is, reweighted to the reference's margins, and with the proxy fitted on the split itself."""
    names = {"gap": "as it is", "gap_reweighted": "at the reference's margins", "gap_oracle": "fitted on the split"}
    rows = estimates[estimates["quantity"].isin(names)].copy()
    rows = rows[rows["value"].notna()]
    rows["how"] = rows["quantity"].map(names)
    rows["label"] = rows["split"] + ", " + rows["edit"]
    rows = rows.assign(oracle=False).sort_values(["network", "site", "split", "edit"], kind="stable")
    figures = [
        forest(
            part,
            id=f"reasons-{i}",
            title=f"The gap three ways: {network}, {site}",
            label="label",
            group="how",
            x=f"same prediction on {shown.reference} minus on the split",
            limits="Each is the gap of the same size of simplification; none says which predictions are lost.",
            unit=shown.unit,
        )
        for i, ((network, site), part) in enumerate(rows.groupby(["network", "site"], sort=False))
    ]
    return Section(
        id="reasons",
        title="Wrong subspace, too few dimensions, or smaller margins?",
        text=(
            "Fitted on the split (an oracle: it has seen one half and is scored on the other), a gap that closes says that "
            "the dimensions were the wrong ones, a gap that stays says that they are too few. At the reference's margins, "
            "predictions of the split count as if the network were as sure there as on the reference.",
        ),
        figures=tuple(figures),
    )


def _training(run: Run, shown: Shown, splits: Mapping[str, Split]) -> Section:
    frames = []
    for who, step in shown.training.items():
        network, seed = who.rsplit(" ", 1)
        frame = pd.read_parquet(run.output(step) / "history.parquet")
        frames.append(frame.assign(network=network, seed=int(seed)))
    curves = pd.concat(frames, ignore_index=True)
    curves = curves[curves["metric"] == "accuracy"]
    curves["n"] = curves["split"].map({name: len(s) for name, s in splits.items()})
    return Section(
        id="training",
        title="The networks",
        figures=(training_curves(curves, metric="accuracy", unit=shown.unit),),
    )


def _setting(splits: Mapping[str, Split], audits: Sequence[Mapping[str, Any]]) -> Section:
    sizes = Table(
        title="Splits",
        columns=("split", "role", shown_columns := "items", "what it is"),
        rows=[(s.name, s.role, len(s), s.note) for s in splits.values()],
        caption=f"{shown_columns}: number of items.",
    )
    chosen = Table(
        title="What the rank rule chose",
        columns=("network", "seed", "site", "family", "size", "agreement on select", "reached"),
        rows=[
            (a["network"], a["seed"], c["site"], c["family"], c["parameter"], round(c["agreement"], 4), c["reached"])
            for a in audits
            for c in a["chosen"]
        ],
        caption="Size: rank or number of clusters, the smallest whose agreement with the network reaches .95 on the select "
        "split; where none does, the largest tried.",
    )
    nulls = Table(
        title="How well each null matches",
        columns=("network", "seed", "site", "simplification", "scale", "its agreement", "the null's"),
        rows=[
            (
                *(a["network"], a["seed"], n["site"], n["edit"]),
                *(round(n["scale"], 3), round(n["target"], 4), round(n["agreement"], 4)),
            )
            for a in audits
            for n in a["nulls"]
        ],
        caption="Agreement on the reference split. Scale: length of the noise over that of the simplification's error.",
    )
    return Section(id="setting", title="What was compared", tables=(sizes, chosen, nulls))
