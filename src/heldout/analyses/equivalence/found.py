"""What discovery returns: the rules that are left, what speaks for them, and how to tell them apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heldout.analyses.equivalence.evaluation import Table
from heldout.analyses.equivalence.grammar import Hypothesis, Op
from heldout.analyses.equivalence.mixture import Mixture
from heldout.analyses.equivalence.probes import Probes, separating_probes
from heldout.statistics.intervals import proportion_interval
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Signed

SHOWN = 8  # rules, strata and components that a summary lists


@dataclass(frozen=True)
class Candidate:
    """Hypotheses that answer alike on all pairs given, the shortest first.

    - `rules`, `names`: the hypotheses, and in words. `bits`: description length of the first; `cost`: that of the
      discovery half under it, in bits (lower is better).
    - `discovery`, `heldout`: matches and pairs in either half; (a, b) and (b, a) are one pair in the held-out half.
    - `low`: one-sided lower 95% bound of the held-out rate of matches at its place in Holm's order; `p`: Holm-adjusted
      p-value of a rate above the threshold. NaN beyond the shortlist.
    - `separation`: two-sided p-value of McNemar's test against the best rule; `in_set`: a rule was confirmed and this one
      is not significantly worse.
    """

    rules: tuple[Hypothesis, ...]
    names: tuple[str, ...]
    bits: float
    cost: float
    discovery: tuple[int, int]
    heldout: tuple[int, int]
    low: float
    p: float
    separation: float
    in_set: bool


class Stratum(NamedTuple):
    """Held-out pairs of one combination of operand lengths: matches of the truth and of the rule (None without one), and
    the 95% interval of the latter's rate: Wilson's, or the rule of three at none and all."""

    lengths: tuple[int, int]
    n: int
    truth: int
    rule: int | None
    low: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class Relation:
    """The relation behind a model's answers, as far as the pairs tell.

    - `rule`: the best confirmed hypothesis, None where there is none; then `reason` says why. `names`: every hypothesis
      that the pairs do not separate from it, the best first.
    - `candidates`: all that were left of `tried` hypotheses, best on the discovery half first.
    - `null`: 95th percentile of the grammar's best exact match on shuffled answers; `threshold`: that plus .1.
    - `truth`: held-out exact match with the true operation. `strata`: by operand lengths, held-out half.
    - `mixture`: which rule gave which answer; see `Mixture`.
    """

    operation: Op
    modulus: int | None
    base: int
    seed: int
    pairs: int
    unparsable: int
    tried: int
    null: float
    threshold: float
    candidates: tuple[Candidate, ...]
    winner: int
    rule: Hypothesis | None
    reason: str
    truth: float
    strata: tuple[Stratum, ...]
    mixture: Mixture
    table: Table

    @property
    def found(self) -> bool:
        return self.rule is not None

    @property
    def best(self) -> Candidate:
        """The class of the confirmed rule; without one, the class that is best on the discovery half."""
        return self.candidates[self.winner]

    @property
    def rules(self) -> tuple[Hypothesis, ...]:
        """All hypotheses not separable from the best one; empty where no rule is confirmed."""
        rest = [c for i, c in enumerate(self.candidates) if c.in_set and i != self.winner]
        return tuple(h for c in ([self.best, *rest] if self.found else []) for h in c.rules)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(h.name(self.base) for h in self.rules)

    def predict(self) -> Signed:
        """What the rule answers to each pair, in the order given; the truth where no rule is confirmed."""
        return (self.rule or self.true_operation).predict(self.table.a, self.table.b, self.base)

    @property
    def true_operation(self) -> Hypothesis:
        return Hypothesis(self.operation, modulus=self.modulus)

    def probes(self, n: int = 20, *, width: int | None = None, seed: int = 0) -> Probes:
        """`n` pairs that would separate the rules that are left; without a confirmed rule, the best few candidates.

        Operands have up to `width` digits, by default one more than the longest given: many rules differ only there.
        """
        rules = self.rules or tuple(c.rules[0] for c in self.candidates[:SHOWN])
        width = self.table.width + 1 if width is None else width
        return separating_probes(rules, self.operation, width=width, base=self.base, n=n, seed=seed)

    def frame(self) -> pd.DataFrame:
        """One row a hypothesis that was left, the best class first."""
        rows = [
            {
                "rule": h.name(self.base),
                "class": i,
                "in_set": c.in_set,
                "bits": h.bits(self.table.width),
                "cost": c.cost,
                "discovery": c.discovery[0] / c.discovery[1],
                "heldout": c.heldout[0] / c.heldout[1],
                "n": c.heldout[1],
                "low": c.low,
                "p": c.p,
                "p_separation": c.separation,
            }
            for i, c in enumerate(self.candidates)
            for h in c.rules
        ]
        return pd.DataFrame(rows)

    def answers(self) -> pd.DataFrame:
        """One row a pair, in the order given: a, b, the answer, what the rule predicts, the truth, whether they are the
        same, and the component of the mixture that most likely gave the answer. Numbers are text: they may exceed int64."""
        t = self.table
        truth = self.true_operation.predict(t.a, t.b, self.base)
        rule = self.predict() if self.found else None
        given = _texts(Signed(t.negative, t.answers), self.base)
        names = np.array(self.mixture.components, dtype=object)
        frame = pd.DataFrame(
            {
                "a": numerals.to_text(t.a, self.base),
                "b": numerals.to_text(t.b, self.base),
                "answer": [text if ok else None for text, ok in zip(given, t.parsable, strict=True)],
                "rule": [None] * len(t) if rule is None else _texts(rule, self.base),
                "truth": _texts(truth, self.base),
            }
        )
        frame["follows_rule"] = (frame["answer"] == frame["rule"]) if self.found else False
        frame["correct"] = frame["answer"] == frame["truth"]
        frame["component"] = names[self.mixture.responsibilities.argmax(axis=1)]
        return frame

    def record(self) -> dict[str, Any]:
        """Everything but the pairs, as JSON has it: None for what is not known."""
        frame = self.frame()
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return {
            "operation": self.operation,
            "modulus": self.modulus,
            "base": self.base,
            "seed": self.seed,
            "pairs": self.pairs,
            "unparsable": self.unparsable,
            "hypotheses": self.tried,
            "found": self.found,
            "rule": self.rule.name(self.base) if self.rule else None,
            "reason": self.reason or None,
            "not_separable": list(self.names),
            "shuffled": self.null,
            "threshold": self.threshold,
            "truth": self.truth,
            "candidates": rows,
            "strata": [{**s._asdict(), "low": _known(s.low), "high": _known(s.high)} for s in self.strata],
            "mixture": self.mixture.table().to_dict("records"),
        }

    def __repr__(self) -> str:
        return f"Relation({self.names[0] if self.found else 'none'!r}, {self.pairs} pairs)"

    def __str__(self) -> str:
        from heldout.analyses.equivalence.showing import summary

        return summary(self)


def interval(k: int, n: int) -> str:
    low, high = proportion_interval(k, n)
    return f"{k / n:.3f} [{low:.3f}, {high:.3f}]" if n else "no pairs"


def _known(x: float) -> float | None:
    return None if math.isnan(x) else x


def _texts(numbers: Signed, base: int) -> list[str]:
    texts = numerals.to_text(numbers.digits, base)
    return ["-" + t if minus else t for t, minus in zip(texts, numbers.negative.tolist(), strict=True)]
