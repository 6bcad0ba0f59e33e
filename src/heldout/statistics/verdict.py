"""From a study's claims and their tests to verdicts, corrected over the family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from heldout.errors import StatisticsError
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.permutation import holm, sign_flip_test
from heldout.statistics.rule import MeanTest, Tails, conjunction, equivalence, existence

Verdict = Literal["supported", "refuted", "inconclusive", "not judged"]

MIN_SEEDS = 5
MIN_CLUSTERS = 10
SIGN_FLIP_SEEDS = 9  # fewer cannot survive a correction over a handful of claims
ALPHA = 0.05


@dataclass(frozen=True)
class Finding:
    """What was measured for one claim: a test for each part, by label (one test where the claim has no parts).

    `reason` says why there is no test, where there is none.
    """

    claim: Claim
    tests: Mapping[str, MeanTest]
    gates: tuple[Gate, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        c = self.claim
        if not self.tests and not self.reason:
            raise StatisticsError(f"claim {c.id}: there is no test and no reason why")
        if len(self.tests) > 1 and c.kind not in ("conjunction", "existence"):
            raise StatisticsError(f"claim {c.id} of kind {c.kind} takes one test; got {', '.join(self.tests)}")
        for label, test in self.tests.items():
            if test.delta != c.delta:
                raise StatisticsError(
                    f"claim {c.id}: {label} was tested against {test.delta}, the claim says {c.delta}"
                )


@dataclass(frozen=True)
class Part:
    """One part of a conjunction or existence claim."""

    label: str
    value: float
    low: float
    high: float
    p_plus: float
    p_minus: float


@dataclass(frozen=True)
class Judgement:
    """One claim, judged: all that its row in a report needs.

    `value`, interval, `se`, `df`, `theta_by_seed` and `sign_flip_p` (two-sided, against delta, where there are at least
    9 seeds) are of the one test or, for a claim with parts, of the part that decides it: the weakest of a conjunction,
    the strongest of an existence claim. The interval is of that part alone, corrected neither for parts nor for claims;
    `p` = 2 min(p_plus, p_minus) is corrected for parts and `p_holm` for the study's judged claims too. `seeds` and
    `clusters` are the fewest over parts. `reason` says why a claim was not judged.
    """

    id: str
    title: str
    estimand: str
    delta: float
    published: str
    kind: str
    verdict: Verdict
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    se: float = math.nan
    df: float = math.nan
    p_plus: float = math.nan
    p_minus: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    seeds: int = 0
    clusters: int | None = None
    theta_by_seed: tuple[float, ...] = ()
    gates: tuple[Gate, ...] = ()
    parts: tuple[Part, ...] = ()
    sign_flip_p: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: NaN becomes null and infinity "inf"."""
        record: dict[str, Any] = _plain(asdict(self))
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Judgement:
        """The inverse of `to_dict`."""
        wrong = set(record) ^ {f.name for f in fields(cls)}
        if wrong:
            raise StatisticsError(f"not a judgement of this version: missing or unknown {', '.join(sorted(wrong))}")
        values = _numbers(cls, record)
        values["theta_by_seed"] = tuple(record["theta_by_seed"])
        values["gates"] = tuple(Gate(**gate) for gate in record["gates"])
        values["parts"] = tuple(Part(**_numbers(Part, part)) for part in record["parts"])
        return cls(**values)


