"""Is a graph more modular than chance? The same weights put elsewhere, and modules found in those graphs too.

    shuffle_test(graph).z                           # how far above shuffled graphs, in their standard deviations

A search for modules finds some in any graph, the more the sparser it is, so modularity means nothing on its own. The
null ``edges`` moves weights anywhere in their section, so a graph may differ from it by a few features that hold most
edges; under ``degrees`` each feature keeps its number of edges, and only who is joined to whom is left. Neither keeps
the sum of weights at a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heldout.analyses.degeneracy.graph import Floats, LayeredGraph
from heldout.analyses.degeneracy.modules import SEEDS, Modules, find_modules
from heldout.errors import ConfigError, unknown
from heldout.statistics.permutation import null_p

Null = Literal["edges", "degrees"]
NULLS: tuple[Null, ...] = ("edges", "degrees")


def shuffled(graph: LayeredGraph, rng: np.random.Generator, *, null: Null = "edges") -> LayeredGraph:
    """A graph with the same weights in each section, put elsewhere.

    - ``edges``: any entry of a section's matrix may go to any other place in it.
    - ``degrees``: each node keeps its number of edges to either side (Strona et al. 2014: pairs of rows trade what only
      one of them has); weights are dealt out anew among edges. Where all nodes are joined, only weights move.
    """
    if null not in NULLS:
        raise ConfigError(unknown("null", str(null), NULLS))
    if null == "edges":
        moved = [rng.permutation(w.ravel()).reshape(w.shape) for w in graph.weights]
    else:
        moved = [_rewired(w, rng) for w in graph.weights]
    return LayeredGraph(graph.sizes, tuple(moved))


@dataclass(frozen=True, eq=False)
class ShuffleTest:
    """Modularity of `found` beside `newman` and `layered` (R,) of shuffled graphs, each in modules of its own."""

    found: Modules
    newman: Floats
    layered: Floats
    null: Null

    @property
    def z(self) -> float:
        """(Newman's modularity - mean of the null) / its standard deviation; NaN where no draw differs from another."""
        return _z(self.found.newman, self.newman)

    @property
    def z_layered(self) -> float:
        return _z(self.found.layered, self.layered)

    @property
    def p(self) -> float:
        """Of a graph as modular as this under the null; at least 1 / (1 + R). Ties count against it."""
        return null_p(self.found.newman, self.newman)


def shuffle_test(
    graph: LayeredGraph,
    *,
    resolution: float = 1.0,
    seeds: Sequence[int] = SEEDS,
    draws: int = 100,
    seed: int = 0,
    null: Null = "edges",
) -> ShuffleTest:
    """Compare with `draws` shuffled graphs (from `seed`), each searched from the same Leiden `seeds`."""
    if draws < 2:
        raise ConfigError(f"a shuffle test needs two draws or more, got {draws}")
    rng = np.random.default_rng(seed)
    others = [find_modules(shuffled(graph, rng, null=null), resolution=resolution, seeds=seeds) for _ in range(draws)]
    found = find_modules(graph, resolution=resolution, seeds=seeds)
    return ShuffleTest(found, np.array([m.newman for m in others]), np.array([m.layered for m in others]), null)


def _rewired(w: Floats, rng: np.random.Generator) -> Floats:
    there = w > 0
    rows = len(w)
    for _ in range(5 * rows if rows > 1 else 0):  # trades enough to forget the start
        a, step = rng.integers((rows, rows - 1))
        b = (a + 1 + step) % rows
        only = np.flatnonzero(there[a] != there[b])
        owned = int(there[a, only].sum())
        there[np.ix_((a, b), only)] = False
        mixed = rng.permutation(only)
        there[a, mixed[:owned]] = True
        there[b, mixed[owned:]] = True
    out = np.zeros_like(w)
    out[there] = rng.permutation(w[w > 0])
    return out


def _z(value: float, null: Floats) -> float:
    spread = float(null.std(ddof=1))
    # Modularities that agree to rounding are one value.
    return float((value - null.mean()) / spread) if spread > 1e-12 else float("nan")
