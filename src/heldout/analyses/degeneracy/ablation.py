"""Ablations: how few features of a layer, or edges between two, keep what a network does.

    nodes = NodeAblation(sections, bases, "hidden.0")
    edges = EdgeAblation(sections, bases, edge_matrix(sections, bases, fit, 0))
    found = fewest(edges, select, measure="accuracy", tolerance=0.001)
    edges.score(found.kept, test)                # the same choice, where it was not made

A count is chosen on data to choose on and scored elsewhere. What is counted is what is kept, so that bases of different
rank compare. Fewer is assumed to be no better, which a search by halves needs and networks do not always grant: `fewest`
keeps what it tried. One layer or section is changed, and the rest of the network repairs what it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.sections import Sections
from heldout.activations.tap import EditFunction, Tap
from heldout.analyses.degeneracy.edges import Edges
from heldout.analyses.scoring import Scoring
from heldout.errors import ConfigError, SplitError, unknown
from heldout.proxies.bases import Bases
from heldout.tasks.base import Batch, Split

Measure = Literal["accuracy", "loss"]
MEASURES: tuple[Measure, ...] = ("accuracy", "loss")


@dataclass(frozen=True)
class Performance:
    """`accuracy`, 0 to 1, and cross-entropy `loss` (nats): means over all `n` scored predictions of a split."""

    accuracy: float
    loss: float
    n: int

    def within(self, tolerance: float, of: Performance, measure: Measure) -> bool:
        """Whether it is at most `tolerance` worse than `of`."""
        if measure == "accuracy":
            return self.accuracy >= of.accuracy - tolerance
        return self.loss <= of.loss + tolerance


class Ablation(Protocol):
    """Keeps some of `total` parts, and scores a network that has only those left."""

    total: int

    def kept(self, count: int) -> Tensor:
        """A mask with exactly `count` parts, the most important ones."""
        ...

    def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
        """What the network does on `split` with the parts `kept` alone."""
        ...


@dataclass(frozen=True, eq=False)
class Fewest:
    """`count` parts are kept of `total`, those of the mask `kept`; `tried` is what each count that was tried gave, and
    `whole` what all give, on `split`."""

    count: int
    total: int
    kept: Tensor
    measure: Measure
    tolerance: float
    split: str
    whole: Performance
    tried: Mapping[int, Performance]


def fewest(
    ablation: Ablation, split: Split, *, measure: Measure = "accuracy", tolerance: float = 0.001, batch_size: int = 256
) -> Fewest:
    """The smallest count at most `tolerance` worse than everything kept, by bisection on the count's logarithm.

    The mask returned is that of the count returned, and the next smaller count was tried and is worse (or is none).
    Raises `SplitError` where `split` is to test on.
    """
    if measure not in MEASURES:
        raise ConfigError(unknown("measure", str(measure), MEASURES))
    if tolerance < 0:
        raise ConfigError(f"a tolerance must be 0 or more, got {tolerance}")
    if split.role == "test":
        raise SplitError(
            f"a count may not be chosen on split {split.name!r}: its role is 'test'; choose on one whose role is 'select'"
        )
    whole = ablation.score(ablation.kept(ablation.total), split, batch_size=batch_size)
    tried = {ablation.total: whole}
    worse, good = -1, ablation.total
    while good - worse > 1:
        middle = int(((worse + 2) * (good + 1)) ** 0.5) - 1
        middle = min(max(middle, worse + 1), good - 1)
        tried[middle] = ablation.score(ablation.kept(middle), split, batch_size=batch_size)
        if tried[middle].within(tolerance, whole, measure):
            good = middle
        else:
            worse = middle
    kept = ablation.kept(good)
    return Fewest(good, ablation.total, kept, measure, tolerance, split.name, whole, dict(sorted(tried.items())))


def curve(ablation: Ablation, split: Split, counts: Sequence[int], *, batch_size: int = 256) -> list[Performance]:
    """What each of `counts` gives on `split`."""
    return [ablation.score(ablation.kept(count), split, batch_size=batch_size) for count in counts]


class NodeAblation:
    """Keeps the first features of one layer's basis; all D of them are the identity. Masks are (D,) bool."""

    def __init__(self, sections: Sections, bases: Bases, site: str, *, scoring: Scoring | None = None) -> None:
        self.sections, self.bases, self.site = sections, bases, site
        self.scoring = scoring or Scoring()
        self.total = bases[site].width

    def kept(self, count: int) -> Tensor:
        if not 0 <= count <= self.total:
            raise ConfigError(f"{count} features of {self.site}; choose from 0 to {self.total}")
        return torch.arange(self.total) < count

    def edit(self, count: int) -> Edit:
        """The same as an edit, for the network itself or a copy in another dtype."""
        return self.bases.edit(self.site, count)

    def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
        count = int(kept.sum())
        if not torch.equal(kept, self.kept(count)):
            raise ConfigError(
                f"a mask of features of {self.site} keeps the first ones of {self.total}; see kept(count)"
            )
        edit = self.edit(count)
        tally = _Tally(self.scoring)
        with Tap(self.sections.network, edit=edit.functions) as tap:
            for given in split.batches(batch_size):
                batch = self.sections.prepared(given)
                tally.add(tap(batch).output, batch)
        return tally.performance()


