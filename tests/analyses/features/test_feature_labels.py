"""Tables of labels: how they become columns, and what is said of those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heldout.analyses.features.intervals import group_codes, ratio_interval
from heldout.analyses.features.labels import Coding, minterms
from heldout.analyses.features.moments import JointMoments, chunks, moments_of, paired
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

RNG = np.random.default_rng(0)
TABLE = {
    "bit": RNG.integers(0, 2, size=200),
    "kind": np.array(["round", "square", "curly"])[RNG.integers(0, 3, size=200)],
    "depth": RNG.integers(0, 12, size=200),
    "length": RNG.normal(size=200),
}


def test_kinds_are_inferred_and_one_level_is_dropped() -> None:
    coding = Coding.fit(TABLE)
    assert [f.kind for f in coding.features] == ["binary", "categorical", "categorical", "continuous"]
    assert [f.width for f in coding.features] == [1, 2, 11, 1]
    design = coding.encode(TABLE)
    assert design.shape == (200, coding.width) == (200, 15)
    np.testing.assert_array_equal(design[:, 0], TABLE["bit"])
    np.testing.assert_array_equal(design[:, 1:3], TABLE["kind"][:, None] == np.array(["round", "square"]))
    np.testing.assert_array_equal(coding.columns("length", "bit"), [14, 0])
    assert Coding.fit(TABLE, {"depth": "continuous"}).width == 5
    assert Coding.fit({"flag": TABLE["bit"] > 0}).features[0].kind == "binary"
    assert Coding.fit({"words": TABLE["kind"].astype(object)}).features[0].kind == "categorical"


def test_a_spline_bends_and_extends_linearly() -> None:
    x = np.linspace(0, 1, 300)
    coding = Coding.fit({"x": x}, knots=5)
    assert coding.width == 6
    design = np.column_stack([coding.encode({"x": x}), np.ones(300)])
    y = np.sin(4 * x)
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.abs(fitted - y).max() < 0.01
    beyond = coding.encode({"x": np.array([2.0, 3.0, 4.0])})
    np.testing.assert_allclose(np.diff(beyond, 2, axis=0), 0, atol=1e-9)


def test_cells_number_all_combinations() -> None:
    coding = Coding.fit(TABLE)
    cells, levels = coding.cells(TABLE, "kind", "bit")
    assert levels[3] == ("round", 1)
    assert (TABLE["kind"][cells == 3] == "round").all()
    with pytest.raises(ConfigError, match="'length' is continuous and has no levels to balance"):
        coding.cells(TABLE, "length")


def test_minterms_are_all_parts_of_two_bits() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    parts = minterms({"a": a, "b": b}, ["a", "b"])
    assert list(parts) == ["a", "b", "a=0 b=0", "a=0 b=1", "a=1 b=0", "a=1 b=1", "a or b"]
    np.testing.assert_array_equal(parts["a=0 b=1"] + parts["a=1 b=0"], a ^ b)
    np.testing.assert_array_equal(parts["a or b"], a | b)
    with pytest.raises(ConfigError, match="'a' is not a bit"):
        minterms({"a": a + 1}, ["a"])


@pytest.mark.parametrize(
    ("table", "kinds", "error", "message"),
    [
        ({}, None, ConfigError, "no labels were given"),
        ({"a": np.ones(9)}, None, StatisticsError, "'a' is constant \\(1.0\\)"),
        ({"a": [0, 1, 1], "b": [0, 1]}, None, ConfigError, "'b' has shape \\(2,\\); \\(3,\\) was expected"),
        ({"a": [0.5, np.nan, 1]}, None, NonFiniteError, "'a' is not finite in 1 rows, the first is row 1"),
        ({"a": np.array([0, "x", 1], dtype=object)}, None, ConfigError, "'a' mixes text and numbers"),
        ({"a": [0, 1, 2, 0]}, {"a": "binary"}, ConfigError, "'a' is to be binary and has 3 levels"),
        ({"a": [0, 1, 2, 0]}, {"b": "binary"}, ConfigError, "unknown label 'b'; choose from a"),
        ({"a": [0, 1, 2, 0]}, {"a": "ordinal"}, ConfigError, "unknown kind 'ordinal'; choose from binary"),
        ({"a": list("abab")}, {"a": "continuous"}, ConfigError, "holds text and cannot be continuous"),
        ({"a": np.arange(99)}, {"a": "categorical"}, ConfigError, "'a' has 99 levels; a category may have 64"),
        ({"a": list("abcd")}, None, None, ""),
        ({"a": list("abcd"), "b": [0, 1, 0, 1]}, None, StatisticsError, "4 label columns cannot be fitted to 4 rows"),
    ],
)
def test_labels_that_cannot_be_coded_are_named(table, kinds, error, message) -> None:
    if error is None:
        assert Coding.fit(table, kinds).width == 3
        return
    with pytest.raises(error, match=message):
        Coding.fit(table, kinds)


def test_labels_of_another_split_must_fit() -> None:
    coding = Coding.fit(TABLE)
    with pytest.raises(StatisticsError, match="'oval' in row 1 is no level of the fit split; it has 'curly', 'round'"):
        coding.encode(TABLE | {"kind": np.where(np.arange(200) == 1, "oval", "round")})
    with pytest.raises(ConfigError, match="unknown label 'depth'; choose from"):
        coding.encode({"bit": TABLE["bit"], "kind": TABLE["kind"], "dept": TABLE["depth"]})
    with pytest.raises(ConfigError, match="'bit' has shape \\(200,\\); \\(150,\\) was expected"):
        coding.encode(TABLE, rows=150)
    with pytest.raises(ConfigError, match="unknown label 'lenght'"):
        coding.columns("lenght")


def test_rows_and_labels_must_come_out_even() -> None:
    design, x = np.zeros((10, 2)), torch.zeros(10, 3)
    for rows in (x[:9], torch.cat([x, x])):
        with pytest.raises(ConfigError, match="labels for 10 rows"):
            list(chunks(rows, design, 4))
    assert [len(r) for r, _ in paired(iter([x[:7], x[7:]]), design)] == [7, 3]
    with pytest.raises(ConfigError, match="do not match"):
        JointMoments(1).update(x, torch.zeros(10, 2))
    with pytest.raises(ConfigError, match="weights must be"):
        moments_of(x, design, -np.ones(10))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_named_by_row(bad: float) -> None:
    x = np.zeros((10, 3))
    x[7, 1] = bad
    for weights in (None, np.ones(10), np.arange(10) < 5):
        with pytest.raises(NonFiniteError, match="NaN or infinite in 1 rows, the first is row 7"):
            moments_of(x, np.zeros((10, 1)), weights)
    moments = JointMoments(1)
    moments.update(torch.zeros(5, 3), torch.zeros(5, 1))
    with pytest.raises(NonFiniteError, match="row 12"):
        moments.update(torch.from_numpy(x), torch.zeros(10, 1))


def test_nothing_seen_is_said() -> None:
    with pytest.raises(StatisticsError, match="no activations were seen"):
        _ = JointMoments(1).xx


def test_groups_that_cannot_be_resampled_are_named() -> None:
    with pytest.raises(StatisticsError, match="1 of 3 groups have one row, the first is 'c'"):
        group_codes(list("aabbc"), 5)
    with pytest.raises(StatisticsError, match="one group \\('a'\\) cannot be resampled"):
        group_codes(list("aaa"), 3)
    with pytest.raises(ConfigError, match="\\(3,\\) was expected"):
        group_codes(list("ab"), 3)


def test_the_interval_of_a_mean_is_students_and_of_clusters_that_of_their_sums() -> None:
    from scipy.stats import t

    x = RNG.normal(size=30)
    found = ratio_interval(x, np.ones(30))
    low, high = t.interval(0.95, 29, x.mean(), x.std(ddof=1) / np.sqrt(30))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    groups = np.repeat(np.arange(10), 3)
    clustered = ratio_interval(x, np.ones(30), groups)
    means = x.reshape(10, 3).mean(axis=1)
    low, high = t.interval(0.95, 9, means.mean(), means.std(ddof=1) / np.sqrt(10))
    assert (clustered.low, clustered.high) == pytest.approx((low, high), rel=1e-12)
    assert clustered.n == 10
    empty = ratio_interval(x, np.zeros(30))
    assert np.isnan(empty.value)
    assert "denominator is 0" in empty.estimate("q").reason
