"""A similarity with what it takes to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from heldout.analyses.similarity.measures import find_measure
from heldout.analyses.similarity.noise import Ceiling
from heldout.evidence import Estimate


@dataclass(frozen=True)
class Similarity:
    """`value` of a measure with its interval (`low`, `high`, `se`), NaN where there are too few stimuli for one.

    - `null`, `null_high`: mean and 95th percentile of the permutation null; `p`: one-sided, of a value so high.
    - `n` stimuli; `networks` on each side (the same set twice for the similarity within one).
    - `ceiling`: of RDM measures, how similar a model could be to the networks of side y; None for a single network.
    - `cautions`: sentences, see `heldout.analyses.similarity.cautions`.
    """

    measure: str
    value: float
    low: float
    high: float
    se: float
    null: float
    null_high: float
    p: float
    n: int
    networks: tuple[int, int]
    ceiling: Ceiling | None
    cautions: tuple[str, ...]

    def estimate(self, quantity: str, **where: object) -> Estimate:
        """As evidence; `where` are other fields of `Estimate` (network, split, site)."""
        return Estimate(
            quantity,
            self.value,
            self.low,
            self.high,
            self.measure,
            self.null,
            self.n,
            **where,  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        lines = [
            f"{find_measure(self.measure).label}: {self.value:.3f} [{self.low:.3f}, {self.high:.3f}], {self.n} stimuli, "
            f"{self.networks[0]} x {self.networks[1]} networks",
            f"null: mean {self.null:.3f}, 95th percentile {self.null_high:.3f}, p = {self.p:.2g}",
        ]
        if self.ceiling is not None:
            lines.append(f"noise ceiling of y: {self.ceiling.lower:.3f} to {self.ceiling.upper:.3f}")
        return "\n".join([*lines, *(f"caution: {sentence}" for sentence in self.cautions)])
