"""The scores of a study's networks, and the test of a claim on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heldout.analyses.estimates import Estimand, Scores, View, estimate
from heldout.errors import EvidenceError
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.rule import MeanTest
from heldout.statistics.verdict import Finding

Who = tuple[str, int]  # network, seed


@dataclass(frozen=True, eq=False)
class Judging:
    """Scores of every network and seed of a study."""

    scores: Scores

    @property
    def everyone(self) -> Sequence[Who]:
        return [(n, seed) for n in self.scores.networks() for seed in self.scores.seeds(n)]

    def subjects(self, network: str) -> list[Who]:
        return [who for who in self.everyone if who[0] == network]

    def point(self, who: Who) -> View:
        """Totals of one network and seed, no resampling: for gates."""
        return View(*who, lambda column: np.array([self.scores.sums(column)[1].sum()]))

    def test(self, claim: Claim, estimand: Estimand, network: str, *, part: int = 0) -> MeanTest:
        """`estimand` over a network's seeds against the claim's delta; the generator is the claim's own."""
        rng = np.random.default_rng([int.from_bytes(claim.id.encode(), "big"), part])
        return estimate(self.scores, self.subjects(network), estimand, rng=rng, delta=claim.delta)

    def finding(self, claim: Claim, tests: Mapping[str, tuple[Estimand, str]], gates: Mapping[str, Gate]) -> Finding:
        """A claim's parts (label -> estimand, network) tested, with those of `gates` that the claim names.

        Where a part cannot be estimated, the reason stands in place of the tests.
        """
        named = tuple(gates[g] for g in claim.gates)
        try:
            measured = {label: self.test(claim, e, n, part=i) for i, (label, (e, n)) in enumerate(tests.items())}
        except EvidenceError as error:
            return Finding(claim, {}, named, reason=str(error))
        return Finding(claim, measured, named)
