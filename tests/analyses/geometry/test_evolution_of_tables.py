"""Tables over training: rotations that are undone, movement of known size, and angles of known subspaces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from heldout.analyses.geometry.evolution import evolution
from heldout.analyses.geometry.spectrum import principal
from heldout.errors import StatisticsError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(30, 8)) * [6, 5, 4, 1, 0.5, 0.4, 0.3, 0.2]
TURN = ortho_group.rvs(8, random_state=1)


def test_a_table_that_only_turns_does_not_change_its_shape() -> None:
    found = evolution([ROWS, ROWS @ TURN, ROWS], [0, 10, 20])
    np.testing.assert_allclose(found.similarity, 1, atol=1e-12)
    np.testing.assert_allclose(found.reshaped, 0, atol=1e-10)
    assert (found.moved > 0.5).all()
    np.testing.assert_allclose(found.scores[1], found.scores[2], atol=1e-9)
    np.testing.assert_allclose(found.patterns, 0, atol=1e-6)
    assert found.directions[1].max() > 0.1
    np.testing.assert_allclose(found.directions[[0, 2]], 0, atol=1e-6)
    assert np.ptp(found.participation) == pytest.approx(0, abs=1e-10)
    assert found.reference == 2


def test_movement_and_size_of_a_table_that_grows() -> None:
    """Twice as large: tokens move by as much as they were out, which is half of the reference's size."""
    found = evolution([ROWS, 2 * ROWS + 7], [1, 2])
    assert found.moved[0] == pytest.approx(0.5)
    assert found.reshaped[0] == pytest.approx(0.5)
    assert found.size[1] == pytest.approx(2 * found.size[0])
    assert found.size[0] == pytest.approx(np.sqrt(((ROWS - ROWS.mean(axis=0)) ** 2).sum(axis=1).mean()))
    np.testing.assert_allclose(found.similarity, 1, atol=1e-12)
    np.testing.assert_allclose(found.share[0], principal(ROWS).share[:3])


def test_one_direction_that_turns_by_a_known_angle() -> None:
    """Two of three leading directions stay; the third turns by .3 in the plane of itself and an empty direction."""
    scores = np.linalg.qr(RNG.normal(size=(20, 3)) - 0)[0]
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * [5, 4, 3]
    before = scores @ np.eye(6)[:3]
    axes = np.eye(6)[:3].copy()
    axes[2] = np.cos(0.3) * np.eye(6)[2] + np.sin(0.3) * np.eye(6)[5]
    found = evolution([before, scores @ axes], [0, 1], reference=0)
    np.testing.assert_allclose(found.directions[1], [0, 0, 0.3], atol=1e-7)
    np.testing.assert_allclose(found.patterns[1], 0, atol=1e-6)
    assert found.reshaped[0] == pytest.approx(0, abs=1e-7)


def test_signs_and_order_of_components_do_not_matter_for_the_picture() -> None:
    flipped = ROWS * np.array([-1, 1, -1, 1, 1, 1, 1, 1])
    swapped = flipped[:, [1, 0, *range(2, 8)]]
    found = evolution([swapped, ROWS], [0, 1])
    np.testing.assert_allclose(found.scores[0], found.scores[1], atol=1e-8)


def test_tables_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(StatisticsError, match="same tokens"):
        evolution([ROWS, ROWS[:-1]], [0, 1])
    with pytest.raises(StatisticsError, match="increasing"):
        evolution([ROWS, ROWS], [1, 1])
    with pytest.raises(StatisticsError, match="two or more"):
        evolution([ROWS], [0])
    with pytest.raises(StatisticsError, match="choose from 1 to 8"):
        evolution([ROWS, ROWS], [0, 1], components=9)
    with pytest.raises(StatisticsError, match="reference 2"):
        evolution([ROWS, ROWS], [0, 1], reference=2)
    with pytest.raises(StatisticsError, match="nothing varies"):
        evolution([ROWS, np.ones_like(ROWS)], [0, 1])
