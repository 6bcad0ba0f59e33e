"""Probes: decodability with its control, description length, and what a downstream classifier relies on."""

from __future__ import annotations

import numpy as np
import pytest
from planted_features import planted

from heldout.analyses.features.codelength import adaptive_bits, block_ends, code_length
from heldout.analyses.features.decode import control_labels, decode
from heldout.analyses.features.reliance import GRID, reliance, training_items
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

STRENGTHS = (0.01, 1.0)


def test_a_feature_that_is_there_is_read_and_noise_is_not() -> None:
    data = planted(300, {"clear": 4.0, "absent": 0.0}, width=6, seed=0)
    clear = decode(data.x, data.table["clear"], seed=0, strengths=STRENGTHS)
    assert clear.accuracy.value > 0.99
    assert clear.control.value < 0.62
    assert clear.selectivity.value == pytest.approx(clear.accuracy.value - clear.control.value)
    assert clear.selectivity.low > 0.3
    assert clear.accuracy.value == pytest.approx(clear.right.mean())
    assert len(clear.strengths) == 5
    absent = decode(data.x, data.table["absent"], seed=0, strengths=(1.0,))
    assert absent.accuracy.low < absent.majority < absent.accuracy.high + 0.05


def test_a_probe_that_memorises_types_has_no_selectivity() -> None:
    """Activations are a fingerprint of the type: any labelling of types is read, so reading one shows nothing."""
    rng = np.random.default_rng(0)
    types = np.tile(np.arange(20), 20)
    x = np.eye(20)[types] + 0.05 * rng.normal(size=(400, 20))
    labels = (types % 3).astype(int)
    found = decode(x, labels, seed=0, types=types, strengths=(1.0,))
    assert found.accuracy.value == 1
    assert found.control.value > 0.99
    assert found.selectivity.value < 0.01


