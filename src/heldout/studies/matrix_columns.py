"""The columns of the matrix and what each cell estimates, fixed before any result is seen.

`registered` is the whole table as plain data; its SHA-256 stands on the page, and a cell whose estimand changes is computed
again. A cell that coincides with a claim of the row's own study is that claim (`matrix_claims`); the others judge nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heldout.studies.matrix_claims import CLAIMED, claim_of
from heldout.studies.matrix_rows import ROWS


@dataclass(frozen=True)
class Column:
    """One analysis.

    - `estimand`: what a cell's number is, with its sign; `unit`; `null`: what it is set beside.
    - `reads`: fields of the configuration that its cells read.
    - `why_not`: row -> why the analysis makes no sense there; `instead`: row -> an estimand of that row's own.
    """

    name: str
    title: str
    estimand: str
    unit: str
    null: str
    reads: tuple[str, ...] = ()
    why_not: Mapping[str, str] | None = None
    instead: Mapping[str, str] | None = None

    def absent(self, row: str) -> str:
        """Why there is no such cell; empty where there is one."""
        return (self.why_not or {}).get(row, "")

    def of(self, row: str) -> str:
        """The estimand of one cell."""
        claimed = CLAIMED.get((row, self.name))
        if claimed:
            return claim_of(claimed).estimand
        return (self.instead or {}).get(row, self.estimand)


COLUMNS = {
    column.name: column
    for column in (
        Column(
            "faithfulness",
            "faithfulness",
            "excess gap of principal components at the smallest rank that keeps .95 of the predictions on select: agreement "
            "on id minus on the shifted split, minus the same of noise with equal agreement on id; positive: the reading "
            "loses more out of distribution than equally damaging noise",
            "share of predictions",
            "noise of the same agreement on id at the same site",
            ("ranks", "null_draws", "items"),
        ),
        Column(
            "degeneracy",
            "degeneracy",
            "effective dimension of activations on id over the width, trained minus before training; negative: training "
            "leaves more directions free",
            "share of the width",
            "the same networks before training",
            ("items",),
        ),
        Column(
            "similarity",
            "similarity of seeds",
            "debiased linear CKA of networks that differ in their seed, on one stimulus of id a unit, mean over pairs; 1: "
            "the same up to rotation",
            "CKA",
            "stimuli of one network permuted",
            ("permutations", "items"),
        ),
        Column(
            "features",
            "labels explained",
            "variance of activations that the row's labels together explain linearly, map fitted on fit and scored on id; "
            "1: all of it",
            "share of variance",
            "95th percentile under permuted labels",
            ("permutations", "items", "strengths"),
        ),
        Column(
            "removal",
            "labels removed",
            "right answers on id without random subspaces of the site, minus without the linear subspace of as many "
            "directions (at most a quarter of the width) in which activations vary with the row's labels; positive: "
            "answers pass through them",
            "share of answers",
            "random subspaces of the same rank",
            ("items", "null_draws"),
            instead={
                "nuclear": "predictions on id within a tenth of their standard deviation of the target, without random "
                "subspaces of the site, minus without the linear subspace of as many directions (at most a quarter of the "
                "width) in which activations vary with the row's labels; positive: predictions pass through them",
            },
        ),
        Column(
            "rule",
            "rule of wrong answers",
            "exact match of the best rule found, on held-out pairs, minus the 95th percentile of the best of the grammar on "
            "shuffled answers; positive: the answers follow a rule",
            "share of answers",
            "answers shuffled within answer length",
            ("shuffles",),
            why_not={
                "digits": "answers are classes of images: no numbers made of operands",
                "digits_cnn": "answers are classes of images: no numbers made of operands",
                "images": "answers are classes of pictures: no numbers made of operands",
                "features": "answers are Boolean: no numbers made of operands",
                "similarity": "answers are Boolean: no numbers made of operands",
                "sequences": "answers are Boolean: no numbers made of operands",
                "dyck": "answers are brackets: no numbers made of operands",
                "code": "answers are characters: no numbers made of operands",
                "nuclear": "answers are measured reals: exact match with a rule is not defined",
            },
            instead={
                "modular": "exact match of the best rule found on pairs never trained on, minus the 95th percentile of the "
                "best of the grammar on shuffled answers; positive: the answers follow a rule",
            },
        ),
        Column(
            "geometry",
            "geometry of embeddings",
            "share of neighbouring digits in order along the embeddings' first component, minus the 95th percentile over "
            "permuted digits; positive: the table is ordered",
            "share of neighbours",
            "tokens permuted",
            ("permutations",),
            why_not={
                "digits": "pixels enter as numbers: there is no table of embeddings",
                "digits_cnn": "pixels enter as numbers: there is no table of embeddings",
                "images": "pixels enter as numbers: there is no table of embeddings",
                "features": "bits enter as numbers: there is no table of embeddings",
                "similarity": "bits enter as numbers: there is no table of embeddings",
                "sequences": "tokens of a phrase have no order, on a line or round a circle",
                "dyck": "types of bracket have no order, on a line or round a circle",
                "code": "characters have no order that a line or a circle could show",
            },
            instead={
                "modular": "largest aspect x gain in R^2 of a circle of whole turns through the embeddings of 0 to p - 1, "
                "minus the 95th percentile over permuted tokens; positive: they lie on a circle",
            },
        ),
    )
}


def registered() -> list[dict[str, Any]]:
    """Every cell: row, column, and its estimand, unit and null, or why it makes no sense."""
    found = []
    for row in ROWS:
        for column in COLUMNS.values():
            if why := column.absent(row):
                found.append({"row": row, "column": column.name, "absent": why})
                continue
            claimed = CLAIMED.get((row, column.name))
            found.append(
                {
                    "row": row,
                    "column": column.name,
                    "estimand": column.of(row),
                    "unit": unit_of(row, column),
                    "null": null_of(row, column),
                    "claim": claimed.claim if claimed else "",
                }
            )
    return found


def unit_of(row: str, column: Column) -> str:
    claimed = CLAIMED.get((row, column.name))
    if claimed:
        return claimed.unit
    return "aspect x gain" if (row, column.name) == ("modular", "geometry") else column.unit


def null_of(row: str, column: Column) -> str:
    claimed = CLAIMED.get((row, column.name))
    return claim_of(claimed).null or "none" if claimed else column.null


def registration() -> str:
    """SHA-256, in hexadecimal, of `registered` as canonical JSON."""
    text = json.dumps(registered(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
