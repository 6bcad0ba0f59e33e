"""Topography: slices of an analytic circle-average model, affine planes, and other tokens held fixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from token_networks import CircleAverage, TokenNet

from heldout.analyses.geometry.spectrum import principal
from heldout.analyses.geometry.topography import Floats, respond, ring, topography
from heldout.errors import ConfigError, NonFiniteError

P = 11
CENTRE, PLANE = np.zeros(2), np.eye(2)


def test_the_analytic_model_adds() -> None:
    network = CircleAverage(P)
    a, b = torch.meshgrid(torch.arange(P), torch.arange(P), indexing="ij")
    pairs = torch.stack([a.ravel(), b.ravel()], dim=1)
    assert torch.equal(network(pairs).argmax(dim=1), pairs.sum(dim=1) % P)


@pytest.mark.parametrize("other", [0, 4, 10])
def test_a_ring_of_the_circle_average_model_has_22_slices(other: int) -> None:
    """Around the outside, the midpoint winds once round the circle, and its doubled angle twice through 11 classes.

    On the tokens' own ring the midpoint only comes half way round: 11. Inside it does not wind at all.
    """
    answer = respond(CircleAverage(P), "table", tokens=(0, other), column=0)
    outside = ring(answer, CENTRE, PLANE, 1.5)
    assert outside.slices == 22
    assert outside.by_class == dict.fromkeys(range(P), 2)
    assert outside.narrowest > 3
    around = ring(answer, -answer_table(other), PLANE, 0.4)  # round the place where the midpoint is the circle's centre
    assert around.slices == 22
    starts = around.labels[around.starts]
    assert np.array_equal(starts[:P], starts[P:])  # each class again on the other side
    assert ring(answer, CENTRE, PLANE, 1.0).slices == P
    inside = ring(answer, CENTRE, PLANE, 0.01)
    assert inside.slices <= 2


def answer_table(token: int) -> Floats:
    angle = 2 * np.pi * token / P
    return np.array([np.cos(angle), np.sin(angle)])


def test_either_column_of_a_shared_table_can_be_replaced() -> None:
    network = CircleAverage(P)
    first = respond(network, "table", tokens=(0, 3), column=0)
    second = respond(network, "table", tokens=(3, 0), column=1)
    rows = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_allclose(first(rows), second(rows), atol=1e-12)


def test_real_tokens_give_the_networks_own_outputs() -> None:
    network = TokenNet((9, 7), 12)
    table = network.embeddings[0].weight.detach().double().numpy()
    tokens = torch.tensor([[i, 5] for i in range(9)])
    with torch.no_grad():
        own = network(tokens)[:, 0].double().numpy()
    answer = respond(network, "embeddings.0", tokens=(0, 5), column=0)
    assert np.array_equal(answer(table), own)
    pca = principal(table)
    np.testing.assert_allclose(answer(pca.rows(pca.scores, np.arange(8))), own, atol=1e-6)


def test_the_plane_of_an_affine_network_is_a_plane() -> None:
    pca = principal(np.random.default_rng(1).normal(size=(20, 5)) * [5, 4, 3, 2, 1])

    def answer(rows: Floats) -> Floats:
        return 3 + 2 * (rows - pca.mean) @ pca.components[0] - (rows - pca.mean) @ pca.components[2]

    chart = topography(answer, pca, side=7, margin=0.25)
    assert chart.values.shape == (7, 7)
    np.testing.assert_allclose(chart.values, np.broadcast_to(3 + 2 * chart.x, (7, 7)), atol=1e-12)
    assert chart.x[0] == pytest.approx(pca.scores[:, 0].min() - 0.25)
    assert chart.y[-1] == pytest.approx(pca.scores[:, 1].max() + 0.25)
    moved = topography(answer, pca, axes=(1, 2), fixed={0: 5.0}, side=4)
    np.testing.assert_allclose(moved.values, np.broadcast_to(13 - moved.y[:, None], (4, 4)), atol=1e-12)
    np.testing.assert_array_equal(moved.tokens, pca.scores[:, 1:3])


def test_classes_on_the_plane() -> None:
    network = CircleAverage(P)
    pca = principal(network.table.weight.detach().numpy())
    answer = respond(network, "table", tokens=(0, 2), column=0)
    chart = topography(answer, pca, side=30, classes=True)
    at = pca.rows(np.array([[chart.x[4], chart.y[9]]]), [0, 1])
    assert chart.values[9, 4] == answer(at).argmax()
    assert set(np.unique(chart.values)) == set(range(P))


def test_one_class_all_round_is_one_slice() -> None:
    walk = ring(lambda rows: np.tile([0.0, 1.0], (len(rows), 1)), CENTRE, PLANE, 1.0, points=100)
    assert (walk.slices, walk.narrowest, walk.by_class) == (1, 100, {1: 1})


def test_what_cannot_be_drawn_is_refused() -> None:
    network = TokenNet((9, 7), 12)
    pca = principal(network.embeddings[0].weight)
    answer = respond(network, "embeddings.0", tokens=(0, 5), column=0)
    with pytest.raises(ConfigError, match="must all be different"):
        topography(answer, pca, axes=(0, 0))
    with pytest.raises(ConfigError, match="must all be different"):
        topography(answer, pca, fixed={1: 0.0})
    with pytest.raises(ConfigError, match="side of at least 2"):
        topography(answer, pca, side=1)
    with pytest.raises(ConfigError, match="scores of classes"):
        topography(answer, pca, side=3, classes=True)
    with pytest.raises(ConfigError, match="column 2 of 2"):
        respond(network, "embeddings.0", tokens=(0, 5), column=2)
    with pytest.raises(ConfigError, match="do not fit site"):
        answer(np.ones((3, 5)))
    with pytest.raises(ConfigError, match="orthonormal"):
        ring(answer, CENTRE, np.ones((2, 2)), 1.0)
    with pytest.raises(ConfigError, match="positive radius"):
        ring(answer, CENTRE, PLANE, 0.0)
    network.readout.bias.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError):
        answer(np.ones((3, 12)))
