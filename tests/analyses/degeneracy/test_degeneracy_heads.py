"""Heads with the same patterns, and the directions that frees, against the rank of a Jacobian."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from heldout.analyses.degeneracy.attention_patterns import extra_directions, head_clusters, pattern_distances
from heldout.analyses.degeneracy.counts import attention_gauge
from heldout.errors import ConfigError, NonFiniteError


def draw(*shape: int, seed: int = 100) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def patterns() -> Tensor:
    """Four heads: 0 and 2 alike, 3 like 0 but for a little."""
    a = draw(6, 4, 5, 5).softmax(-1)
    a[:, 2] = a[:, 0]
    a[:, 3] = (1 - 1e-4) * a[:, 0] + 1e-4 * a[:, 3]
    return a


def test_heads_with_equal_patterns_are_found() -> None:
    found = head_clusters(patterns(), tolerance=0)
    assert [c.heads for c in found] == [(0, 2), (1,), (3,)]
    assert found[0].distance == 0
    assert extra_directions(found, 8) == 2 * 8**2
    near = head_clusters(patterns())
    assert [c.heads for c in near] == [(0, 2, 3), (1,)]
    assert extra_directions(near, 8) == 6 * 8**2
    assert 0 < near[0].distance < 1e-3
    assert [c.heads for c in head_clusters(patterns()[:, :1])] == [(0,)]


def test_a_distance_is_a_root_mean_square_over_items() -> None:
    a = patterns()
    expected = torch.stack([(a[:, i] - a[:, j]).norm(dim=(1, 2)) for i in range(4) for j in range(4)])
    expected = (expected**2).mean(dim=1).sqrt().view(4, 4)
    torch.testing.assert_close(pattern_distances(a), expected, rtol=1e-14, atol=0)
    # Where two heads look to one place each, and never to the same, the distance is the largest there is.
    apart = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    apart[:, 0, :, 0] = apart[:, 1, :, 1] = 1
    assert float(pattern_distances(apart)[0, 1]) == pytest.approx(math.sqrt(2 * 4), rel=1e-15)


def test_equal_on_average_is_not_equal() -> None:
    a = draw(2, 1, 4, 4).softmax(-1)
    both = torch.cat([a, a.flip(0)], dim=1)
    assert float((both[:, 0].mean(0) - both[:, 1].mean(0)).abs().max()) < 1e-15
    assert len(head_clusters(both)) == 2


def test_queries_without_data_do_not_count() -> None:
    a, counted = patterns(), torch.ones(6, 5, dtype=torch.bool)
    counted[2, 3:] = False
    a[2, :, 3:] = torch.nan
    assert [c.heads for c in head_clusters(a, counted=counted, tolerance=0)] == [(0, 2), (1,), (3,)]
    with pytest.raises(NonFiniteError):
        head_clusters(a)


@pytest.mark.parametrize(("alike", "rotary"), [(1, False), (2, False), (3, False), (1, True)])
def test_free_directions_of_an_attention_layer_are_counted_exactly(alike: int, rotary: bool) -> None:
    """P - rank of the Jacobian = the gauge + what `alike` heads with one map of queries and keys add."""
    width, heads, head_width, length = 6, 3, 2, 4
    x = draw(60, length, width)
    shapes = [(heads, width, head_width)] * 3 + [(heads, head_width, width)]
    q, k, v, o = (0.7 * draw(*s, seed=101 + i) for i, s in enumerate(shapes))
    q[:alike], k[:alike] = q[:1].clone(), k[:1].clone()
    angle = torch.arange(length).double()[:, None]

    def turned(z: Tensor) -> Tensor:
        a, b = z[..., :1], z[..., 1:]
        both = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)
        return both if rotary else z

    def looked(q: Tensor, k: Tensor) -> Tensor:
        queries, keys = (turned(torch.einsum("btd,hdk->bhtk", x, m)) for m in (q, k))
        return torch.softmax(queries @ keys.transpose(-1, -2), dim=-1)

    def output(w: Tensor) -> Tensor:
        q, k, v, o = (part.view(s) for part, s in zip(w.split([math.prod(s) for s in shapes]), shapes, strict=True))
        return torch.einsum("bhts,bsd,hdk,hke->bte", looked(q, k), x, v, o)

    w = torch.cat([m.flatten() for m in (q, k, v, o)])
    values = torch.linalg.svdvals(jacrev(output)(w).reshape(-1, len(w)))
    rank = int((values > 1e-9 * values[0]).sum())
    assert values[rank - 1] > 1e4 * values[rank]
    clusters = head_clusters(looked(q, k), tolerance=0)
    assert max(len(c.heads) for c in clusters) == alike
    gauge = sum(g.directions for g in attention_gauge(heads, head_width, rotary=rotary))
    assert len(w) - rank == gauge + extra_directions(clusters, head_width)


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(B, H, T, S\)"):
        head_clusters(patterns()[0])
    with pytest.raises(ConfigError, match="do not fit"):
        head_clusters(patterns(), counted=torch.ones(6, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="a tolerance"):
        head_clusters(patterns(), tolerance=-1)
