"""Faithfulness in the matrix: the whole examination of `analyses.audit`, at one site, with three simplifications."""

from __future__ import annotations

from typing import Any

import numpy as np

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, Wanted, audit
from heldout.analyses.estimates import Estimand, Scores, estimate
from heldout.analyses.faithfulness import Subject
from heldout.analyses.summary import Chosen
from heldout.analyses.tables import Folder
from heldout.proxies.fit import Family, fit_edits
from heldout.statistics.rule import MeanTest
from heldout.studies.matrix_evidence import DRAWS, Asked, Evidence, table
from heldout.studies.matrix_load import Material
from heldout.tasks.base import Split

THRESHOLD = 0.95
PROXIES = ("pca", "ib", "haar")
HEADLINE = "pca"
PROBES = {"probes": "full", "draws": 4}  # as the interaction basis is shown beside dyck and code
CAPPED = 4000  # positions that derivatives are taken on


def faithfulness(m: Material, asked: Asked) -> Evidence:
    """Simplifications of the site at the rank that the rule chooses: principal components, the interaction basis, and a
    random subspace, each beside noise of the same damage."""
    s = asked.settings
    splits = {name: some(split, s["items"]) for name, split in m.splits.items()}
    plan = Plan(
        reference="id",
        tests=(m.shifted,),
        fit=m.fit,
        select=m.select,
        families=PROXIES,
        oracles=(),
        threshold=THRESHOLD,
        null_draws=s["null_draws"],
        batch_size=m.batch_size,
    )
    records: dict[tuple[str, int], dict[str, Any]] = {}
    folders = []
    for i, (network, seed) in enumerate(zip(m.trained, m.seeds, strict=True)):
        asked.progress(i, len(m.seeds), f"seed {seed}")
        width = m.read(network, m.stimuli["id"].first(1)).shape[1]
        ranks = (*(r for r in s["ranks"] if r < width), width)

        def build(
            subject: Subject, split: Split, oracle: bool, wanted: Wanted | None, ranks: Any = ranks
        ) -> list[Edit]:
            families = [Family(name, ranks, options=PROBES if name == "ib" else {}) for name in PROXIES]
            return fit_edits(
                subject.network, split, [m.site], families, sample=CAPPED, batch_size=m.batch_size, device=m.device
            )

        folders.append(asked.out / f"scores-s{seed}")
        folders[-1].mkdir()
        subject = Subject(network, m.row, m.row, seed, m.scoring, device=m.device)
        with Folder(folders[-1]) as sink:
            records[m.row, seed] = audit(subject, splits, plan, build, sink, seed=seed)
    scores, chosen = Scores.read(folders), Chosen.from_records(records, "id")
    subjects = list(records)

    def over(estimand: Estimand) -> MeanTest:
        return estimate(scores, subjects, estimand, rng=np.random.default_rng(0), draws=DRAWS)

    site = str(next(iter(records.values()))["chosen"][0]["site"])
    rows = []
    for family in PROXIES:
        picked = [row for record in records.values() for row in record["chosen"] if row["family"] == family]
        excess = over(lambda view, f=family: chosen.excess(view, site, f, m.shifted))  # type: ignore[misc]
        each = [
            over(lambda view, f=family, at=split: chosen.ratio(view, site, f, at, "same")).value  # type: ignore[misc]
            for split in ("id", m.shifted)
        ]
        sizes = ", ".join(f"{row['parameter']:g}" for row in picked)
        reached = f"{sum(row['reached'] for row in picked)} of {len(picked)}"
        rows.append((family, sizes, reached, *each, excess.value, excess.low, excess.high))
    detail = table(
        "Every simplification at its rank",
        (
            "simplification",
            "rank, by seed",
            "reach .95",
            "agreement on id",
            f"on {m.shifted}",
            "excess gap",
            "low",
            "high",
        ),
        rows,
        f"pca: principal components; ib: interaction basis; haar: a random subspace. Fitted on {m.fit}, ranks chosen on "
        f"{m.select}. Excess gap: agreement on id minus on {m.shifted}, minus the same of noise with equal agreement on id.",
    )
    identity = tuple({"seed": seed, **record["identity"]} for (_, seed), record in records.items())
    test = over(lambda view: chosen.excess(view, site, HEADLINE, m.shifted))
    return Evidence.of(test, tables=(detail,), identity=identity)


def some(split: Split, items: int) -> Split:
    """At most `items` of a split, evenly over it."""
    n = min(items, len(split))
    return split.subset(np.linspace(0, len(split) - 1, n).astype(np.int64))