def judge(findings: Sequence[Finding], *, not_judged_because: str = "") -> list[Judgement]:
    """Judge a study's claims together, in the order given.

    Significantly above delta is supported, significantly below refuted, anything else inconclusive, at .05 after Holm's
    correction over the claims that are judged. A claim is not judged, and takes no part in the correction, where a gate
    failed or was not checked, with fewer than 5 seeds or 10 clusters, where it cannot be estimated, or where
    `not_judged_because` is given for the whole study (a smoke preset, settings overridden).
    """
    ids = [f.claim.id for f in findings]
    if len(set(ids)) < len(ids):
        raise StatisticsError(f"a claim is judged once; got {', '.join(ids)}")
    judgements = [_measure(f, not_judged_because) for f in findings]
    judged = [i for i, j in enumerate(judgements) if not j.reason]
    for i, p_holm in zip(judged, holm([judgements[i].p for i in judged]).tolist(), strict=True):
        j = judgements[i]
        verdict: Verdict = "inconclusive"
        if p_holm <= ALPHA:
            verdict = "supported" if j.p_plus < j.p_minus else "refuted"
        judgements[i] = replace(j, p_holm=p_holm, verdict=verdict)
    return judgements


def _measure(finding: Finding, not_judged_because: str) -> Judgement:
    """The judgement before correction: `not judged`, with a reason or still to be corrected."""
    c = finding.claim
    blank = Judgement(
        id=c.id,
        title=c.title,
        estimand=c.estimand,
        delta=c.delta,
        published=c.published,
        kind=c.kind,
        verdict="not judged",
        gates=finding.gates,
        reason=_why_not(finding, not_judged_because),
    )
    if not finding.tests:
        return blank
    tests = list(finding.tests.values())
    shown = tests[0]
    tails = Tails(shown.p_plus, shown.p_minus)
    if c.kind == "equivalence":
        tails = equivalence(shown)
    elif c.kind == "conjunction":
        tails = conjunction(tests)
        shown = max(tests, key=lambda t: t.p_plus)
    elif c.kind == "existence":
        tails = existence(tests)
        shown = min(tests, key=lambda t: t.p_plus)
    flips = c.kind != "equivalence" and shown.seeds >= SIGN_FLIP_SEEDS
    return replace(
        blank,
        value=shown.value,
        low=shown.low,
        high=shown.high,
        se=shown.se,
        df=shown.df,
        theta_by_seed=shown.theta_by_seed,
        p_plus=tails.p_plus,
        p_minus=tails.p_minus,
        p=float(np.minimum(1, 2 * np.min(tails))),
        seeds=min(t.seeds for t in tests),
        clusters=min((t.n_clusters for t in tests if t.n_clusters is not None), default=None),
        parts=tuple(Part(label, t.value, t.low, t.high, t.p_plus, t.p_minus) for label, t in finding.tests.items())
        if c.kind in ("conjunction", "existence")
        else (),
        sign_flip_p=_sign_flip(shown) if flips else None,
    )


def _sign_flip(test: MeanTest) -> float:
    # Sampled only beyond 18 seeds, from a fixed stream: the same evidence must give the same judgement.
    return sign_flip_test([t - test.delta for t in test.theta_by_seed], rng=np.random.default_rng(0))


def _why_not(finding: Finding, not_judged_because: str) -> str:
    """All reasons not to judge a claim, or nothing."""
    reasons = [r for r in (not_judged_because, finding.reason) if r]
    checked = {g.name for g in finding.gates}
    reasons += [f"gate not checked: {name}" for name in finding.claim.gates if name not in checked]
    reasons += [f"gate failed: {g.name}" + (f" ({g.value})" if g.value else "") for g in finding.gates if not g.passed]
    if finding.tests:
        seeds = min(t.seeds for t in finding.tests.values())
        if seeds < MIN_SEEDS:
            reasons.append(f"{seeds} seeds, at least {MIN_SEEDS} are needed")
        clusters = min((t.n_clusters for t in finding.tests.values() if t.n_clusters is not None), default=None)
        if clusters is not None and clusters < MIN_CLUSTERS:
            reasons.append(f"{clusters} test units, at least {MIN_CLUSTERS} are needed")
    return "; ".join(reasons)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _numbers(cls: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` with what `_plain` made of floats turned back, in the fields of `cls` that are always floats."""
    floats = {f.name for f in fields(cls) if f.type == "float"}
    return {k: (math.nan if v is None else float(v)) if k in floats else v for k, v in record.items()}
