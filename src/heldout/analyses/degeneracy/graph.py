"""Features of all layers as one graph: strengths of interaction become weights, logarithmically.

    graph = log_graph(squares, [mass_threshold(e) for e in squares])

`squares` is one matrix E_l a section, (d_l+1, d_l) float64: how strongly feature j of layer l moves feature i of layer
l + 1 (a mean square). An edge is there at tolerance e where E > e, and the number of tolerances above a threshold eps
at which it is there, on a logarithmic scale, is its weight::

    w = integral from eps of [E > e] de / e = max(0, ln(E / eps))

So the edge that stands at the threshold weighs nothing, and a unit in which E is measured changes nothing as long as
the threshold is in the same unit. (Weights in log10, as they are also found, differ by a factor common to all; no
partition and no modularity sees it.) What the weights depend on is eps: compare bases at one rule, never at thresholds
set one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import ConfigError, NonFiniteError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MASS = 0.999  # of the strength of a section, that the edges above its threshold hold where nothing better is known


@dataclass(frozen=True, eq=False)
class LayeredGraph:
    """Weights between neighbouring layers: `weights[l]` (d_l+1, d_l) float64, not negative; `sizes` are d_0, d_1 ...

    Nodes are numbered layer by layer. Use `layered_graph`, which checks what it is given.
    """

    sizes: tuple[int, ...]
    weights: tuple[Floats, ...]

    @property
    def nodes(self) -> int:
        return sum(self.sizes)

    @property
    def layers(self) -> Integers:
        """(nodes,): the layer of each node."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def starts(self) -> Integers:
        """(L + 1,): the first node of each layer, and the number of nodes."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @property
    def counts(self) -> tuple[int, ...]:
        """Edges of positive weight in each section."""
        return tuple(int((w > 0).sum()) for w in self.weights)

    @property
    def strengths(self) -> Floats:
        """(nodes,): the sum of weights at each node."""
        total = np.zeros(self.nodes)
        for first, then, w in zip(self.starts[:-2], self.starts[1:-1], self.weights, strict=True):
            total[first : first + w.shape[1]] += w.sum(axis=0)
            total[then : then + w.shape[0]] += w.sum(axis=1)
        return total

    @property
    def connected(self) -> NDArray[np.bool_]:
        """(nodes,): whether a node has an edge at all."""
        return self.strengths > 0

    def edges(self) -> tuple[Integers, Integers, Floats]:
        """Sources, targets (numbers of nodes) and weights of all edges of positive weight, section by section."""
        found = [np.nonzero(w > 0) for w in self.weights]
        starts = self.starts
        sources = [starts[i] + column for i, (_, column) in enumerate(found)]
        targets = [starts[i + 1] + row for i, (row, _) in enumerate(found)]
        weights = [w[at] for w, at in zip(self.weights, found, strict=True)]
        return np.concatenate(sources), np.concatenate(targets), np.concatenate(weights)


def layered_graph(weights: Sequence[ArrayLike]) -> LayeredGraph:
    """The graph with these weights, one matrix (d_l+1, d_l) a section. Raises `ConfigError` and `NonFiniteError`."""
    matrices = checked(weights, "weights")
    return LayeredGraph((matrices[0].shape[1], *(m.shape[0] for m in matrices)), matrices)


def log_graph(squares: Sequence[ArrayLike], thresholds: Sequence[float]) -> LayeredGraph:
    """The graph of weights max(0, ln(E / eps)), with a threshold eps for each section, in the unit of E.

    Raises `ConfigError` where shapes do not follow each other or a threshold is not positive.
    """
    matrices = checked(squares, "squares")
    if len(thresholds) != len(matrices) or not all(0 < t < np.inf for t in thresholds):
        raise ConfigError(
            f"{len(matrices)} sections need as many positive thresholds, in the unit of their strengths; got "
            f"{list(map(float, thresholds))}"
        )
    logs = [np.log(np.maximum(e, t) / t) for e, t in zip(matrices, thresholds, strict=True)]
    return layered_graph(logs)


def mass_threshold(squares: ArrayLike, share: float = MASS) -> float:
    """The smallest of the fewest edges of one section (d', d) that hold `share` (0 to 1) of its summed strength."""
    (e,) = checked([squares], "squares")
    if not 0 < share <= 1:
        raise ConfigError(f"a share of strength must be above 0 and at most 1, got {share}")
    falling = np.sort(e, axis=None)[::-1]
    held = np.cumsum(falling)
    if held[-1] <= 0:
        raise ConfigError("a section without any strength has no threshold; leave it out")
    # Edges of zero hold nothing: a share of 1 ends at the last edge there is, whatever rounding leaves of the sum.
    at = min(int(np.searchsorted(held, share * held[-1])), int((falling > 0).sum()) - 1)
    return float(falling[at])


def count_threshold(squares: ArrayLike, kept: int) -> float:
    """The smallest of the `kept` largest edges of one section (d', d): for instance as many as an ablation needs."""
    (e,) = checked([squares], "squares")
    if not 1 <= kept <= int((e > 0).sum()):
        raise ConfigError(f"kept must be from 1 to the {int((e > 0).sum())} edges above zero, got {kept}")
    return float(np.sort(e, axis=None)[::-1][kept - 1])


def relative_threshold(squares: ArrayLike, relative: float) -> float:
    """`relative` (0 to 1) times the largest edge of one section (d', d): one rule for bases whose units differ."""
    (e,) = checked([squares], "squares")
    if not (0 < relative <= 1 and e.max() > 0):
        raise ConfigError(
            f"a relative threshold is above 0 and at most 1, of a section with an edge; got {relative} of {e.max()}"
        )
    return float(relative * e.max())


def checked(matrices: Sequence[ArrayLike], what: str) -> tuple[Floats, ...]:
    """`matrices` as float64, each as wide as the one before is high. Less than float64 is refused, not widened."""
    found = [np.asarray(m) for m in matrices]
    shapes = [m.shape for m in found]
    if not found or any(m.ndim != 2 or 0 in m.shape for m in found):
        raise ConfigError(f"{what} must be matrices (d_l+1, d_l), one a section; got shapes {shapes}")
    if any(a[0] != b[1] for a, b in pairwise(shapes)):
        raise ConfigError(f"{what} of neighbouring sections must share a layer: (d_l+1, d_l) each; got shapes {shapes}")
    for number, m in enumerate(found):
        if m.dtype != np.float64:
            raise ConfigError(f"{what} of section {number} are {m.dtype}; float64 is needed")
        if not np.isfinite(m).all():
            raise NonFiniteError(f"{what} of section {number} hold NaN or infinite values")
        if (m < 0).any():
            raise ConfigError(f"{what} of section {number} hold negative values; mean squares are not")
    return tuple(found)
