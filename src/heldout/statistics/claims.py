"""What a study claims, fixed in code before any result is seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from heldout.errors import StatisticsError, unknown

Kind = Literal["mean", "conjunction", "existence", "equivalence", "structure"]


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, put so that it can fail.

    `estimand` says what theta is, signed so that the paper predicts theta > 0 (for an equivalence: theta near 0);
    `delta` >= 0 is the smallest effect that counts, in theta's units; `scope` the task, splits, sites, edits and grid;
    `gates` the names of what must hold for the claim to be judged at all; `null` what stands beside it; `published`
    the paper's own figure, where there is one. `kind`: a `mean`; a `conjunction` or `existence` over parts; an
    `equivalence` (no effect); or a `structure`, whose theta is a statistic minus the 95th percentile of its worst null
    family.
    """

    id: str
    title: str
    estimand: str
    delta: float
    scope: str
    gates: tuple[str, ...] = ()
    null: str = ""
    published: str = ""
    kind: Kind = "mean"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise StatisticsError(f"claim {self.id}: {unknown('kind', self.kind, get_args(Kind))}")
        if not (math.isfinite(self.delta) and self.delta >= 0):
            raise StatisticsError(f"claim {self.id}: delta must be finite and not negative; got {self.delta}")
        if self.kind == "equivalence" and self.delta == 0:
            raise StatisticsError(f"claim {self.id}: no effect at all cannot be shown; delta must be above 0")


@dataclass(frozen=True)
class Gate:
    """Whether one of a claim's gates held: `name` as in `Claim.gates`, `value` what was found, in words."""

    name: str
    passed: bool
    value: str = ""


def claims_hash(claims: Sequence[Claim]) -> str:
    """SHA-256, in hexadecimal, of the claims as canonical JSON; their order does not matter, every character does."""
    ids = [c.id for c in claims]
    if len(set(ids)) < len(ids):
        raise StatisticsError(f"claims must have different ids; got {', '.join(ids)}")
    records = [asdict(c) | {"delta": float(c.delta)} for c in sorted(claims, key=lambda c: c.id)]
    text = json.dumps(records, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
