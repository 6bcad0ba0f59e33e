"""Faithfulness in the matrix: the whole examination of `analyses.audit` at one site, all other simplifications beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, Wanted, audit, choose
from heldout.analyses.estimates import Estimand, Scores, View, estimate
from heldout.analyses.faithfulness import Subject
from heldout.analyses.faithfulness import faithfulness as examine
from heldout.analyses.summary import Chosen
from heldout.analyses.tables import Folder, Sink
from heldout.errors import ProxyError
from heldout.statistics.rule import MeanTest
from heldout.studies.matrix_evidence import DRAWS, Asked, Evidence, table
from heldout.studies.matrix_material import Material
from heldout.studies.matrix_proxies import ATTENTION, AUDITED, HEADLINE, SITE, WORDS, audited, beside, sizes
from heldout.tasks.base import Split

THRESHOLD = 0.95
Over = Callable[[Estimand], MeanTest]
Records = dict[tuple[str, int], dict[str, Any]]  # (network, seed) -> what `audit` returned


def faithfulness(m: Material, asked: Asked) -> Evidence:
    """Simplifications at the size that the rule chooses: principal components beside noise of the same damage, and so the
    interaction basis and a random subspace; the others by themselves."""
    s = asked.settings
    splits = {name: some(split, s["items"]) for name, split in m.splits.items()}
    records: Records = {}
    folders: list[Path] = []
    missing: dict[str, str] = {}
    for i, seed in enumerate(m.seeds):
        asked.progress(i, len(m.seeds), f"seed {seed}")
        folders.append(asked.out / f"scores-s{seed}")
        folders[-1].mkdir()
        with Folder(folders[-1]) as sink:
            records[m.row, seed], without = examined(m, i, splits, s, sink)
        missing |= without
    scores, chosen = Scores.read(folders), Chosen.from_records(records, "id")

    def over(estimand: Estimand) -> MeanTest:
        return estimate(scores, list(records), estimand, rng=np.random.default_rng(0), draws=DRAWS)

    lines = table(
        "Every simplification at its size",
        (
            *("simplification", "at", "size, by seed", "reach .95"),
            *("agreement on id", f"on {m.shifted}", "gap", "loss added on id", f"on {m.shifted}"),
            *("excess gap", "low", "high"),
        ),
        [line(m, site, name, records, scores, chosen, over) for site, name in lines_of(records)],
        f"Means over seeds. Fitted on {m.fit}, sizes chosen on {m.select}: the smallest of those tried that keeps .95 of "
        f"the predictions, else the largest. Gap: agreement on id minus on {m.shifted}. Loss: cross-entropy in nats. Excess "
        "gap: the gap minus that of noise with equal agreement on id; only of those that the cell is about. At an "
        "attention, queries and keys are simplified (clusters, singular vectors, mean), its weights, or its pattern."
        + "".join(f" Not fitted: {name} ({why})." for name, why in sorted(missing.items())),
    )
    identity = tuple({"seed": seed, **record["identity"]} for (_, seed), record in records.items())
    site = next(at for at, name in lines_of(records) if name == HEADLINE)
    test = over(lambda view: chosen.excess(view, site, HEADLINE, m.shifted))
    return Evidence.of(test, tables=(lines,), identity=identity)


def examined(
    m: Material, i: int, splits: Mapping[str, Split], s: Mapping[str, Any], sink: Sink
) -> tuple[dict[str, Any], dict[str, str]]:
    """The record of one network's audit, with what was chosen of the other simplifications; and what was not fitted."""
    subject = m.subject(i)
    width = m.read(subject.network, m.stimuli["id"].first(1)).shape[1]
    plan = Plan(
        reference="id",
        tests=(m.shifted,),
        fit=m.fit,
        select=m.select,
        families=AUDITED,
        oracles=(),
        threshold=THRESHOLD,
        null_draws=s["null_draws"],
        batch_size=m.batch_size,
    )

    unfit: dict[str, str] = {}

    def build(subject: Subject, split: Split, oracle: bool, wanted: Wanted | None) -> list[Edit]:
        found, without = audited(m, subject.network, split, sizes(s["ranks"], width))
        unfit.update(without)
        if HEADLINE in without:
            raise ProxyError(without[HEADLINE])
        return found

    record = audit(subject, splits, plan, build, sink, seed=m.seeds[i])
    edits, missing = beside(m, subject.network, splits[m.fit], s["ranks"], width)
    on = [splits[name] for name in dict.fromkeys(("id", m.shifted, m.select))]
    outcome = examine(subject, on, edits, sink, batch_size=m.batch_size)
    others = replace(plan, families=tuple(dict.fromkeys((*SITE, *ATTENTION))))
    record["chosen"] += [choice.row() for choice in choose(edits, outcome, others)]
    return record, unfit | missing


def lines_of(records: Records) -> list[tuple[str, str]]:
    """(site, family) of every simplification that all networks have."""
    each = [[(row["site"], row["family"]) for row in record["chosen"]] for record in records.values()]
    return [key for key in each[0] if all(key in other for other in each)]


def line(
    m: Material, site: str, family: str, records: Records, scores: Scores, chosen: Chosen, over: Over
) -> tuple[Any, ...]:
    """One row of the table."""
    picked = [
        row for record in records.values() for row in record["chosen"] if (row["site"], row["family"]) == (site, family)
    ]
    views = [View(*who, lambda column: np.array([scores.sums(column)[1].sum()])) for who in records]

    def mean(split: str, metric: str) -> float:
        return float(np.mean([chosen.ratio(view, site, family, split, metric) for view in views]))

    agreement = [mean(split, "same") for split in ("id", m.shifted)]
    added = [mean(split, "proxy_loss") - mean(split, "net_loss") for split in ("id", m.shifted)]
    excess: tuple[Any, ...] = ("", "", "")
    if family in AUDITED:
        test = over(lambda view: chosen.excess(view, site, family, m.shifted))
        excess = test.value, test.low, test.high
    by_seed = ", ".join("none" if row["parameter"] is None else f"{row['parameter']:g}" for row in picked)
    reached = f"{sum(row['reached'] for row in picked)} of {len(picked)}"
    return WORDS[family], site, by_seed, reached, *agreement, agreement[0] - agreement[1], *added, *excess


def some(split: Split, items: int) -> Split:
    """At most `items` of a split, evenly over it."""
    n = min(items, len(split))
    return split.subset(np.linspace(0, len(split) - 1, n).astype(np.int64))
