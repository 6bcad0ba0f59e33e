"""What recovery found: who was ranked first, how often that was right, and what a correction gained.

A ranking counts as right where the truth scores above every other candidate; ties are failures, and so are rankings in
which a score is undefined. Intervals are over brains of *these* networks: draws that share a network are not independent
evidence on other training runs, for which networks are the unit (``network`` in `ranked`).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from heldout.analyses.similarity.recovery import BRAIN
from heldout.errors import EvidenceError
from heldout.statistics.intervals import proportion_interval

TIE, UNDEFINED, ALL = "tie", "undefined", "*"
EQUAL = 1e-12  # scores closer than this are the same but for rounding


def ranked(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a method and brain: the columns that name it, ``chosen`` (a candidate, ``tie`` or ``undefined``), ``right``,
    and ``margin``, the truth's score less the best of the others'."""
    wide = _wide(scores)
    values, names = wide.to_numpy(), wide.columns.to_numpy()
    truth = wide.index.get_level_values("truth").to_numpy()
    undefined = np.isnan(values).any(axis=1)
    filled = np.where(np.isnan(values), -np.inf, values)
    best = filled.max(axis=1)
    tied = (filled >= best[:, None] - EQUAL).sum(axis=1) > 1
    chosen = np.where(undefined, UNDEFINED, np.where(tied, TIE, names[filled.argmax(axis=1)]))
    own = truth[:, None] == names
    with np.errstate(invalid="ignore"):
        margin = np.where(own, values, -np.inf).max(axis=1) - np.where(own, -np.inf, values).max(axis=1)
    return wide.index.to_frame(index=False).assign(chosen=chosen, right=chosen == truth, margin=margin)


def confusion(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns ``measure``, ``correction``, ``truth``, ``chosen``, ``count``, ``n`` and ``share``: one row for each thing
    that could be chosen, chosen or not."""
    rows, options = ranked(scores), [*_candidates(scores), TIE, UNDEFINED]
    found = []
    for key, group in rows.groupby(["measure", "correction", "truth"], sort=False):
        counts = group["chosen"].value_counts()
        for option in options:
            count = int(counts.get(option, 0))
            found.append((*cast(tuple[str, ...], key), option, count, len(group), count / len(group)))
    return pd.DataFrame(found, columns=["measure", "correction", "truth", "chosen", "count", "n", "share"])


def rates(scores: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """How often the truth was ranked first, by measure, correction and truth, and over all truths (``*``).

    Columns ``right``, ``n``, ``rate``, ``low`` and ``high`` (see `proportion_interval`), ``chance`` (1 over the candidates,
    exact over all truths alike, where brains hold no signal), ``ties``, ``undefined`` and ``networks``, how many the brains
    come from.
    """
    rows, chance = ranked(scores), 1 / len(_candidates(scores))
    found = []
    for (measure, correction), of in rows.groupby(["measure", "correction"], sort=False):
        for truth, group in [(ALL, of), *of.groupby("truth", sort=False)]:
            right, n = int(group["right"].sum()), len(group)
            low, high = proportion_interval(right, n, level=level)
            found.append(
                {
                    "measure": measure,
                    "correction": correction,
                    "truth": truth,
                    "right": right,
                    "n": n,
                    "rate": right / n,
                    "low": low,
                    "high": high,
                    "chance": chance,
                    "ties": int((group["chosen"] == TIE).sum()),
                    "undefined": int((group["chosen"] == UNDEFINED).sum()),
                    "networks": len(group[["truth", "network"]].drop_duplicates()),
                }
            )
    return pd.DataFrame(found)


def gains(scores: pd.DataFrame, before: str = "raw") -> pd.DataFrame:
    """What each correction changes against `before`, brain by brain, by measure and truth, and over all truths (``*``).

    Columns ``n``, ``before`` and ``after`` (rates), ``gained`` and ``lost`` (brains that only one of the two got right) and
    ``p``, McNemar's exact two-sided test over brains.
    """
    from scipy.stats import binomtest

    rows = ranked(scores)
    wide = rows.set_index([*BRAIN])["right"].unstack("correction")
    if before not in wide:
        raise EvidenceError(f"no scores of correction {before!r}; there are {', '.join(map(str, wide))}")
    found = []
    for measure in rows["measure"].unique():
        of = wide.xs(measure, level="measure")
        for truth in [ALL, *rows["truth"].unique()]:
            some = of if truth == ALL else of[of.index.get_level_values("truth") == truth]
            for correction in rows["correction"].unique():
                both = some[[before, correction]].dropna().astype(bool) if correction != before else some.iloc[:0]
                if both.empty:
                    continue
                old, new = both[before].to_numpy(), both[correction].to_numpy()
                gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
                p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
                found.append(
                    (measure, correction, truth, len(both), float(old.mean()), float(new.mean()), gained, lost, p)
                )
    columns = ["measure", "correction", "truth", "n", "before", "after", "gained", "lost", "p"]
    return pd.DataFrame(found, columns=columns)


def _candidates(scores: pd.DataFrame) -> list[str]:
    return [str(name) for name in scores["candidate"].unique()]


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Rankings by candidates, in the order in which both came."""
    missing = [c for c in (*BRAIN, "candidate", "score") if c not in scores]
    if missing or scores.empty:
        raise EvidenceError(f"scores of recovery are needed; columns {', '.join(missing) or 'are there, rows are not'}")
    keyed = scores.set_index([*BRAIN, "candidate"])["score"]
    if keyed.index.has_duplicates:
        raise EvidenceError("scores of several recoveries are mixed; tabulate each by itself")
    order = scores[[*BRAIN]].drop_duplicates()
    return keyed.unstack("candidate").reindex(pd.MultiIndex.from_frame(order))[_candidates(scores)]
