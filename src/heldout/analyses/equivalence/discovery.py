"""Discovery: the rule behind a model's answers, how sure that is, and when there is none.

The pairs are halved by unordered pair. On one half the grammar races (`race`) and what is left is ranked by description
length: -log2 p(answers | rule) + bits of the rule, with p = (1 - e) 1[y = h] + e / |Y| and e at its maximum likelihood.
The other half confirms (`confirming`). What comes back is the set of rules that the held-out pairs cannot tell from the
best one, not a winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from heldout.analyses.equivalence import confirming, mixture
from heldout.analyses.equivalence.components import components
from heldout.analyses.equivalence.evaluation import Bools, Ints, Table, plan
from heldout.analyses.equivalence.found import Candidate, Relation, Stratum
from heldout.analyses.equivalence.grammar import Hypothesis, Op
from heldout.analyses.equivalence.intake import read_table
from heldout.analyses.equivalence.race import KEPT, START, Screen, matched, race, screen
from heldout.analyses.equivalence.splitting import first_of_each, halves
from heldout.errors import ConfigError, unknown
from heldout.statistics.intervals import proportion_interval
from heldout.tasks.arithmetic import numerals

OPERATIONS: dict[str, Op] = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "mod_add": "add",
    "mod_multiply": "multiply",
}
CONSTANTS = 3  # the most frequent answers, which are hypotheses too
FEWEST = 2  # pairs: one to choose on, one to confirm on

Classes = list[tuple[Hypothesis, ...]]  # hypotheses that answer alike on all pairs, together, the shortest first


def discover_rule(
    a: Any,
    b: Any,
    answers: Any,
    *,
    operation: str = "add",
    modulus: int | None = None,
    base: int = 10,
    seed: int = 0,
    shuffles: int = confirming.SHUFFLES,
) -> Relation:
    """The relation between operands and a model's answers.

        >>> found = heldout.discover_rule([1207, 3318, ...], [2305, 9001, ...], [512, 319, ...])
        >>> print(found)

    - `a`, `b`: N operands: whole numbers that are not negative, as a sequence of ints, an integer array, or digits
      (N, W), units first.
    - `answers`: N answers in the same forms, or text. What is no number (None, NaN, "", "12?") counts as wrong under
      every rule; so does a negative one unless the operation is ``subtract``.
    - `operation`: what the model was asked: ``add``, ``subtract``, ``multiply``, ``mod_add`` or ``mod_multiply``, the last
      two with `modulus` (2 to 10^6); `base` of the numerals, 2 to 36.
    - `seed`: of the halves and of the shuffles; the same seed gives the same result.

    Too few pairs are no error: the result says what could not be told. Answers that no rule explains give a result
    without a rule, and the reason. A confirmed rule says what the answers are *equal to*, not how they are computed.
    """
    if operation not in OPERATIONS:
        raise ConfigError(f"discover_rule: {unknown('operation', str(operation), OPERATIONS)}")
    if operation.startswith("mod_") != (modulus is not None):
        raise ConfigError(f"discover_rule: {operation} {'needs a' if modulus is None else 'takes no'} modulus")
    if modulus is not None and not 2 <= modulus <= numerals.LARGEST_MODULUS:
        raise ConfigError(
            f"discover_rule: the modulus must lie between 2 and {numerals.LARGEST_MODULUS}, got {modulus}"
        )
    return _Discovery(read_table(a, b, answers, base), OPERATIONS[operation], modulus, seed, shuffles).run()


class _Discovery:
    """The steps, sharing what they need of each other."""

    def __init__(self, table: Table, op: Op, modulus: int | None, seed: int, shuffles: int) -> None:
        if len(table) < FEWEST:
            raise ConfigError(f"discover_rule: {len(table)} pairs; at least {FEWEST} are needed to halve them")
        self.op, self.modulus, self.seed, self.shuffles = op, modulus, seed, shuffles
        self.truth = Hypothesis(op, modulus=modulus)
        self.ring = table.ring(op)
        order, self.half, units = halves(table, seed)
        # Rows in random order, the discovery half first: a part of the beginning is a random sample.
        self.order, self.table = order, table.take(order)
        self.first_of_unit = first_of_each(units[order][self.half :])

    def run(self) -> Relation:
        discovery = self.table.take(np.arange(self.half))
        constants = tuple(Hypothesis("constant", constant=c) for c in self._constants(discovery))
        grammar = plan(self.op, self.table.width, self.modulus)
        hypotheses = [*grammar.hypotheses, *constants]
        sample = screen(grammar, discovery.take(np.arange(min(START, self.half))), self.ring)
        sample = _with_constants(sample, constants, self.ring)
        left = race(hypotheses, sample, discovery, self.ring)
        null = confirming.shuffled_best(sample, np.random.default_rng(self.seed), self.shuffles)
        best = confirming.percentile_of(null)
        classes, hits = self._classes(left or [self.truth])
        return self._relation(classes, hits, best, len(hypotheses))

    def _constants(self, discovery: Table) -> list[int]:
        """0, and the most frequent answers that occur more than once."""
        rows = np.flatnonzero(discovery.parsable)
        _, firsts, counts = np.unique(discovery.codes(self.ring)[rows], return_index=True, return_counts=True)
        top = np.argsort(-counts, kind="stable")[:CONSTANTS]
        often = discovery.take(rows[firsts[top[counts[top] > 1]]])
        values = numerals.to_ints(often.answers, often.base) if len(often) else []
        return sorted({0, *(v for v, minus in zip(values, often.negative, strict=True) if not minus)})

    def _classes(self, left: Sequence[Hypothesis]) -> tuple[Classes, Bools]:
        """Hypotheses that answer alike on all pairs, together, the best on the discovery half first; (K, N) matches."""
        keys, hits = matched(left, self.table, self.ring)
        groups: dict[int, list[int]] = {}
        for i, key in enumerate(keys.tolist()):
            groups.setdefault(key, []).append(i)
        width = self.table.width
        ordered = [sorted(members, key=lambda i: (left[i].bits(width), i)) for members in groups.values()]
        if self.ring is not None:  # codes are residues: matches are counted digit by digit
            for members in ordered:
                hits[members[0]] = self.table.exact(left[members[0]])
        costs = {m[0]: self.cost(int(hits[m[0], : self.half].sum()), left[m[0]]) for m in ordered}
        ordered.sort(key=lambda m: (costs[m[0]], m[0]))
        return [tuple(left[i] for i in m) for m in ordered], hits[[m[0] for m in ordered]]

    def cost(self, matches: int, rule: Hypothesis) -> float:
        """Description length of the discovery half in bits: what the rule leaves open, and the rule."""
        n, q = self.half, matches / self.half
        others = self.log_answers + math.log1p(-math.exp(-self.log_answers))  # of |Y| - 1 wrong answers
        nats = (matches * math.log(q) if matches else 0.0) + (
            (n - matches) * (math.log1p(-q) - others) if q < 1 else 0.0
        )
        return -nats / math.log(2) + rule.bits(self.table.width)

    @property
    def log_answers(self) -> float:
        """log |Y|: every number as long as the longest answer could have been given."""
        if self.modulus is not None:
            return math.log(max(self.modulus, 2))
        return max(int(self.table.length.max(initial=1)), 1) * math.log(self.table.base)

    def _relation(self, classes: Classes, hits: Bools, null: float, tried: int) -> Relation:
        half, threshold = self.half, null + confirming.MARGIN
        judged = hits[:, half:][:, self.first_of_unit]  # one pair a unit: (a, b) and (b, a) are not independent
        n, shown = judged.shape[1], min(KEPT, len(classes))
        matches = judged.sum(axis=1)
        p = confirming.exceedance(matches[:shown], n, threshold)
        low = confirming.lower_bounds(matches[:shown], n)
        confirmed = np.flatnonzero(p <= confirming.LEVEL)
        winner = int(confirmed[0]) if len(confirmed) else 0
        separation = confirming.mcnemar(judged[winner], judged)
        worse = confirming.significantly_worse(judged[winner], judged)
        candidates = tuple(
            Candidate(
                rules=classes[i],
                names=tuple(h.name(self.table.base) for h in classes[i]),
                bits=classes[i][0].bits(self.table.width),
                cost=self.cost(int(hits[i, :half].sum()), classes[i][0]),
                discovery=(int(hits[i, :half].sum()), half),
                heldout=(int(matches[i]), n),
                low=float(low[i]) if i < shown else math.nan,
                p=float(p[i]) if i < shown else math.nan,
                separation=float(separation[i]),
                in_set=bool(len(confirmed)) and not worse[i],
            )
            for i in range(len(classes))
        )
        truth = self.table.exact(self.truth)
        rule = classes[winner][0] if len(confirmed) else None
        best = hits[winner] if rule is not None else None
        inverse = np.argsort(self.order, kind="stable")
        return Relation(
            operation=self.op,
            modulus=self.modulus,
            base=self.table.base,
            seed=self.seed,
            pairs=len(self.table),
            unparsable=int((~self.table.parsable).sum()),
            tried=tried,
            null=null,
            threshold=threshold,
            candidates=candidates,
            winner=winner,
            rule=rule,
            reason="" if rule is not None else self._reason(candidates[0], null, threshold, n),
            truth=int(truth[half:].sum()) / (len(truth) - half),
            strata=self._strata(truth, best),
            mixture=self._mixture(classes, hits, winner if rule is not None else None, null, inverse),
            table=self.table.take(inverse),
        )

    def _reason(self, best: Candidate, null: float, threshold: float, n: int) -> str:
        given = self.table.codes(self.ring)[self.table.parsable]
        if not len(given):
            return "none of the answers is a number"
        common = np.unique(given, return_counts=True)[1].max() / len(self.table)
        if common + confirming.MARGIN >= 1:
            return f"one answer is given to {common:.1%} of the pairs: a constant says as much as any rule"
        # The lower bound that n matches of n would have, alone on the shortlist's strictest level.
        perfect = (confirming.LEVEL / KEPT) ** (1 / n)
        if perfect <= threshold:
            return (
                f"too few pairs: even a rule that matches all {n} held-out ones has a lower bound of only "
                f"{perfect:.3f}; {threshold:.3f} would have to be exceeded, because the grammar reaches {null:.3f} on "
                "shuffled answers"
            )
        k, n = best.heldout
        if not k:
            return f"no hypothesis matches any of the {n} held-out answers"
        return (
            f"the best hypothesis matches {k} of {n} held-out answers ({k / n:.3f}, lower bound {best.low:.3f}); to be "
            f"confirmed it would have to exceed {threshold:.3f}, that is {confirming.MARGIN} more than the grammar "
            "reaches on shuffled answers"
        )

    def _strata(self, truth: Bools, best: Bools | None) -> tuple[Stratum, ...]:
        """Exact matches on the held-out half, by the lengths of both operands."""
        wide = self.table.width + 1
        code = (self._lengths() @ np.array([wide, 1]))[self.half :]
        labels, of, n = np.unique(code, return_inverse=True, return_counts=True)
        true = np.bincount(of, weights=truth[self.half :]).astype(int)
        if best is None:
            k, low, high = [None] * len(n), np.full(len(n), math.nan), np.full(len(n), math.nan)
        else:
            matches = np.bincount(of, weights=best[self.half :]).astype(int)
            k, (low, high) = matches.tolist(), map(np.asarray, proportion_interval(matches, n))
        return tuple(
            Stratum((label // wide, label % wide), *numbers)
            for label, *numbers in zip(
                labels.tolist(), n.tolist(), true.tolist(), k, low.tolist(), high.tolist(), strict=True
            )
        )

    def _lengths(self) -> Ints:
        return np.column_stack([self.table.left.lengths, self.table.right.lengths])

    def _mixture(
        self, classes: Classes, hits: Bools, winner: int | None, null: float, inverse: Ints
    ) -> mixture.Mixture:
        """Without a confirmed rule all answers stay unexplained."""
        names: list[str] = []
        found = np.zeros((0, len(self.table)), dtype=bool)
        if winner is not None:
            rules = [members[0] for members in classes[:KEPT]]
            names, found = components(self.table, self.half, rules, hits[:KEPT], winner, null + confirming.MARGIN)
        return mixture.fit(names, found[:, inverse], self._lengths()[inverse], self.log_answers)


def _with_constants(sample: Screen, constants: Sequence[Hypothesis], ring: int | None) -> Screen:
    values = np.array([h.constant if ring is None else h.constant % ring for h in constants], dtype=np.int64)
    return sample._replace(codes=np.vstack([sample.codes, np.repeat(values[:, None], sample.codes.shape[1], axis=1)]))
