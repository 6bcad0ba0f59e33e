"""Modules of a layered graph: groups of features that interact more among themselves than elsewhere.

    found = find_modules(graph)                     # Leiden, the best of ten seeds
    found.newman, found.layered                     # two modularities of the partition
    find_layered_modules(graph)                     # the resolution chosen by the second

Modularity is the share of weight inside modules minus the share expected where only the strengths k of nodes are kept::

    newman  = sum_c [ w_c / W - resolution (s_c / 2 W)^2 ]
    layered = 1/W sum_l sum_(u in l, v in l+1) [ w_uv - resolution k_u^out k_v^in / W_l ] [c_u = c_v]

w_c is the weight inside module c, s_c the sum of its nodes' strengths, W all weight, W_l that of section l, k^out and
k^in a node's strength to the next and to the previous layer. Newman's null lets any two nodes meet; the layered one
knows that edges join neighbouring layers only. So it sees nothing in a partition into whole layers, which Newman's score
rewards: in a deep graph that one cuts modules by depth as well, and a resolution below 1 is needed to keep them whole,
which `find_layered_modules` looks for.

A partition is scored at resolution 1, whatever resolution it was found at. Leiden (Traag et al. 2019), in NetworKit,
searches for Newman's score. A random graph has a positive one too: compare with `shuffles`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from heldout.analyses.degeneracy.graph import Floats, Integers, LayeredGraph
from heldout.errors import ConfigError, StatisticsError

SEEDS = tuple(range(10))
ITERATIONS = 10  # at most; runs on graphs of a few hundred nodes end earlier
RESOLUTIONS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, eq=False)
class Modules:
    """A partition: `labels` (nodes,) from 0, numbered by their first node, found at `resolution` from `seed`.

    `newman` and `layered` are its modularities at resolution 1. A node without edges is a module of its own.
    """

    graph: LayeredGraph
    labels: Integers
    resolution: float
    seed: int

    @property
    def newman(self) -> float:
        return newman_modularity(self.graph, self.labels)

    @property
    def layered(self) -> float:
        return layered_modularity(self.graph, self.labels)

    @property
    def count(self) -> int:
        """Modules of two nodes or more."""
        return int((np.bincount(self.labels) > 1).sum())

    def table(self) -> pd.DataFrame:
        """One row a module of two nodes or more: its `size`, its `span` in layers, its `width` (size over span)."""
        rows = []
        for label in np.flatnonzero(np.bincount(self.labels) > 1):
            members = self.labels == label
            size, span = int(members.sum()), len(np.unique(self.graph.layers[members]))
            rows.append((int(label), size, span, size / span))
        return pd.DataFrame(rows, columns=["module", "size", "span", "width"])

    def inside(self) -> Floats:
        """(L,): the share of each section's weight that stays within modules; NaN in a section without weight."""
        shares = []
        for here, there, w in _sections(self.graph, self.labels):
            shares.append(float(w[there[:, None] == here].sum() / w.sum()) if w.sum() > 0 else np.nan)
        return np.array(shares)


def newman_modularity(graph: LayeredGraph, labels: Integers, *, resolution: float = 1.0) -> float:
    """Newman's modularity of `labels` (nodes,), -1/2 to 1. Raises `StatisticsError` for a graph without edges."""
    _check_labels(graph, labels)
    total = sum(float(w.sum()) for w in graph.weights)
    inside = sum(float(w[there[:, None] == here].sum()) for here, there, w in _sections(graph, labels))
    share = np.bincount(labels, weights=graph.strengths) / (2 * total)
    return inside / total - resolution * float((share**2).sum())


def layered_modularity(graph: LayeredGraph, labels: Integers, *, resolution: float = 1.0) -> float:
    """Modularity against a null that keeps each section's strengths, from and to each node; -1 to 1."""
    _check_labels(graph, labels)
    total, score = 0.0, 0.0
    for here, there, w in _sections(graph, labels):
        weight = float(w.sum())
        if weight > 0:
            excess = w - resolution * np.outer(w.sum(axis=1), w.sum(axis=0)) / weight
            total, score = total + weight, score + float(excess[there[:, None] == here].sum())
    return score / total