def test_groups_stay_on_one_side() -> None:
    """Within a group rows are alike and the label is random: only leaking folds read it."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 6)
    x = rng.normal(size=(60, 40))[groups] + 0.01 * rng.normal(size=(360, 40))
    labels = rng.integers(0, 2, size=60)[groups]
    leaking = decode(x, labels, seed=0, strengths=(10.0,))
    kept = decode(x, labels, seed=0, groups=groups, strengths=(10.0,))
    assert leaking.accuracy.value > 0.95
    assert kept.accuracy.value < 0.75
    assert kept.accuracy.n == 60


def test_control_labels_keep_the_labels_shares() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2], [60, 30, 10])
    np.testing.assert_array_equal(np.bincount(control_labels(classes, None, rng)), [60, 30, 10])
    types = np.arange(100) // 2
    dealt = control_labels(classes, types, rng)
    assert all(len(set(dealt[types == t])) == 1 for t in range(50))
    np.testing.assert_array_equal(np.bincount(dealt), [60, 30, 10])
    with pytest.raises(StatisticsError, match="2 types cannot carry 3 random labels"):
        control_labels(classes, np.arange(100) % 2, rng)


def test_a_code_without_information_costs_the_labels_and_little_more() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1500, 3)), rng.integers(0, 2, size=1500)
    found = code_length(x, y, seed=0)
    assert found.uniform == 1500
    assert found.adaptive == pytest.approx(1500, abs=12)
    assert found.uniform - 5 < found.bits < found.uniform * 1.1
    assert found.bits == pytest.approx(found.control, rel=0.05)
    assert found.by_block.sum() == pytest.approx(found.bits)
    assert found.ends[-1] == found.n == 1500


def test_a_feature_that_takes_many_rows_to_read_costs_more_bits_at_equal_accuracy() -> None:
    """The second is a small difference of two units that vary together: read without error, once it is found."""
    rng = np.random.default_rng(0)
    easy, hard, shared = rng.integers(0, 2, size=1000), rng.integers(0, 2, size=1000), 3 * rng.normal(size=1000)
    x = 0.3 * rng.normal(size=(1000, 10))
    x[:, 0] += 4 * easy
    x[:, 1], x[:, 2] = shared, shared + 0.5 * (2 * hard - 1)
    lengths = [code_length(x, y, seed=0) for y in (easy, hard)]
    assert lengths[0].bits < 0.12 * 1000
    assert 2 * lengths[0].bits < lengths[1].bits < 0.6 * 1000
    assert lengths[0].compression > 2 * lengths[1].compression
    assert lengths[0].control > 950


def test_the_first_block_is_uniform_and_the_adaptive_code_is_exact() -> None:
    assert block_ends(1000) == (8, 16, 32, 63, 125, 250, 500, 1000)
    assert block_ends(20) == (10, 20)
    # Krichevsky and Trofimov: 0, 0, 1 costs 1/2 x 3/4 x 1/6.
    assert adaptive_bits(np.array([0, 0, 1]), 2) == pytest.approx(-np.log2(0.5 * 0.75 / 6))
    found = code_length(np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 4, seed=0)
    assert found.by_block[0] == found.ends[0] * 2


def test_a_class_not_seen_has_a_finite_code() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [500, 12])
    found = code_length(rng.normal(size=(512, 3)) + 3 * y[:, None], y, seed=1)
    assert np.isfinite(found.bits)
    assert found.adaptive < 0.25 * found.uniform
    groups = np.repeat(np.arange(128), 4)
    assert np.isfinite(code_length(rng.normal(size=(512, 3)), y, seed=1, groups=groups).bits)


def test_a_classifier_relies_on_the_louder_of_two_features() -> None:
    sizes = {"easy": 3.0, "hard": 0.3}
    fit, test = planted(1200, sizes, seed=1, width=6), planted(1200, sizes, seed=2, width=6)
    sides = [(d.x, np.stack([d.table[n] for n in sizes], axis=1)) for d in (fit, test)]
    found = reliance(*sides, seed=0, strengths=STRENGTHS)
    assert found.on_first.low > 0.9
    assert found.accuracy > 0.95
    swapped = reliance(*[(x, f[:, ::-1]) for x, f in sides], seed=0, strengths=STRENGTHS)
    assert swapped.on_first.value == pytest.approx(1 - found.on_first.value, abs=0.02)
    unreliable = reliance(*sides, predictivity=(0.5, 1.0), seed=0, strengths=STRENGTHS)
    assert unreliable.on_first.value < found.on_first.value - 0.2
    grouped = reliance(*sides, seed=0, strengths=STRENGTHS, groups=np.arange(1200) // 4)
    assert grouped.on_first.n == 300
    assert grouped.on_first.value == found.on_first.value


def test_two_features_alike_are_relied_on_alike() -> None:
    sizes = {"a": 1.5, "b": 1.5}
    fit, test = planted(1500, sizes, seed=1, width=6), planted(1500, sizes, seed=2, width=6)
    sides = [(d.x, np.stack([d.table[n] for n in sizes], axis=1)) for d in (fit, test)]
    found = reliance(*sides, seed=0, strengths=STRENGTHS).on_first
    assert abs(found.value - 0.5) < 0.1


@pytest.mark.parametrize("predictivity", [*GRID, (0.7, 0.6), (0.5, 0.9)])
def test_training_items_agree_at_the_rates_asked_for(predictivity: tuple[float, float]) -> None:
    f = np.random.default_rng(0).integers(0, 2, size=(4000, 2))
    items, label = training_items(f, predictivity, np.random.default_rng(1))
    assert len(set(items.tolist())) == len(items)
    assert abs(label.mean() - 0.5) < 0.01
    np.testing.assert_allclose((f[items] == label[:, None]).mean(axis=0), predictivity, atol=0.005)
    both = (f[items] == label[:, None]).all(axis=1).mean()
    assert both == pytest.approx(predictivity[0] * predictivity[1], abs=0.005)  # independently of each other


def test_too_little_to_train_or_to_test_on_is_said() -> None:
    same = np.tile([[0, 0], [1, 1]], (30, 1))
    x = np.random.default_rng(0).normal(size=(60, 2)) + same
    found = reliance((x, same), (x, same), seed=0, strengths=(1.0,))
    assert np.isnan(found.on_first.value)
    assert "disagree in 0 test items" in found.on_first.estimate("reliance").reason
    with pytest.raises(StatisticsError, match="only 0 items have the combinations"):
        reliance((x, same), (x, same), predictivity=(0.9, 1.0), seed=0)
    with pytest.raises(ConfigError, match="rates from 0 to 1"):
        reliance((x, same), (x, same), predictivity=(90, 1.0), seed=0)
    with pytest.raises(ConfigError, match="two features \\(n, 2\\)"):
        reliance((x, same[:, :1]), (x, same), seed=0)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.zeros((40, 2)), np.zeros(40), StatisticsError, "constant \\(0.0\\): there is nothing to decode"),
        (np.zeros((40, 2)), np.arange(40) < 3, StatisticsError, "class True has 3 rows; nested folds need 10"),
        (np.zeros((400, 2)), np.arange(400), ConfigError, "400 values; a probe reads up to 64"),
        (np.zeros((40, 2)), np.zeros(30), ConfigError, "got \\(40, 2\\) and \\(30,\\)"),
        (np.full((40, 2), np.inf), np.arange(40) % 2, NonFiniteError, "NaN or infinite"),
    ],
)
def test_labels_that_cannot_be_read_are_named(x, y, error, message) -> None:
    for measure in (decode, code_length):
        with pytest.raises(error, match=message):
            measure(x, y, seed=0)
