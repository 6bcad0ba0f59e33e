"""Attention heads with the same patterns: nonlinearities in step, as ReLU neurons with the same gates are.

    sets = head_clusters(patterns)               # (B, H, T, T) on the data that counts

Heads of one layer whose patterns A are equal add up to one wider head: sum_h A x V_h O_h = A x [V_1 .. V_k] [O_1 ; .. ;
O_k]. Any invertible mixture of their k d_h value directions, undone in the readouts, changes nothing: (k d_h)^2
directions, of which k d_h^2 are there for any heads. The freedom is exact, since no pattern depends on values of its
own layer; that patterns are equal is a statement about the data they were seen on.

Patterns are compared item by item: two heads may look to the same places on average and never at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heldout.errors import ConfigError, NonFiniteError

TOLERANCE = 1e-3  # root mean square over items of the distance of two patterns, in units of attention


@dataclass(frozen=True)
class HeadCluster:
    """`heads` (their numbers, rising) of one layer with one pattern; `distance`, the largest of any two of them."""

    heads: tuple[int, ...]
    distance: float

    def extra(self, head_width: int) -> int:
        """(k d_h)^2 - k d_h^2: directions beyond those of heads on their own, for heads of width d_h whose values and
        readouts are independent (k d_h is at most the width of what they read and write)."""
        k = len(self.heads)
        return (k * k - k) * head_width**2


def pattern_distances(patterns: Tensor, counted: Tensor | None = None) -> Tensor:
    """(H, H) float64: the root mean square over items of the Frobenius distance of two heads' patterns (B, H, T, S).

    `counted` (B, T) bool names the queries that hold data; the rest may hold anything. Each query's weights lie between
    0 and 1 and add up to 1, so distances reach sqrt(2 T). Exactly 0 where patterns are equal.
    """
    if patterns.ndim != 4 or not patterns.is_floating_point() or not len(patterns):
        raise ConfigError(f"patterns must be floating point (B, H, T, S), got {patterns.dtype} {tuple(patterns.shape)}")
    if counted is not None and counted.shape != (patterns.shape[0], patterns.shape[2]):
        raise ConfigError(f"counted queries {tuple(counted.shape)} do not fit patterns {tuple(patterns.shape)}")
    heads = patterns.shape[1]
    found = torch.zeros(heads, heads, dtype=torch.float64)
    for one in range(heads):  # differences, not products: equal patterns are at exactly 0
        difference = patterns[:, one + 1 :].double() - patterns[:, one : one + 1].double()
        if counted is not None:
            difference = difference.masked_fill(~counted[:, None, :, None], 0.0)
        found[one, one + 1 :] = (difference**2).sum(dim=(2, 3)).mean(dim=0).sqrt().cpu()
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError("patterns hold NaN or infinite values")
    return found + found.T


def head_clusters(
    patterns: Tensor, *, counted: Tensor | None = None, tolerance: float = TOLERANCE
) -> list[HeadCluster]:
    """Sets of heads no two of which are further apart than `tolerance` (complete linkage), lone heads among them.

    0 asks for equality to the last digit. See `pattern_distances` for shapes. Raises `ConfigError`, `NonFiniteError`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if not tolerance >= 0:
        raise ConfigError(f"a tolerance must be 0 or more, got {tolerance}")
    distance = pattern_distances(patterns, counted)
    if len(distance) == 1:
        return [HeadCluster((0,), 0.0)]
    labels = fcluster(linkage(squareform(distance.numpy()), "complete"), tolerance, criterion="distance")
    groups: dict[int, list[int]] = {}
    for head, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(head)
    return [HeadCluster(tuple(g), float(distance[g][:, g].max())) for g in groups.values()]


def extra_directions(clusters: Sequence[HeadCluster], head_width: int) -> int:
    """The sum of `extra` over the sets of one layer."""
    return sum(c.extra(head_width) for c in clusters)