class EdgeAblation:
    """Keeps some edges of one section. Each feature of the next layer is computed from those features alone that have an
    edge to it, the others at their mean; means themselves are always kept and not counted. Masks are (K', K) bool.

    All edges kept is the network itself. What is in no feature (truncated directions) is lost as soon as one edge is.
    """

    def __init__(self, sections: Sections, bases: Bases, edges: Edges, *, scoring: Scoring | None = None) -> None:
        self.sections, self.edges, self.scoring = sections, edges, scoring or Scoring()
        self.basis, self.following = bases[edges.source], bases[edges.target]
        self.total = edges.squares.numel()

    def kept(self, count: int) -> Tensor:
        return self.edges.largest(count)

    def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
        if kept.shape != self.edges.squares.shape or kept.dtype != torch.bool:
            raise ConfigError(
                f"a mask of edges {self.edges.source} -> {self.edges.target} is bool of shape "
                f"{tuple(self.edges.squares.shape)}, got {kept.dtype} of {tuple(kept.shape)}"
            )
        tally = _Tally(self.scoring)
        for given in split.batches(batch_size):
            batch = self.sections.prepared(given)
            tally.add(self._output(kept, batch), batch)
        return tally.performance()

    def _output(self, kept: Tensor, batch: Batch) -> object:
        """The network's output with the next layer's rows computed from the edges `kept`."""
        section = self.edges.section
        plain = self.sections.cross(batch, section, section + 1, graph=False)
        features, rows = self.basis.encode(plain.rows[0]), plain.rows[1]
        if not bool(kept.all()):
            outcome = self.following.encode(rows)
            # Features with the same inputs share a pass.
            inputs, group = torch.unique(kept, dim=0, return_inverse=True)
            for number, mask in enumerate(inputs):
                if bool(mask.all()):
                    continue
                masked = self.basis.decode(features * mask.to(features))
                masked = torch.where(plain.counted[0][..., None], masked, plain.rows[0])
                crossing = self.sections.cross(batch, section, section + 1, enter=_given(masked), graph=False)
                own = group == number
                outcome[..., own] = self.following.encode(crossing.rows[1])[..., own]
            rows = torch.where(plain.counted[1][..., None], self.following.decode(outcome), rows)
        with Tap(self.sections.network, edit={self.edges.target: _instead(rows)}) as tap:
            return tap(batch).output


def _given(rows: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: rows


def _instead(new: Tensor) -> EditFunction:
    def edit(rows: Tensor, mask: Tensor | None) -> Tensor:
        return new.reshape(rows.shape)

    return edit


class _Tally:
    """Right answers and losses, summed over batches: a mean of batch means would weigh the last batch wrong."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring, self.right, self.loss, self.n = scoring, 0, 0.0, 0

    def add(self, output: object, batch: Batch) -> None:
        if batch.targets is None:
            raise SplitError("an ablation is scored against targets, and this split has none")
        predictions = self.scoring.predictions(output, batch)
        self.right += int(predictions.correct.sum())
        self.loss += float(predictions.loss.double().sum())
        self.n += len(predictions.top)

    def performance(self) -> Performance:
        return Performance(self.right / self.n, self.loss / self.n, self.n)
