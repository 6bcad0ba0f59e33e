"""How few features or edges keep what a network does: what parts of the degeneracy study share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from heldout.activations.sections import Sections
from heldout.analyses.degeneracy.ablation import Ablation, Performance, fewest
from heldout.errors import ConfigError, unknown
from heldout.proxies.bases import Bases, local_bases, neuron_bases, principal_bases
from heldout.tasks.base import Split

KINDS = ("lib", "pca", "neuron")


def bases_of(
    kind: str, sections: Sections, split: Split, *, derivatives: Split | None = None, batch_size: int = 256
) -> Bases:
    """Bases of every layer, found on `split`; the last layer's are its neurons whatever the kind.

    `derivatives`: a part of `split` on which the interaction basis takes its derivatives; None is all of them.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("kind of basis", kind, KINDS))
    if kind == "lib":
        return local_bases(sections, split, jacobian_split=derivatives, batch_size=batch_size)
    neurons = neuron_bases(sections, split, batch_size=batch_size)
    if kind == "neuron":
        return neurons
    principal = principal_bases(sections, split, batch_size=batch_size)
    last = neurons.bases[-1]  # every kind ends in the same logits, so that edges into them compare
    return Bases(principal.kind, principal.layers, (*principal.bases[:-1], last), principal.fit_split)


def counted(
    ablation: Ablation, select: Split, tests: Iterable[Split], *, tolerance: float, batch_size: int = 4096
) -> dict[str, Any]:
    """The fewest parts that keep accuracy on `select` within `tolerance`, and what the same parts give on `tests`."""
    chosen = fewest(ablation, select, tolerance=tolerance, batch_size=batch_size)
    scores = {split.name: ablation.score(chosen.kept, split, batch_size=batch_size) for split in tests}
    return {
        "count": chosen.count,
        "total": chosen.total,
        "select": chosen.tried[chosen.count].accuracy,
        "whole": chosen.whole.accuracy,
        "tried": {str(count): performance.accuracy for count, performance in chosen.tried.items()},
        **{name: performance.accuracy for name, performance in scores.items()},
    }


class Remembered:
    """An ablation that scores each count on each split once: several tolerances, and a curve, try the same counts.

    Masks must be those of `kept`.
    """

    def __init__(self, ablation: Ablation) -> None:
        self.ablation, self.total = ablation, ablation.total
        self._scores: dict[tuple[str, int], Performance] = {}

    def kept(self, count: int) -> Tensor:
        return self.ablation.kept(count)

    def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
        at = (split.name, int(kept.sum()))
        if at not in self._scores:
            self._scores[at] = self.ablation.score(kept, split, batch_size=batch_size)
        return self._scores[at]