def leiden(graph: LayeredGraph, *, resolution: float = 1.0, seed: int = 0) -> Modules:
    """One run of Leiden for Newman's modularity at `resolution`, on one thread: the same seed, the same modules.

    Higher resolutions make more and smaller modules. Raises `ConfigError` for a resolution below 0 or a negative seed.
    """
    import networkit

    if not (0 <= resolution < np.inf and seed >= 0):
        raise ConfigError(f"a resolution must be 0 or more and a seed not negative, got {resolution} and {seed}")
    sources, targets, weights = graph.edges()
    # The number of threads and the seed belong to the process. The former is shared with whatever else computes in it.
    threads = networkit.getMaxNumberOfThreads()
    networkit.setNumberOfThreads(1)
    try:
        networkit.setSeed(seed, False)
        network = networkit.Graph(graph.nodes, weighted=True)
        network.addEdges((weights, (sources, targets)))
        run = networkit.community.ParallelLeiden(network, True, ITERATIONS, resolution)
        run.run()
        found = np.asarray(run.getPartition().getVector(), dtype=np.int64)
    finally:
        networkit.setNumberOfThreads(threads)
    return Modules(graph, numbered(found), resolution, seed)


def find_modules(graph: LayeredGraph, *, resolution: float = 1.0, seeds: Sequence[int] = SEEDS) -> Modules:
    """Of runs from `seeds` the one of greatest Newman modularity at `resolution`; the first of equals."""
    if not seeds:
        raise ConfigError("modules need one seed or more")
    return _best([leiden(graph, resolution=resolution, seed=seed) for seed in seeds])


def find_layered_modules(
    graph: LayeredGraph, *, resolutions: Sequence[float] = RESOLUTIONS, seeds: Sequence[int] = SEEDS
) -> Modules:
    """Of the partitions that `find_modules` finds at `resolutions` the one of greatest layered modularity; the first of
    equals. The search is Newman's and only the choice is not: a partition that no resolution reaches is not found."""
    if not resolutions:
        raise ConfigError("modules need one resolution or more")
    return max((find_modules(graph, resolution=r, seeds=seeds) for r in resolutions), key=lambda m: m.layered)


def numbered(labels: Integers) -> Integers:
    """The same partition, its modules numbered from 0 in the order of their first nodes."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def stability(
    graph: LayeredGraph, *, resolutions: Sequence[float] = RESOLUTIONS, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """How much modules depend on the seed, and on the resolution: one row a resolution.

    `between_seeds` is the mean adjusted Rand index of all pairs of seeds, `lowest` the least; `to_next` the index
    between the best partitions of this resolution and the next; `modules` and `newman` are those of the best. An index
    of 1 is the same partition, 0 what chance gives. Nodes without edges are left out: they are alone in every
    partition.
    """
    from sklearn.metrics import adjusted_rand_score

    if len(seeds) < 2:
        raise ConfigError(f"stability needs two seeds or more, got {len(seeds)}")
    if not graph.connected.any():
        raise StatisticsError("a graph without edges has no modules")
    at = graph.connected
    best: list[Modules] = []
    rows: list[dict[str, float]] = []
    for resolution in resolutions:
        runs = [leiden(graph, resolution=resolution, seed=s) for s in seeds]
        same = [adjusted_rand_score(a.labels[at], b.labels[at]) for i, a in enumerate(runs) for b in runs[:i]]
        best.append(_best(runs))
        row = {"resolution": resolution, "between_seeds": float(np.mean(same)), "lowest": float(min(same))}
        rows.append(row | {"modules": best[-1].count, "newman": best[-1].newman, "layered": best[-1].layered})
    for row, here, following in zip(rows, best, [*best[1:], None], strict=True):
        row["to_next"] = (
            np.nan if following is None else float(adjusted_rand_score(here.labels[at], following.labels[at]))
        )
    return pd.DataFrame(rows)


def _best(runs: Sequence[Modules]) -> Modules:
    """The run of greatest modularity at the resolution that was searched at; the first of equals."""
    return max(runs, key=lambda m: newman_modularity(m.graph, m.labels, resolution=m.resolution))


def _sections(graph: LayeredGraph, labels: Integers) -> list[tuple[Integers, Integers, Floats]]:
    """Of each section: the labels of its sources (d,), of its targets (d',), and its weights (d', d)."""
    parts = np.split(labels, graph.starts[1:-1])
    return list(zip(parts[:-1], parts[1:], graph.weights, strict=True))


def _check_labels(graph: LayeredGraph, labels: Integers) -> None:
    if np.shape(labels) != (graph.nodes,):
        raise ConfigError(f"labels of shape {np.shape(labels)} for {graph.nodes} nodes; one a node is needed")
    if not graph.connected.any():
        raise StatisticsError("a graph without edges has no modularity")
